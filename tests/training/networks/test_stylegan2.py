import copy
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.golden import GOLDEN, load_case
from training.networks.layers import count_in_group
from training.networks.stylegan2 import (
    Crop,
    FactorFeatures,
    FactorMapping,
    Generator,
    SynthesisNetwork,
    build_discriminator,
    build_z_generator,
    config_f_channels,
    decay_of_half_life,
    draw_crossovers,
    mix_styles,
    truncate,
    update_ema,
)

RENDERED = json.loads((Path(__file__).parent / "rendered_generator.json").read_text())


def test_config_f_channels():
    assert config_f_channels(1024) == (512, 512, 512, 512, 512, 256, 128, 64, 32)
    # rosinality's channel_multiplier 1, NVIDIA's fbase 0.5
    assert config_f_channels(256, multiplier=0.5) == (512, 512, 512, 512, 256, 128, 64)
    assert config_f_channels(256, channel_base=16384, channel_max=64) == (64,) * 7


def test_rendered_generator_draws_what_it_drew():
    """Names, shapes and pictures of a rendered domain's generator are those of the first shipped checkpoints."""
    lows, highs = -torch.linspace(1, 2, 6), torch.linspace(1.5, 1, 6)
    mapping = FactorMapping(FactorFeatures(lows, highs, 4, 3), 12, hidden=10)
    generator = Generator(mapping, SynthesisNetwork(64, 12, (8, 8, 6, 6, 4)))
    state = generator.state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == RENDERED["names"]
    for i, (name, value) in enumerate(state.items()):
        if not name.startswith("mapping.features."):
            noise = np.random.default_rng([7, i]).standard_normal(tuple(value.shape)).astype(np.float32)
            value.copy_(torch.from_numpy(noise))
    generator.load_state_dict(state)
    factors = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 9)).astype(np.float32))
    with torch.no_grad():
        drawn = {
            "whole": generator(factors)[:, :, 3::16, 5::16],
            "half": generator(factors, 32)[:, :, 3::8, 5::8],
            "crop": generator(factors, None, Crop(4, 3, 10, 10))[:, :, 3::10, 5::10],
        }
    for name, picture in drawn.items():
        torch.testing.assert_close(picture, torch.tensor(RENDERED[name]), rtol=1e-4, atol=1e-4)


def from_rosinality(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Name a rosinality generator's tensors as ours."""
    ours = {}
    for name, value in weights.items():
        if name.endswith("kernel"):
            continue
        if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", name):
            ours[f"mapping.layers.{int(match[1]) - 1}.{match[2]}"] = value
        elif name == "input.input":
            ours["synthesis.const"] = value
        elif match := re.fullmatch(r"noises\.noise_(\d+)", name):
            ours[f"{layer_of(int(match[1]))}.noise_const"] = value
        elif match := re.fullmatch(r"(conv1|convs\.(\d+)|to_rgb1|to_rgbs\.(\d+))\.(.+)", name):
            if match[3] is not None:
                prefix = f"synthesis.blocks.{match[3]}.torgb"
            elif match[1] == "to_rgb1":
                prefix = "synthesis.torgb"
            else:
                prefix = layer_of(0 if match[2] is None else int(match[2]) + 1)
            rest = match[4].replace("conv.modulation", "affine").replace("conv.weight", "weight")
            rest = rest.replace("noise.weight", "noise_strength").replace("activate.bias", "bias")
            if rest == "weight":
                value = value[0]  # noqa: PLW2901  # a leading batch axis of one
            if rest == "bias":
                value = value.reshape(1, -1, 1, 1)  # noqa: PLW2901
            ours[f"{prefix}.{rest}"] = value.reshape(()) if rest == "noise_strength" else value
        else:
            raise AssertionError(name)
    return ours


def layer_of(index: int) -> str:
    return "synthesis.conv1" if index == 0 else f"synthesis.blocks.{(index - 1) // 2}.conv{(index - 1) % 2}"


def test_golden_picture_of_the_original_implementation():
    weights, case = load_case("stylegan2-pytorch-64")
    generator = build_z_generator(64)
    loaded = from_rosinality(weights)
    loaded["mapping.w_avg"] = case["latent_avg"]
    generator.load_state_dict(loaded)
    with torch.no_grad():
        image = generator.synthesis(case["ws"], noise_mode="const")
        w = generator.mapping(case["z"])
    for ours, theirs in ((image, case["image"]), (w[:, 3], case["w"])):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def test_truncation_moves_the_first_rows_towards_w_avg():
    torch.manual_seed(0)
    generator = build_z_generator(16, (4, 4, 4), z_dim=5, w_dim=6, mapping_layers=2)
    mapping = generator.mapping
    mapping.w_avg.normal_()
    z = torch.randn(3, 5)
    whole, near = mapping(z), mapping(z, truncation_psi=0.25, truncation_cutoff=2)
    torch.testing.assert_close(near[:, :2], mapping.w_avg + 0.25 * (whole[:, :2] - mapping.w_avg))
    torch.testing.assert_close(near[:, 2:], whole[:, 2:], rtol=0, atol=0)
    torch.testing.assert_close(mapping(z, truncation_psi=0.0)[1, 4], mapping.w_avg)
    assert truncate(whole, mapping.w_avg, 1.0) is whole


def test_w_avg_follows_the_mean_of_w():
    torch.manual_seed(0)
    generator = build_z_generator(8, (4, 4), z_dim=5, w_dim=6, mapping_layers=2)
    mean, std = generator.mapping.measure_w(2000)
    assert (generator.mapping.w_avg == 0).all()
    for _ in range(1500):
        generator.mapping(torch.randn(16, 5), update_w_avg=True)
    assert (generator.mapping.w_avg - mean).norm() < 0.1 * std.norm()
    before = generator.mapping.w_avg.clone()
    generator.mapping(torch.randn(16, 5))
    assert torch.equal(before, generator.mapping.w_avg)


def test_size_of_z_does_not_matter_but_class_does():
    torch.manual_seed(0)
    generator = build_z_generator(8, (4, 4), z_dim=5, w_dim=6, c_dim=3, mapping_layers=2)
    z, c = torch.randn(2, 5), torch.eye(3)[:2]
    torch.testing.assert_close(generator.mapping(z, c), generator.mapping(7 * z, c))
    torch.testing.assert_close(generator.mapping(z, c), generator.mapping(z, 7 * c))
    assert not torch.allclose(generator.mapping(z, c), generator.mapping(z, c.flip(0)))
    with pytest.raises(AssertionError, match="conditional"):
        generator.mapping(z)


def test_style_mixing_takes_late_rows_from_the_other():
    ws, other = torch.zeros(3, 6, 2), torch.ones(3, 6, 2)
    mixed = mix_styles(ws, other, torch.tensor([1, 4, 6]))
    assert mixed[:, :, 0].sum(1).tolist() == [5.0, 2.0, 0.0]
    assert mixed[1, 3, 0] == 0
    assert mixed[1, 4, 0] == 1
    places = draw_crossovers(4000, 6, 0.9, torch.Generator().manual_seed(0))
    assert places.min() == 1
    assert (places == 6).float().mean() == pytest.approx(0.1, abs=0.02)
    assert set(places.tolist()) == {1, 2, 3, 4, 5, 6}


def test_average_follows_parameters_and_copies_buffers():
    torch.manual_seed(0)
    module = build_z_generator(8, (4, 4), z_dim=5, w_dim=6, mapping_layers=2)
    ema = copy.deepcopy(module)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
        module.mapping.w_avg.fill_(3)
    before = ema.synthesis.const.clone()
    update_ema(ema, module, 0.75)
    torch.testing.assert_close(ema.synthesis.const, before + 0.25)
    assert (ema.mapping.w_avg == 3).all()
    assert decay_of_half_life(10_000, 10) == pytest.approx(0.5)
    assert decay_of_half_life(32, 10, seen_kimg=1) == pytest.approx(0.5 ** (32 / 50))
    assert decay_of_half_life(32, 10, seen_kimg=0) == pytest.approx(0.0)


def test_group_is_the_largest_divisor():
    assert [count_in_group(n, 4) for n in (1, 2, 3, 4, 5, 6, 8, 12)] == [1, 2, 3, 4, 1, 3, 4, 4]
    assert count_in_group(10, None) == 10


def test_class_decides_what_the_discriminator_says():
    torch.manual_seed(0)
    network = build_discriminator(8, (6, 4), c_dim=2)
    picture = torch.randn(1, 3, 8, 8).expand(2, -1, -1, -1)
    first, second = network(picture, torch.eye(2))
    assert first != second
    assert build_discriminator(8, (6, 4))(picture).shape == (2,)


def test_features_of_the_discriminator_end_at_four_pixels():
    network = build_discriminator(32, (6, 5, 4, 3), architecture="skip")
    shapes = [tuple(part.shape) for part in network.describe(torch.randn(2, 3, 32, 32))]
    assert shapes == [(2, 4, 16, 16), (2, 5, 8, 8), (2, 6, 4, 4)]


def test_half_precision_gives_logits_in_full():
    torch.manual_seed(0)
    generator, network = build_z_generator(16, (6, 5, 4), z_dim=5, w_dim=6), build_discriminator(16, (6, 5, 4))
    z = torch.randn(4, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(generator(z, noise_mode="const"))
    full = network(generator(z, noise_mode="const"))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, full, rtol=0.1, atol=0.1)


def test_clamp_bounds_what_layers_give():
    torch.manual_seed(0)
    generator = build_z_generator(16, (6, 5, 4), z_dim=5, w_dim=6, clamp=1.0)
    largest: list[float] = []
    for layer in generator.synthesis.modules():
        if layer.__class__.__name__ == "SynthesisLayer":
            layer.register_forward_hook(lambda _module, _args, out: largest.append(float(out.detach().abs().max())))
    with torch.no_grad():
        for parameter in generator.synthesis.parameters():
            parameter.mul_(3)
    generator(torch.randn(4, 5))
    assert len(largest) == 5
    assert all(value <= 1.0 for value in largest)
    assert max(largest) == 1.0


def test_noise_may_be_given():
    torch.manual_seed(0)
    generator = build_z_generator(8, (4, 4), z_dim=5, w_dim=6, mapping_layers=2)
    ws = generator.mapping(torch.randn(2, 5))
    with torch.no_grad():
        for module in generator.synthesis.modules():
            if hasattr(module, "noise_strength"):
                module.noise_strength.fill_(0.5)
    kept = {layer.noise_const.shape[-1]: layer.noise_const for layer in [generator.synthesis.blocks[0].conv1]}
    asked: list[tuple[int, ...]] = []

    def give(x: Tensor) -> Tensor:
        asked.append(tuple(x.shape))
        return kept.get(x.shape[-1], torch.zeros(1, 1, 4, 4))

    alike = generator.synthesis(ws[:1].expand(2, -1, -1), noise_mode="random")
    assert not torch.allclose(alike[0], alike[1])  # every picture has noise of its own
    drawn = generator(torch.randn(2, 5), noise_mode=give)
    assert asked == [(2, 4, 4, 4), (2, 4, 8, 8), (2, 4, 8, 8)]
    assert not torch.allclose(generator.synthesis(ws, noise_mode=give), generator.synthesis(ws, noise_mode="none"))
    assert drawn.shape == (2, 3, 8, 8)


def from_nvidia(name: str) -> str | None:
    """Give our name of a tensor of NVIDIA's networks_stylegan2; None for filters, which are constants here."""
    if name.endswith("resample_filter"):
        return None
    if match := re.fullmatch(r"mapping\.fc(\d)\.(weight|bias)", name):
        return f"mapping.layers.{match[1]}.{match[2]}"
    match = re.fullmatch(r"synthesis\.b(\d+)\.(.+)", name)
    if match is None:
        return name
    level = int(match[1]).bit_length() - 3
    return f"synthesis.{match[2]}" if level == 0 else f"synthesis.blocks.{level - 1}.{match[2]}"


def test_every_tensor_of_nvidias_layout_has_its_place():
    generator = build_z_generator(64, (64, 64, 64, 64, 32), z_dim=512, w_dim=512)
    ours = {name: value.numel() for name, value in generator.state_dict().items()}
    entries = json.loads((GOLDEN / "keys" / "nvidia-stylegan2-64.json").read_text())
    theirs = {from_nvidia(entry["name"]): math.prod(entry["shape"]) for entry in entries}
    theirs.pop(None)
    assert ours == theirs
