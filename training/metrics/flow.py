"""Optical flow between adjacent frames: how much a video moves, how evenly, and a picture of it.

Flow by OpenCV's DIS (no weights), or by a network such as RAFT from a TorchScript file. No training stage's network is
imported here.

Jitter needs no warping of frames: it looks at the flow itself. A pixel that moves at one speed has a flow that does not
change from frame to frame, whatever its size; one that trembles has a flow that turns around. So jitter = mean
|f_{k+1} − 2·f_k + f_{k−1}| ÷ mean |f_k| over pixels and frames, a number without unit that does not change when the
whole motion is made larger.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from training.errors import DataError

Frames = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]


class FlowEstimator(Protocol):
    """Finds the flow of each pair of adjacent frames."""

    name: str

    def __call__(self, frames: Frames) -> Flow:
        """Shapes: frames uint8 [T,H,W,3] → float32 [T-1,H,W,2] in px, (right, down)."""
        ...


STILL_PX = 0.005
"""Mean flow under which a video stands still: its jitter is not defined, for there is nothing to measure it by."""
STILL_LEVELS = 0.5
STILL_SIGMA_PX = 2.0
"""Where two frames differ by less than half a grey level around a pixel (of 255, mean absolute difference under a
Gaussian), nothing moves there. Rounding to 8 bits and a generator's faint unrest make flat places flicker, and flow in
flat places is a guess: on our 128 px faces two thirds of an unmasked flow was such guesses, in the background."""
RAFT_STRIDE = 8
"""RAFT wants sides that this divides."""


class DisFlow:
    """Dense inverse search (Kroeger et al., ECCV 2016) as OpenCV has it, on the luma of the frames."""

    name = "OpenCV DIS, medium preset"

    def __init__(self) -> None:
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def __call__(self, frames: Frames) -> Flow:
        """Shapes: frames [T,H,W,3] uint8 RGB → [T-1,H,W,2] px."""
        check_frames(frames)
        gray = [cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
        flow = np.zeros((len(gray) - 1, *gray[0].shape, 2), np.float32)
        for k, (before, after) in enumerate(pairwise(gray)):
            self._dis.calc(before, after, flow[k])
        return hush_still_places(flow, frames)


class TorchScriptFlow:
    """A flow network from a TorchScript file: RAFT as `torch.jit.script(torchvision.models.optical_flow.raft_small(…))`
    saves it.

    The network takes two batches [N,3,H,W] in [-1,1] and gives flow [N,2,H,W] in px, or a list of refinements, of
    which the last one counts. Frames are padded at their right and lower edge to sides that 8 divides.
    """

    def __init__(self, path: Path, device: torch.device | None = None, batch: int = 8) -> None:
        """Raises: DataError where the file is missing or no TorchScript (a bare state dict has no network in it)."""
        self.device = device or torch.device("cpu")
        self.name = f"TorchScript network {path.name}"
        self.batch = batch
        if not path.is_file():
            raise DataError(f"There is no flow network at {path}.")
        try:
            self.network = torch.jit.load(str(path), map_location=self.device).eval()
        except (RuntimeError, ValueError) as error:  # what torch raises depends on what the file is
            raise DataError(
                f"{path} is no TorchScript file, so it can't be used as a flow network. A file of weights alone does "
                "not say what network they belong to: load it into its network and save torch.jit.script(network)."
            ) from error

    def __call__(self, frames: Frames) -> Flow:
        """Shapes: frames [T,H,W,3] uint8 RGB → [T-1,H,W,2] px."""
        check_frames(frames)
        height, width = frames.shape[1:3]
        x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        x = F.pad(x, (0, -width % RAFT_STRIDE, 0, -height % RAFT_STRIDE), mode="replicate").to(self.device)
        parts = []
        with torch.no_grad():
            for start in range(0, len(x) - 1, self.batch):
                stop = min(start + self.batch, len(x) - 1)
                parts.append(self._run(x[start:stop], x[start + 1 : stop + 1])[..., :height, :width])
        return hush_still_places(torch.cat(parts).permute(0, 2, 3, 1).float().cpu().numpy(), frames)

    def _run(self, before: Tensor, after: Tensor) -> Tensor:
        found = self.network(before, after)
        last = found[-1] if isinstance(found, list | tuple) else found
        if not isinstance(last, Tensor) or last.shape != (len(before), 2, *before.shape[2:]):
            got = tuple(last.shape) if isinstance(last, Tensor) else type(last).__name__
            raise DataError(
                f"{self.name} gives {got} where flow of shape {(len(before), 2, *before.shape[2:])} was expected."
            )
        return last


def open_flow(weights: Path | None = None) -> FlowEstimator:
    """Give DIS, or the network of a TorchScript file."""
    return DisFlow() if weights is None else TorchScriptFlow(weights)


def hush_still_places(flow: Flow, frames: Frames) -> Flow:
    """Set the flow to 0 where the picture does not change (see STILL_LEVELS).

    Shapes: flow [T-1,H,W,2], frames [T,H,W,3] → [T-1,H,W,2].
    """
    changes = np.stack([find_changes(before, after) for before, after in pairwise(frames)])
    return np.asarray(flow * changes[..., None], np.float32)


def find_changes(before: Frames, after: Frames) -> npt.NDArray[np.bool_]:
    """Say where two pictures differ (see STILL_LEVELS). Shapes: [H,W,3] each → [H,W]."""
    first, second = (
        cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY).astype(np.float32)
        for picture in (before, after)
    )
    return np.asarray(cv2.GaussianBlur(np.abs(second - first), (0, 0), STILL_SIGMA_PX) >= STILL_LEVELS)


def check_frames(frames: Frames) -> None:
    """Raise ValueError unless this is a video of at least two RGB frames."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be uint8 [T,H,W,3], not {frames.dtype} {list(frames.shape)}")
    if len(frames) < 2:
        raise ValueError("flow needs at least two frames")


def measure_flow_magnitude(flow: Flow) -> float:
    """Mean length of the flow over pixels and pairs of frames, in px a frame.

    Shapes: flow [T-1,H,W,2].
    """
    return float(np.linalg.norm(flow, axis=-1).mean())


def measure_flow_tremble(flow: Flow) -> float:
    """Mean length of the second difference of the flow over time, in px a frame: the upper part of jitter.

    Shapes: flow [T-1,H,W,2], T ≥ 4; nan for shorter videos.
    """
    if len(flow) < 3:
        return float("nan")
    return float(np.linalg.norm(np.diff(flow, n=2, axis=0), axis=-1).mean())


def measure_flow_jitter(flow: Flow) -> float:
    """Mean |second difference of the flow over time| ÷ mean |flow|; nan for a video that stands still or is too short.

    Over several videos take the ratio of the two means: one that hardly moves has no scale of its own.
    Shapes: flow [T-1,H,W,2], T ≥ 4. Range: 0 for a steady motion, 4 for one that turns around at every frame.
    """
    size = measure_flow_magnitude(flow)
    return measure_flow_tremble(flow) / size if size >= STILL_PX else float("nan")


def colour_flow(flow: Flow, full_px: float) -> Frames:
    """Paint a flow: hue is its direction, saturation its length, white stands still.

    Shapes: flow [...,H,W,2] → [...,H,W,3] uint8 RGB. `full_px`: length of full saturation; longer ones stay there.
    """
    length = np.linalg.norm(flow, axis=-1)
    hue = (np.degrees(np.arctan2(flow[..., 1], flow[..., 0])) % 360) / 2
    hsv = np.stack([hue, np.clip(length / max(full_px, 1e-6), 0, 1) * 255, np.full_like(hue, 255)], -1)
    flat = np.round(hsv).astype(np.uint8).reshape(-1, hsv.shape[-2], 3)
    flat[..., 0] %= 180
    painted = np.asarray(cv2.cvtColor(flat, cv2.COLOR_HSV2RGB), np.uint8)
    return painted.reshape(hsv.shape)


def draw_wheel(size_px: int) -> Frames:
    """Draw the key to `colour_flow`: a disc whose every point is painted as a flow that points there.

    Shapes: → [size_px,size_px,3] uint8 RGB.
    """
    axis = (np.arange(size_px, dtype=np.float32) + 0.5) / size_px * 2 - 1
    right, down = np.meshgrid(axis, axis)
    wheel = colour_flow(np.stack([right, down], -1), 1.0)
    wheel[np.hypot(right, down) > 1] = 255
    return wheel
