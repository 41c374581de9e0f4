import json
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.training.golden import GOLDEN
from training.networks.irse import IRSEUnit, PyramidEncoder, add_upsampled, fit_picture
from training.networks.stylegan2 import WDiscriminator


def tiny(num_ws: int = 6, **options) -> PyramidEncoder:
    torch.manual_seed(0)
    sizes = {"input_size": 32, "widths": (4, 4, 6, 8), "units": (1, 1, 2, 1), "coarse_rows": 2, "middle_rows": 4}
    return PyramidEncoder(num_ws, 5, **(sizes | options)).eval()


def test_rows_behind_the_unlocked_ones_equal_the_first():
    encoder = tiny()
    encoder.w_avg.copy_(torch.arange(6.0)[:, None].expand(6, 5))
    picture = torch.randn(2, 3, 32, 32)
    for unlocked in (0, 1, 3, 5):
        offsets = encoder.offsets(picture, unlocked)
        differs = [not torch.allclose(offsets[:, row], offsets[:, 0]) for row in range(6)]
        assert differs == [0 < row <= unlocked for row in range(6)]
        torch.testing.assert_close(encoder(picture, unlocked), offsets + encoder.w_avg)
    encoder.unlocked_rows.fill_(3)
    torch.testing.assert_close(encoder(picture), encoder(picture, 3))


def test_unlocking_a_row_leaves_the_others():
    encoder, picture = tiny(), torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(encoder(picture, 2)[:, :3], encoder(picture, 5)[:, :3])


def test_every_row_reads_its_own_map():
    """Coarse rows see 1/16, middle rows 1/8 and coarse, fine rows all three."""
    encoder = tiny()
    picture = torch.randn(1, 3, 32, 32)
    encoder(picture).sum().backward()
    assert all(p.grad is not None for name, p in encoder.named_parameters())
    before = encoder(picture).detach()
    with torch.no_grad():
        encoder.lateral_fine.weight.add_(1)
    changed = [not torch.allclose(encoder(picture)[:, row], before[:, row]) for row in range(6)]
    assert changed == [False, False, False, False, True, True]
    with torch.no_grad():
        encoder.lateral_middle.weight.add_(1)
    changed = [not torch.allclose(encoder(picture)[:, row], before[:, row]) for row in range(6)]
    assert changed == [False, False, True, True, True, True]


def test_unit_by_hand():
    unit = IRSEUnit(2, 2, 2).eval()
    for parameter in unit.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.arange(32.0).view(1, 2, 4, 4)
    # with all weights zero the shortcut alone is left: every second place
    assert unit(x)[0, 0].tolist() == [[0.0, 2.0], [8.0, 10.0]]


def test_pictures_are_scaled():
    assert fit_picture(torch.ones(1, 3, 64, 64), 32).shape == (1, 3, 32, 32)
    assert fit_picture(torch.ones(1, 3, 16, 16), 32).shape == (1, 3, 32, 32)
    square = torch.tensor([[0.0, 2.0], [4.0, 6.0]]).view(1, 1, 2, 2)
    assert fit_picture(square, 1).item() == 3.0
    up = add_upsampled(square, torch.zeros(1, 1, 3, 3))
    assert up[0, 0].tolist() == [[0.0, 1.0, 2.0], [2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]


def publish(name: str, units: tuple[int, ...] = (3, 4, 14, 3)) -> str:
    """Give the published encoder's name of one of our tensors."""
    if match := re.fullmatch(r"stages\.(\d)\.(\d+)\.(.+)", name):
        before = sum(units[: int(match[1])]) + int(match[2])
        part, _, rest = match[3].partition(".")
        places = {
            **{"norm1": "res_layer.0", "conv1": "res_layer.1", "activate": "res_layer.2", "conv2": "res_layer.3"},
            **{"norm2": "res_layer.4", "se": "res_layer.5"},
            **{"shortcut_conv": "shortcut_layer.0", "shortcut_norm": "shortcut_layer.1"},
        }
        return f"encoder.body.{before}.{places[part]}.{rest}"
    if match := re.fullmatch(r"styles\.(\d+)\.convs\.(\d+)\.(.+)", name):
        return f"encoder.styles.{match[1]}.convs.{2 * int(match[2])}.{match[3]}"
    for ours, theirs in (
        ("stem_norm", "input_layer.1"),
        ("stem_activate", "input_layer.2"),
        ("stem", "input_layer.0"),
        ("lateral_middle", "latlayer1"),
        ("lateral_fine", "latlayer2"),
    ):
        if name.startswith(f"{ours}."):
            return f"encoder.{theirs}.{name.removeprefix(ours + '.')}"
    return f"encoder.{name}"


OURS_ALONE = {"w_avg", "unlocked_rows"}


def test_default_size_has_room_for_every_published_tensor():
    with torch.device("meta"):
        encoder = PyramidEncoder(10, 512)
    state = encoder.state_dict()
    ours = {publish(name): list(value.shape) for name, value in state.items() if name not in OURS_ALONE}
    published = json.loads((GOLDEN / "keys" / "encoder4editing-64.json").read_text())
    assert ours == {entry["name"]: entry["shape"] for entry in published}


class Published:
    """The published encoder's forward pass, written from its names: a state dict and the functions of PyTorch."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = {name.removeprefix("encoder."): value for name, value in state.items()}

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            self.state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, variance, weight, bias, eps=1e-5)

    def unit(self, x: Tensor, name: str, stride: int) -> Tensor:
        get = self.state.__getitem__
        if f"{name}.shortcut_layer.0.weight" in self.state:
            shortcut = F.conv2d(x, get(f"{name}.shortcut_layer.0.weight"), stride=stride)
            shortcut = self.norm(shortcut, f"{name}.shortcut_layer.1")
        else:
            shortcut = F.max_pool2d(x, 1, stride)
        y = self.norm(x, f"{name}.res_layer.0")
        y = F.prelu(F.conv2d(y, get(f"{name}.res_layer.1.weight"), padding=1), get(f"{name}.res_layer.2.weight"))
        y = self.norm(F.conv2d(y, get(f"{name}.res_layer.3.weight"), stride=stride, padding=1), f"{name}.res_layer.4")
        gate = F.adaptive_avg_pool2d(y, 1)
        gate = F.relu(F.conv2d(gate, get(f"{name}.res_layer.5.fc1.weight")))
        return shortcut + y * torch.sigmoid(F.conv2d(gate, get(f"{name}.res_layer.5.fc2.weight")))

    def style(self, x: Tensor, row: int) -> Tensor:
        place = 0
        while f"styles.{row}.convs.{place}.weight" in self.state:
            weight, bias = (self.state[f"styles.{row}.convs.{place}.{part}"] for part in ("weight", "bias"))
            x = F.leaky_relu(F.conv2d(x, weight, bias, stride=2, padding=1))
            place += 2
        x = x.view(len(x), -1)
        weight = self.state[f"styles.{row}.linear.weight"]
        return F.linear(x, weight * weight.shape[1] ** -0.5, self.state[f"styles.{row}.linear.bias"])

    def lateral(self, small: Tensor, large: Tensor, name: str) -> Tensor:
        large = F.conv2d(large, self.state[f"{name}.weight"], self.state[f"{name}.bias"])
        return F.interpolate(small, size=large.shape[2:], mode="bilinear", align_corners=True) + large

    def __call__(self, x: Tensor, rows: int, units: tuple[int, ...], coarse: int, middle: int) -> Tensor:
        x = F.conv2d(x, self.state["input_layer.0.weight"], padding=1)
        x = F.prelu(self.norm(x, "input_layer.1"), self.state["input_layer.2.weight"])
        maps, place = [], 0
        for count in units:
            for i in range(count):
                x = self.unit(x, f"body.{place}", 2 if i == 0 else 1)
                place += 1
            maps.append(x)
        c1, c2, c3 = maps[1:]
        p2 = self.lateral(c3, c2, "latlayer1")
        p1 = self.lateral(p2, c1, "latlayer2")
        w0 = self.style(c3, 0)
        deltas = [self.style(c3 if row < coarse else p2 if row < middle else p1, row) for row in range(1, rows)]
        return torch.stack([w0] + [w0 + delta for delta in deltas], 1)


def test_it_computes_what_the_published_encoder_computes():
    units = (1, 2, 2, 1)
    encoder = tiny(num_ws=6, units=units).double()
    generator = torch.Generator().manual_seed(4)
    state = {}
    for name, value in encoder.state_dict().items():
        drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        if value.is_floating_point():
            state[name] = drawn.abs() + 0.5 if name.endswith("running_var") else drawn
        else:
            state[name] = value
    encoder.load_state_dict(state)
    published = Published({publish(name, units): value for name, value in state.items() if name not in OURS_ALONE})
    picture = torch.randn(2, 3, 32, 32, generator=generator, dtype=torch.float64)
    theirs = published(picture, 6, units, coarse=2, middle=4)
    torch.testing.assert_close(encoder.offsets(picture), theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(encoder(picture), theirs + state["w_avg"])


def test_w_discriminator_judges_rows():
    torch.manual_seed(0)
    judge = WDiscriminator(5)
    assert judge(torch.randn(7, 5)).shape == (7,)
    assert sum(1 for name, _ in judge.named_parameters() if name.endswith("weight")) == 4


@pytest.mark.parametrize("size", [48, 16])
def test_odd_sizes_are_refused(size):
    with pytest.raises(AssertionError):
        tiny(input_size=size)
