"""The stack machine that a pickle is written for, with all that reaches beyond data left out.

Python's unpickler calls what a file names, so a hostile checkpoint owns the machine. Here the instructions are read
one by one (`pickletools` only splits the bytes) and carried out on a list. Nothing is ever imported, and nothing is
called but the builders that a reader hands in. Must not import: services, worker.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Name(NamedTuple):
    """A class or function that a file names: a mere name until a builder stands for it."""

    module: str
    name: str


@dataclass
class Storage:
    """The numbers of a tensor, without a shape."""

    flat: Tensor


class RefusedError(Exception):
    """The file wants something that is not done; the message names it."""


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """Give numbers their shape: `torch._utils._rebuild_tensor_v2`.

    A shape that repeats numbers is refused: it may be far larger than the file.
    """
    if not isinstance(storage, Storage):
        raise RefusedError("a tensor without numbers")
    shape = torch.Size(size)
    if shape.numel() > storage.flat.numel():
        raise RefusedError(f"a tensor of the shape {list(shape)} from {storage.flat.numel()} numbers")
    return storage.flat.as_strided(shape, tuple(stride), int(offset))


def make_dict(pairs: Any = ()) -> dict[Any, Any]:
    """Make a dict; its keys are plain values, for to hash a tuple of tuples of … may take for ever."""
    items = list(pairs.items() if isinstance(pairs, dict) else pairs)
    _check_plain(key for key, _ in items)
    return dict(items)


def make_set(items: Any = ()) -> set[Any]:
    """Make a set of plain values."""
    _check_plain(items)
    return set(items)


def _check_plain(values: Iterable[Any]) -> None:
    if not all(value is None or isinstance(value, str | bytes | int | float) for value in values):
        raise RefusedError("a key or a set's item that is neither a text nor a number")


def _pair(items: list[Any]) -> dict[Any, Any]:
    return make_dict(zip(items[::2], items[1::2], strict=True))


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_DICT": dict, "EMPTY_SET": set}
MADE_OF_ITEMS: dict[str, Callable[[list[Any]], Any]] = {
    "LIST": list,
    "TUPLE": tuple,
    "DICT": _pair,
    "FROZENSET": make_set,
}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
"""Instructions that lay down what stands behind them."""


class Machine:
    """Carries out one pickle. A reader of another dialect overrides `find`, `build` and `restore`.

    Source: the comments of Python's `pickletools`, which say what each instruction does.
    """

    def __init__(self, builders: Mapping[Name, Callable[..., Any]]) -> None:
        """`builders`: what a file may have built, by the name it has there."""
        self.builders = builders
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: Any) -> Any:
        """Carry out every instruction up to the last, and give what is left."""
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            self.step(opcode.name, argument)
        raise RefusedError("it has no end")

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
            stack.append(self.find(Name(*argument.split(" ", 1))))
            return
        last = stack.pop()
        if name == "STACK_GLOBAL":
            module = stack.pop()
            if not isinstance(module, str) or not isinstance(last, str):
                raise RefusedError("a name that is no text")
            stack.append(self.find(Name(module, last)))
        elif name == "BUILD":
            self.restore(stack[-1], last)
        elif name == "NEWOBJ_EX" and last != {}:
            raise RefusedError("it builds an object from named arguments")
        else:
            arguments = stack.pop() if name == "NEWOBJ_EX" else last
            stack.append(self.build(stack.pop(), arguments))

    def find(self, name: Name) -> Any:
        """Give what stands for a name.

        Raises: RefusedError for every one that is not expected.
        """
        if name not in self.builders:
            raise RefusedError(f"it asks for {name.module}.{name.name}, which no network's weights need")
        return name

    def build(self, what: Any, arguments: Any) -> Any:
        """Call the builder that a name stands for."""
        if not isinstance(what, Name) or what not in self.builders or not isinstance(arguments, tuple):
            raise RefusedError(f"it calls {'.'.join(what) if isinstance(what, Name) else type(what).__name__}")
        return self.builders[what](*arguments)

    def restore(self, target: Any, state: Any) -> None:
        """Fill an object that was built before with its attributes."""
        if not isinstance(target, dict) or not isinstance(state, dict):
            raise RefusedError(f"it fills an object of the type {type(target).__name__}")
        target.update(state)

    def collect(self, name: str) -> None:
        """Fill containers with what was laid down before."""
        if name in {"TUPLE1", "TUPLE2", "TUPLE3"}:
            count = int(name[-1])
            if len(self.stack) < count:
                raise RefusedError("it takes more than there is")
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
            raise RefusedError(f"it uses the instruction {name}, which no network's weights need")

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
            container.update(make_set(items))
        elif isinstance(container, dict):
            container.update(_pair(items))
        else:
            raise RefusedError(f"it adds items to an object of the type {type(container).__name__}")
