import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from tests.training.checkpoints.published_stylegan2 import Generator, Persistent, SynthesisNetwork, as_rosinality
from training.checkpoints.formats import KINDS, expect, open_contents, recognise
from training.checkpoints.generators import read_generator
from training.errors import DamagedCheckpointError, DataError

ONE = torch.ones(1)
ENCODER = {"encoder.input_layer.0.weight": ONE, "encoder.styles.0.linear.weight": ONE, "decoder.input.input": ONE}


class Towers(nn.Module):
    """A module with the names of OpenAI's archives."""

    def __init__(self) -> None:
        super().__init__()
        self.token_embedding, self.text_projection = nn.Embedding(2, 2), nn.Parameter(torch.ones(2, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.token_embedding(x) @ self.text_projection


def save(folder: Path, value: object) -> Path:
    torch.save(value, folder / "file.pt")
    return folder / "file.pt"


def save_pickle(folder: Path, value: object) -> Path:
    (folder / "file.pkl").write_bytes(pickle.dumps(value))
    return folder / "file.pkl"


def save_script(folder: Path, module: nn.Module) -> Path:
    torch.jit.save(torch.jit.script(module), folder / "file.pt")
    return folder / "file.pt"


def save_folder(folder: Path, kind: str) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return folder


def make_stylegan3() -> Generator:
    network = Generator()
    network.synthesis = SynthesisNetwork(4, (), "skip", False, None)
    network.synthesis.input = Persistent()
    return network


FILES = {
    "stylegan2-pytorch": lambda folder: save(folder, {"g_ema": as_rosinality(Generator().state_dict())}),
    "nvidia-stylegan2": lambda folder: save_pickle(folder, {"G_ema": Generator()}),
    "nvidia-stylegan3": lambda folder: save_pickle(folder, {"G_ema": make_stylegan3()}),
    "e4e": lambda folder: save(folder, {"state_dict": ENCODER, "opts": {"encoder_type": "Encoder4Editing"}}),
    "psp": lambda folder: save(folder, {"state_dict": ENCODER, "opts": {"encoder_type": "GradualStyleEncoder"}}),
    "ir-se50": lambda folder: save(folder, {"input_layer.0.weight": ONE, "body.0.res_layer.1.weight": ONE}),
    "clip-openai": lambda folder: save_script(folder, Towers()),
    "clip-huggingface": lambda folder: save_folder(folder, "clip"),
    "motion-official": lambda folder: save(
        folder, {"iter": 1, "state_dict": {"module.rnn.fc1.weight": ONE, "module.mapper.t_mapper.1.weight": ONE}}
    ),
}

pytestmark = [
    pytest.mark.usefixtures("nvidia_modules"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # archives of this kind are still around
]


@pytest.mark.parametrize("name", KINDS)
def test_formats_are_known_by_what_they_hold(tmp_path, name):
    path = FILES[name](tmp_path)
    assert recognise(path) == name
    if path.is_file():  # and by nothing else
        renamed = path.rename(tmp_path / "weights.bin")
        assert recognise(renamed) == name


@pytest.mark.parametrize("name", sorted(KINDS.keys() - {"stylegan2-pytorch", "nvidia-stylegan2"}))
def test_what_is_no_generator_is_told_where_it_belongs(tmp_path, name):
    path = FILES[name](tmp_path)
    with pytest.raises(DataError, match="not a generator") as caught:
        read_generator(path)
    told, kind = str(caught.value), KINDS[name]
    assert told.startswith(f"{path} is {kind.described}")
    assert (f"give it as {kind.option}" if kind.option else "can't be used") in told


def test_generators_are_no_encoders(tmp_path):
    contents = open_contents(FILES["stylegan2-pytorch"](tmp_path))
    expect(contents, {"stylegan2-pytorch"}, "a generator")
    with pytest.raises(DataError, match=r"not an encoder: give it as --generator"):
        expect(contents, {"e4e", "psp"}, "an encoder")


def write_text(folder):
    (folder / "file").write_text("weights\n")
    return folder / "file"


def write_nothing(folder):
    (folder / "file").write_bytes(b"")
    return folder / "file"


def write_other_tensors(folder):
    save_file({"conv.weight": ONE}, folder / "file")
    return folder / "file"


def write_other_archive(folder):
    np.savez(folder / "file.npz", a=np.ones(2))
    return folder / "file.npz"


def write_half_a_header(folder):
    (folder / "file").write_bytes((1 << 20).to_bytes(8, "little") + b'{"conv.weight"')
    return folder / "file"


def write_other_folder(folder):
    return save_folder(folder, "bert")


def write_other_script(folder):
    return save_script(folder, nn.Linear(2, 2))


def write_numbers(folder):
    return save_pickle(folder, [1, 2])


@pytest.mark.parametrize(
    ("write", "told"),
    [
        (lambda folder: folder / "none.pt", "does not exist"),
        (write_text, "no checkpoint"),
        (write_nothing, "is empty"),
        (write_other_archive, r"archive of something else .*a\.npy"),
        (write_other_tensors, "begins with 'conv.weight'"),
        (write_other_folder, "only a CLIP"),
        (write_other_script, "no CLIP of OpenAI"),
        (write_numbers, "it holds a list"),
    ],
)
def test_unknown_files_are_refused_by_their_names(tmp_path, write, told):
    path = write(tmp_path)
    with pytest.raises(DataError, match=told) as caught:
        recognise(path)
    assert str(path) in str(caught.value)


class Hostile:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_hostile_files_of_torch_are_refused_and_do_nothing(tmp_path, zipped):
    marker = tmp_path / "marker"
    state = as_rosinality(Generator().state_dict())
    torch.save({"g_ema": state, "opts": Hostile(marker)}, tmp_path / "file.pt", _use_new_zipfile_serialization=zipped)
    torch.load(tmp_path / "file.pt", weights_only=False)
    assert marker.exists(), "this file does no harm to begin with"
    marker.unlink()
    with pytest.raises(DataError, match=r"nothing in it was run: .*system"):
        read_generator(tmp_path / "file.pt")
    assert not marker.exists()


def test_options_and_numbers_of_a_training_run_are_no_obstacle(tmp_path):
    kept = {"best": np.float64(0.5), "step": np.int64(3), "when": "2020", "folder": Path("runs/1")}
    state = as_rosinality(Generator().state_dict())
    assert recognise(save(tmp_path, {"g_ema": state, **kept})) == "stylegan2-pytorch"


@pytest.mark.parametrize("name", ["stylegan2-pytorch", "nvidia-stylegan2"])
def test_files_that_were_cut_short(tmp_path, name):
    path = FILES[name](tmp_path)
    data = path.read_bytes()
    for part in (0.3, 0.9):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(DamagedCheckpointError, match="cut short"):
            recognise(path)
    save_file({"convs.0.conv.modulation.weight": torch.ones(100)}, path)
    path.write_bytes(path.read_bytes()[:-4])
    for damaged in (path, write_half_a_header(tmp_path)):
        with pytest.raises(DamagedCheckpointError, match="fetch it again"):
            recognise(damaged)


@pytest.mark.parametrize(
    "make_odd",
    [torch.Tensor.to_sparse, lambda tensor: tensor.to("meta"), lambda tensor: tensor.to(torch.complex64)],
    ids=["sparse", "meta", "complex"],
)
def test_tensors_that_are_no_plain_numbers_are_refused(tmp_path, make_odd):
    state = as_rosinality(Generator().state_dict())
    state["conv1.conv.weight"] = make_odd(state["conv1.conv.weight"])
    with pytest.raises(DataError, match="sparse, quantized, complex or empty"):
        read_generator(save(tmp_path, {"g_ema": state}))
