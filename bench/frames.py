"""Frames a second of the bundle's synthesis, one thread: against the same network in eager PyTorch, and by each of the
runtimes that are installed against onnxruntime.

Time here is the processor's, not the clock's: with one thread the two agree on an idle machine, and on a busy one only
the first still tells what the network costs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from bench.report import Figure
from model.animator import Animator
from model.bundle.reader import Bundle
from model.runtime import ncnn_engine, open_vino
from model.sessions import Tuning

REPEATS = 5
SECONDS_A_REPEAT = 2.0
BATCH_SIZES = (1, 8)


def measure_frames(animator: Animator) -> list[Figure]:
    """Return frames/s at batch 1 and 8; the animator must have been opened with one thread."""
    figures = []
    for batch_size in BATCH_SIZES:
        rate = median_rate(prepare(animator, batch_size))
        baseline = measure_torch(animator, batch_size)
        figures.append(
            Figure(
                f"frames a second of one core, batch {batch_size}, {animator.manifest.resolution} px",
                rate,
                "frames/s",
                baseline,
                "the same network in eager PyTorch, one thread" if baseline else "",
            )
        )
    return figures


def measure_runtimes(bundle: Bundle) -> list[Figure]:
    """Return frames/s of the bundle by every installed runtime and precision, one thread, against onnxruntime's.

    A precision that the processor has no instructions for is drawn like the full one; its ratio says so.
    """
    plain = Animator.from_bundle(bundle, ("cpu",), threads=1)
    others: dict[str, Animator] = {}
    if ncnn_engine.is_installed():
        others["ncnn"] = Animator.from_bundle(bundle, ("ncnn", "cpu"), threads=1)
    if open_vino.is_installed():
        others["OpenVINO"] = Animator.from_bundle(bundle, ("openvino", "cpu"), threads=1)
        others["OpenVINO, half precision"] = Animator.from_bundle(bundle, ("openvino", "cpu"), 1, Tuning("half"))
    figures = []
    for batch_size in BATCH_SIZES:
        baseline = median_rate(prepare(plain, batch_size))
        figures += [
            Figure(
                f"frames a second of one core, batch {batch_size}, bundles/{bundle.manifest.id} by {name}",
                median_rate(prepare(animator, batch_size)),
                "frames/s",
                baseline,
                "onnxruntime",
            )
            for name, animator in others.items()
        ]
    return figures


def prepare(animator: Animator, batch_size: int) -> Callable[[], int]:
    """Return what draws one short video of a made-up face and says how many frames it has."""
    face = animator.sample_face(1)
    motion = animator.move(face, "smiling", frames=64, seed=1)
    return lambda: sum(len(batch) for batch in animator.draw(face, motion, batch_size))


def median_rate(draw: Callable[[], int]) -> float:
    """Return the median over REPEATS of frames drawn a second of processor time; the first round is not counted."""
    draw()
    rates = []
    for _ in range(REPEATS):
        begun, frames = time.process_time(), 0
        while time.process_time() - begun < SECONDS_A_REPEAT:
            frames += draw()
        rates.append(frames / (time.process_time() - begun))
    return statistics.median(rates)


def measure_torch(animator: Animator, batch_size: int) -> float | None:
    """Return frames/s of training's own network of this recipe in eager mode, or None without torch or recipe.

    Its weights are random: they do not change the time. Clamping to uint8 and the layout are part of the job, as in
    the bundle's graph.
    """
    if find_spec("torch") is None:
        return None
    import torch

    from training.networks.stylegan2 import SynthesisNetwork
    from training.recipes import RECIPES

    recipe = RECIPES.get(str(animator.manifest.made_by.get("recipe")))
    if recipe is None:
        return None
    torch.set_num_threads(1)
    network = SynthesisNetwork(animator.manifest.resolution, animator.manifest.w_dim, recipe.generator.channels).eval()
    shape = (batch_size, animator.manifest.num_ws, animator.manifest.w_dim)
    ws = torch.from_numpy(np.random.default_rng(0).standard_normal(shape, dtype=np.float32))

    def draw() -> int:
        with torch.inference_mode():
            frames = network(ws)
            frames.mul(127.5).add(127.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
        return batch_size

    return median_rate(draw)
