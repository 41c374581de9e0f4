"""Draws the sample faces that ship in samples/: `python -m training.faces.samples --out samples`.

Held-out identities (their seeds belong to no training pool), calm, at 512 px. No torch.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from training.faces.human import render
from training.faces.parameters import EXPRESSION_FACTORS, Parameters, sample_parameters

SAMPLES = {"ada": 991002, "ben": 991023, "chidi": 991005, "dalia": 991021, "emil": 991035, "fay": 991041}
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
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, seed in SAMPLES.items():
        path = folder / f"{name}.png"
        Image.fromarray(render(draw_calm(seed), SIZE_PX)).save(path, optimize=True)
        paths.append(path)
    return paths


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("samples"))
    write_samples(parser.parse_args().out)


if __name__ == "__main__":
    main()
