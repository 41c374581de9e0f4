"""How far the encoder's reading is from the truth: a hue that goes round is the same hue, nothing else is."""

import pytest
import torch

from tests.training.golden_losses.data import make_pool
from training.encoder import HUES, factor_loss, judge_factors
from training.faces.parameters import FACTOR_NAMES, NUM_CONTINUOUS, NUM_EXPRESSION
from training.networks.encoder import Factors


def read_with(change: torch.Tensor) -> tuple[dict[str, float], float]:
    """Judge a reading that is right but for a change of every factor."""
    truth = torch.from_numpy(make_pool(24, 4).factors)
    read = Factors(truth[:, :NUM_CONTINUOUS] + change, truth[:, NUM_CONTINUOUS:] * 100)
    return judge_factors(read, truth), float(factor_loss(read, truth))


def test_once_around_the_circle_is_right():
    right, loss = read_with(torch.zeros(NUM_CONTINUOUS))
    around, loss_around = read_with(2.0 * HUES)
    assert around["r2_identity"] == pytest.approx(right["r2_identity"]) == pytest.approx(1.0)
    assert loss_around == pytest.approx(loss)


def test_any_other_factor_is_wrong_by_as_much_as_it_differs():
    change = torch.zeros(NUM_CONTINUOUS)
    change[FACTOR_NAMES.index("face_w")] = 2.0
    assert FACTOR_NAMES.index("face_w") >= NUM_EXPRESSION
    assert read_with(change)[0]["r2_identity"] < 0.95
    assert read_with(0.5 * HUES)[0]["r2_identity"] < 0.99
