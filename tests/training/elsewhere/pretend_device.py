"""A device that only pretends: its tensors lie in main memory and are computed there, but they mix with the CPU's as
little as a GPU's do. What trains on it has every tensor where it belongs.

It knows PyTorch's rules for CUDA: tensors of two devices meet only where one is copied to the other, where one is a
single number, or where one picks rows of the other. NumPy does not read it, and it has random generators of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
CPU = torch.device("cpu")
aten = torch.ops.aten

AUTOCAST = "AutocastPrivateUse1"
LOWERED = ("conv2d", "conv_transpose2d.input", "linear", "matmul", "mm", "bmm", "addmm", "baddbmm", "prelu")
"""What CUDA's autocast computes in lower precision, as far as we use it."""
_LIBRARIES: list[Any] = []  # kept alive: what they register goes with them

COPIES = {aten.copy_.default, aten._to_copy.default}
PICKS_ROWS = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""CUDA takes row numbers of the CPU here."""


class _Backend(_DummyBackendModule):
    """What torch asks of a device's module."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@functools.cache
def there() -> torch.device:
    """Give the device; torch learns of it with the first call."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
    for library in (rest := torch.library.Library("_", "IMPL")), (lowered := torch.library.Library("aten", "IMPL")):
        _LIBRARIES.append(library)
    rest.fallback(torch.library.fallthrough_kernel, AUTOCAST)
    for name in LOWERED:
        function, _, overload = name.partition(".")
        lowered.impl(name, functools.partial(lower, getattr(getattr(aten, function), overload or "default")), AUTOCAST)
    return torch.device(NAME, 0)


def lower(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Compute a product in the precision of torch.autocast."""
    chosen = torch.get_autocast_dtype(NAME)

    def cast(value: Any) -> Any:
        return value.to(chosen) if isinstance(value, Tensor) and value.dtype is torch.float32 else value

    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastPrivateUse1)):
        return function(*tree_map(cast, args), **tree_map(cast, kwargs))


def is_there(device: Any) -> bool:
    """Say whether a device, or its name, is this one."""
    return device is not None and torch.device(device).type == NAME


class PretendTensor(Tensor):
    """A tensor of the device, around one of the CPU."""

    kept: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, kept: Tensor) -> PretendTensor:
        tensor: PretendTensor = Tensor._make_wrapper_subclass(
            cls,
            kept.size(),
            strides=kept.stride(),
            storage_offset=kept.storage_offset(),
            dtype=kept.dtype,
            device=there(),
            requires_grad=False,
        )
        tensor.kept = kept
        return tensor

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})

    def __reduce_ex__(self, protocol: Any) -> Any:  # a file holds it as it would a GPU's, read back into main memory
        return self.detach().kept.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        twin = PretendTensor(self.kept.clone()).requires_grad_(self.requires_grad)
        is_weight = isinstance(self, torch.nn.Parameter)
        return memo.setdefault(id(self), torch.nn.Parameter(twin, twin.requires_grad) if is_weight else twin)


def compute(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Do on the CPU what is asked of the device.

    Raises: RuntimeError where tensors of two devices meet.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    mine = [tensor for tensor in tensors if isinstance(tensor, PretendTensor)]
    strangers = [tensor for tensor in tensors if not isinstance(tensor, PretendTensor) and tensor.dim() > 0]
    if function in COPIES or function in PICKS_ROWS:
        stays = isinstance(tensors[0], PretendTensor)
        if mine and not stays and function in PICKS_ROWS:
            raise RuntimeError(f"{function}: rows of a CPU tensor are picked by a tensor on {there()}")
    else:
        stays = bool(mine)
        if mine and strangers:
            shapes = [(tensor.device.type, list(tensor.shape)) for tensor in tensors]
            raise RuntimeError(f"{function}: expected all tensors to be on the same device, got {shapes}")
    if kwargs.get("device") is not None:
        stays = is_there(kwargs["device"])
    found = function(*tree_map(bring_home, args), **tree_map(bring_home, kwargs))
    known = {id(tensor.kept): tensor for tensor in mine}

    def send(value: Any) -> Any:
        if not isinstance(value, Tensor) or not stays:
            return value
        return known[id(value)] if id(value) in known else PretendTensor(value)  # what was changed in place

    return tree_map(send, found)


def bring_home(value: Any) -> Any:
    """Give the CPU's part of an argument."""
    if isinstance(value, PretendTensor):
        return value.kept
    return CPU if isinstance(value, torch.device) and value.type == NAME else value


class _Compute(TorchDispatchMode):
    """Makes tensors on the device where a function is asked for one, and lets none of the CPU's slip in."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(function, args, kwargs or {})


class _Make(TorchFunctionMode):
    """Sees to what never reaches the dispatcher: tensors made of Python's numbers."""

    MADE_OF_DATA: tuple[Callable[..., Any], ...] = (torch.tensor, torch.as_tensor, torch.asarray)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function in self.MADE_OF_DATA and is_there(kwargs.get("device")):
            del kwargs["device"]
            return function(*args, **kwargs).to(there())
        if function is torch.lstm_cell and isinstance(args[0], PretendTensor):
            return step_lstm(*args, **kwargs)
        if function in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]), *args[2:])
        if function is Tensor.tolist:
            return function(args[0].detach().to(CPU))
        if function is Tensor.numpy and isinstance(args[0], PretendTensor):
            raise TypeError(f"can't convert a tensor on {there()} to numpy: copy it to the CPU first")
        return function(*args, **kwargs)


def step_lstm(
    x: Tensor, state: tuple[Tensor, Tensor], w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor
) -> tuple[Tensor, Tensor]:
    """Take an LSTM's step by its definition; off the CPU torch wants a fused kernel."""
    h, c = state
    gates = torch.nn.functional.linear(x, w_x, b_x) + torch.nn.functional.linear(h, w_h, b_h)
    take, forget, new, show = gates.chunk(4, 1)
    c = forget.sigmoid() * c + take.sigmoid() * new.tanh()
    return show.sigmoid() * c.tanh(), c


class AnyGenerator(torch.Generator):
    """A random generator that may belong to the device."""

    def __new__(cls, device: Any = "cpu") -> AnyGenerator:
        return super().__new__(cls, CPU if is_there(device) else device)


@contextmanager
def device() -> Iterator[torch.device]:
    """Have the device within."""
    with ExitStack() as stack:
        where = there()
        stack.enter_context(mock.patch("torch.Generator", AnyGenerator))
        stack.enter_context(_Make())
        stack.enter_context(_Compute())
        yield where
