"""Frames a second of StyleGAN2 config-f, one core: the exported graph against eager PyTorch of the same weights.

The baseline draws as published implementations do: weights modulated for each picture, one operation after the other,
at the number of threads that suits it best. Both are held to one core, so that neither gets what the other has not.
Weights are random: they don't change the time.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.report import Figure
from model.runtime.open_vino import OpenVinoEngine, is_installed
from model.runtime.source import GraphSource
from model.runtime.tuning import Tuning
from model.sessions import open_graph
from training.export.graphs import export_module
from training.export.synthesis_graph import SynthesisGraph
from training.networks.layers import SLOPE, SQRT2
from training.networks.stylegan2 import build_z_generator
from training.networks.synthesis import SynthesisLayer, SynthesisNetwork, ToRGB

SIZES_PX = (256, 1024)
MACS_G = {256: 45.1, 1024: 74.1}
"""Multiply-accumulates of a frame, in thousand millions."""
GOALS = {
    (256, "fp32"): "≥ 2 times",
    (1024, "fp32"): "≥ 2.8 times",
    (256, "bf16"): "≥ 4.5 times",
    (1024, "bf16"): "≥ 6 times",
}
ROUNDS = 3
PEAK_SIDE = 2048


def measure_synthesis() -> list[Figure]:
    """Return frames a second at 256 and 1024 px in fp32, and in bf16 where OpenVINO is installed."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        peak = measure_peak()
        figures = [Figure("matrix-product peak of one core, fp32", peak, "GMAC/s")]
        for size_px in SIZES_PX:
            figures += _measure_size(size_px, peak)
    finally:
        os.sched_setaffinity(0, cores)
    if not is_installed():
        sys.stderr.write("NOT MEASURED: bf16 (OpenVINO is not installed; `make bench` brings it)\n")
    return figures


def _measure_size(size_px: int, peak: float) -> list[Figure]:
    torch.manual_seed(1)
    network = build_z_generator(size_px).synthesis.eval().requires_grad_(False)
    ws = torch.randn(1, network.num_ws, network.w_dim, generator=torch.Generator().manual_seed(2))
    rates = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rates[threads] = frames_a_second(lambda: draw_plainly(network, ws))
    torch.set_num_threads(1)
    wanted = to_bytes(draw_plainly(network, ws))
    threads = max(rates, key=lambda count: rates[count])
    baseline = f"eager PyTorch, the better of {' and '.join(map(str, rates))} threads ({threads})"
    data = export_module(SynthesisGraph(network), (torch.cat([ws, ws]),), ["ws"], ["frames"]).SerializeToString()
    session = open_graph(data, "synthesis")
    draws: dict[str, Callable[[], np.ndarray]] = {"fp32": lambda: session.run(ws=ws.numpy())["frames"]}
    if is_installed():
        engine = OpenVinoEngine(GraphSource("synthesis", data), 1, Tuning("half"))
        draws["bf16"] = lambda: engine.run(["frames"], {"ws": ws.numpy()})["frames"]
    figures = []
    for precision, draw in draws.items():
        name, rate = f"synthesis-{size_px}-{precision}", frames_a_second(draw)
        goal = GOALS[size_px, precision]
        figures.append(Figure(name, rate, "frames/s", rates[threads], baseline, goal))
        share = Figure(f"{name}, share of the fp32 peak", 100 * rate * MACS_G[size_px] / peak, "%")
        figures += [share, Figure(f"{name}, nearness to the baseline's frame", psnr_db(draw(), wanted), "dB PSNR")]
    return figures


def draw_plainly(network: SynthesisNetwork, ws: Tensor) -> Tensor:
    """Draw one picture as published implementations do: [1,num_ws,w_dim] → [1,3,R,R]."""
    with torch.inference_mode():
        x = run_layer(network.conv1, network.const.expand(len(ws), -1, -1, -1), ws[:, 0])
        rgb = run_rgb(network.torgb, x, ws[:, 1])
        for i, block in enumerate(network.blocks):
            x = run_layer(block.conv0, x, ws[:, 2 * i + 1])  # type: ignore[arg-type]
            x = run_layer(block.conv1, x, ws[:, 2 * i + 2])  # type: ignore[arg-type]
            rgb = F.conv_transpose2d(rgb, network.upsample, stride=2, padding=1, groups=3)
            rgb = rgb + run_rgb(block.torgb, x, ws[:, 2 * i + 3])  # type: ignore[arg-type]
        return rgb


def run_layer(layer: SynthesisLayer, x: Tensor, w: Tensor) -> Tensor:
    """Modulate the weights, convolve, blur, add noise and bias, activate.

    Shapes: x [1,in,H,W] → [1,out,H,W], or twice as large.
    """
    styles = layer.affine(w)
    weight = layer.weight[None] * layer.gain * styles[:, None, :, None, None]
    weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    if layer.up:
        x = F.conv_transpose2d(x, weight[0].transpose(0, 1), stride=2)
        x = F.conv2d(F.pad(x, (1, 1, 1, 1)), layer.blur, groups=x.shape[1])
    else:
        x = F.conv2d(x, weight[0], padding=1)
    if layer.noise_size is not None:
        x = x + layer.noise_strength * layer.noise_const
    return F.leaky_relu(x + layer.bias, SLOPE) * SQRT2


def run_rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """Modulated 1×1 convolution: [1,in,H,W] → [1,3,H,W]."""
    return F.conv2d(x, layer.weight * layer.gain * layer.affine(w)[:, :, None, None]) + layer.bias


def to_bytes(picture: Tensor) -> np.ndarray:
    """[N,3,R,R], about [-1,1] → [N,R,R,3] uint8."""
    frames: np.ndarray = ((picture.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return frames


def frames_a_second(draw: Callable[[], object]) -> float:
    """Return the median over ROUNDS of one frame at a time by the clock; the first draw is not counted."""
    draw()
    seconds = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        draw()
        seconds.append(time.perf_counter() - begun)
    return 1 / statistics.median(seconds)


def measure_peak() -> float:
    """Return the multiply-accumulates a second of a large matrix product on one thread, in thousand millions."""
    torch.set_num_threads(1)
    a, b = torch.randn(2, PEAK_SIDE, PEAK_SIDE).unbind()
    return frames_a_second(lambda: a @ b) * PEAK_SIDE**3 / 1e9


def psnr_db(frames: np.ndarray, wanted: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 pictures, at most 99."""
    error = np.mean((frames.astype(np.float64) - wanted) ** 2)
    return float(min(99.0, 10 * np.log10(255**2 / max(error, 1e-12))))
