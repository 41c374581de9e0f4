"""Draws the sample faces that ship in samples/: `python -m training.faces.samples --out samples`.

People lie in the folder itself, the other domains' faces in a folder of their name. Held-out identities (their seeds
belong to no training pool), calm, at 512 px. No torch.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from training.faces.domains import find_domain
from training.faces.parameters import EXPRESSION_FACTORS, Parameters, sample_parameters

SAMPLES = {
    "human": {"ada": 991002, "ben": 991023, "chidi": 991005, "dalia": 991021, "emil": 991035, "fay": 991041},
    "anime": {"hana": 991041, "ren": 991035, "yuki": 991011},
    "dog": {"bella": 991041, "max": 991035, "rex": 991005},
}
SIZE_PX = 512
CALM_CURVE = 0.12
"""A mouth that neither smiles nor droops, so that every expression shows."""


def draw_calm(seed: int) -> Parameters:
    """Choose one held-out identity with a calm, frontal face."""
    params = sample_parameters(np.random.default_rng(seed))
    params |= {factor.name: factor.mean for factor in EXPRESSION_FACTORS}
    params["mouth_curve"] = CALM_CURVE
    params["mouth_open"] = 0.0
    return params


def write_samples(folder: Path) -> list[Path]:
    """Draw all samples and give their paths."""
    paths = []
    for domain, faces in SAMPLES.items():
        place = folder if domain == "human" else folder / domain
        place.mkdir(parents=True, exist_ok=True)
        for name, seed in faces.items():
            path = place / f"{name}.png"
            Image.fromarray(find_domain(domain).render(draw_calm(seed), SIZE_PX)).save(path, optimize=True)
            paths.append(path)
    return paths


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("samples"))
    write_samples(parser.parse_args().out)


if __name__ == "__main__":
    main()
