"""A picture set's parts and its fingerprint. No torch here."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.adversarial.pictures import FilePictures, Fit, PictureSet, Pixels, open_pictures
from training.errors import DataError

SAMPLED_FILES = 256
"""Of larger sets, so many files are read whole for the fingerprint; of the others name and order count."""


class Subset:
    """Some pictures of a set, in a given order."""

    def __init__(self, pictures: PictureSet, rows: Sequence[int]) -> None:
        self.pictures, self.rows = pictures, tuple(rows)
        self.name, self.resolution, self.label_dim = pictures.name, pictures.resolution, pictures.label_dim

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Pixels:
        """Give a picture: [R,R,3]."""
        return self.pictures.read(self.rows[index])

    def label(self, index: int) -> npt.NDArray[np.float32]:
        """Give a picture's label: [label_dim]."""
        return self.pictures.label(self.rows[index])


def split_set(pictures: PictureSet, held_out: int, seed: int = 0) -> tuple[Subset, Subset]:
    """Keep some pictures out, a tenth at most: what is learnt from, what is measured on.

    Raises: DataError where there are too few.
    """
    count = min(held_out, len(pictures) // 10)
    if count < 1:
        raise DataError(
            f"{pictures.name} holds {len(pictures)} pictures; at least 10 are needed to keep one to measure"
        )
    order = [int(row) for row in np.random.default_rng([seed, 31]).permutation(len(pictures))]
    return Subset(pictures, sorted(order[count:])), Subset(pictures, sorted(order[:count]))


def stack(pictures: PictureSet, rows: Sequence[int]) -> Pixels:
    """Read pictures into one array: [N,R,R,3] uint8."""
    return np.stack([pictures.read(int(row)) for row in rows])


def fingerprint(pictures: PictureSet) -> str:
    """Name a set by its content: SHA-256 of names, and of the pixels of all or of evenly spread pictures."""
    digest = hashlib.sha256(f"{len(pictures)} {pictures.resolution}".encode())
    if isinstance(pictures, FilePictures):
        digest.update("\n".join(pictures.names).encode())
    step = max(1, len(pictures) // SAMPLED_FILES)
    for index in range(0, len(pictures), step):
        digest.update(pictures.read(index).tobytes())
    return digest.hexdigest()


def open_set(path: Path, resolution: int, fit: Fit = "refuse") -> PictureSet:
    """Open a folder, zip or pool of pictures of one resolution; with "crop" larger ones are cut and scaled to it.

    Raises: DataError with what is wrong and where.
    """
    return open_pictures(path, resolution, fit, labels=False)
