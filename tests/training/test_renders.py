import json

import numpy as np
import pytest

from training.faces.parameters import NUM_EXPRESSION
from training.renders import expression_of_pair, open_pool, render_pool

OPTIONS = {"count": 600, "size_px": 16, "seed": 5}


class StopError(Exception):
    pass


def test_an_interrupted_pool_goes_on_where_it_stopped(tmp_path):
    def stop(done, total):
        assert (done, total) == (500, 600)
        raise StopError

    whole = render_pool(tmp_path / "whole", **OPTIONS)
    with pytest.raises(StopError):
        render_pool(tmp_path / "cut", **OPTIONS, progress=stop)
    with pytest.raises(ValueError, match="unfinished"):
        open_pool(tmp_path / "cut")
    counts = []
    resumed = render_pool(tmp_path / "cut", **OPTIONS, progress=lambda done, total: counts.append(done))
    assert counts == [600]
    assert np.array_equal(whole.pictures, resumed.pictures)
    assert np.array_equal(whole.factors, resumed.factors)


def test_a_pair_is_one_identity_with_two_expressions(tmp_path):
    pool = render_pool(tmp_path, count=200, size_px=16, seed=6)
    first, second = pool.factors[0::2], pool.factors[1::2]
    assert np.array_equal(first[:, NUM_EXPRESSION:], second[:, NUM_EXPRESSION:])
    assert (np.abs(first - second).max(1) > 0.05).mean() > 0.9


def test_expressed_pairs_begin_calm(tmp_path):
    pool = render_pool(tmp_path, count=88, size_px=16, seed=7, kind="expressed")
    closed = [i for i in range(44) if expression_of_pair(i) == "close_eyes"]
    assert closed
    for i in closed:
        assert pool.factors[2 * i, 4] > pool.factors[2 * i + 1, 4] + 0.8


def test_other_options_are_refused(tmp_path):
    render_pool(tmp_path, count=4, size_px=16, seed=1)
    with pytest.raises(ValueError, match="another pool"):
        render_pool(tmp_path, count=4, size_px=16, seed=2)
    assert json.loads((tmp_path / "pool.json").read_text())["done"] == 4
