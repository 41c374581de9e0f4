import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.checkpoints.published_stylegan2 import Generator, draw, map_z
from tests.training.golden import GOLDEN
from training.checkpoints.golden import UNLIKE, compare, main, run
from training.checkpoints.spec import rebuild

SEED = 3


def run_command(capsys: pytest.CaptureFixture[str], folder: Path) -> dict:
    assert main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return json.loads(lines[0])


def write_case(folder: Path, format: str, tensors: dict[str, Tensor], **settings) -> dict[str, Tensor]:
    """Write a spec of tensors with these names and shapes, and give what it makes."""
    entries = []
    for name, tensor in tensors.items():
        init: dict = {
            "kind": "normal",
            "scale": 100.0 if name.startswith(("mapping.fc", "style.")) else 1.0,
            "shift": 0.0,
        }
        if name.endswith(("filter", "kernel")):
            init = {"kind": "values", "values": tensor.flatten().tolist()}
        entries.append({"name": name, "shape": list(tensor.shape), "dtype": "float32", "init": init})
    spec = {"format": format, "seed": SEED, "tensors": entries, **settings}
    (folder / "spec.json").write_text(json.dumps(spec))
    return rebuild(spec)


def write_arrays(folder: Path, **arrays: Tensor) -> None:
    np.savez(folder / "case.npz", **{name: value.numpy() for name, value in arrays.items()})


def test_golden_case_of_rosinality(capsys):
    line = run_command(capsys, GOLDEN / "stylegan2-pytorch-64")
    assert line["case"] == "stylegan2-pytorch-64"
    assert line["max_rel_err"].keys() == line["runtime"]["pytorch"].keys() == {"image", "w"}
    assert line["runtime"].keys() == {"pytorch", "onnxruntime"}
    for errors in line["runtime"].values():
        assert max(errors.values()) <= 1e-4
    worst = {name: max(errors[name] for errors in line["runtime"].values()) for name in ("image", "w")}
    assert line["max_rel_err"] == worst


def test_case_of_nvidia_at_another_size(tmp_path, capsys):
    torch.manual_seed(0)
    network = Generator(architecture="resnet", channels=(4, 3))
    state = write_case(tmp_path, "NVIDIA networks_stylegan2 G_ema", network.state_dict(), img_resolution=8)
    ws, z = torch.randn(2, 4, 9), torch.randn(2, 7)
    arrays = {"image": draw(state, ws), "w": map_z(state, z), "w_psi07": map_z(state, z, psi=0.7)}
    write_arrays(tmp_path, ws=ws, z=z, **arrays)
    errors = run_command(capsys, tmp_path)["runtime"]
    for found in errors.values():
        assert found.keys() == arrays.keys()
        assert max(found.values()) <= 1e-4


@pytest.mark.parametrize("told_by", ["c", "label"])
def test_case_of_a_conditional_generator(tmp_path, capsys, told_by):
    torch.manual_seed(0)
    state = Generator(c_dim=3, channels=(4,)).state_dict()
    settings = {"meta": {"label": 2}} if told_by == "label" else {}
    state = write_case(tmp_path, "NVIDIA networks_stylegan2", state, **settings)
    z, c = torch.randn(3, 7), torch.eye(3)[[2, 2, 2] if told_by == "label" else [2, 0, 0]]
    w = map_z(state, z, c)
    rows = w[:, None].expand(-1, 2, -1)  # a case may have all rows of ws
    write_arrays(tmp_path, z=z, w=rows, w_psi07=map_z(state, z, c, 0.7), **({"c": c} if told_by == "c" else {}))
    assert max(run_command(capsys, tmp_path)["max_rel_err"].values()) <= 1e-4


def test_a_wrong_picture_is_told(tmp_path):
    """The command compares with what the case holds, not with itself."""
    torch.manual_seed(0)
    state = write_case(tmp_path, "NVIDIA networks_stylegan2", Generator(channels=(4,)).state_dict())
    ws = torch.randn(1, 2, 9)
    image = draw(state, ws)
    image[0, 1, 2, 3] += 0.5 * image.abs().max()
    write_arrays(tmp_path, ws=ws, image=image)
    line = run(tmp_path)
    for errors in line["runtime"].values():
        assert errors["image"] == pytest.approx(0.5, abs=0.2)


def test_compare_is_relative_to_the_largest_and_never_forgives():
    theirs = np.array([1.0, -4.0], np.float32)
    assert compare(np.array([1.0, -3.0], np.float32), theirs) == 0.25
    assert compare(np.array([1.0], np.float32), theirs) == UNLIKE
    assert compare(np.array([1.0, np.nan], np.float32), theirs) == UNLIKE


@pytest.mark.parametrize(
    ("format", "arrays", "told"),
    [
        ("another one", {"z": torch.ones(1, 7)}, "begins with none of"),
        ("NVIDIA networks_stylegan2", {"z": torch.ones(1, 7)}, "no outputs"),
        ("NVIDIA networks_stylegan2", None, "case.npz can't be read"),
        ("NVIDIA networks_stylegan2", {"w": torch.ones(1, 9)}, "wants z of ['N', 7] for w, and it is missing"),
        ("NVIDIA networks_stylegan2", {"ws": torch.ones(1, 3, 9), "image": torch.ones(1)}, "it is [1, 3, 9]"),
    ],
)
def test_what_is_no_case_ends_in_a_sentence(tmp_path, capsys, format, arrays, told):
    write_case(tmp_path, format, Generator(channels=(4,)).state_dict())
    if arrays is not None:
        write_arrays(tmp_path, **arrays)
    assert main([str(tmp_path)]) == 1
    output = capsys.readouterr()
    assert told in output.err
    assert not output.out


def test_a_case_that_cant_be_run_does_not_keep_the_others(tmp_path, capsys):
    (tmp_path / "small").mkdir()
    state = write_case(tmp_path / "small", "NVIDIA networks_stylegan2", Generator(channels=(4,)).state_dict())
    z = torch.randn(1, 7)
    write_arrays(tmp_path / "small", z=z, w=map_z(state, z))
    assert main([str(tmp_path), str(tmp_path / "small")]) == 1
    output = capsys.readouterr()
    assert "spec.json can't be read" in output.err
    assert json.loads(output.out)["case"] == "small"


@pytest.mark.parametrize("data", [b"", b"PK", b"numbers"])
def test_arrays_that_cant_be_read_end_in_a_sentence(tmp_path, capsys, data):
    write_case(tmp_path, "NVIDIA networks_stylegan2", Generator(channels=(4,)).state_dict())
    (tmp_path / "case.npz").write_bytes(data)
    assert main([str(tmp_path)]) == 1
    assert "case.npz can't be read" in capsys.readouterr().err
