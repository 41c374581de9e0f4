"""Reads a pickle as data: tensors, numbers, strings and containers. Nothing in the file can run, for nothing is ever
imported and nothing called but the few builders below.

Python's unpickler calls what a file names, so a hostile checkpoint owns the machine. Here the instructions are read
one by one (`pickletools` only splits the bytes) and carried out on a list; a name that is not in `BUILDERS` ends the
reading. NVIDIA's checkpoints bring the source code of their networks along: it is read as a string and dropped.
Must not import: services, worker.
"""

import io
import mmap
import pickletools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.errors import DamagedCheckpointError, DataError


class Name(NamedTuple):
    """A class or function that a file names: a mere name until a builder stands for it."""

    module: str
    name: str


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


@dataclass
class _Storage:
    """The numbers of a tensor, without a shape."""

    flat: Tensor


class _RefusedError(Exception):
    """The file wants something that is not done; the message names it."""


def _rebuild_persistent(meta: Any) -> Persistent:
    if not isinstance(meta, dict) or meta.get("type") != "class" or not isinstance(meta.get("state"), dict):
        raise _RefusedError("a persistent object without a class and a state")
    class_name = meta.get("class_name")
    return Persistent(class_name if isinstance(class_name, str) else "", meta["state"])


def _load_storage(data: Any) -> _Storage:
    """Read the numbers of a tensor, which torch wrote as a file inside the file.

    Source: `torch.storage._load_from_bytes`, which unpickles freely; torch's own safe reader does it here.
    """
    if not isinstance(data, bytes):
        raise _RefusedError(f"a tensor's numbers made of {type(data).__name__}")
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.storage.TypedStorage):
        raise _RefusedError(f"a tensor's numbers made of {type(storage).__name__}")
    return _Storage(torch.tensor([], dtype=storage.dtype).set_(storage))


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Give numbers their shape.

    A shape that repeats numbers is refused: it may be far larger than the file.
    """
    if not isinstance(storage, _Storage):
        raise _RefusedError("a tensor without numbers")
    shape = torch.Size(size)
    if shape.numel() > storage.flat.numel():
        raise _RefusedError(f"a tensor of the shape {list(shape)} from {storage.flat.numel()} numbers")
    return storage.flat.as_strided(shape, tuple(stride), int(offset))


def _rebuild_parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise _RefusedError("a parameter without a tensor")
    return data


def _rebuild_number(kind: Any, data: Any) -> float:
    """Give one of numpy's numbers as Python's own."""
    if not isinstance(kind, str) or kind[:1] not in {"f", "i", "u", "b"} or not isinstance(data, bytes):
        raise _RefusedError("a number that is none")
    value: float = np.frombuffer(data, np.dtype(kind), 1)[0].item()
    return value


def _rebuild_bytes(text: Any, encoding: Any) -> bytes:
    """Give bytes that protocol 2, which has none, wrote as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError(f"bytes that are written as {encoding!r:.20}")
    return text.encode("latin1")


def _rebuild_place(*place: Any) -> str:
    """Give a device as text."""
    if not all(isinstance(part, str | int) for part in place):
        raise _RefusedError("a device that is none")
    return ":".join(map(str, place))


def _make_dict(pairs: Any = ()) -> dict[Any, Any]:
    """Make a dict; its keys are plain values, for to hash a tuple of tuples of … may take for ever."""
    items = list(pairs.items() if isinstance(pairs, dict) else pairs)
    _check_plain([key for key, _ in items])
    return dict(items)


def _make_set(items: Any = ()) -> set[Any]:
    """Make a set of plain values."""
    _check_plain(items)
    return set(items)


def _check_plain(values: Iterable[Any]) -> None:
    if not all(value is None or isinstance(value, str | bytes | int | float) for value in values):
        raise _RefusedError("a key or a set's item that is neither a text nor a number")


def _rebuild_plainly(kind: Any, base: Any, state: Any) -> Any:
    """Make an object the way that the oldest pickles do: `copyreg._reconstructor`."""
    del base
    return _build(kind, () if state is None else (state,))


def _list_builders() -> Iterator[tuple[Name, Callable[..., Any]]]:
    yield Name("collections", "OrderedDict"), _make_dict
    yield Name("dnnlib.util", "EasyDict"), _make_dict
    yield Name("_codecs", "encode"), _rebuild_bytes
    yield Name("copyreg", "_reconstructor"), _rebuild_plainly
    yield Name("torch_utils.persistence", "_reconstruct_persistent_obj"), _rebuild_persistent
    yield Name("torch.storage", "_load_from_bytes"), _load_storage
    yield Name("torch._utils", "_rebuild_tensor_v2"), _rebuild_tensor
    yield Name("torch._utils", "_rebuild_parameter"), _rebuild_parameter
    yield Name("torch._utils", "_rebuild_parameter_with_state"), _rebuild_parameter
    yield Name("torch", "Size"), tuple
    yield Name("torch", "device"), _rebuild_place
    yield Name("numpy", "dtype"), lambda kind, *_: kind
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield Name(module, "scalar"), _rebuild_number
    for module in ("builtins", "__builtin__"):
        yield Name(module, "set"), _make_set
        yield Name(module, "dict"), _make_dict


BUILDERS = dict(_list_builders())
"""What a file may have built, by the name it has there."""
INERT = {Name("builtins", "object"), Name("__builtin__", "object")}
"""Names that may stand in a file and are never built."""
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
            return _Machine().run(data)
    except _RefusedError as error:
        raise DataError(f"{path} was not read further, and nothing in it was run: {error}") from error
    except Exception as error:  # whatever broken bytes lead to, in any of the builders
        raise DamagedCheckpointError(
            f"{path} is no whole pickle ({error}): it was cut short or damaged; fetch it again"
        ) from error


def _name(module: Any, name: Any) -> Name:
    """Give a name that the file mentions.

    Raises: _RefusedError for every one that is not expected.
    """
    if not isinstance(module, str) or not isinstance(name, str):
        raise _RefusedError("a name that is no text")
    found = Name(module, name)
    if found in BUILDERS or found in INERT or _is_dtype(found):
        return found
    for prefix, explanation in EXPLAINED.items():
        if found.module.startswith(prefix):
            raise _RefusedError(explanation)
    raise _RefusedError(f"it asks for {found.module}.{found.name}, which no network's weights need")


def _is_dtype(found: Name) -> bool:
    return found.module == "torch" and isinstance(getattr(torch, found.name, None), torch.dtype)


def _build(what: Any, arguments: Any) -> Any:
    """Call the builder that a name stands for."""
    if not isinstance(what, Name) or what not in BUILDERS or not isinstance(arguments, tuple):
        raise _RefusedError(f"it calls {'.'.join(what) if isinstance(what, Name) else type(what).__name__}")
    return BUILDERS[what](*arguments)


class _Machine:
    """The stack machine that a pickle is written for, with all that reaches beyond data left out.

    Source: the comments of Python's `pickletools`, which say what each instruction does.
    """

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: Any) -> Any:
        """Carry out every instruction up to the last, and give what is left."""
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise _RefusedError("it has no end")

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        stack = self.stack
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in LITERALS:
            stack.append(argument)
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in {"PROTO", "FRAME"}:
            pass
        elif name in {"MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"}:
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in {"GET", "BINGET", "LONG_BINGET"}:
            stack.append(self.memo[int(argument)])
        elif name == "MARK":
            self.marks.append(stack)
            self.stack = []
        elif name in {"POP", "POP_MARK"}:
            _ = self.take_marked() if name == "POP_MARK" or not stack else stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in {"GLOBAL", "STACK_GLOBAL", "REDUCE", "NEWOBJ", "NEWOBJ_EX", "BUILD"}:
            self.make(name, argument)
        else:
            self.collect(name)

    def make(self, name: str, argument: Any) -> None:
        """Name, build and fill objects."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(_name(*argument.split(" ", 1)))
            return
        last = stack.pop()
        if name == "STACK_GLOBAL":
            stack.append(_name(stack.pop(), last))
        elif name in {"REDUCE", "NEWOBJ"}:
            stack.append(_build(stack.pop(), last))
        elif name == "NEWOBJ_EX" and last == {}:
            arguments = stack.pop()
            stack.append(_build(stack.pop(), arguments))
        elif name == "BUILD" and isinstance(stack[-1], str):
            pass  # numpy's number types tell their byte order twice
        elif name == "BUILD" and isinstance(stack[-1], dict) and isinstance(last, dict):
            stack[-1].update(last)
        else:
            raise _RefusedError(f"it fills an object of the type {type(stack[-1]).__name__}")

    def collect(self, name: str) -> None:
        """Fill containers with what was laid down before."""
        if name in {"TUPLE1", "TUPLE2", "TUPLE3"}:
            count = int(name[-1])
            if len(self.stack) < count:
                raise _RefusedError("it takes more than there is")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name in {"APPEND", "SETITEM"}:
            count = 1 if name == "APPEND" else 2
            items, self.stack[-count:] = self.stack[-count:], []
            self.fill(self.stack[-1], items)
        elif name in {"APPENDS", "SETITEMS", "ADDITEMS"}:
            items = self.take_marked()
            self.fill(self.stack[-1], items)
        elif name in MADE_OF_ITEMS:
            items = self.take_marked()
            self.stack.append(MADE_OF_ITEMS[name](items))
        else:
            raise _RefusedError(f"it uses the instruction {name}, which no network's weights need")

    def take_marked(self) -> list[Any]:
        """Give everything since the last mark, and drop the mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    @staticmethod
    def fill(container: Any, items: list[Any]) -> None:
        """Add items to a list, a set or (keys and values in turn) a dict."""
        if isinstance(container, list):
            container.extend(items)
        elif isinstance(container, set):
            container.update(_make_set(items))
        elif isinstance(container, dict):
            container.update(_pair(items))
        else:
            raise _RefusedError(f"it adds items to an object of the type {type(container).__name__}")


def _pair(items: list[Any]) -> dict[Any, Any]:
    return _make_dict(zip(items[::2], items[1::2], strict=True))


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
MADE_OF_ITEMS: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": _pair,
    "FROZENSET": _make_set,
}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
"""Instructions that lay down what stands behind them."""
