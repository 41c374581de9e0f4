"""Reads the tensors out of a TorchScript archive without running, or even looking at, the program that lies in it.

For: OpenAI's CLIPs, which were published that way. `torch.jit.load` compiles what a file says; here the archive is
opened as the zip file that it is, its `data.pkl` is rebuilt with passive objects in place of every class, and the
tensors are named by the attributes that lead to them, as in the module's state dict.
Must not import: services, worker, model.
"""

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.checkpoints.pickle_machine import Machine, Name, RefusedError, Storage, make_dict, rebuild_tensor
from training.errors import DamagedCheckpointError, DataError

STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
MAX_PICKLE = 64 << 20
"""Bytes; the largest CLIP's is below one million."""
MAX_ATTRIBUTES = 100_000
MAX_NAME = 1_000
"""Modules may be shared, so that a small file could name endlessly many tensors, and at any length."""


@dataclass
class _Module:
    """An object of any class that the archive's program defines: its attributes, and nothing else."""

    attributes: dict[str, Any] = field(default_factory=dict)


def _take_first(value: Any, *_: Any) -> Any:
    """Stand for `build_intlist` and its kin, which give back the list that they are given."""
    return value


BUILDERS: dict[Name, Callable[..., Any]] = {
    Name("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    Name("collections", "OrderedDict"): make_dict,
    **{
        Name("torch.jit._pickle", name): _take_first
        for name in ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist", "restore_type_tag")
    },
}
"""What an archive may have built, by the name it has there."""


class _ArchiveMachine(Machine):
    """Knows what TorchScript's pickler writes: modules, and tensors whose numbers lie beside the pickle."""

    def __init__(self, load: Callable[[str], bytes]) -> None:
        super().__init__(BUILDERS)
        self.load = load
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        """Carry out one instruction."""
        if name == "BINPERSID":
            self.stack.append(self.take_storage(*self.stack.pop()))
        else:
            super().step(name, argument)

    def find(self, name: Name) -> Any:
        """Give what stands for a name."""
        if _is_module(name) or (name.module == "torch" and name.name in STORAGES):
            return name
        return super().find(name)

    def build(self, what: Any, arguments: Any) -> Any:
        """Make a tensor, a container, or an object of a class that the archive's program defines."""
        return _Module() if _is_module(what) else super().build(what, arguments)

    def restore(self, target: Any, state: Any) -> None:
        """Fill a module with its attributes."""
        if not isinstance(target, _Module) or not isinstance(state, dict):
            raise RefusedError(f"it fills an object of the type {type(target).__name__}")
        target.attributes = state

    def take_storage(self, kind: Any, name: Any, key: Any, device: Any, count: Any) -> Storage:
        """Give the numbers of one storage; the device that it was saved from does not matter."""
        del device
        dtype = STORAGES[name.name]
        if kind != "storage" or not isinstance(key, str):
            raise RefusedError("it asks for something else than a tensor's numbers")
        if key not in self.storages:
            data = self.load(f"data/{key}")
            flat = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self.storages[key] = Storage(flat)
        flat = self.storages[key].flat
        if flat.dtype != dtype or flat.numel() < count:
            raise RefusedError(f"storage {key} holds {flat.numel()} numbers of {flat.dtype}, not {count} of {dtype}")
        return self.storages[key]


def _is_module(found: Any) -> bool:
    return isinstance(found, Name) and f"{found.module}.".startswith("__torch__.")


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Give the tensors of an archive by their names in its module's state dict.

    Tensors that are mere attributes, such as attention masks, are among them: the archive tells no difference.

    Raises: DataError where the file asks for more than data, DamagedCheckpointError where it can't be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _find_root(archive)

            def load(name: str) -> bytes:
                return _load(archive, f"{root}/{name}")

            return dict(_walk(_ArchiveMachine(load).run(load("data.pkl"))))
    except RefusedError as error:
        raise DataError(f"{path} was not read further, and nothing in it was run: {error}") from error
    except Exception as error:  # whatever broken bytes lead to
        raise DamagedCheckpointError(
            f"{path} is no whole TorchScript archive ({error!s:.200}): it was cut short or damaged; fetch it again"
        ) from error


def _find_root(archive: zipfile.ZipFile) -> str:
    """Give the one folder that everything in an archive of torch lies in."""
    roots = {name.split("/")[0] for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]}
    if len(roots) != 1:
        raise RefusedError(f"it holds {len(roots)} data.pkl, and one is wanted")
    return roots.pop()


def _load(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member. Torch stores numbers as they are; packed ones might unfold to more than the machine can hold."""
    member = archive.getinfo(name)
    if name.endswith(".pkl"):
        if member.file_size > MAX_PICKLE:
            raise RefusedError(f"{name} has {member.file_size} bytes")
    elif member.compress_type != zipfile.ZIP_STORED:
        raise RefusedError(f"{name} is compressed, which torch never does")
    return archive.read(member)


def _walk(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Give the tensors below a module by their dotted names."""
    waiting, seen = [("", module)], 0
    while waiting:
        prefix, part = waiting.pop()
        for name, value in part.attributes.items():
            seen += 1
            if seen > MAX_ATTRIBUTES or len(prefix) + len(name) > MAX_NAME:
                raise RefusedError(f"it has more than {MAX_ATTRIBUTES} attributes, or names without an end")
            if isinstance(value, Tensor):
                yield f"{prefix}{name}", value
            elif isinstance(value, _Module):
                waiting.append((f"{prefix}{name}.", value))
