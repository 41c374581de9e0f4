"""What a film could leave undrawn, and what that does to its frames: ``python -m bench.reuse``.

Every row of the table is compared with drawing all layers of all frames of the same films. A way is worth having where
its worst frame keeps 40 dB and it saves a good part of the work (docs/decisions/0016-video-level-savings.md).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from model.animator import Animator
from model.bundle.reader import find_bundle

Frames = NDArray[np.uint8]
Rows = NDArray[np.float32]
PROMPTS = ("smiling", "winking", "laughing out loud", "looks left, then looks right")
# Share of synthesis work in the layers that ws[:k] feed, by k.
Shares = Sequence[float]


@dataclass(frozen=True)
class Way:
    """One way to draw less: its name, the share of the work that it saves, and the frames that it gives."""

    name: str
    saved: float
    draw: Callable[[Rows, Frames], Frames]


def main() -> None:
    """Draw the films in full and in every other way, and print the table."""
    from services.settings import load_settings

    parser = argparse.ArgumentParser(prog="python -m bench.reuse", description=__doc__)
    parser.add_argument("--model", default="human", help="id of the bundle (default: %(default)s)")
    parser.add_argument("--faces", type=int, default=2, help="sampled faces, each with every prompt (default: 2)")
    parser.add_argument("--frames", type=int, default=48, help="frames of a film: fewer is faster motion (default: 48)")
    parser.add_argument("--intensity", type=float, default=1.0, help="of every motion, up to 2 (default: 1)")
    parser.add_argument("--only", default="", help="ways whose name holds these words")
    arguments = parser.parse_args()
    animator = Animator.from_bundle(find_bundle(load_settings().bundles_dir, arguments.model), ("cpu",), threads=1)

    ways = [way for way in list_ways(animator) if arguments.only in way.name]
    scores: dict[str, list[tuple[float, float]]] = {way.name: [] for way in ways}
    repeated = []
    for seed in range(arguments.faces):
        face = animator.sample_face(seed)
        for prompt in PROMPTS:
            motion = animator.move(face, prompt, arguments.frames, seed, arguments.intensity)
            ws = face.ws[None] + motion.delta_ws
            full = draw(animator, ws)
            repeated.append(np.mean((full[1:] == full[:-1]).all(axis=(1, 2, 3))))
            for way in ways:
                scores[way.name] += [measure(*pair) for pair in zip(way.draw(ws, full), full, strict=True)]
            sys.stderr.write(f"face {seed}, {prompt}\n")
    films = arguments.faces * len(PROMPTS)
    sys.stdout.write(f"{films} films of {arguments.frames} frames, {animator.manifest.resolution} px; ")
    sys.stdout.write(f"{100 * float(np.mean(repeated)):.1f} % of the frames are the one before, bit for bit.\n\n")
    sys.stdout.write("| instead of drawing all | work saved | PSNR worst, median | SSIM worst, median |\n")
    sys.stdout.write("| --- | --- | --- | --- |\n")
    for way in ways:
        psnr, ssim = np.array([score for score in scores[way.name] if np.isfinite(score[0])]).T
        sys.stdout.write(
            f"| {way.name} | {100 * way.saved:.0f} % | {psnr.min():.1f} dB, {np.median(psnr):.1f} dB "
            f"| {ssim.min():.3f}, {np.median(ssim):.3f} |\n"
        )


def draw(animator: Animator, ws: Rows) -> Frames:
    """Draw every frame in full. Shapes: ws [T,num_ws,w_dim] → [T,H,W,3]."""
    session = animator._sessions["synthesis"]
    return np.concatenate([session.run(ws=ws[start : start + 8])["frames"] for start in range(0, len(ws), 8)])


def list_ways(animator: Animator) -> list[Way]:
    """Return the ways that are tried: early layers kept, frames blended, frames warped along the optical flow."""
    ways = []
    shares = work_shares(animator)
    for rows in (1, 3, 5, 7, 9):
        px = 4 * 2 ** (rows // 2)
        ways.append(
            Way(
                f"layers up to {px} px ({rows} rows of ws) once a film",
                shares[rows],
                lambda ws, _full, rows=rows: draw(animator, hold_rows(ws, rows, len(ws))),
            )
        )
        ways.append(
            Way(
                f"layers up to {px} px every second frame",
                shares[rows] / 2,
                lambda ws, _full, rows=rows: draw(animator, hold_rows(ws, rows, 2)),
            )
        )
    ways.append(Way("every second frame, the others a blend of both neighbours", 0.5, lambda _ws, full: blend(full)))
    ways.append(Way("every second frame, the others warped along the optical flow", 0.5, lambda _ws, full: warp(full)))
    return ways


def hold_rows(ws: Rows, rows: int, every: int) -> Rows:
    """Return ``ws`` whose first rows change only with every ``every``-th frame: what kept early features amount to.

    A layer sees the rows up to its own and nothing else, so holding those is the same as keeping its output.
    """
    held = ws.copy()
    held[:, :rows] = ws[np.arange(len(ws)) // every * every, :rows]
    return held


def blend(full: Frames) -> Frames:
    """Return the film with odd frames as the mean of their neighbours; the last frame is always drawn."""
    film = full.copy()
    film[1:-1:2] = ((full[0:-2:2].astype(np.uint16) + full[2::2] + 1) // 2).astype(np.uint8)
    return film


def warp(full: Frames) -> Frames:
    """Return the film with odd frames as both neighbours moved half-way along the dense optical flow, and blended."""
    film = full.copy()
    flow_of = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    height, width = full.shape[1:3]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    for index in range(1, len(full) - 1, 2):
        before, after = full[index - 1], full[index + 1]
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (before, after)]
        half = flow_of.calc(greys[0], greys[1], None) / 2
        back = flow_of.calc(greys[1], greys[0], None) / 2
        moved = [
            cv2.remap(frame, x - flow[..., 0], y - flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for frame, flow in ((before, half), (after, back))
        ]
        film[index] = cv2.addWeighted(moved[0], 0.5, moved[1], 0.5, 0)
    return film


def measure(frame: Frames, truth: Frames) -> tuple[float, float]:
    """Return PSNR in dB (infinite for the very same frame) and the mean SSIM of luma, Gaussian window of 1.5 px."""
    error = float(np.mean((frame.astype(np.float64) - truth) ** 2))
    if error == 0:
        return float("inf"), 1.0
    a, b = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (frame, truth))

    def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(cv2.GaussianBlur(values, (11, 11), 1.5), np.float64)

    mean_a, mean_b = smooth(a), smooth(b)
    covariance = smooth(a * b) - mean_a * mean_b
    spread = smooth(a * a) - mean_a**2 + smooth(b * b) - mean_b**2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    ssim = (2 * mean_a * mean_b + c1) * (2 * covariance + c2) / ((mean_a**2 + mean_b**2 + c1) * (spread + c2))
    return 10 * float(np.log10(255**2 / error)), float(ssim.mean())


def work_shares(animator: Animator) -> Shares:
    """Return the share of multiplications in the layers that rows < k of ws feed, for every k.

    Row 0 feeds the 4 px layer, rows 2i+1 and 2i+2 the two layers of block i; toRGB and blur are a few per cent and left
    out. The widths are the recipe's, which made the bundle.
    """
    from training.recipes import RECIPES

    channels = RECIPES[str(animator.manifest.made_by["recipe"])].generator.channels
    work = [9.0 * channels[0] ** 2 * 4**2]
    for block, (before, after) in enumerate(pairwise(channels)):
        px = 8 * 2**block
        work += [9.0 * before * after * (px // 2) ** 2, 9.0 * after**2 * px**2]
    return [float(share) for share in np.concatenate([[0.0], np.cumsum(work)]) / sum(work)]


if __name__ == "__main__":
    main()
