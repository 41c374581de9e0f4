"""Which pictures a step of the generator sees."""

import numpy as np

from training.faces.parameters import CATEGORY_SLICES, Z_DIM
from training.generator import list_pairs


def make_factors(worn: list[int]) -> np.ndarray:
    """Factors of one pair for each number: the option of glasses that it wears."""
    factors = np.zeros((2 * len(worn), Z_DIM), np.float32)
    factors[np.arange(len(factors)), CATEGORY_SLICES["glasses"].start + np.repeat(worn, 2)] = 1
    return factors


def test_pairs_with_glasses_of_any_kind_come_more_often():
    assert list_pairs(make_factors([0, 2, 0, 1]), 3).tolist() == [0, 1, 1, 1, 2, 3, 3, 3]


def test_every_pair_comes_once_unless_the_recipe_says_otherwise():
    assert list_pairs(make_factors([0, 2, 0, 1]), 1).tolist() == [0, 1, 2, 3]
