"""A drawn face laid back into its photograph: nothing moves that should not, and no rim shows."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from model.align import Region, centred_region, cut_region, face_region
from model.paste import PasteBack
from tests.photographs import POINTS, read_photograph

REGION = face_region(POINTS)


def inside(region: Region, height: int, width: int, grow: float = 1.0) -> np.ndarray:
    """Return which pixels lie in the square, or in one ``grow`` times as large."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    (cx, cy), (rx, ry) = region.centre, region.right
    across = ((x - cx) * rx + (y - cy) * ry) / (rx * rx + ry * ry)
    down = ((y - cy) * rx - (x - cx) * ry) / (rx * rx + ry * ry)
    return (np.abs(across) <= grow) & (np.abs(down) <= grow)


def wider_mouth(crop: np.ndarray) -> np.ndarray:
    """Pull the lower half of the face down: a motion that any eye sees."""
    size = len(crop)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    pull = np.exp(-(((x / size - 0.5) / 0.16) ** 2 + ((y / size - 0.7) / 0.1) ** 2)) * 0.08 * size
    return cv2.remap(crop, x, (y - pull).astype(np.float32), cv2.INTER_LINEAR)


def edges(picture: np.ndarray) -> np.ndarray:
    """Return the strength of edges at each pixel."""
    grey = picture.mean(axis=2).astype(np.float32)
    return np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))


@pytest.mark.parametrize("size_px", [128, 256, 512])
def test_an_unchanged_crop_changes_nothing(size_px: int) -> None:
    photo = read_photograph()
    crop = cut_region(photo, REGION, size_px)
    whole = PasteBack(photo, REGION, crop).compose(crop)
    face = inside(REGION, 512, 512)
    assert np.array_equal(whole[~face], photo[~face]), "outside of the square the photograph's own bytes"
    error = np.square(whole[face].astype(float) - photo[face]).mean()
    assert 10 * np.log10(255**2 / error) > (28 if size_px == 128 else 35), "only what scaling costs"


def test_a_moving_face_moves_and_nothing_else_does() -> None:
    photo = read_photograph()
    crop = cut_region(photo, REGION, 256)
    paste = PasteBack(photo, REGION, crop)
    still, moved = paste.compose(crop), paste.compose(wider_mouth(crop))
    change = np.abs(still.astype(int) - moved).max(axis=2)
    x, y = np.mean(POINTS[3:], axis=0).astype(int)
    assert change[y - 10 : y + 20, x - 15 : x + 15].max() > 60
    assert change[~inside(REGION, 512, 512)].max() == 0
    assert change[inside(REGION, 512, 512) & ~inside(REGION, 512, 512, 0.9)].max() <= 2, "the rim keeps still"


def test_a_drawing_of_other_colours_is_matched_and_leaves_no_rim() -> None:
    """The same face under another lamp. Laid in as it is, its rim would be the strongest edge around."""
    photo = read_photograph()
    crop = cut_region(photo, REGION, 256)
    lamp = np.clip(crop * np.array([0.75, 0.9, 1.1]) + 20, 0, 255).astype(np.uint8)
    whole = PasteBack(photo, REGION, lamp).compose(lamp)
    face = inside(REGION, 512, 512)
    assert np.abs(whole[face].astype(float).mean(axis=0) - photo[face].mean(axis=0)).max() < 4
    new_edges = edges(whole) - edges(photo)
    assert new_edges[face].max() < 0.5 * edges(photo)[face].max()
    rim = inside(REGION, 512, 512, 1.02) & ~inside(REGION, 512, 512, 0.94)
    assert new_edges[rim].max() < 12


def test_surroundings_that_are_not_the_photographs_stay_out() -> None:
    """A generator draws another background than the photograph has: it may not appear around the face."""
    photo = read_photograph()
    crop = cut_region(photo, REGION, 256)
    y, x = (np.mgrid[0:256, 0:256] + 0.5) / 128 - 1
    other = crop.copy()
    other[np.hypot(x, y) > 0.8] = (0, 255, 0)
    whole = PasteBack(photo, REGION, other).compose(other)
    green = whole[..., 1].astype(int) - np.maximum(whole[..., 0], whole[..., 2])
    before = photo[..., 1].astype(int) - np.maximum(photo[..., 0], photo[..., 2])
    assert (green - before).max() < 40
    assert np.abs(whole[135:145, 200:250].astype(int) - photo[135:145, 200:250]).mean() < 6, "the mouth is drawn"


def test_colours_are_those_of_the_first_frame_for_the_whole_film() -> None:
    """A later frame that is darker stays darker: matched one by one, frames would flicker."""
    photo = read_photograph()
    crop = cut_region(photo, REGION, 128)
    paste = PasteBack(photo, REGION, crop)
    dark = (crop * 0.5).astype(np.uint8)
    x, y = POINTS[2]
    nose = (slice(y - 3, y + 3), slice(x - 3, x + 3))
    assert paste.compose(dark)[nose].mean() < 0.6 * paste.compose(crop)[nose].mean()
    assert np.array_equal(paste.compose(crop), paste.compose(crop))


def test_the_centred_square_fills_a_square_picture_to_its_edges() -> None:
    photo = np.full((96, 96, 3), 200, np.uint8)
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[::2] = 90
    whole = PasteBack(photo, centred_region(96, 96), frame, has_face=False)
    bright = np.full((64, 64, 3), 45, np.uint8)
    assert np.ptp(whole.compose(bright)) == 0, "no side fades where the photograph ends"


def test_the_centred_square_fades_into_a_wider_picture() -> None:
    random = np.random.default_rng(4)
    photo = random.integers(90, 110, (80, 200, 3), dtype=np.uint8)
    frame = random.integers(90, 110, (64, 64, 3), dtype=np.uint8)
    paste = PasteBack(photo, centred_region(200, 80), frame, has_face=False)
    flash = paste.compose(np.full((64, 64, 3), 255, np.uint8)).astype(int) - photo
    assert (flash[:, :60] == 0).all()
    assert (flash[:, 140:] == 0).all()
    assert flash[:, 75:125].min() > 20, "top and bottom are the photograph's own edges"
    assert flash[:, 60:62].max() < 20


@pytest.mark.parametrize("region", [Region((0, 0), (30, 9)), Region((95, 50), (0, 40)), Region((300, 300), (20, 0))])
def test_a_square_beyond_the_photograph(region: Region) -> None:
    photo = np.full((64, 96, 3), 120, np.uint8)
    whole = PasteBack(photo, region, np.full((32, 32, 3), 7, np.uint8)).compose(np.full((32, 32, 3), 9, np.uint8))
    assert whole.shape == photo.shape
