"""Reads NVIDIA's pickles as data: tensors, numbers, texts, containers and networks without their code.

Those files bring the source of their networks along, which is read as a text and dropped. What may be built stands in
`BUILDERS`; every other name ends the reading. Must not import: services, worker.
"""

import io
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.checkpoints.pickle_machine import (
    Machine,
    Name,
    RefusedError,
    Storage,
    make_dict,
    make_set,
    rebuild_tensor,
)
from training.errors import DamagedCheckpointError, DataError


@dataclass
class Persistent:
    """An object of `torch_utils.persistence`: a network with its attributes, and no code.

    `state` is what the network's `__dict__` was: `_parameters`, `_buffers`, `_modules` and plain attributes.
    """

    class_name: str
    state: dict[str, Any]

    @property
    def modules(self) -> dict[str, "Persistent"]:
        """The networks that are parts of this one, by their names; none where the file holds nonsense."""
        inner = self.state.get("_modules")
        found = inner if isinstance(inner, dict) else {}
        return {str(name): part for name, part in found.items() if isinstance(part, Persistent)}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers of this network itself, by their names."""
        found: dict[str, Tensor] = {}
        for kind in ("_parameters", "_buffers"):
            held = self.state.get(kind)
            pairs = held.items() if isinstance(held, dict) else ()
            found |= {str(name): value for name, value in pairs if isinstance(value, Tensor)}
        return found


def _rebuild_persistent(meta: Any) -> Persistent:
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise RefusedError("a persistent object without a class and a state")
    class_name = meta.get("class_name")
    return Persistent(class_name if isinstance(class_name, str) else "", meta["state"])


def _load_storage(data: Any) -> Storage:
    """Read the numbers of a tensor, which torch wrote as a file inside the file.

    Source: `torch.storage._load_from_bytes`, which unpickles freely; torch's own safe reader does it here.
    """
    if not isinstance(data, bytes):
        raise RefusedError(f"a tensor's numbers made of {type(data).__name__}")
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise RefusedError(f"a tensor's numbers made of {type(storage).__name__}")
    return Storage(torch.tensor([], dtype=storage.dtype).set_(storage))


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise RefusedError("a parameter without a tensor")
    return data


NUMBERS = {"b1", *(f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8))}


def _rebuild_number(kind: Any, data: Any) -> float:
    """Give one of numpy's numbers as Python's own."""
    if not isinstance(kind, str) or kind not in NUMBERS or not isinstance(data, bytes):
        raise RefusedError("a number that is none")
    value: float = np.frombuffer(data, np.dtype(kind), 1)[0].item()
    return value


def _rebuild_bytes(text: Any, encoding: Any) -> bytes:
    """Give bytes that protocol 2, which has none, wrote as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedError("bytes that are written in another way than latin1")
    return text.encode("latin1")


def _rebuild_place(*place: Any) -> str:
    """Give a device as text."""
    if not all(isinstance(part, str | int) for part in place):
        raise RefusedError("a device that is none")
    return ":".join(map(str, place))


def _list_builders() -> Iterator[tuple[Name, Callable[..., Any]]]:
    yield Name("collections", "OrderedDict"), make_dict
    yield Name("dnnlib.util", "EasyDict"), make_dict
    yield Name("_codecs", "encode"), _rebuild_bytes
    yield Name("torch_utils.persistence", "_reconstruct_persistent_obj"), _rebuild_persistent
    yield Name("torch.storage", "_load_from_bytes"), _load_storage
    yield Name("torch._utils", "_rebuild_tensor_v2"), rebuild_tensor
    yield Name("torch._utils", "_rebuild_parameter"), _rebuild_parameter
    yield Name("torch._utils", "_rebuild_parameter_with_state"), _rebuild_parameter
    yield Name("torch", "Size"), tuple
    yield Name("torch", "device"), _rebuild_place
    yield Name("numpy", "dtype"), lambda kind, *_: kind
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield Name(module, "scalar"), _rebuild_number
    for module in ("builtins", "__builtin__"):
        yield Name(module, "set"), make_set
        yield Name(module, "dict"), make_dict


BUILDERS = dict(_list_builders())
"""What a file may have built, by the name it has there."""
RECONSTRUCTOR = Name("copyreg", "_reconstructor")
INERT = {
    RECONSTRUCTOR,
    Name("builtins", "object"),
    Name("__builtin__", "object"),
    *(Name("torch", name) for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
}
"""Names that may stand in a file and that no builder of their own stands for."""
EXPLAINED = {
    "dnnlib.tflib": "it is a TensorFlow network of NVIDIA's first repositories: convert it with legacy.py of "
    "NVlabs/stylegan3 and give the result",
}
"""Names of known kinds of files, and what can be done with those."""


def read_pickle(path: Path) -> Any:
    """Read a plain pickle, as NVIDIA's repositories write their networks.

    Raises: DataError where it asks for anything but data, DamagedCheckpointError where it can't be read.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _NetworkMachine(BUILDERS).run(data)
    except RefusedError as error:
        raise DataError(f"{path} was not read further, and nothing in it was run: {error}") from error
    except Exception as error:  # whatever broken bytes lead to, in any of the builders
        raise DamagedCheckpointError(
            f"{path} is no whole pickle ({error}): it was cut short or damaged; fetch it again"
        ) from error


class _NetworkMachine(Machine):
    """Knows what NVIDIA's files hold beside what it can build: types of numbers, and objects of the oldest form."""

    def find(self, name: Name) -> Any:
        """Give what stands for a name."""
        if name in INERT:
            return name
        for prefix, explanation in EXPLAINED.items():
            if name.module.startswith(prefix):
                raise RefusedError(explanation)
        return super().find(name)

    def build(self, what: Any, arguments: Any) -> Any:
        """Call the builder that a name stands for; `copyreg._reconstructor` is told what to build and from what."""
        if what != RECONSTRUCTOR:
            return super().build(what, arguments)
        kind, _, state = arguments
        return super().build(kind, () if state is None else (state,))

    def restore(self, target: Any, state: Any) -> None:
        """Fill an object; numpy's types of numbers, which are texts here, tell their byte order twice."""
        if not isinstance(target, str):
            super().restore(target, state)
