"""200 steps of every loop reproduce the committed curves; a loss that is changed by a twentieth does not."""

from importlib import import_module
from unittest import mock

import numpy as np
import pytest
import torch

from tests.training.golden_losses import loops

TOLERANCE = 0.02
"""Of a curve's mean size: other CPUs round otherwise, and 200 steps make that visible; half of the change to notice."""
STEADY = 0.004
"""The same for loops that keep rounding small (0.001 at most between instruction sets of very different age)."""
STEADY_LOOPS = {"language", "mapper", "latent", "paper-adversary", "reader", "reader-identity", "refinement"}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def worst_gap(given: loops.Curve, wanted: loops.Curve) -> float:
    """The largest difference of any loss, as a share of that loss's mean size."""
    assert set(given) == set(wanted)
    return max(
        float(np.abs(np.subtract(given[name], wanted[name])).max() / np.abs(wanted[name]).mean()) for name in wanted
    )


def tolerance(name: str) -> float:
    return STEADY if name in STEADY_LOOPS else TOLERANCE


@pytest.mark.parametrize("name", loops.LOOPS)
def test_the_loop_follows_its_curve(name):
    curve = loops.run(name)
    assert len(curve["loss"]) == 10
    assert worst_gap(curve, loops.read(name)) < tolerance(name)


@pytest.mark.parametrize("name", loops.LOOPS)
def test_a_twentieth_more_would_be_noticed(name):
    wanted = loops.read(name)
    for changed in wanted:
        given = wanted | {changed: [1.05 * value for value in wanted[changed]]}
        assert worst_gap(given, wanted) > tolerance(name)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("embedding", "training.embedding.contrast_pictures"),
        ("language", "training.language.contrast"),
        ("latent", "training.baselines.interpolation.plain_loss"),
    ],
)
def test_a_changed_loss_is_noticed(name, loss):
    room, _, function = loss.rpartition(".")
    whole = getattr(import_module(room), function)
    with mock.patch(loss, lambda *arguments: 1.05 * whole(*arguments)):
        curve = loops.run(name)
    assert worst_gap(curve, loops.read(name)) > tolerance(name)
