"""Lays drawn faces back into the photograph they were cut from. numpy and opencv; knows no model and no video.

What depends on the photograph alone (mask, geometry, colours) is made once; a frame costs one warp and one blend.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from model.align import Region, cut_region

Shares = NDArray[np.floating[Any]]

# Masks about a face, in shares of half the square's edge: all of the drawing within the first number, nothing of it
# beyond the second. The core holds eyes, nose, mouth and chin of an FFHQ crop. Beyond it hair and background fade out,
# and sooner where the drawing begins with others than the photograph has.
_CORE = (0.48, 0.76)
_WIDE = (0.62, 0.96)
# Differences of colour (of 255, averaged over some hundredths of the edge) that count as the same and as another thing.
_SAME, _OTHER = 12.0, 48.0
_AVERAGED = 0.03
# About a square without a known face only the rim fades, so that whatever it holds is seen.
_RIM = 0.08
# A colour is spread by no less and no more than this: a flat drawing must not be blown up to a photograph's contrast.
_LEAST_GAIN, _MOST_GAIN = 0.7, 1.4
_LEAST_WEIGHT = 1e-3


class PasteBack:
    """A photograph with a hole in the shape of a face, and what fits a frame into it.

    The colours are matched by the first frame, which shows what the photograph shows; all others are changed alike, so
    nothing flickers.

    Args:
        photo: the whole picture at the size of the video, uint8 RGB [H,W,3].
        region: the square that was cut out, in px of ``photo``.
        first: the frame that the drawing begins with, [S,S,3].
        has_face: whether ``region`` was cut about a face, which leaves more of its rim to the photograph.
    """

    def __init__(
        self, photo: NDArray[np.uint8], region: Region, first: NDArray[np.uint8], *, has_face: bool = True
    ) -> None:
        assert photo.ndim == 3
        assert photo.dtype == np.uint8
        self._photo = photo
        height, width, _ = photo.shape
        xs, ys = zip(*region.corners, strict=True)
        self._left, self._top = max(0, int(np.floor(min(xs)))), max(0, int(np.floor(min(ys))))
        self._right, self._bottom = min(width, int(np.ceil(max(xs)))), min(height, int(np.ceil(max(ys))))
        self._region = region.moved(-self._left, -self._top)
        wanted = cut_region(photo, region, len(first))
        self._colours = _match_colours(first, wanted, _weights(len(first)))
        agreement = _measure_agreement(np.asarray(cv2.LUT(first, self._colours), np.uint8), wanted)
        self._alpha = self._make_mask(width, height, agreement if has_face else None)

    @property
    def size_px(self) -> tuple[int, int]:
        """Width and height of what ``compose`` returns."""
        height, width, _ = self._photo.shape
        return width, height

    def compose(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the photograph with this frame in its place.

        Shapes: frame [S,S,3] → [H,W,3]. Range: uint8 RGB. Outside of the square the photograph's own bytes.
        """
        whole = self._photo.copy()
        if not self._alpha.size:
            return whole
        place = whole[self._top : self._bottom, self._left : self._right]
        face = self._warp(np.asarray(cv2.LUT(frame, self._colours), np.uint8))
        place[:] = np.rint(place + (face.astype(np.float32) - place) * self._alpha).astype(np.uint8)
        return whole

    def _warp(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Turn and scale a frame to where it belongs: shapes [S,S] or [S,S,3] → [h,w] or [h,w,3]."""
        edge = max(1, round(self._region.edge_px))
        if edge < len(frame):  # averaged first: a warp takes single pixels
            frame = np.asarray(cv2.resize(frame, (edge, edge), interpolation=cv2.INTER_AREA))
        size = (self._right - self._left, self._bottom - self._top)
        warped = cv2.warpAffine(
            frame, self._region.matrix(len(frame)), size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return np.asarray(warped)

    def _make_mask(self, width: int, height: int, agreement: Shares | None) -> Shares:
        """Return how much of the frame is seen at each pixel of its place: shapes [h,w,1], range 0 to 1.

        ``agreement``: [S,S], see ``_measure_agreement``; None for a square without a known face.
        """
        if self._right <= self._left or self._bottom <= self._top:
            return np.zeros((0, 0, 1), np.float32)
        y, x = np.mgrid[0 : self._bottom - self._top, 0 : self._right - self._left].astype(np.float32)
        (cx, cy), (rx, ry) = self._region.centre, self._region.right
        x, y = x + 0.5 - cx, y + 0.5 - cy
        square = rx * rx + ry * ry
        across, down = (x * rx + y * ry) / square, (y * rx - x * ry) / square  # -1 … 1 within the square
        if agreement is not None:
            core, wide = _disc(across, down, _CORE), _disc(across, down, _WIDE)
            mask: Shares = core + (wide - core) * np.clip(self._warp(agreement), 0, 1)
            return mask[..., None]
        # A side that is the photograph's own edge has nothing to fade into.
        closed = (self._left <= 0, self._top <= 0, self._right >= width, self._bottom >= height)
        return _rim_mask(across, down, closed)[..., None]


def _disc(across: Shares, down: Shares, radii: tuple[float, float]) -> Shares:
    inner, outer = radii
    return _smooth((outer - np.hypot(across, down)) / (outer - inner))


def _rim_mask(across: Shares, down: Shares, closed: tuple[bool, bool, bool, bool]) -> Shares:
    mask = np.ones_like(across)
    for is_closed, inward in zip(closed, (across + 1, down + 1, 1 - across, 1 - down), strict=True):
        if not is_closed:
            mask *= _smooth(inward / (2 * _RIM))
    return mask


def _smooth(share: Shares) -> Shares:
    """Bend a rise from 0 to 1 so that it begins and ends softly: no edge that an eye would catch."""
    share = np.clip(share, 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def _weights(size_px: int) -> Shares:
    """Return how much each pixel of a crop counts for its colours, the face's most: shapes [S,S]."""
    at = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2 - 1
    return _disc(*np.meshgrid(at, at), _CORE)


def _measure_agreement(drawn: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> Shares:
    """Return where two crops show the same: shapes [S,S,3] each → [S,S], range 0 (another thing) to 1."""
    apart = np.abs(drawn.astype(np.float32) - wanted).max(axis=2)
    averaged = cv2.GaussianBlur(apart, (0, 0), max(1.0, _AVERAGED * len(drawn)))
    return _smooth((_OTHER - averaged) / (_OTHER - _SAME))


def _match_colours(drawn: NDArray[np.uint8], wanted: NDArray[np.uint8], weights: Shares) -> NDArray[np.uint8]:
    """Return a table that gives each channel of a drawing the mean and the spread of the photograph's.

    Shapes: drawn and wanted [S,S,3], weights [S,S] → [256,1,3], for ``cv2.LUT``.
    Source: Reinhard et al. 2001, "Color Transfer between Images"; in RGB, so that it is one table.
    """
    levels = np.arange(256, dtype=np.float64)
    table = np.empty((256, 1, 3), np.uint8)
    share = weights / max(float(weights.sum()), _LEAST_WEIGHT)
    for channel in range(3):
        is_mean, is_spread = _mean_and_spread(drawn[..., channel], share)
        want_mean, want_spread = _mean_and_spread(wanted[..., channel], share)
        gain = float(np.clip(want_spread / max(is_spread, 1.0), _LEAST_GAIN, _MOST_GAIN))
        table[:, 0, channel] = np.clip(np.rint((levels - is_mean) * gain + want_mean), 0, 255)
    return table


def _mean_and_spread(values: NDArray[np.uint8], share: Shares) -> tuple[float, float]:
    mean = float((values * share).sum())
    return mean, float(np.sqrt((np.square(values - mean) * share).sum()))
