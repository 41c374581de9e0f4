import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.checkpoints.published_stylegan2 import (
    Generator,
    as_snapshot,
    double_as_nvidia,
    double_as_rosinality,
    draw,
    map_z,
)
from tests.training.golden import GOLDEN
from training.checkpoints.formats import open_contents
from training.checkpoints.generators import read_generator
from training.checkpoints.nvidia import read_conditional, rename
from training.errors import CheckpointMismatchError, DataError
from training.networks.stylegan2 import build_z_generator

pytestmark = pytest.mark.usefixtures("nvidia_modules")


def write(path: Path, generator: Generator, protocol: int | None = None) -> Path:
    path.write_bytes(pickle.dumps(as_snapshot(generator), protocol))
    return path


def build(seed: int = 0, **sizes) -> Generator:
    torch.manual_seed(seed)
    return Generator(**sizes)


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float = 2e-5) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"channels": (6, 5, 4, 3, 2), "w_dim": 5, "z_dim": 5, "layers": 8},
        {"architecture": "resnet"},
        {"architecture": "orig"},
        {"noise": False, "conv_clamp": None},
        {"conv_clamp": 0.5},
        {"architecture": "resnet", "conv_clamp": 0.5},
        {"channels": (6, 5), "lr_multiplier": 0.1},
        {"channels": (6,), "layers": 3, "hidden": 11},
    ],
    ids=lambda sizes: ",".join(f"{name}={value}" for name, value in sizes.items()) or "default",
)
def test_pictures_and_w_are_those_of_the_published_networks(tmp_path, sizes):
    network = build(**sizes)
    clamp = sizes.get("conv_clamp", 256)
    generator = read_generator(write(tmp_path / "network.pkl", network)).generator
    state = network.state_dict()
    ws, z = torch.randn(2, network.num_ws, network.w_dim), torch.randn(3, network.z_dim)
    assert_close(generator.synthesis(ws, noise_mode="const"), draw(state, ws, clamp))
    lr_multiplier = sizes.get("lr_multiplier", 0.01)
    for psi in (1.0, 0.7):
        rows = generator.mapping(z, truncation_psi=psi)
        assert rows.shape == (3, network.num_ws, network.w_dim)
        assert_close(rows[:, -1], map_z(state, z, psi=psi, lr_multiplier=lr_multiplier))


def test_bound_is_felt_and_comes_from_the_file(tmp_path):
    network = build(conv_clamp=0.5)
    generator = read_generator(write(tmp_path / "network.pkl", network)).generator
    ws = torch.randn(1, network.num_ws, network.w_dim)
    free = draw(network.state_dict(), ws, None)
    assert (generator.synthesis(ws) - free).abs().max() > 0.1 * free.abs().max()


def test_weights_of_doubling_layers_are_not_turned_around():
    """By definition, both repositories' doubling is one operation on the same weights; turned ones draw otherwise."""
    x, weight = torch.randn(2, 3, 5, 5).double().numpy(), torch.randn(2, 4, 3, 3, 3).double().numpy()
    nvidia, rosinality = double_as_nvidia(x, weight), double_as_rosinality(x, weight)
    assert abs(nvidia - rosinality).max() < 1e-12
    assert abs(double_as_nvidia(x, weight[..., ::-1, ::-1]) - rosinality).max() > 0.1


@pytest.mark.parametrize("widths", [{}, {"hidden": 11, "embed": 4}])
@pytest.mark.parametrize("label", [0, 2])
def test_condition_is_worked_in(tmp_path, label, widths):
    network = build(c_dim=3, **widths)
    checkpoint = read_generator(write(tmp_path / "network.pkl", network), label)
    mapping, z = checkpoint.generator.mapping, torch.randn(4, network.z_dim)
    assert mapping.c_dim == 0
    assert checkpoint.label.tolist() == [float(i == label) for i in range(3)]
    c = checkpoint.label.expand(4, -1)
    for psi in (1.0, 0.7):
        assert_close(mapping(z, truncation_psi=psi)[:, 0], map_z(network.state_dict(), z, c, psi))
    other = map_z(network.state_dict(), z, c.flip(1))
    assert (mapping(z)[:, 0] - other).abs().max() > 0.01 * other.abs().max()


def test_conditional_generator_wants_a_label_of_its_own(tmp_path):
    path = write(tmp_path / "network.pkl", build(c_dim=3))
    with pytest.raises(DataError, match="labels 0 to 2: choose one"):
        read_generator(path)
    for label in (3, -1):
        with pytest.raises(DataError, match=f"no label {label}"):
            read_generator(path, label)
    with pytest.raises(DataError, match="no conditional generator"):
        read_generator(write(tmp_path / "plain.pkl", build()), 1)


def test_conditional_mapping_as_it_is(tmp_path):
    network = build(c_dim=3)
    generator = read_conditional(open_contents(write(tmp_path / "network.pkl", network)))
    z, c = torch.randn(3, network.z_dim), torch.eye(3)
    assert_close(generator.mapping(z, c)[:, 0], map_z(network.state_dict(), z, c))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickles_reads_alike(tmp_path, protocol):
    network = build()
    generator = read_generator(write(tmp_path / "network.pkl", network, protocol)).generator
    assert torch.equal(generator.synthesis.const[0], network.synthesis.b4.const)
    assert torch.equal(generator.synthesis.blocks[1].conv0.weight, network.synthesis.b16.conv0.weight)


def test_weights_are_the_averaged_ones(tmp_path):
    network = build()
    snapshot = as_snapshot(network)
    snapshot["G"] = build(1)
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(snapshot))
    assert torch.equal(read_generator(path).generator.mapping.w_avg, network.mapping.w_avg)


def test_state_dicts_do_as_well(tmp_path):
    network = build()
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    torch.save({"G_ema": state}, tmp_path / "state.pt")
    save_file(state, tmp_path / "state.safetensors")
    ws = torch.randn(1, network.num_ws, network.w_dim)
    for path in (tmp_path / "state.pt", tmp_path / "state.safetensors"):
        checkpoint = read_generator(path)
        assert checkpoint.format == "nvidia-stylegan2"
        assert_close(checkpoint.generator.synthesis(ws), draw(state, ws))


def test_half_precision_weights_are_widened(tmp_path):
    network = build().half()
    generator = read_generator(write(tmp_path / "network.pkl", network)).generator
    assert generator.synthesis.const.dtype == torch.float32
    ws = torch.randn(1, network.num_ws, network.w_dim)
    assert_close(generator.synthesis(ws), draw(network.state_dict(), ws))


def test_missing_average_is_measured(tmp_path):
    network = build()
    del network.mapping.w_avg
    mapping = read_generator(write(tmp_path / "network.pkl", network)).generator.mapping
    mean = map_z(network.state_dict(), torch.randn(4000, network.z_dim)).mean(0)
    assert (mapping.w_avg - mean).norm() < 0.1 * mean.norm()


def test_genuine_names_are_ours_renamed():
    """The tensors that NVIDIA's own code lists at 64 px, with nothing missing and nothing over."""
    listed = json.loads((GOLDEN / "keys" / "nvidia-stylegan2-64.json").read_text())
    genuine = {entry["name"]: entry["shape"] for entry in listed if not entry["name"].endswith("resample_filter")}
    with torch.device("meta"):
        state = build_z_generator(64, (64, 64, 64, 64, 32)).state_dict()
    assert {rename(name) for name in state} == genuine.keys()
    for name, value in state.items():
        assert [size for size in value.shape if size != 1] == [size for size in genuine[rename(name)] if size != 1]


def change_filter(network):
    network.synthesis.b8.conv0.resample_filter.copy_(torch.eye(4) / 4)


def change_activation(network):
    network.synthesis.b8.conv1.activation = "relu"


def change_one_bound(network):
    network.synthesis.b8.conv1.conv_clamp = 1


def add_layer(network):
    network.synthesis.b8.register_buffer("extra", torch.ones(2))


def lose_weight(network):
    del network.synthesis.b16.conv0.affine.weight


def cut_weight(network):
    network.synthesis.b16.conv0.weight = torch.nn.Parameter(torch.randn(4, 2, 3, 3))


def add_colour(network):
    for size in (4, 8, 16):
        getattr(network.synthesis, f"b{size}").torgb.weight = torch.nn.Parameter(torch.randn(1, 4, 1, 1))


def lose_mapping(network):
    del network.mapping.fc0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (change_filter, r"synthesis.b8.conv0.resample_filter is not \[1,3,3,1\]"),
        (change_activation, "synthesis.b8.conv1 has the activation 'relu'"),
        (change_one_bound, "conv_clamp"),
        (add_layer, "synthesis.b8.extra, for which"),
        (lose_weight, "holds no synthesis.b16.conv0.affine.weight"),
        (cut_weight, r"synthesis.b16.conv0.weight is \[4, 2, 3, 3\]"),
        (add_colour, "torgb.weight is"),
        (lose_mapping, "mapping.fc0"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_changed_networks_are_refused_by_the_tensor_that_differs(tmp_path, change, told):
    network = build()
    change(network)
    path = write(tmp_path / "network.pkl", network)
    with pytest.raises(CheckpointMismatchError, match=told) as caught:
        read_generator(path)
    assert str(path) in str(caught.value)


def test_network_inside_itself_ends(tmp_path):
    network = build()
    for _ in range(40):  # parts of parts that are all the same: 4^40 names in a small file
        outer = Generator.__new__(Generator)
        torch.nn.Module.__init__(outer)
        outer.first = outer.second = outer.third = outer.fourth = network
        network = outer
    network.synthesis = build().synthesis
    with pytest.raises(CheckpointMismatchError, match="more than 1000 parts"):
        read_generator(write(tmp_path / "network.pkl", network))
