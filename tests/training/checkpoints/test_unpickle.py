import collections
import contextlib
import io
import os
import pickle
import struct
import subprocess
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.training.checkpoints.published_stylegan2 import EasyDict, FullyConnectedLayer, Generator, as_snapshot
from training.checkpoints.unpickle import Persistent, read_pickle
from training.errors import DamagedCheckpointError, DataError, TrainingError

PROTOCOLS = range(6)


def read(tmp_path: Path, data: bytes):
    path = tmp_path / "file.pkl"
    path.write_bytes(data)
    return read_pickle(path)


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function, *arguments) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_is_what_pickle_reads(tmp_path, protocol):
    shared = ["twice"]
    value = {
        "numbers": [0, 1, -1, 255, 256, 70000, -(2**31), 2**31, 2**80, -(2**2000), 1.5, float("inf"), True, False],
        "texts": ["", "a", "größe \U0001f600\n", "x" * 300, "y" * 70000],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), ((1, (2,)),)],
        "nothing": [None, [], {}, set()],
        "sets": {1, 2, 3},
        "ordered": collections.OrderedDict(b=1, a=2),
        1: {"deep": {"deeper": [shared, shared]}},
    }
    read_back = read(tmp_path, pickle.dumps(value, protocol))
    assert read_back == value
    assert list(read_back["ordered"]) == ["b", "a"]
    first, second = read_back[1]["deep"]["deeper"]
    assert first is second


@pytest.mark.parametrize("protocol", range(2, 6))
def test_bytes_and_frozen_sets(tmp_path, protocol):
    value = [b"\x00\xff", b"z" * 300, b"z" * 70000]
    assert read(tmp_path, pickle.dumps(value, protocol)) == value
    if protocol >= 4:
        assert read(tmp_path, pickle.dumps(frozenset({1, 2}), protocol)) == {1, 2}


def test_a_list_in_itself(tmp_path):
    value: list = [1]
    value.append(value)
    read_back = read(tmp_path, pickle.dumps(value))
    assert read_back[0] == 1
    assert read_back[1] is read_back


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64, torch.bool])
def test_tensors_of_any_layout(tmp_path, protocol, dtype):
    whole = torch.arange(24).reshape(2, 3, 4).to(dtype)
    values = [whole, whole[1, 1:, ::2], whole.permute(2, 0, 1), torch.ones([], dtype=dtype), torch.ones(0, dtype=dtype)]
    for ours, theirs in zip(read(tmp_path, pickle.dumps(values, protocol)), values, strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, theirs)


def test_parameters_numpy_numbers_and_torch_words(tmp_path):
    value = [nn.Parameter(torch.ones(2)), np.float64(1 / 3), np.int64(7), torch.float32, torch.Size([1, 2])]
    parameter, third, seven, dtype, size = read(tmp_path, pickle.dumps([*value[:4], value[4]]))
    assert torch.equal(parameter, torch.ones(2))
    assert (third, seven, size) == (1 / 3, 7, (1, 2))
    assert dtype == ("torch", "float32")


@pytest.mark.usefixtures("nvidia_modules")
def test_networks_keep_their_attributes_and_lose_their_code(tmp_path):
    torch.manual_seed(0)
    network = Generator()
    found = read(tmp_path, pickle.dumps(as_snapshot(network)))
    assert found["training_set_kwargs"] == EasyDict(as_snapshot(network)["training_set_kwargs"])
    generator = found["G_ema"]
    assert isinstance(generator, Persistent)
    assert (generator.class_name, generator.state["w_dim"]) == ("Generator", 9)
    layer = generator.modules["synthesis"].modules["b8"].modules["conv0"]
    assert layer.state["act_gain"] == pytest.approx(2**0.5)
    assert torch.equal(layer.tensors["weight"], network.synthesis.b8.conv0.weight)
    assert layer.tensors.keys() == {"weight", "bias", "noise_strength", "noise_const", "resample_filter"}


def text(value: object) -> bytes:
    """Give the instruction that lays down a text."""
    return b"V" + str(value).encode() + b"\n"


def call_touch(marker: Path) -> Call:
    return Call(os.system, f"touch {marker}")


def save_legacy(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


HOSTILE = {
    "os.system": lambda marker: pickle.dumps(call_touch(marker)),
    "oldest protocol": lambda marker: pickle.dumps(call_touch(marker), 0),
    "eval": lambda marker: pickle.dumps(Call(eval, f"open({str(marker)!r}, 'w').close()")),
    "exec": lambda marker: pickle.dumps(Call(exec, f"open({str(marker)!r}, 'w').close()")),
    "open": lambda marker: pickle.dumps(Call(open, str(marker), "w")),
    "subprocess": lambda marker: pickle.dumps(Call(subprocess.call, ["touch", str(marker)])),
    "getattr chain": lambda marker: (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n("
        + text("os")
        + b"tR"
        + text("system")
        + b"tR("
        + text(f"touch {marker}")
        + b"tR."
    ),
    "INST": lambda marker: b"(" + text(f"touch {marker}") + b"iposix\nsystem\n.",
    "OBJ": lambda marker: b"(csubprocess\nPopen\n(l" + text("touch") + b"a" + text(marker) + b"ao.",
    "NEWOBJ": lambda marker: (
        b"\x80\x02cpathlib\nPath\n(" + text(marker) + b"t\x81cbuiltins\nopen\n(" + text(marker) + text("w") + b"tR."
    ),
    "dotted name": lambda marker: (
        b"\x80\x04\x8c\x02os\x8c\x0cpath.os.open\x93(" + text(marker) + f"I{os.O_CREAT}\n".encode() + b"tR."
    ),
    "name by parts": lambda marker: (
        b"\x80\x04" + text("os") + text("system") + b"\x93(" + text(f"touch {marker}") + b"tR."
    ),
    "torch.load": lambda marker: pickle.dumps(Call(torch.storage._load_from_bytes, save_legacy(call_touch(marker)))),
    "pickle in a pickle": lambda marker: pickle.dumps(Call(pickle.loads, pickle.dumps(call_touch(marker)))),
    "behind tensors": lambda marker: pickle.dumps({"G_ema": [torch.ones(2), call_touch(marker)]}),
    "as a key": lambda marker: pickle.dumps({call_touch(marker): 1}),
    "before the end": lambda marker: (
        pickle.dumps([1, 2])[:-1] + b"cposix\nsystem\n(" + text(f"touch {marker}") + b"tR0."
    ),
}
"""Pickles that make a file, each in another way."""


@pytest.mark.parametrize("way", HOSTILE)
def test_hostile_pickles_are_refused_and_do_nothing(tmp_path, way):
    marker = tmp_path / "marker"
    data = HOSTILE[way](marker)
    if way == "torch.load":
        torch.load(io.BytesIO(save_legacy(call_touch(marker))), weights_only=False)
    else:
        result = pickle.loads(data)
        if isinstance(result, subprocess.Popen):
            result.wait()
    assert marker.exists(), "this pickle does no harm to begin with"
    marker.unlink()
    with pytest.raises((DataError, DamagedCheckpointError)) as caught:
        read(tmp_path, data)
    assert not marker.exists()
    assert str(tmp_path / "file.pkl") in str(caught.value)


def test_refusal_names_what_the_file_asks_for(tmp_path):
    with pytest.raises(DataError, match=r"nothing in it was run: it asks for (posix|nt)\.system"):
        read(tmp_path, pickle.dumps(Call(os.system, "true")))
    with pytest.raises(DataError, match=r"legacy\.py"):
        read(tmp_path, b"cdnnlib.tflib.network\nNetwork\n)R.")


@pytest.mark.parametrize(
    "data",
    [
        b"ccollections\nOrderedDict\n}" + text("update") + text("x") + b"sb.",  # fills a name
        b"c_codecs\nencode\n(" + text("x") + text("rot13") + b"tR.",
        b"cnumpy\ndtype\n(" + text("O") + b"tR0cnumpy.core.multiarray\nscalar\n(" + text("O") + b"I1\ntR.",
        b"ctorch\nload\n(" + text("x") + b"tR.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NI0\n(I1\nt(I1\ntI00\nNtR.",
        b"(I1\nI2\n" + text("x") + b"tR.",  # calls a number
        text("x") + b")R.",  # calls a text
        b"\x80\x02\x82\x01.",  # EXT1: a class by its registered number
        b"Pname\n.",  # a thing that the reader should know of
        b"\x80\x05\x96" + struct.pack("<Q", 3) + b"abc.",  # BYTEARRAY8
    ],
)
def test_what_no_network_needs_is_refused(tmp_path, data):
    with pytest.raises(TrainingError):
        read(tmp_path, data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02Nr\xff\xff\xff\xff.",  # a note at place 2^32 − 1: Python's own reader makes room for all below it
        b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",  # bytes that are not there
        b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",  # a frame that is not there
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"1.",  # a number of 2 GB that is not there
        b"I" + b"9" * 10000 + b"\n.",  # a number that takes long to read
    ],
    ids=["memo", "bytes", "frame", "number", "digits"],
)
def test_claims_of_size_cost_nothing(tmp_path, data):
    """Whatever they claim, they are some bytes."""
    tracemalloc.start()
    with contextlib.suppress(TrainingError):
        read(tmp_path, data)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10e6


@pytest.mark.parametrize("place", ["key", "item", "name", "device"])
def test_tuples_of_tuples_are_never_walked(tmp_path, place):
    """Two references to two references to …: 60 steps make 2^60 leaves, which hash or text would visit one by one."""
    nested = b")" + b"p0\n" + b"".join(b"0(g0\ng0\ntp0\n" for _ in range(60))
    data = {
        "key": b"}" + nested + b"Ns.",
        "item": b"\x80\x04\x8f(" + nested + b"\x90.",
        "name": b"\x80\x04" + nested + text("x") + b"\x93.",
        "device": b"ctorch\ndevice\n(" + nested + b"tR.",
    }
    with pytest.raises(DataError, match=r"neither a text nor a number|no text|a device"):
        read(tmp_path, data[place])


def test_tensors_larger_than_their_numbers_are_refused(tmp_path):
    """A view that repeats one number is a tensor of any size in a few bytes."""
    data = pickle.dumps(torch.ones(1).expand(2**20, 2**20))
    with pytest.raises(DataError, match="from 1 numbers"):
        read(tmp_path, data)


def test_tensors_beyond_their_numbers_are_refused(tmp_path):
    with pytest.raises(DamagedCheckpointError, match="out of bounds"):
        read(tmp_path, pickle.dumps(torch.arange(6.0)[2:]).replace(b"K\x02", b"K\x05"))


@pytest.mark.usefixtures("nvidia_modules")
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_damaged_files_end_in_a_sentence(tmp_path):
    torch.manual_seed(0)
    data = pickle.dumps({"G_ema": FullyConnectedLayer(3, 2)})
    random = np.random.default_rng(0)
    broken = [data[:length] for length in range(0, len(data), 97)]
    for _ in range(300):
        changed = bytearray(data)
        for place in random.integers(len(data), size=3):
            changed[place] = random.integers(256)
        broken.append(bytes(changed))
    refused = 0
    for value in broken:
        try:
            read(tmp_path, value)
        except TrainingError:
            refused += 1
    assert refused > len(broken) // 2
