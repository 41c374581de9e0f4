"""Flow, pinned by motions that are known: none, one speed, there and back, out of order."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.errors import DataError
from training.metrics.flow import (
    DisFlow,
    TorchScriptFlow,
    colour_flow,
    draw_wheel,
    measure_flow_jitter,
    measure_flow_magnitude,
    open_flow,
)

SIZE = 96
MARGIN = 24


def texture() -> np.ndarray:
    noise = np.random.default_rng(3).normal(size=(SIZE + 2 * MARGIN, SIZE + 2 * MARGIN, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def slide(offsets: list[tuple[int, int]]) -> np.ndarray:
    """A texture seen through a window that stands at (x, y): the picture moves by minus the window's steps."""
    whole = texture()
    return np.stack([whole[MARGIN + y : MARGIN + y + SIZE, MARGIN + x : MARGIN + x + SIZE] for x, y in offsets])


def inside(flow: np.ndarray) -> np.ndarray:
    return flow[:, 12:-12, 12:-12]


def test_a_still_video_does_not_flow() -> None:
    flow = DisFlow()(slide([(0, 0)] * 5))
    assert flow.shape == (4, SIZE, SIZE, 2)
    assert measure_flow_magnitude(flow) < 1e-3
    assert np.isnan(measure_flow_jitter(flow)), "nothing moves, so nothing can tremble: no figure is honest"


def test_a_steady_translation_has_its_length_and_no_jitter() -> None:
    flow = inside(DisFlow()(slide([(-3 * k, 4 * k) for k in range(5)])))
    assert np.allclose(flow.mean((0, 1, 2)), [3, -4], atol=0.15)
    assert measure_flow_magnitude(flow) == pytest.approx(5.0, abs=0.15)
    assert measure_flow_jitter(flow) < 0.05


def test_shuffled_and_trembling_videos_jitter_more_than_ordered_ones() -> None:
    steps = [(2 * k, 0) for k in range(8)]
    ordered = measure_flow_jitter(inside(DisFlow()(slide(steps))))
    shuffled = measure_flow_jitter(inside(DisFlow()(slide([steps[k] for k in (0, 3, 1, 5, 2, 6, 4, 7)]))))
    trembling = measure_flow_jitter(inside(DisFlow()(slide([(2 * (k % 2), 0) for k in range(8)]))))
    assert ordered < 0.1
    assert shuffled > 1.0
    assert trembling == pytest.approx(4.0, abs=0.2)


def test_flat_places_that_flicker_by_a_level_do_not_flow() -> None:
    flicker = np.random.default_rng(1).random((5, SIZE, SIZE, 1)) < 0.1
    frames = np.broadcast_to(120 + flicker, (5, SIZE, SIZE, 3)).astype(np.uint8)
    moving = frames.copy()
    moving[:, 32:64, 32:64] = slide([(k, 0) for k in range(5)])[:, 32:64, 32:64]
    assert measure_flow_magnitude(DisFlow()(frames)) == 0.0
    flow = DisFlow()(moving)
    assert np.linalg.norm(flow[:, 40:56, 40:56], axis=-1).mean() == pytest.approx(1.0, abs=0.25), "what moves stays"
    assert not flow[:, :16].any()


def test_jitter_does_not_depend_on_size_but_on_evenness() -> None:
    flow = np.random.default_rng(0).normal(size=(6, 8, 8, 2)).astype(np.float32)
    assert measure_flow_jitter(flow) == pytest.approx(measure_flow_jitter(7 * flow), rel=1e-5)
    smooth = np.broadcast_to(np.linspace(1, 2, 6, dtype=np.float32)[:, None, None, None], flow.shape)
    assert measure_flow_jitter(smooth) < 1e-6, "a flow that grows evenly has no second difference"
    assert np.isnan(measure_flow_jitter(flow[:2]))


def test_frames_that_are_no_video_are_refused() -> None:
    with pytest.raises(ValueError, match="at least two frames"):
        DisFlow()(slide([(0, 0)]))
    with pytest.raises(ValueError, match="uint8"):
        DisFlow()(slide([(0, 0)] * 3).astype(np.float32))


class Difference(nn.Module):
    """Stands for a flow network: "flow" is the change of red and green, after one coarser guess."""

    def forward(self, before: Tensor, after: Tensor) -> list[Tensor]:
        change = (after - before)[:, :2]
        return [change * 0, change]


class Wrong(nn.Module):
    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        return (after - before)[:, :, :4]


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_torchscript_network_gives_its_last_refinement_at_the_frames_size(tmp_path: Path) -> None:
    torch.jit.script(Difference()).save(str(tmp_path / "flow.pt"))
    frames = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
    flow = TorchScriptFlow(tmp_path / "flow.pt", batch=2)(frames)  # noise changes everywhere: nothing is hushed
    scaled = frames.astype(np.float32) / 127.5 - 1
    assert flow.shape == (3, 20, 30, 2)
    assert np.allclose(flow, np.diff(scaled, axis=0)[..., :2], atol=1e-5)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_files_that_are_no_flow_network_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no flow network at"):
        open_flow(tmp_path / "absent.pt")
    torch.save({"weight": torch.ones(3)}, tmp_path / "raft.pth")
    with pytest.raises(DataError, match=r"raft\.pth is no TorchScript file"):
        open_flow(tmp_path / "raft.pth")
    (tmp_path / "text.pt").write_text("RAFT")
    with pytest.raises(DataError, match="no TorchScript file"):
        open_flow(tmp_path / "text.pt")
    torch.jit.script(Wrong()).save(str(tmp_path / "wrong.pt"))
    with pytest.raises(DataError, match="flow of shape"):
        TorchScriptFlow(tmp_path / "wrong.pt")(np.zeros((3, 16, 16, 3), np.uint8))


def test_colours_tell_direction_and_length() -> None:
    flow = np.zeros((4, 2, 2, 2), np.float32)
    flow[1, ..., 0], flow[2, ..., 0], flow[3, ..., 0] = 2.0, -2.0, 1.0
    painted = colour_flow(flow, full_px=2.0)
    assert (painted[0] == 255).all(), "what stands still is white"
    assert painted[1, 0, 0].tolist() == [255, 0, 0], "right is red"
    assert painted[2, 0, 0].tolist() == [0, 255, 255], "left is its complement"
    assert painted[3, 0, 0].tolist() == pytest.approx([255, 127, 127], abs=2), "half the length is half as deep"
    wheel = draw_wheel(65)
    assert wheel[32, 32].min() > 240
    assert (wheel[0, 0] == 255).all()
    assert wheel[32, 64].tolist() == pytest.approx([255, 8, 8], abs=12)
