"""What a run leaves to look at: grids of pictures, the averaged generator's weights, FID and KID of the moment.

RUN/gan/snapshots/: reals.png, pictures-STEP.png, weights-STEP.pt (the newest few and the one of the best FID),
best.json. Pictures of a grid keep their z for the whole run, so that one can watch a face come out of the fog.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from training.adversarial.draws import Draws, Kind, NoiseSource
from training.adversarial.order import Rows
from training.adversarial.pictures import PictureSet, Pixels, stack_pictures
from training.adversarial.stage import to_tensor
from training.files import write_atomically
from training.metrics.features import FeatureNetwork, to_bytes
from training.metrics.frechet import frechet_of, kernel_distance
from training.networks.stylegan2 import ZGenerator
from training.ranks import current_ranks, gather_ranks
from training.recipes.adversarial import AdversarialRecipe

BATCH = 16
KEPT = 5
"""How many of the newest weights stay, beside the best."""


def to_pixels(pictures: Tensor) -> Pixels:
    """Give pictures as files keep them: [N,3,R,R] in [-1,1] → [N,R,R,3] uint8."""
    return to_bytes(pictures).permute(0, 2, 3, 1).cpu().numpy()


def tile_pictures(pictures: Pixels) -> Pixels:
    """Lay pictures out in rows, about twice as wide as high; empty places are black.

    Shapes: [N,R,R,3] → [rows·R,columns·R,3].
    """
    count, size = pictures.shape[:2]
    columns = min(count, max(1, math.ceil(math.sqrt(2 * count))))
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * columns, size, size, 3), np.uint8)
    sheet[:count] = pictures
    return sheet.reshape(rows, columns, size, size, 3).swapaxes(1, 2).reshape(rows * size, columns * size, 3)


def write_grid(path: Path, pictures: Pixels) -> None:
    """Write a grid as PNG, whole or not at all."""
    write_atomically(path, lambda target: Image.fromarray(tile_pictures(pictures)).save(target, "PNG"))


class Gallery:
    """The observer of an adversarial run."""

    def __init__(
        self,
        recipe: AdversarialRecipe,
        pictures: PictureSet,
        folder: Path,
        device: torch.device,
        features: FeatureNetwork | None = None,
        label_dim: int = 0,
    ) -> None:
        self.recipe, self.pictures, self.folder, self.device = recipe, pictures, folder, device
        self.features, self.label_dim = features, label_dim
        self._real: np.ndarray | None = None

    def __call__(self, generator: ZGenerator, step: int) -> dict[str, float]:
        """Write a grid and weights, and give FID and KID where a feature network was chosen."""
        figures = self.measure(generator)
        if current_ranks().is_main:
            self.folder.mkdir(parents=True, exist_ok=True)
            reals = self.folder / "reals.png"
            if not reals.exists():
                count = min(self.recipe.grid, len(self.pictures))
                write_grid(reals, stack_pictures(self.pictures.read(i) for i in range(count)))
            drawn = self.draw(generator, Kind.GRID, np.arange(self.recipe.grid), self.recipe.truncation_psi)
            write_grid(self.folder / f"pictures-{step:08d}.png", np.concatenate([to_pixels(part) for part in drawn]))
            self._keep(generator, step, figures.get("fid"))
        return figures

    def draw(self, generator: ZGenerator, kind: Kind, rows: Rows, psi: float = 1.0) -> Iterator[Tensor]:
        """Draw the pictures of some rows, a batch at a time."""
        dtype = next(generator.parameters()).dtype
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            draws = Draws(self.recipe.seed, kind, 0, part)
            z = draws.normal(self.recipe.z_dim).to(self.device, dtype)
            c = None
            if self.label_dim:
                labels = np.stack([self.pictures.label(int(row) % len(self.pictures)) for row in part])
                c = torch.from_numpy(labels).to(z)
            # a grid keeps its noise; what is measured has the noise of training
            noise = "const" if kind is Kind.GRID else NoiseSource(draws.seeds(), self.device)
            yield generator(z, c, psi, noise_mode=noise)

    def measure(self, generator: ZGenerator) -> dict[str, float]:
        """Measure FID and KID (times 1000) of as many pictures as the recipe says; all processes take part."""
        if self.features is None or self.recipe.measured == 0:
            return {}
        ranks = current_ranks()
        count = math.ceil(self.recipe.measured / ranks.world) * ranks.world
        if self._real is None:
            shown = np.random.default_rng([self.recipe.seed, 2]).permutation(len(self.pictures))
            shown = shown[: min(self.recipe.measured, len(shown)) // ranks.world * ranks.world]
            self._real = self._describe(self._read(shown[ranks.rank :: ranks.world]))
        mine = np.arange(ranks.rank, count, ranks.world)
        drawn = self._describe(self.draw(generator, Kind.MEASURE, mine))
        return {"fid": frechet_of(self._real, drawn), "kid_1000": 1000 * kernel_distance(self._real, drawn)[0]}

    def _describe(self, batches: Iterator[Tensor]) -> np.ndarray:
        """Describe this process's pictures and join what all processes have."""
        assert self.features is not None
        mine = self.features.collect(batch.float() for batch in batches)
        return gather_ranks(torch.from_numpy(mine).to(self.device)).cpu().numpy()

    def _read(self, rows: Rows) -> Iterator[Tensor]:
        for start in range(0, len(rows), BATCH):
            pixels = stack_pictures(self.pictures.read(int(row)) for row in rows[start : start + BATCH])
            yield to_tensor(pixels, self.device)

    def _keep(self, generator: ZGenerator, step: int, fid: float | None) -> None:
        path, note = self.folder / f"weights-{step:08d}.pt", self.folder / "best.json"
        state = {"step": step, "recipe": asdict(self.recipe), "generator": generator.state_dict()}
        write_atomically(path, lambda target: torch.save(state, target))
        best: dict[str, Any] = json.loads(note.read_text()) if note.exists() else {"fid": math.inf, "weights": ""}
        if fid is not None and fid < best["fid"]:
            best = {"fid": fid, "weights": path.name}
            text = json.dumps(best)
            write_atomically(note, lambda target: target.write_text(text))
        for old in sorted(self.folder.glob("weights-*.pt"))[:-KEPT]:
            if old.name != best["weights"]:
                old.unlink()
