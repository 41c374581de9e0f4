"""MS-SSIM, the perceptual distance and video vectors, against slow references and values known by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.metrics.video import (
    SCALE_WEIGHTS,
    WINDOW_PX,
    WINDOW_SIGMA_PX,
    count_scales,
    describe_video,
    measure_adjacent,
    ms_ssim,
    perceptual_distance,
    to_pictures,
)


def slow_ms_ssim(a: np.ndarray, b: np.ndarray, scales: int) -> float:
    """One channel in [0, 1], one window at a time, straight from the paper."""
    place = np.arange(WINDOW_PX) - WINDOW_PX // 2
    window = np.exp(-(place[:, None] ** 2 + place[None] ** 2) / (2 * WINDOW_SIGMA_PX**2))
    window /= window.sum()
    c1, c2 = 0.01**2, 0.03**2
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    found = 1.0
    for scale in range(scales):
        luminances, structures = [], []
        for y in range(a.shape[0] - WINDOW_PX + 1):
            for x in range(a.shape[1] - WINDOW_PX + 1):
                p, q = a[y : y + WINDOW_PX, x : x + WINDOW_PX], b[y : y + WINDOW_PX, x : x + WINDOW_PX]
                mean_p, mean_q = (window * p).sum(), (window * q).sum()
                var_p, var_q = (window * (p - mean_p) ** 2).sum(), (window * (q - mean_q) ** 2).sum()
                covariance = (window * (p - mean_p) * (q - mean_q)).sum()
                luminances.append((2 * mean_p * mean_q + c1) / (mean_p**2 + mean_q**2 + c1))
                structures.append((2 * covariance + c2) / (var_p + var_q + c2))
        if scale == scales - 1:
            found *= np.mean(np.array(luminances) * np.array(structures)) ** weights[scale]
        else:
            found *= np.mean(structures) ** weights[scale]
            a, b = (z.reshape(z.shape[0] // 2, 2, z.shape[1] // 2, 2).mean((1, 3)) for z in (a, b))
    return float(found)


def noise(shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_ms_ssim_agrees_with_the_slow_reference() -> None:
    a = noise((1, 1, 48, 48), 0)
    b = (0.7 * a + 0.3 * noise((1, 1, 48, 48), 1) + 0.1).clamp(-1, 1)
    assert count_scales(48) == 3
    expected = slow_ms_ssim((a[0, 0].double().numpy() + 1) / 2, (b[0, 0].double().numpy() + 1) / 2, 3)
    assert 0.2 < expected < 0.95, "a case between the ends, else anything would agree"
    assert ms_ssim(a, b).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (64, 3), (128, 4), (176, 5), (256, 5), (1024, 5)])
def test_as_many_scales_as_hold_a_window(side: int, scales: int) -> None:
    assert count_scales(side) == scales


@pytest.mark.parametrize("side", [128, 256])
def test_ms_ssim_of_equal_grey_and_noisy_pictures(side: int) -> None:
    a = noise((1, 3, side, side), 2)
    assert ms_ssim(a, a).item() == pytest.approx(1.0, abs=1e-6)
    # Flat pictures have no contrast: what is left is the luminance term of the coarsest scale, a closed form.
    light, dark = torch.full_like(a, 0.8), torch.full_like(a, 0.2)
    scales = count_scales(side)
    weight = SCALE_WEIGHTS[scales - 1] / sum(SCALE_WEIGHTS[:scales])
    luminance = (2 * 0.9 * 0.6 + 0.0001) / (0.9**2 + 0.6**2 + 0.0001)
    assert ms_ssim(light, dark).item() == pytest.approx(luminance**weight, abs=1e-5)
    figures = [ms_ssim(a, (a + s * noise(a.shape, 3)).clamp(-1, 1)).item() for s in (0.05, 0.2, 0.8)]
    assert 1 > figures[0] > figures[1] > figures[2] > 0
    assert ms_ssim(a, -a).item() == 0.0, "an inverted picture has a negative structure, which counts as none"


def test_ms_ssim_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        ms_ssim(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 16, 16))
    with pytest.raises(ValueError, match="at least 11 px"):
        ms_ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))


def stages(x: Tensor) -> list[Tensor]:
    return [x, x[:, :2, ::2, ::2]]


def test_perceptual_distance_by_hand() -> None:
    a, b = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    a[:, 0], b[:, 1] = 1.0, 0.3
    # unit vectors at right angles at every place: squared distance 2, in both stages
    assert perceptual_distance(a, b, stages).item() == pytest.approx(4.0)
    assert perceptual_distance(a, 5 * a, stages).item() == pytest.approx(0.0), "the size of a feature does not count"
    half = a.clone()
    half[:, :, :2] = b[:, :, :2]
    assert perceptual_distance(a, half, stages).item() == pytest.approx(2.0), "half of the places changed"


def test_adjacent_frames_are_compared_in_order() -> None:
    frames = torch.tensor([0.0, 1.0, 3.0, 3.0])[:, None, None, None].expand(4, 3, 2, 2)
    assert measure_adjacent(frames, lambda a, b: (b - a).abs().mean((1, 2, 3))) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least two"):
        measure_adjacent(frames[:1], lambda a, b: (b - a).mean((1, 2, 3)))


def test_shuffled_frames_change_the_speed_of_a_video_and_nothing_else() -> None:
    ordered = np.linspace(0, 1, 9, dtype=np.float32)[:, None] * np.array([1.0, 2.0], np.float32)
    shuffled = ordered[[0, 5, 2, 8, 1, 7, 3, 6, 4]]
    before, after = describe_video(ordered), describe_video(shuffled)
    assert before.shape == (6,)
    assert np.allclose(before[:4], after[:4], atol=1e-6)
    assert before[4:].tolist() == pytest.approx([0.125, 0.25])
    assert (after[4:] > 2 * before[4:]).all()
    still = describe_video(np.ones((5, 2), np.float32))
    assert still.tolist() == [1, 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="at least 2"):
        describe_video(np.ones((1, 2), np.float32))


def test_pictures_keep_their_range() -> None:
    frames = np.zeros((2, 4, 4, 3), np.uint8)
    frames[1] = 255
    pictures = to_pictures(frames)
    assert pictures.shape == (2, 3, 4, 4)
    assert pictures[0].max() == -1
    assert pictures[1].min() == 1
