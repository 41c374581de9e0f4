"""Sets of pictures to learn from: a folder, a zip, or a rendered pool; checked when opened, decoded when asked for.

All pictures of a set are square, of one size that is a power of two, 8-bit RGB. Grey and palette pictures and opaque
alpha are converted to RGB. Refused by name: unreadable files, other sizes (unless `fit="crop"` cuts and scales them),
CMYK (its colours need a profile), 16-bit greys, transparent pixels. No torch here.
"""

import io
import json
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from training.errors import DataError
from training.renders import open_pool

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
LABELS = "dataset.json"
CONVERTED = {"RGB", "L", "P", "1"}
WITH_ALPHA = {"RGBA", "LA", "PA"}
FULL_CHECK = 2000
"""Sets up to this size are decoded whole when they are opened; of larger ones only the headers are read."""
Fit = Literal["refuse", "crop"]
Pixels = npt.NDArray[np.uint8]


class PictureSet(Protocol):
    """Pictures by number."""

    name: str
    resolution: int
    label_dim: int  # 0: none

    def __len__(self) -> int: ...

    def read(self, index: int) -> Pixels:
        """Give a picture: [R,R,3]."""

    def label(self, index: int) -> npt.NDArray[np.float32]:
        """Give a picture's label: [label_dim]."""


class PoolPictures:
    """A rendered pool (training.renders), or any [N,S,S,3] array, as a set without labels; averaged to a smaller size
    where one is asked for."""

    label_dim = 0

    def __init__(self, pictures: Pixels, name: str = "pool", resolution: int | None = None) -> None:
        self.pictures, self.name, self.resolution = pictures, name, resolution or pictures.shape[1]
        if pictures.shape[1] % self.resolution:
            raise DataError(f"{name}: pictures are {pictures.shape[1]} px and can't be averaged to {resolution} px")

    def __len__(self) -> int:
        return len(self.pictures)

    def read(self, index: int) -> Pixels:
        """Give a picture: [R,R,3]."""
        picture, size = np.asarray(self.pictures[index]), self.resolution
        cell = picture.shape[0] // size
        if cell == 1:
            return picture
        return picture.reshape(size, cell, size, cell, 3).mean((1, 3)).round().astype(np.uint8)

    def label(self, index: int) -> npt.NDArray[np.float32]:
        """Give an empty label."""
        return np.zeros(0, np.float32)


class Source(Protocol):
    """Where files come from."""

    name: str

    def list_names(self) -> list[str]:
        """Give every file's name."""

    def load(self, name: str) -> bytes:
        """Give a file's content."""


class FolderSource:
    """The files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, str(folder)

    def list_names(self) -> list[str]:
        """Give every file's path below the folder, with forward slashes."""
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()]

    def load(self, name: str) -> bytes:
        """Give a file's content."""
        return (self.folder / name).read_bytes()


class ZipSource:
    """The files in a zip."""

    def __init__(self, path: Path) -> None:
        self.name, self._lock = str(path), threading.Lock()
        try:
            self._zip = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise DataError(f"{path} is no readable zip: {error}") from error

    def list_names(self) -> list[str]:
        """Give every file's name."""
        return [info.filename for info in self._zip.infolist() if not info.is_dir()]

    def load(self, name: str) -> bytes:
        """Give a file's content."""
        with self._lock:  # one file position for all threads
            return self._zip.read(name)


def decode_picture(data: bytes, name: str, resolution: int | None, fit: Fit = "refuse") -> Pixels:
    """Decode one file to RGB, upright.

    Shapes: [R,R,3]; R is `resolution` where `fit` is "crop".
    Raises: DataError with the file's name.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.load()
            picture = ImageOps.exif_transpose(opened)
    except Exception as error:  # Pillow's many readers raise whatever they like on broken files
        reason = str(error) or type(error).__name__
        raise DataError(f"{name} can't be read as a picture ({reason}); repair or remove it") from error
    picture = _make_rgb(picture, name)
    if fit == "crop" and resolution is not None:
        side = min(picture.size)
        if side < resolution:
            raise DataError(f"{name} is {picture.width}×{picture.height} px, too small for {resolution} px")
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
        picture = picture.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _make_rgb(picture: Image.Image, name: str) -> Image.Image:
    if picture.mode in WITH_ALPHA or "transparency" in picture.info:
        lowest = picture.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest != 255:
            raise DataError(f"{name} has transparent pixels; put it on a background first")
        return picture.convert("RGB")
    if picture.mode not in CONVERTED:
        advice = "its colours need a profile" if picture.mode == "CMYK" else "8-bit RGB or grey is wanted"
        raise DataError(f"{name} is a {picture.mode} picture ({advice}); convert it to RGB first")
    return picture.convert("RGB")


class FilePictures:
    """Pictures of a folder or a zip, in the order of their names."""

    def __init__(self, source: Source, resolution: int | None, fit: Fit = "refuse", labels: bool = True) -> None:
        self.source, self.name, self.fit = source, source.name, fit
        self.names = sorted(name for name in source.list_names() if Path(name).suffix.lower() in SUFFIXES)
        if not self.names:
            raise DataError(f"{self.name} holds no pictures ({', '.join(sorted(SUFFIXES))})")
        if fit == "crop" and resolution is None:
            raise DataError(f"{self.name}: cutting pictures to size needs the size")
        self.resolution = resolution if fit == "crop" and resolution else self._check_sizes(resolution)
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise DataError(
                f"{self.name}: pictures are {self.resolution} px wide, which is no power of two (8, 16 … 1024); "
                "scale them, or have them cut to size"
            )
        self._labels = self._read_labels() if labels else None
        self.label_dim = 0 if self._labels is None else self._labels.shape[1]
        if len(self.names) <= FULL_CHECK:
            for index in range(len(self.names)):
                self.read(index)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int) -> Pixels:
        """Give a picture: [R,R,3].

        Raises: DataError with the file's name.
        """
        name = f"{self.name}: {self.names[index]}"
        try:
            data = self.source.load(self.names[index])
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{name} can't be read ({error})") from error
        picture = decode_picture(data, name, self.resolution, self.fit)
        if picture.shape != (self.resolution, self.resolution, 3):
            raise DataError(
                f"{name} is {picture.shape[1]}×{picture.shape[0]} px, the others are {self.resolution}×"
                f"{self.resolution}; scale it, or have all cut to size"
            )
        return picture

    def label(self, index: int) -> npt.NDArray[np.float32]:
        """Give a picture's label: [label_dim]."""
        return np.zeros(0, np.float32) if self._labels is None else self._labels[index]

    def _check_sizes(self, wanted: int | None) -> int:
        """Read every header and give the common size."""
        first: tuple[int, int] | None = None
        for name in self.names:
            try:
                with Image.open(io.BytesIO(self.source.load(name))) as picture:
                    size = picture.size
            except Exception as error:  # see decode_picture
                raise DataError(
                    f"{self.name}: {name} can't be read as a picture ({error}); repair or remove it"
                ) from error
            first = first or size
            if size[0] != size[1]:
                raise DataError(
                    f"{self.name}: {name} is {size[0]}×{size[1]} px, not square; cut it, or have all cut to size"
                )
            if size != first:
                raise DataError(
                    f"{self.name} mixes sizes: {self.names[0]} is {first[0]}×{first[1]} px and {name} {size[0]}×"
                    f"{size[1]}; scale them to one size, or have all cut to size"
                )
        assert first is not None
        if wanted is not None and first[0] != wanted:
            raise DataError(
                f"{self.name}: pictures are {first[0]}×{first[0]} px and the recipe draws {wanted}×{wanted}; choose "
                "another recipe, or have them cut to size"
            )
        return first[0]

    def _read_labels(self) -> npt.NDArray[np.float32] | None:
        """Read dataset.json: {"labels": [[name, class or vector], …]} or null.

        Source: the form of NVIDIA's StyleGAN2-ADA data sets.
        """
        try:
            data = self.source.load(LABELS)
        except (KeyError, FileNotFoundError):
            return None
        try:
            entries = json.loads(data)["labels"]
            if entries is None:
                return None
            found = {str(name).replace("\\", "/"): label for name, label in entries}
            missing = [name for name in self.names if name not in found]
            if missing:
                raise DataError(f"{self.name}: {LABELS} has no label for {missing[0]} ({len(missing)} are missing)")
            labels = np.array([found[name] for name in self.names])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.name}: {LABELS} is not of the form {{'labels': [[name, label], …]}}: {error}"
            ) from error
        if labels.ndim == 1:
            if not np.array_equal(labels, labels.astype(np.int64)) or labels.min() < 0:
                raise DataError(f"{self.name}: {LABELS} holds classes that are not 0, 1, 2 …")
            labels = np.eye(int(labels.max()) + 1, dtype=np.float32)[labels.astype(np.int64)]
        return labels.astype(np.float32)


def open_pictures(
    path: Path,
    resolution: int | None = None,
    fit: Fit = "refuse",
    labels: bool = True,
) -> PictureSet:
    """Open a folder, a zip or a rendered pool.

    Raises: DataError with what is wrong and where.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist")
    if (path / "pool.json").exists():
        pictures = open_pool(path).pictures
        if fit == "refuse" and resolution not in (None, pictures.shape[1]):
            raise DataError(
                f"{path}: pictures are {pictures.shape[1]} px and the recipe draws {resolution} px; choose another "
                "recipe, or have them cut to size"
            )
        return PoolPictures(pictures, str(path), resolution)
    if path.is_dir():
        return FilePictures(FolderSource(path), resolution, fit, labels)
    if path.suffix.lower() == ".zip":
        return FilePictures(ZipSource(path), resolution, fit, labels)
    raise DataError(f"{path} is neither a folder nor a zip of pictures")


def require_enough(pictures: PictureSet, batch: int) -> None:
    """Refuse a set that a single batch would show twice.

    Raises: DataError with both counts.
    """
    if len(pictures) < batch:
        raise DataError(
            f"{pictures.name} holds {len(pictures)} pictures, fewer than one batch of {batch}; add pictures (some "
            "hundreds at least, thousands for good faces), or choose a recipe with a smaller batch"
        )


def describe_set(pictures: PictureSet, mirrored: bool) -> str:
    """Say in a line what was opened."""
    labelled = f", {pictures.label_dim} label values each" if pictures.label_dim else ""
    doubled = ", and as many mirrored" if mirrored else ""
    return f"{pictures.name}: {len(pictures)} pictures of {pictures.resolution} px{doubled}{labelled}"


def stack_pictures(pictures: Iterable[Pixels]) -> Pixels:
    """Join pictures to a batch: [N,R,R,3]."""
    return np.stack(list(pictures))
