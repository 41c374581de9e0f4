"""Identity and language figures, pinned by vectors whose figures can be worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from training.metrics.identity import measure_acd, measure_identity
from training.metrics.language import NEUTRAL_SENTENCE, measure_language


def turn(degrees: list[float]) -> np.ndarray:
    angle = np.radians(degrees)
    return np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)


def test_acd_is_the_mean_chord_between_neighbours() -> None:
    assert measure_acd(turn([10, 10, 10])) == 0.0
    assert measure_acd(turn([0, 90, 180])) == pytest.approx(2**0.5)
    assert measure_acd(turn([0, 60, 0, 60])) == pytest.approx(1.0), "the chord of 60° is the radius"


def test_acd_sees_flicker_where_a_slow_change_is_let_through() -> None:
    slow, flicker = turn([0, 10, 20, 30, 40]), turn([0, 40, 10, 30, 20])
    assert measure_acd(flicker) > 2 * measure_acd(slow)


def test_identity_is_the_cosine_to_the_source() -> None:
    cosines = measure_identity(turn([0])[0], turn([0, 60, 90, 180]))
    assert cosines.tolist() == pytest.approx([1.0, 0.5, 0.0, -1.0], abs=1e-6)


def test_features_that_are_not_of_unit_norm_are_refused() -> None:
    with pytest.raises(ValueError, match="unit norm"):
        measure_acd(2 * turn([0, 10]))
    with pytest.raises(ValueError, match="two frames"):
        measure_acd(turn([0]))
    with pytest.raises(ValueError, match=r"\[T,k\]"):
        measure_identity(turn([0])[0], turn([0])[0])


class PlaneTowers:
    """Pictures are embedded by their mean red and green, sentences by a table: angles that a test can choose."""

    embed_dim = 2
    sentences = {NEUTRAL_SENTENCE: (1.0, 0.0), "up": (0.0, 1.0)}  # noqa: RUF012

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(torch.tensor([self.sentences[text] for text in texts]), dim=1)

    def embed_images(self, pictures: Tensor) -> Tensor:
        return F.normalize(pictures[:, :2].mean((2, 3)), dim=1)


def picture(degrees: float) -> Tensor:
    x = torch.zeros(3, 4, 4)
    x[0], x[1] = torch.cos(torch.deg2rad(torch.tensor(degrees))), torch.sin(torch.deg2rad(torch.tensor(degrees)))
    return x


def test_language_score_and_direction() -> None:
    pictures = torch.stack([picture(a) for a in (0.0, 90.0, 45.0, -90.0)])
    score, direction = measure_language(PlaneTowers(), picture(0.0), pictures, "up")
    assert score.tolist() == pytest.approx([0.0, 1.0, 2**-0.5, -1.0], abs=1e-6)
    # from (1,0) to (0,1): all of it; the chord to 45° points 112.5° where 135° is wanted; down: at right angles
    assert direction.tolist() == pytest.approx([0.0, 1.0, np.cos(np.radians(22.5)), 0.0], abs=1e-6)


def test_a_picture_that_does_not_change_has_no_direction() -> None:
    _, direction = measure_language(PlaneTowers(), picture(30.0), picture(30.0 + 1e-4)[None], "up")
    assert direction.item() == 0.0
