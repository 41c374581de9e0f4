"""The files of a conversion, read into networks; a file that brings another part's weights along counts for both.

Must not import: services, worker, cli.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from training.checkpoints.clip import ClipTowers
from training.checkpoints.clip_files import build_clip, read_clip
from training.checkpoints.encoders import NO_AVERAGE, EncoderCheckpoint, read_encoder
from training.checkpoints.formats import KINDS, GeneratorCheckpoint, recognise
from training.checkpoints.generators import read_generator
from training.checkpoints.irse import read_identity
from training.checkpoints.official_motion import MotionCheckpoint, read_motion
from training.checkpoints.stylegan2_pytorch import generator_from_state
from training.errors import CheckpointMismatchError, DataError
from training.inversion.run import is_encoder_folder, read_encoder_folder
from training.networks.identity import IdentityNetwork
from training.networks.irse import PictureEncoder, SingleEncoder
from training.networks.stylegan2 import ZGenerator
from training.paper.animation import PaperAnimation, is_motion_folder, load
from training.photos.parts import build_imported_parts

Report = Callable[[str], None]
PARTS = ("generator", "encoder", "clip", "motion")
"""What no bundle can do without."""
CHUNK_BYTES = 1 << 22


@dataclass(frozen=True)
class Sources:
    """What a command named; None: nothing."""

    generator: Path | None = None
    encoder: Path | None = None
    clip: Path | None = None
    motion: Path | None = None
    label: int | None = None  # class of a conditional generator
    identity: Path | None = None  # ir_se50; a bundle is whole without it


@dataclass
class Found:
    """What the files hold, as far as they were given."""

    generator: ZGenerator | None = None
    encoder: PictureEncoder | None = None
    towers: ClipTowers | None = None
    animation: PaperAnimation | None = None
    identity: IdentityNetwork | None = None
    told: dict[str, str] = field(default_factory=dict)  # part → what was found, in words
    origins: dict[str, dict[str, Any]] = field(default_factory=dict)  # part → file, format, sha256
    remarks: list[str] = field(default_factory=list)

    @property
    def missing(self) -> tuple[str, ...]:
        """Parts that no file brought."""
        return tuple(part for part in PARTS if part not in self.told)

    def note(self, part: str, path: Path, told: str, kind: str) -> None:
        """Remember where a part is from."""
        self.told[part] = f"{path}: {told}"
        self.origins[part] = {"file": path.name, "format": kind, "sha256": fingerprint(path)}


def read_sources(sources: Sources) -> Found:
    """Read every file that was given.

    Raises: DataError where a file is something else, CheckpointMismatchError, DamagedCheckpointError.
    """
    found, encoder = Found(), None
    if sources.generator is not None:
        path, label = sources.generator, sources.label
        _note_generator(found, path, read_generator(path, label), label)
    elif sources.label is not None:
        raise DataError(f"--label {sources.label} is a class of a conditional --generator, and none is given")
    if sources.encoder is not None and sources.encoder.is_dir():
        _read_own_encoder(found, sources.encoder)
    elif sources.encoder is not None:
        encoder = _read_encoder(found, sources.encoder)
        if sources.generator is None and encoder.generator_state:
            _take_generator(found, sources.encoder, encoder)
    if encoder is not None and found.generator is not None:
        _centre(found, encoder, found.generator)
    _read_words(found, sources)
    if sources.identity is not None:
        found.identity = read_identity(sources.identity)
        found.note("identity", sources.identity, KINDS["ir-se50"].described, "ir-se50")
    order = [part for part in (*PARTS, "identity") if part in found.told]  # they were read in another one
    found.told = {part: found.told[part] for part in order}
    found.origins = {part: found.origins[part] for part in order}
    return found


def fingerprint(path: Path) -> str:
    """Give the SHA-256 of a file, or of a folder's file names and contents."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if not file.is_file():
            continue
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode() + b"\0")
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _read_encoder(found: Found, path: Path) -> EncoderCheckpoint:
    beside = None if found.generator is None else found.generator.synthesis.num_ws
    checkpoint = read_encoder(path, num_ws=beside)
    encoder = found.encoder = checkpoint.encoder
    one = "one w for all " if isinstance(encoder, SingleEncoder) else ""
    told = f"{KINDS[checkpoint.format].described} of {one}{encoder.num_ws} rows at {encoder.input_size} px"
    found.note("encoder", path, told, checkpoint.format)
    found.remarks += [f"{path}: {remark}" for remark in checkpoint.remarks if remark != NO_AVERAGE]
    return checkpoint


def _read_own_encoder(found: Found, folder: Path) -> None:
    """Read an encoder that `animato-train inversion` left.

    Raises: DataError, CheckpointMismatchError, DamagedCheckpointError.
    """
    folder = folder / "inversion" if is_encoder_folder(folder / "inversion") else folder
    if not is_encoder_folder(folder):
        raise DataError(f"{folder} is no encoder of animato-train: options.json and checkpoint.pt are wanted there")
    found.encoder, recipe = read_encoder_folder(folder)
    rows, size = found.encoder.num_ws, found.encoder.input_size
    told = f"an encoder of animato-train ({recipe.name}) of {rows} rows at {size} px"
    found.note("encoder", folder, told, "animato")


def _take_generator(found: Found, path: Path, encoder: EncoderCheckpoint) -> None:
    """Take the generator that an encoder's file brings along."""
    assert encoder.generator_state
    average = None if encoder.w_avg is None else encoder.w_avg.mean(0)
    _note_generator(found, path, generator_from_state(encoder.generator_state, average, path))
    found.remarks.append(f"{path} brings its generator along, which is taken as none was given")


def _note_generator(found: Found, path: Path, checkpoint: GeneratorCheckpoint, label: int | None = None) -> None:
    found.generator = checkpoint.generator
    synthesis = checkpoint.generator.synthesis
    size = f"at {synthesis.resolution} px with {synthesis.num_ws} rows of {synthesis.w_dim}"
    found.note("generator", path, f"{KINDS[checkpoint.format].described} {size}", checkpoint.format)
    if label is not None:
        found.origins["generator"]["label"] = label


@torch.no_grad()
def _centre(found: Found, checkpoint: EncoderCheckpoint, generator: ZGenerator) -> None:
    """Give an encoder without an average of its own the generator's."""
    encoder = checkpoint.encoder
    if not checkpoint.centred or checkpoint.w_avg is not None:
        return
    if encoder.w_dim != generator.mapping.w_dim:
        return  # said by `fitting`
    encoder.w_avg.copy_(generator.mapping.w_avg.expand_as(encoder.w_avg))
    found.remarks.append("the encoder's missing average is the generator's w_avg")


def _read_words(found: Found, sources: Sources) -> None:
    """Read CLIP and motion; a motion that was trained with a CLIP of its own brings it along."""
    if sources.motion is not None and sources.motion.is_dir():
        if sources.clip is not None:
            _read_clip(found, sources.clip)
        _read_own_motion(found, sources.motion)
        return
    motion = None if sources.motion is None else _read_motion(found, sources.motion)
    if motion is not None and motion.clip_state is not None:
        path = cast("Path", sources.motion)
        found.towers = build_clip(motion.clip_state, path, sources.clip or path)
        found.note("clip", path, f"what the motion was trained with, {_say_embed(found.towers)}", "clip-openai")
        if sources.clip is not None:
            found.remarks.append(f"the motion brings its own tuned CLIP: of {sources.clip} only the tokenizer is taken")
    elif sources.clip is not None:
        _read_clip(found, sources.clip)
    # without towers there is nothing to animate by, and the motion counts as found all the same
    if motion is not None and found.towers is not None:
        found.animation = PaperAnimation(motion.network, motion.recipe, found.towers)


def _read_clip(found: Found, path: Path) -> None:
    found.towers = read_clip(path)
    kind = recognise(path)
    found.note("clip", path, f"{KINDS[kind].described}, {_say_embed(found.towers)}", kind)


def _say_embed(towers: ClipTowers) -> str:
    return f"embeddings of {towers.embed_dim}"


def _read_motion(found: Found, path: Path) -> MotionCheckpoint:
    # no tensor of a motion tells how long a row is; the parts around it do
    w_dims = [found.generator.mapping.w_dim] if found.generator is not None else []
    w_dims += [found.encoder.w_dim] if found.encoder is not None else []
    motion = read_motion(path, *w_dims[:1])
    rows = f"{motion.num_ws} rows of {motion.w_dim}, embeddings of {motion.embed_dim}"
    found.note("motion", path, f"{KINDS['motion-official'].described}, {rows}", "motion-official")
    return motion


def _read_own_motion(found: Found, folder: Path) -> None:
    """Read a motion that `animato-train motion` left, on the parts that were read before.

    Raises: DataError, CheckpointMismatchError.
    """
    folder = folder / "motion" if is_motion_folder(folder / "motion") else folder
    if not is_motion_folder(folder):
        raise DataError(f"{folder} is no motion of animato-train: options.json and checkpoint.pt are wanted there")
    if found.generator is None or found.encoder is None or found.towers is None:
        wanted = ", ".join(f"--{part}" for part in PARTS[:3] if part in found.missing)
        raise DataError(f"{folder} is a motion that was trained on other parts: give those too ({wanted})")
    parts = build_imported_parts(found.generator, found.encoder, found.towers)
    try:
        found.animation = load(folder, parts)
    except RuntimeError as error:
        told = str(error).splitlines()[-1].strip()
        raise CheckpointMismatchError(f"{folder} was trained for other parts ({told}); give those") from error
    recipe = found.animation.recipe
    tuned = ", with towers tuned along" if recipe.lr_towers else ""
    found.note("motion", folder, f"a motion of animato-train ({recipe.name}, {recipe.steps} steps{tuned})", "animato")
