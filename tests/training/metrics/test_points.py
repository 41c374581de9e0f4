"""Followed points: they tell how far something moved, and a new colour is no motion."""

import cv2
import numpy as np
import pytest

from training.faces.domains import find_domain
from training.faces.parameters import sample_parameters
from training.metrics.flow import DisFlow, measure_flow_magnitude
from training.metrics.flow_trial import ESTIMATORS, build_pairs, score, tell_trial
from training.metrics.points import follow_points, measure_points

EVERYWHERE = np.ones((256, 256), bool)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    return find_domain("human").render(sample_parameters(np.random.default_rng(5)), 256)


def shift(picture: np.ndarray, right: float, down: float) -> np.ndarray:
    matrix = np.float32([[1, 0, right], [0, 1, down]])
    return cv2.warpAffine(picture, matrix, (256, 256), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)


@pytest.mark.parametrize(("right", "down"), [(0.25, 0.0), (0.0, -0.5), (1.0, 1.0), (3.0, -2.0)])
def test_a_shift_is_found(face: np.ndarray, right: float, down: float) -> None:
    moves = follow_points(face, shift(face, right, down)).moves
    assert len(moves) > 50
    np.testing.assert_allclose(np.median(moves, 0), [right, down], atol=0.05)


def test_what_stands_still_stands_still(face: np.ndarray) -> None:
    assert measure_points(np.stack([face, face, face]), EVERYWHERE) == (0, 0)


def test_nothing_to_follow_is_no_motion() -> None:
    blank = np.full((3, 256, 256, 3), 90, np.uint8)
    assert measure_points(blank, EVERYWHERE) == (0, 0)


def test_the_asked_part_is_told_apart(face: np.ndarray) -> None:
    moved = face.copy()
    moved[:, :128] = shift(face, 0.0, 1.0)[:, :128]
    left = np.zeros((256, 256), bool)
    left[:, :120] = True
    found = measure_points(np.stack([face, moved]), left)
    still = measure_points(np.stack([face, moved]), ~left)
    assert found.where_asked == pytest.approx(1.0, abs=0.1)
    assert still.where_asked < 0.2
    assert still.everywhere == found.everywhere


@pytest.mark.parametrize("domain", ["human", "anime", "dog"])
def test_a_new_colour_is_no_motion_and_dis_takes_it_for_one(domain: str) -> None:
    recoloured, moved, both = build_pairs(find_domain(domain), 1)
    follow = ESTIMATORS["followed points"]
    assert score(follow, recoloured).found < 0.06
    assert measure_flow_magnitude(DisFlow()(np.stack(recoloured[:2]))) > 0.15
    for pair in (moved, both):
        found = score(follow, pair)
        assert found.truth > 0.05
        assert found.found == pytest.approx(found.truth, rel=0.4)
        assert found.error < 0.6 * found.truth


def test_the_trial_is_a_table() -> None:
    lines = list(tell_trial(find_domain("human"), faces=1))
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
