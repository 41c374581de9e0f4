"""What every runtime must offer for one opened ONNX file, and how it may fail. Knows no runtime itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError

Array = NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """One input or output of a file as its runtime tells it; a size that is not fixed is a letter or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True)
class Fallback:
    """A graph that does not run where it should: ``failed`` gave up for ``reason``, ``using`` does its work."""

    graph: str
    failed: str
    using: str
    reason: str


class Engine(Protocol):
    """One opened ONNX file. Safe to call from several threads."""

    @property
    def provider(self) -> str:
        """Our name of what really runs it."""
        ...

    @property
    def inputs(self) -> Sequence[Tensor]:
        """What the file takes."""
        ...

    @property
    def outputs(self) -> Sequence[Tensor]:
        """What the file gives."""
        ...

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the named outputs.

        Raises:
            ProviderFailedError: the provider could not do it; another one might.
            ModelError: no provider could, because the call itself is wrong.
        """
        ...


class ProviderFailedError(Exception):
    """A provider that does not start, can't open a file or fails in the middle of it."""

    def __init__(self, reason: str, *, memory: bool = False) -> None:
        """``memory``: it ran out of it."""
        super().__init__(reason)
        self.reason, self.memory = reason, memory

    @classmethod
    def from_error(cls, error: Exception) -> ProviderFailedError:
        """Tell a runtime's exception in one line."""
        text = str(error).lower()
        marks = ("allocate memory", "bad allocation", "bad_alloc", "out of memory")
        memory = isinstance(error, MemoryError) or any(mark in text for mark in marks)
        return cls(first_line(error), memory=memory)

    def to_model_error(self, graph: str) -> ModelError:
        """Return what the user is told where nothing is left to fall back on."""
        if self.memory:
            return ModelError(
                "out-of-memory", f"There was not enough memory to run the {graph} graph.", "Use a smaller batch."
            )
        return failed_run(graph, self.reason)


def failed_run(graph: str, reason: str) -> ModelError:
    """Return the error of a graph that could not be run."""
    return ModelError(
        "internal",
        f"The {graph} graph failed: {reason}",
        "Try again; if it fails again, report it with the bundle's id and version.",
    )


def first_line(error: Exception) -> str:
    """Return the first line of what an exception says, not too long; its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def check_call(graph: str, tensors: Sequence[Tensor], inputs: Mapping[str, Array]) -> None:
    """Refuse a call that its runtime would convert without a word, or report as a failure of its own.

    Raises:
        ModelError: internal.
    """
    wanted = {tensor.name: tensor for tensor in tensors}
    if set(inputs) != set(wanted):
        raise failed_run(graph, f"it takes {sorted(wanted)}, not {sorted(inputs)}")
    for name, array in inputs.items():
        tensor = wanted[name]
        if array.dtype != tensor.dtype or array.ndim != len(tensor.shape) or array.shape[1:] != tensor.shape[1:]:
            told = f"{tensor.dtype} {list(tensor.shape)}, not {array.dtype} {list(array.shape)}"
            raise failed_run(graph, f"its input {name} is {told}")


def run_in_pieces(
    run: Callable[[Mapping[str, Array]], dict[str, Array]], inputs: Mapping[str, Array], size: int
) -> dict[str, Array]:
    """Run a batch as several of at most ``size``, for a runtime that takes no more at once.

    Shapes: every input [N,…]; so are the outputs.
    """
    batch = len(next(iter(inputs.values())))
    if batch <= size:
        return run(inputs)
    pieces = [
        run({name: array[start : start + size] for name, array in inputs.items()}) for start in range(0, batch, size)
    ]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def as_float32(array: Array) -> NDArray[np.float32]:
    """Return the array as contiguous float32, copying only where it is not."""
    return np.ascontiguousarray(array, dtype=np.float32)
