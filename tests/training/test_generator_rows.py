"""Which pictures a step of the generator sees."""

import numpy as np

from training.faces.parameters import CATEGORY_SLICES, Z_DIM
from training.generator import list_pairs

BARE, ROUND, SQUARE = range(3)


def make_factors(worn: list[int]) -> np.ndarray:
    """Factors of one pair for each number: the glasses that it wears; all else is alike."""
    factors = np.zeros((2 * len(worn), Z_DIM), np.float32)
    for name, place in CATEGORY_SLICES.items():
        factors[np.arange(len(factors)), place.start + (np.repeat(worn, 2) if name == "glasses" else 0)] = 1
    return factors


def test_pairs_with_a_rare_option_come_more_often():
    pairs = list_pairs(make_factors([BARE] * 16 + [SQUARE, ROUND, ROUND, ROUND]), 8)
    assert np.bincount(pairs).tolist() == [1] * 16 + [4, 1, 1, 1]


def test_the_rarest_comes_no_more_often_than_the_recipe_says():
    assert np.bincount(list_pairs(make_factors([BARE] * 99 + [SQUARE]), 8)).tolist() == [1] * 99 + [8]


def test_every_pair_comes_once_unless_the_recipe_says_otherwise():
    assert list_pairs(make_factors([BARE, SQUARE, BARE, ROUND]), 1).tolist() == [0, 1, 2, 3]
