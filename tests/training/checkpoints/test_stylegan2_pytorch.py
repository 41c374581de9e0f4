import argparse
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.checkpoints.published_stylegan2 import Generator, as_rosinality, double_as_rosinality, draw, map_z
from tests.training.golden import load_case
from training.checkpoints.generators import read_generator
from training.checkpoints.stylegan2_pytorch import generator_from_state, rename
from training.errors import CheckpointMismatchError, DataError
from training.networks.stylegan2 import build_z_generator


def build(seed: int = 0, **sizes) -> tuple[Generator, dict[str, Tensor], Tensor]:
    """Give a published network, its tensors by rosinality's names and its average; z and w are of one size there."""
    torch.manual_seed(seed)
    network = Generator(**{"z_dim": 6, "w_dim": 6, **sizes})
    state = network.state_dict()
    return network, as_rosinality(state), state["mapping.w_avg"]


def write(path: Path, **parts) -> Path:
    torch.save(parts, path)
    return path


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize(
    "sizes",
    [{}, {"channels": (6,)}, {"channels": (7, 6, 5, 4, 3)}, {"z_dim": 12, "w_dim": 12, "layers": 8}],
    ids=["16 px", "4 px", "64 px", "deep mapping"],
)
def test_pictures_and_w_are_those_of_the_published_network(tmp_path, sizes):
    network, state, average = build(**sizes)
    path = write(tmp_path / "generator.pt", g_ema=state, latent_avg=average)
    checkpoint = read_generator(path)
    assert checkpoint.format == "stylegan2-pytorch"
    assert checkpoint.label is None
    generator, theirs = checkpoint.generator, network.state_dict()
    assert not generator.training
    ws, z = torch.randn(2, network.num_ws, network.w_dim), torch.randn(3, network.z_dim)
    # this code has no bounds, and doubles by stamping
    assert_close(generator.synthesis(ws), draw(theirs, ws, None, double_as_rosinality))
    for psi in (1.0, 0.7):
        assert_close(generator.mapping(z, truncation_psi=psi)[:, -1], map_z(theirs, z, psi=psi))


def test_genuine_names_and_shapes_at_64_px_are_ours_renamed():
    genuine, _ = load_case("stylegan2-pytorch-64")
    with torch.device("meta"):
        ours = build_z_generator(64).state_dict()
    assert {rename(name) for name in ours} - {"latent_avg"} == {name for name in genuine if "kernel" not in name}


@pytest.mark.parametrize("size", [256, 1024])
def test_names_of_large_generators(size):
    """Every name of rosinality's own constructor at this size, by its loops."""
    with torch.device("meta"):
        ours = {rename(name) for name in build_z_generator(size, (2,) * (size.bit_length() - 2)).state_dict()}
    blocks = size.bit_length() - 3
    assert {name for name in ours if name.startswith("noises")} == {f"noises.noise_{i}" for i in range(2 * blocks + 1)}
    assert {name.split(".")[1] for name in ours if name.startswith("convs")} == {str(i) for i in range(2 * blocks)}
    assert {name.split(".")[1] for name in ours if name.startswith("to_rgbs")} == {str(i) for i in range(blocks)}


def write_alone(folder, state, average):
    torch.save(state, folder / "generator.pt")
    return folder / "generator.pt"


def write_safetensors(folder, state, average):
    save_file({name: value.clone().contiguous() for name, value in state.items()}, folder / "generator.safetensors")
    return folder / "generator.safetensors"


def write_safetensors_of_the_whole_file(folder, state, average):
    tensors = {f"g_ema.{name}": value.clone().contiguous() for name, value in state.items()}
    save_file({**tensors, "latent_avg": average}, folder / "generator.safetensors")
    return folder / "generator.safetensors"


def write_safetensors_of_several_devices(folder, state, average):
    tensors = {f"module.g_ema.module.{name}": value.clone().contiguous() for name, value in state.items()}
    save_file(tensors, folder / "generator.safetensors")
    return folder / "generator.safetensors"


def write_under_another_name(folder, state, average):
    return write(folder / "generator.pt", state_dict=state, latent_avg=average)


def write_training_run(folder, state, average):
    options = argparse.Namespace(size=16, batch=4)
    optimizer = {"state": {0: {"step": 1, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.002}]}
    parts = {"g": state, "d": {"convs.0.0.weight": torch.ones(1)}, "g_ema": state, "g_optim": optimizer}
    return write(folder / "generator.pt", **parts, args=options, ada_aug_p=0.1, latent_avg=average)


def write_without_average(folder, state, average):
    return write(folder / "generator.pt", g=state)


def write_legacy(folder, state, average):
    torch.save({"g_ema": state}, folder / "generator.pt", _use_new_zipfile_serialization=False)
    return folder / "generator.pt"


def write_of_several_devices(folder, state, average):
    return write(folder / "generator.pt", g_ema={f"module.{name}": value for name, value in state.items()})


def write_half(folder, state, average):
    return write(folder / "generator.pt", g_ema={name: value.half() for name, value in state.items()})


@pytest.mark.parametrize(
    "write_file",
    [
        write_alone,
        write_safetensors,
        write_safetensors_of_the_whole_file,
        write_safetensors_of_several_devices,
        write_under_another_name,
        write_training_run,
        write_without_average,
        write_legacy,
        write_of_several_devices,
        write_half,
    ],
)
def test_every_form_of_file_gives_the_same_network(tmp_path, write_file):
    network, state, average = build()
    generator = read_generator(write_file(tmp_path, state, average)).generator
    ws = torch.randn(1, network.num_ws, network.w_dim)
    tolerance = 0.02 if write_file is write_half else 2e-5
    assert_close(generator.synthesis(ws), draw(network.state_dict(), ws, None), tolerance)


@pytest.mark.parametrize("rows", [None, 1, 6])
def test_average_in_any_of_its_shapes(rows):
    _, state, average = build()
    given = average if rows is None else average.expand(rows, -1)
    assert torch.equal(generator_from_state(state, given).generator.mapping.w_avg, average)


def test_missing_average_is_measured_and_the_same_each_time():
    network, state, _ = build()
    first, second = (generator_from_state(state, None).generator.mapping.w_avg for _ in range(2))
    mean = map_z(network.state_dict(), torch.randn(4000, 6)).mean(0)
    assert torch.equal(first, second)
    assert (first - mean).norm() < 0.1 * mean.norm()


def test_missing_noise_is_the_same_each_time():
    network, state, average = build()
    state = {name: value for name, value in state.items() if not name.startswith("noises")}
    generators = [generator_from_state(state, average).generator for _ in range(2)]
    ws = torch.randn(1, network.num_ws, network.w_dim)
    first, second = (generator.synthesis(ws) for generator in generators)
    assert torch.equal(first, second)
    assert not torch.equal(first, generators[0].synthesis(ws, noise_mode="none"))


def lose(name):
    return lambda state: state.pop(name)


def put(name, value):
    return lambda state: state.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lose("convs.1.activate.bias"), "holds no convs.1.activate.bias"),
        (lose("style.1.weight"), "mapping is missing"),
        (lose("input.input"), "input.input"),
        (put("convs.0.conv.weight", torch.ones(1, 5, 4, 3, 3)), r"convs.0.conv.weight is \[1, 5, 4, 3, 3\]"),
        (put("to_rgb1.conv.weight", torch.ones(1, 1, 6, 1, 1)), "to_rgb1.conv.weight"),
        (put("convs.4.conv.weight", torch.ones(1, 5, 4, 3, 3)), "holds convs.4.conv.weight, for which"),
        (put("to_rgbs.0.upsample.kernel", torch.ones(4, 4)), r"to_rgbs.0.upsample.kernel is not \[1,3,3,1\]"),
        (put("to_rgbs.0.upsample.kernel", torch.ones(2, 2)), r"to_rgbs.0.upsample.kernel is not \[1,3,3,1\]"),
        (put("input.input", torch.ones(6, 4, 4)), "4 axes are wanted"),
    ],
)
def test_changed_networks_are_refused_by_the_tensor_that_differs(tmp_path, change, told):
    _, state, average = build()
    change(state)
    path = write(tmp_path / "generator.pt", g_ema=state, latent_avg=average)
    with pytest.raises(CheckpointMismatchError, match=told) as caught:
        read_generator(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("shape", [(5,), (), (0, 6)])
def test_average_of_another_size_is_refused(shape):
    _, state, _ = build()
    with pytest.raises(CheckpointMismatchError, match=rf"latent_avg is {re.escape(str(list(shape)))}"):
        generator_from_state(state, torch.ones(shape))


def test_labels_are_refused(tmp_path):
    _, state, average = build()
    with pytest.raises(DataError, match="no conditional generator"):
        read_generator(write(tmp_path / "generator.pt", g_ema=state, latent_avg=average), 1)
