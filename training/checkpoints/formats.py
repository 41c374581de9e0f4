"""Which format a foreign file has, by what it holds and not by its name; and what a generator becomes once it is read.

Every reader of this folder opens its file here, so that each can say what a file is instead of what was hoped for.
Weights are read as data alone: code in a file never runs. Must not import: services, worker.
"""

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from training.checkpoints.unpickle import Persistent, read_pickle
from training.errors import DamagedCheckpointError, DataError
from training.networks.stylegan2 import ZGenerator


@dataclass(frozen=True)
class GeneratorCheckpoint:
    """A foreign generator as ours: in evaluation mode and frozen, its average in `generator.mapping.w_avg`."""

    generator: ZGenerator
    format: str  # a key of KINDS
    label: Tensor | None = None  # [c_dim], the condition that was worked into the mapping for good


class Kind(NamedTuple):
    """What people call a format, and where such a file belongs."""

    described: str
    option: str | None  # of `animato-train convert`; None: of no use here


KINDS = {
    "stylegan2-pytorch": Kind("a StyleGAN2 generator of rosinality/stylegan2-pytorch", "--generator"),
    "nvidia-stylegan2": Kind("a StyleGAN2 generator of NVIDIA's PyTorch repositories", "--generator"),
    "nvidia-stylegan3": Kind("an alias-free generator of StyleGAN3, which is another network", None),
    "e4e": Kind("an e4e encoder", "--encoder"),
    "psp": Kind("a pSp encoder", "--encoder"),
    "ir-se50": Kind("an IR-SE50 face recognition backbone", "--identity"),
    "clip-openai": Kind("a CLIP of OpenAI", "--clip"),
    "clip-huggingface": Kind("a CLIP in Hugging Face's format", "--clip"),
    "motion-official": Kind("a motion checkpoint of language-guided animation", "--motion"),
}


@dataclass(frozen=True)
class Contents:
    """A file that was opened: its format and what it holds.

    `value` is a mapping (a state dict, or what `torch.save` was given), a `Persistent` network of NVIDIA's, or None
    for a folder and for a TorchScript archive, which their readers open themselves.
    """

    path: Path
    format: str  # a key of KINDS
    value: Any


def recognise(path: Path) -> str:
    """Name a file's format, a key of KINDS.

    Raises: DataError where it is none of them or asks for more than data, DamagedCheckpointError.
    """
    return open_contents(path).format


def open_contents(path: Path) -> Contents:
    """Open a file of any known format.

    Raises: DataError where it is none of them or asks for more than data, DamagedCheckpointError.
    """
    if path.is_dir():
        if _read_model_type(path / "config.json") == "clip":
            return Contents(path, "clip-huggingface", None)
        raise DataError(f"{path} is a folder, and of those only a CLIP with its config.json is known")
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    if is_torchscript(path):
        if _names_in_torchscript(path, b"token_embedding"):
            return Contents(path, "clip-openai", None)
        raise DataError(f"{path} is a TorchScript archive, whose code is never run, and no CLIP of OpenAI")
    value = _read_value(path)
    for name, fits in _TRAITS.items():
        if fits(value):
            return Contents(path, name, value)
    raise DataError(f"{path} has no format that is known here: {_describe(value)}")


def expect(contents: Contents, wanted: Collection[str], what: str) -> None:
    """Make sure of a format.

    Args: `what` the file should be, as a person would say it ("a generator").
    Raises: DataError that says what the file is instead and where it belongs.
    """
    if contents.format in wanted:
        return
    kind = KINDS[contents.format]
    advice = f": give it as {kind.option}" if kind.option else ", and can't be used here"
    raise DataError(f"{contents.path} is {kind.described}, not {what}{advice}")


def is_torchscript(path: Path) -> bool:
    """Say whether a file is a TorchScript archive, which holds code beside its weights.

    Raises: DamagedCheckpointError for an archive whose table of contents is broken.
    """
    if not zipfile.is_zipfile(path):
        return False
    with _open_archive(path) as archive:
        return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())


@contextmanager
def _open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive to look into it; whatever broken bytes make of that, they are at fault.

    Raises: DamagedCheckpointError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except Exception as error:
        raise DamagedCheckpointError(
            f"{path} is an archive that can't be read ({error!s:.200}): it was cut short or damaged; fetch it again"
        ) from error


def find_state(value: Any, *keys: str) -> dict[str, Tensor]:
    """Give the tensors of a state dict: under the first of the keys that is there, or of the value itself.

    A safetensors file has no dictionaries within others, so there the keys are what names begin with. The `module.` of
    a network that was trained on several devices is dropped, wherever it stands.
    """
    held = value if isinstance(value, Mapping) else {}
    inner = next((held[key] for key in keys if isinstance(held.get(key), Mapping)), held)
    tensors = {name: item for name, item in inner.items() if isinstance(name, str) and isinstance(item, Tensor)}
    state = {re.sub(r"(^|\.)module\.", r"\1", name): item for name, item in tensors.items()}
    for key in keys if inner is held else ():
        if below := {name: item for name, item in state.items() if name.startswith(f"{key}.")}:
            return {name.removeprefix(f"{key}."): item for name, item in below.items()}
    return state


_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How a file of `torch.save` begins that is no zip archive."""
_SCALAR: Any = np.float64(0).__reduce__()[0]
_HARMLESS: list[Any] = [
    argparse.Namespace,  # the options of a training run
    PurePosixPath,
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),  # as Python 3.13 calls it
    np.dtype,
    _SCALAR,
    (_SCALAR, "numpy.core.multiarray.scalar"),  # as numpy 1 called it
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")),
]
"""What checkpoints hold beside tensors; none of it does anything but keep values."""


def _read_value(path: Path) -> Any:
    """Read a file whose kind its first bytes tell."""
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}") from error
    if not head:
        raise DataError(f"{path} is empty: fetch it again")
    if zipfile.is_zipfile(path) or head.startswith(_LEGACY_TORCH):
        return _read_torch(path)
    if head[4:9] == b"\0\0\0\0{":  # the length of a header, which is JSON
        return _read_safetensors(path)
    if head[:1] == b"\x80":
        return read_pickle(path)
    if head.startswith(b"PK"):
        raise DamagedCheckpointError(f"{path} begins as an archive and has no end: it was cut short; fetch it again")
    raise DataError(f"{path} is no checkpoint: neither safetensors nor a file of torch.save nor a pickle")


def _read_torch(path: Path) -> Any:
    """Read a file of `torch.save`.

    Raises: DataError where it is another archive or asks for more than data, DamagedCheckpointError.
    """
    if zipfile.is_zipfile(path):
        with _open_archive(path) as archive:
            names = archive.namelist()
        if not any(name.split("/")[1:] == ["data.pkl"] for name in names):
            raise DataError(f"{path} is an archive of something else than torch.save's ({', '.join(names[:3])} …)")
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            value = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        told = next((line.strip() for line in str(error).splitlines() if "GLOBAL" in line), str(error).splitlines()[0])
        told = told.partition(" Please use")[0]  # torch's advice is to trust the file
        raise DataError(f"{path} holds more than data, and nothing in it was run: {told}") from error
    except Exception as error:  # whatever broken bytes lead to
        told = str(error)[:200] or "its end is missing"
        raise DamagedCheckpointError(
            f"{path} can't be read ({told}): it was cut short or damaged; fetch it again"
        ) from error
    odd = next((tensor for tensor in _list_tensors(value) if not _is_plain(tensor)), None)
    if odd is not None:
        raise DataError(
            f"{path} holds a tensor that is sparse, quantized, complex or empty ({odd.layout}, {odd.dtype})"
        )
    return value


def _list_tensors(value: Any, depth: int = 3) -> Iterator[Tensor]:
    """Give the tensors of containers within containers."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping) and depth:
        for item in value.values():
            yield from _list_tensors(item, depth - 1)


def _is_plain(tensor: Tensor) -> bool:
    """Say whether a tensor holds its numbers one beside the other, as weights do."""
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return plain and not tensor.is_quantized and not tensor.is_complex()


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedCheckpointError(f"{path} can't be read ({error}): fetch it again") from error


def _read_model_type(path: Path) -> Any:
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return settings.get("model_type") if isinstance(settings, dict) else None


def _names_in_torchscript(path: Path, name: bytes) -> bool:
    with _open_archive(path) as archive:
        members = [member for member in archive.infolist() if member.filename.split("/")[1:] == ["data.pkl"]]
        return any(member.file_size < 1 << 26 and name in archive.read(member) for member in members)


def find_network(value: Any) -> Persistent | None:
    """Give the averaged generator that a pickle of NVIDIA's holds, None where it holds none."""
    found = value.get("G_ema") if isinstance(value, dict) else value
    return found if isinstance(found, Persistent) else None


def _has_part(value: Any, name: str) -> bool:
    network = find_network(value)
    synthesis = network.modules.get("synthesis") if network else None
    return synthesis is not None and name in synthesis.modules


def _holds(keys: tuple[str, ...], *names: str) -> Callable[[Any], bool]:
    return lambda value: all(name in find_state(value, *keys) for name in names)


def _is_encoder(value: Any, class_name: str | None) -> bool:
    """Say whether a checkpoint of pSp's family holds an encoder, of a class that its options name."""
    if "encoder.input_layer.0.weight" not in find_state(value, "state_dict"):
        return False
    options = value.get("opts")
    options = vars(options) if isinstance(options, argparse.Namespace) else options
    told = options.get("encoder_type") if isinstance(options, Mapping) else None
    return class_name in {None, told}


PSP_ENCODERS = (
    "GradualStyleEncoder",
    "BackboneEncoderUsingLastLayerIntoW",
    "BackboneEncoderUsingLastLayerIntoWPlus",
    "SingleStyleCodeEncoder",
    "WEncoder",
)
"""Classes of encoders in pSp's code, as `opts["encoder_type"]` names them; e4e has its own. The last two are what e4e's
and HyperStyle's code call the second."""

GENERATOR_KEYS = ("g_ema", "g", "G_ema", "generator", "state_dict")
"""Where rosinality's files keep a generator, best first; some fine-tunes keep no average of it, or name it anew."""

_TRAITS: dict[str, Callable[[Any], bool]] = {
    "nvidia-stylegan3": lambda value: _has_part(value, "input"),
    "nvidia-stylegan2": lambda value: _has_part(value, "b4") or _holds(("G_ema",), "synthesis.b4.const")(value),
    "psp": lambda value: any(_is_encoder(value, name) for name in PSP_ENCODERS),
    "e4e": lambda value: _is_encoder(value, None),
    "motion-official": _holds(("state_dict",), "rnn.fc1.weight"),
    "clip-openai": _holds(("state_dict",), "token_embedding.weight", "text_projection"),
    "clip-huggingface": _holds((), "text_projection.weight"),
    "ir-se50": _holds(("state_dict",), "input_layer.0.weight", "body.0.res_layer.1.weight"),
    "stylegan2-pytorch": lambda value: any(
        name.endswith(("conv1.conv.modulation.weight", "convs.0.conv.modulation.weight"))
        for name in find_state(value, *GENERATOR_KEYS)
    ),
}
"""What a format's files hold and others don't; the first that fits names the file."""


def _describe(value: Any) -> str:
    if isinstance(value, Persistent):
        return f"it holds a network of the class {value.class_name!r}"
    if isinstance(value, Mapping):
        return f"it begins with {', '.join([repr(key) for key in value if isinstance(key, str)][:4])}"
    return f"it holds a {type(value).__name__}"
