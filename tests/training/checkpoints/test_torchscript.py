"""TorchScript archives as data: what they hold comes out, what they would do does not happen."""

import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from training.checkpoints import torchscript
from training.checkpoints.torchscript import read_torchscript
from training.errors import DamagedCheckpointError, DataError

MODULE = b"c__torch__\nM\n)\x81}"
"""Pickled: an object of a class of the archive, and the dictionary of its attributes, still empty."""
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"
"""Pickled: four numbers, of the file data/0."""
SELF = b"c__torch__\nM\n)\x81q\x00}(X\x01\x00\x00\x00ah\x00X\x01\x00\x00\x00bh\x00ub"
"""Pickled: a module that holds itself twice."""


class Inner(nn.Module):
    """Holds what modules hold: a parameter in half precision, a buffer, and a tensor that is neither."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.randn(3, 4).half())
        self.register_buffer("counter", torch.arange(3))
        self.mask = torch.ones(2, 2).triu(1)
        self.sizes = [1, 2]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: [N,4] → [N,3]."""
        return x @ self.in_proj_weight.float().t() + self.mask.sum() + self.sizes[0]


class Outer(nn.Module):
    """Holds modules by numbers, and one weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Inner(), nn.Linear(3, 3))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.tied = self.layers[1].weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shapes: [N,4] → [N,3]."""
        return self.layers(x) * self.scale


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("traced", [True, False])
def test_tensors_come_out_by_their_names(tmp_path, traced):
    torch.manual_seed(2)
    module = Outer()
    scripted = torch.jit.trace(module, torch.randn(2, 4)) if traced else torch.jit.script(module)
    scripted.save(str(tmp_path / "net.pt"))
    found = read_torchscript(tmp_path / "net.pt")
    wanted = module.state_dict()
    assert set(wanted) <= set(found)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert traced or torch.equal(found["layers.0.mask"], module.layers[0].mask)


def write(path: Path, data: bytes, packing: int = zipfile.ZIP_STORED, numbers: bytes = b"\0" * 16) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("net/data.pkl", b"\x80\x02" + data + b".")
        archive.writestr("net/code/__torch__.py", "")
        archive.writestr("net/data/0", numbers)
    return path


def tensor(size: bytes, stride: bytes) -> bytes:
    """Pickle a tensor of the four numbers, and a module that holds it."""
    rebuilt = REBUILD + b"(" + STORAGE + b"K\x00(" + size + b"t(" + stride + b"t\x89N" + b"tR"
    return MODULE + b"X\x01\x00\x00\x00w" + rebuilt + b"sb"


def test_the_hand_written_form_is_the_right_one(tmp_path):
    found = read_torchscript(write(tmp_path / "net.pt", tensor(b"K\x02K\x02", b"K\x02K\x01")))
    assert {name: value.shape for name, value in found.items()} == {"w": (2, 2)}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cposix\nsystem\n(X\x0b\x00\x00\x00touch ownedtR", r"asks for posix\.system"),
        (b"cbuiltins\neval\n(X\x03\x00\x00\x001+1tR", r"asks for builtins\.eval"),
        (b"ctorch\nload\n(X\x01\x00\x00\x00xtR", r"asks for torch\.load"),
        (b"ctorch.jit._pickle\nbuild_tensor_from_id\n(K\x00tR", "build_tensor_from_id"),
        (MODULE + b"X\x01\x00\x00\x00ac__builtin__\ngetattr\nsb", r"asks for __builtin__\.getattr"),
        (b"(iposix\nsystem\n", "instruction INST"),
        (b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93", r"asks for posix\.system"),
        (tensor(b"J\x00\x00\x00\x7fK\x02", b"K\x00K\x00"), r"shape \[2130706432, 2\] from 4 numbers"),
        (REBUILD + b"}b", "fills an object"),
        (b"ctorch\nFloatStorage\n)R", r"calls torch\.FloatStorage"),
        (SELF, "more than 500 attributes"),
    ],
)
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, data, reason):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torchscript, "MAX_ATTRIBUTES", 500)
    with pytest.raises(DataError, match=rf"net\.pt was not read further, and nothing in it was run: .*({reason})"):
        read_torchscript(write(tmp_path / "net.pt", data))
    assert not (tmp_path / "owned").exists()


def test_packed_numbers_are_refused(tmp_path):
    data = tensor(b"K\x02", b"K\x01")
    with pytest.raises(DataError, match="compressed"):
        read_torchscript(write(tmp_path / "net.pt", data, zipfile.ZIP_DEFLATED))


def test_what_is_cut_short_is_told(tmp_path):
    path = write(tmp_path / "net.pt", tensor(b"K\x02", b"K\x01"), numbers=b"\0" * 8)
    with pytest.raises(DataError, match="holds 2 numbers"):
        read_torchscript(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DamagedCheckpointError, match="no whole TorchScript archive"):
        read_torchscript(path)
    with pytest.raises(DamagedCheckpointError):
        read_torchscript(write(tmp_path / "none.pt", b"N"))
