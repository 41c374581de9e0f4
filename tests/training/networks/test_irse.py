import json

import pytest
import torch

from tests.training.golden import GOLDEN
from training.checkpoints.irse import publish_name
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


def test_default_size_has_room_for_every_published_tensor():
    with torch.device("meta"):
        encoder = PyramidEncoder(10, 512)
    ours = {publish_name(name): list(value.shape) for name, value in encoder.state_dict().items() if "." in name}
    published = json.loads((GOLDEN / "keys" / "encoder4editing-64.json").read_text())
    assert {f"encoder.{name}": shape for name, shape in ours.items()} == {e["name"]: e["shape"] for e in published}


def test_rows_may_stand_alone():
    picture = torch.randn(2, 3, 32, 32)
    deltas, alone = tiny().offsets(picture), tiny(deltas=False).offsets(picture)
    torch.testing.assert_close(deltas[:, 0], alone[:, 0])
    torch.testing.assert_close(deltas[:, 1:], alone[:, :1] + alone[:, 1:])


def test_w_discriminator_judges_rows():
    torch.manual_seed(0)
    judge = WDiscriminator(5)
    assert judge(torch.randn(7, 5)).shape == (7,)
    assert sum(1 for name, _ in judge.named_parameters() if name.endswith("weight")) == 4


@pytest.mark.parametrize("size", [48, 16])
def test_odd_sizes_are_refused(size):
    with pytest.raises(AssertionError):
        tiny(input_size=size)
