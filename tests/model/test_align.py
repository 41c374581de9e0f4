"""Every decodable picture becomes a square RGB crop; what is no picture is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from model.align import crop_square, flatten
from model.errors import ModelError


def test_centre_of_a_wide_and_of_a_tall_picture() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (crop_square(wide, 10) == 200).all()
    assert (crop_square(wide.transpose(1, 0, 2), 10) == 200).all()


def test_shrinking_averages_and_does_not_alias() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = crop_square(stripes, 8)
    assert small.shape == (8, 8, 3)
    assert np.abs(small.astype(int) - 128).max() <= 1


def test_enlarging_keeps_flat_colours() -> None:
    image = np.full((5, 5, 3), (10, 100, 250), np.uint8)
    assert (crop_square(image, 64) == (10, 100, 250)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 500, 3), (700, 2, 4), (3, 2, 1), (33, 47, 2)])
def test_any_size_gives_the_wanted_square(shape: tuple[int, ...]) -> None:
    crop = crop_square(np.full(shape, 255, np.uint8), 64)
    assert crop.shape == (64, 64, 3)
    assert crop.dtype == np.uint8
    assert (crop == 255).all()


def test_right_size_is_passed_through_unchanged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert np.array_equal(crop_square(image, 64), image)


def test_grey_is_repeated() -> None:
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert np.array_equal(flatten(grey), np.repeat(grey[..., None], 3, axis=2))
    assert np.array_equal(flatten(grey[..., None]), flatten(grey))


def test_transparency_is_laid_over_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = (0, 128, 255)
    assert flatten(rgba)[0].tolist() == [[255] * 3, [127] * 3, [0] * 3]
    grey_alpha = np.array([[[90, 255], [90, 0]]], np.uint8)
    assert flatten(grey_alpha)[0].tolist() == [[90] * 3, [255] * 3]


def test_sixteen_bits_are_cut_to_eight() -> None:
    assert flatten(np.array([[0, 257, 65535]], np.uint16))[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 0), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 5), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 3), bool),
    ],
)
def test_what_is_no_picture_is_refused(image: Any) -> None:
    with pytest.raises(ModelError) as caught:
        crop_square(image, 8)
    assert caught.value.code == "image-corrupt"
    assert caught.value.hint
