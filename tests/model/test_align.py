"""Every decodable picture becomes a square RGB crop, a face's as FFHQ was cut; what is no picture is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.align import Region, centred_region, crop_square, cut_region, face_region, flatten
from model.errors import ModelError
from tests.photographs import POINTS, read_photograph


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


# -- faces ------------------------------------------------------------------------------------------------------------


def published_quad(points: np.ndarray) -> np.ndarray:
    """FFHQ's own formula, from five points: corners top left, bottom left, bottom right, top right."""
    eye_left, eye_right, _, mouth_left, mouth_right = points
    eye_avg = (eye_left + eye_right) * 0.5
    eye_to_eye = eye_right - eye_left
    eye_to_mouth = (mouth_left + mouth_right) * 0.5 - eye_avg
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x /= np.hypot(*x)
    x *= max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    c = eye_avg + eye_to_mouth * 0.1
    return np.stack([c - x - y, c - x + y, c + x + y, c + x - y])


def published_crop(picture: np.ndarray, quad: np.ndarray, size_px: int) -> np.ndarray:
    """FFHQ's own way for a quad inside of the picture: PIL warps it finely, then shrinks it."""
    source = Image.fromarray(picture)
    fine = source.transform(
        (4 * size_px, 4 * size_px), Image.Transform.QUAD, quad.flatten().tolist(), Image.Resampling.BILINEAR
    )
    return np.asarray(fine.resize((size_px, size_px), Image.Resampling.LANCZOS))


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((first.astype(float) - second) ** 2))))


def test_the_square_is_the_published_one() -> None:
    random = np.random.default_rng(2)
    for _ in range(50):
        points = np.array(POINTS) * random.uniform(0.5, 4) + random.normal(0, 6, (5, 2))
        top_left, bottom_left, bottom_right, top_right = published_quad(points)
        region = face_region([tuple(point) for point in points])
        assert np.allclose(region.corners, [top_left, top_right, bottom_right, bottom_left])
        assert region.edge_px == pytest.approx(np.hypot(*(top_right - top_left)))


@pytest.mark.parametrize("size_px", [64, 172, 256])
def test_the_crop_is_the_published_one(size_px: int) -> None:
    photo = read_photograph()
    crop = cut_region(photo, face_region(POINTS), size_px)
    wanted = published_crop(photo, published_quad(np.array(POINTS, float)), size_px)
    assert psnr(crop, wanted) > 34


def test_a_tilted_face_comes_out_upright() -> None:
    photo, angle = read_photograph(), 30
    turned = np.asarray(Image.fromarray(photo).rotate(angle, resample=Image.Resampling.BICUBIC))
    radians = np.deg2rad(angle)
    turn = np.array([[np.cos(radians), np.sin(radians)], [-np.sin(radians), np.cos(radians)]])
    points = (np.array(POINTS) - 256) @ turn.T + 256
    upright = cut_region(photo, face_region(POINTS), 128)
    assert psnr(cut_region(turned, face_region([tuple(p) for p in points]), 128), upright) > 30


def test_large_squares_are_averaged_not_sampled() -> None:
    stripes = np.zeros((2048, 2048, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = cut_region(stripes, Region((1024, 1024), (700, 100)), 64)
    assert np.abs(crop.astype(int) - 128).max() <= 12


def test_a_square_beyond_the_edge_mirrors_the_picture() -> None:
    """No black corners, and what lies inside of the picture stays as it is."""
    photo = read_photograph()[40:300, 160:300]  # hair and forehead reach the edges
    points = [(x - 160, y - 40) for x, y in POINTS]
    region = face_region(points)
    assert min(np.array(region.corners).ravel()) < -10, "the square leaves the picture"
    crop = cut_region(photo, region, 256)
    assert crop.min(axis=2).mean() > 40
    whole = cut_region(read_photograph(), face_region(POINTS), 256)
    assert psnr(crop[90:200, 80:170], whole[90:200, 80:170]) > 38
    assert psnr(crop[:, :10], whole[:, :10]) < 30, "beyond the edge nobody knows"


def test_a_square_far_beyond_the_edge_still_gives_a_picture() -> None:
    random = np.random.default_rng(0)
    tiny = random.integers(0, 256, (40, 3, 3), dtype=np.uint8)
    for region in (Region((1, 20), (60, 0)), Region((-30, -30), (10, 10)), Region((2, 39), (0, 500))):
        assert cut_region(tiny, region, 32).shape == (32, 32, 3)


def test_the_centred_region_is_the_centred_square() -> None:
    photo = np.ascontiguousarray(read_photograph()[:301])
    region = centred_region(512, 301)
    assert region.corners[0] == (105, 0)
    assert region.edge_px == 301
    inner = slice(50, 251)  # near the photograph's edges FFHQ's softening begins
    assert np.array_equal(cut_region(photo, region, 301)[inner, inner], crop_square(photo, 301)[inner, inner])


def test_points_on_one_spot_are_no_face() -> None:
    with pytest.raises(ModelError, match="one spot") as caught:
        face_region([(5.0, 5.0)] * 5)
    assert caught.value.code == "face-unusable"
