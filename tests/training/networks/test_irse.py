import re

import pytest
import torch

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


PUBLISHED_NAMES = [
    (r"styles\.(\d+)\.convs\.(\d+)\.(weight|bias)", lambda m: f"styles.{m[1]}.convs.{int(m[2]) // 2}.{m[3]}"),
    (r"styles\.(\d+)\.linear\.(weight|bias)", lambda m: m[0]),
    (r"latlayer1\.(weight|bias)", lambda m: f"lateral_middle.{m[1]}"),
    (r"latlayer2\.(weight|bias)", lambda m: f"lateral_fine.{m[1]}"),
]


def published_shapes() -> dict[str, tuple[int, ...]]:
    """Some of the published 64-px encoder's tensors, by their names there: the ends and the turns of the network."""
    shapes = {"latlayer1.weight": (512, 256, 1, 1), "latlayer2.weight": (512, 128, 1, 1), "latlayer2.bias": (512,)}
    for row in range(10):
        for conv in range(4 if row < 3 else 5 if row < 7 else 6):
            shapes[f"styles.{row}.convs.{2 * conv}.weight"] = (512, 512, 3, 3)
            shapes[f"styles.{row}.convs.{2 * conv}.bias"] = (512,)
        shapes[f"styles.{row}.linear.weight"] = (512, 512)
        shapes[f"styles.{row}.linear.bias"] = (512,)
    return shapes


def test_default_size_has_room_for_the_published_encoder():
    with torch.device("meta"):
        encoder = PyramidEncoder(10, 512)
    ours = {name: tuple(value.shape) for name, value in encoder.state_dict().items()}
    for name, shape in published_shapes().items():
        for pattern, rename in PUBLISHED_NAMES:
            if match := re.fullmatch(pattern, name):
                assert ours.pop(rename(match)) == shape, name
    assert not any(name.startswith("styles.") for name in ours)
    units = [unit for stage in encoder.stages for unit in stage]
    assert len(units) == 24
    assert [unit.conv1.weight.shape[:2] for unit in (units[3], units[20], units[23])] == [
        (128, 64),
        (256, 256),
        (512, 512),
    ]
    assert [i for i, unit in enumerate(units) if unit.stride == 2] == [0, 3, 7, 21]
    assert [i for i, unit in enumerate(units) if unit.widens] == [3, 7, 21]
    # published: 7 tensors in the stem with its counter, 20 a unit beside 6 more where the width changes
    assert sum(name.startswith("stem") for name in ours) == 7
    assert units[0].se.fc1.weight.shape == (4, 64, 1, 1)


def test_w_discriminator_judges_rows():
    torch.manual_seed(0)
    judge = WDiscriminator(5)
    assert judge(torch.randn(7, 5)).shape == (7,)
    assert sum(1 for name, _ in judge.named_parameters() if name.endswith("weight")) == 4


@pytest.mark.parametrize("size", [48, 16])
def test_odd_sizes_are_refused(size):
    with pytest.raises(AssertionError):
        tiny(input_size=size)
