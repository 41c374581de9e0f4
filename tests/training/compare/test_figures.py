"""Means, ratios and their errors, and which path of a video is judged."""

from __future__ import annotations

import numpy as np
import pytest

from training.compare.figures import FIGURES, Figure, combine, cosine, judge_path, summarise
from training.evaluator import measure
from training.faces.parameters import NUM_EXPRESSION

MEAN = Figure("x", "x", "", ("x",), "")
RATIO = Figure("q", "q", "", ("x", "y"), "")


def test_the_error_of_a_mean_is_the_textbook_one() -> None:
    values = [0.1, 0.4, 0.35, 0.8, 0.2]
    found = summarise(MEAN, [{"x": v} for v in values])
    assert found.mean == pytest.approx(np.mean(values))
    assert found.error == pytest.approx(np.std(values, ddof=1) / len(values) ** 0.5)
    assert found.videos == 5


def test_a_ratio_is_one_of_means_so_that_a_still_video_does_no_harm() -> None:
    rows = [{"x": 1.0, "y": 2.0}, {"x": 1e-7, "y": 0.0}, {"x": 3.0, "y": 6.0}]
    assert combine(RATIO, rows) == pytest.approx(0.5, abs=1e-6)
    exact = summarise(RATIO, [{"x": k / 2, "y": float(k)} for k in range(1, 5)])
    assert exact.error == pytest.approx(0.0, abs=1e-7), "every video has the same ratio: nothing is uncertain"


def test_few_videos_have_no_error() -> None:
    assert np.isnan(summarise(MEAN, []).mean)
    one = summarise(MEAN, [{"x": 2.0}])
    assert one.mean == 2.0
    assert np.isnan(one.error)


def test_cosine_of_nothing_is_nothing() -> None:
    x = np.array([3.0, 4.0], np.float32)
    assert cosine(x, 2 * x) == pytest.approx(1.0)
    assert cosine(x, -x) == pytest.approx(-1.0)
    assert cosine(x, 0 * x) == 0.0


def rise(name: str, amounts: list[float]) -> np.ndarray:
    factors = np.zeros((len(amounts), NUM_EXPRESSION), np.float32)
    factors[:, measure.moved_factors(name)] = np.array(amounts, np.float32)[:, None]
    return factors


def test_the_candidate_that_got_farthest_is_judged_at_its_peak() -> None:
    truths = {name: rise(name, [0.0, 1.0]) for name in ("wink_l", "wink_r")}
    still = np.zeros(NUM_EXPRESSION, np.float32)
    judged = judge_path(rise("wink_r", [0.1, 0.9, 0.2]), still, truths)
    assert judged.expression == "wink_r"
    assert judged.frame == 1
    assert judged.path.tolist() == pytest.approx([0.1, 0.9, 0.2], abs=1e-6), "progress counts from the still face"
    lasting = judge_path(rise("smile", [0.0, 0.9, 0.5]), still, {"smile": rise("smile", [0.0, 1.0])})
    assert lasting.frame == 2, "what does not return is judged at its end"


def test_every_figure_says_what_it_is() -> None:
    keys = [figure.key for figure in FIGURES]
    assert len(set(keys)) == len(keys)
    assert all(figure.about and figure.better in {"more", "less", ""} for figure in FIGURES)
