"""Frames a second of StyleGAN2 config-f, one core: the exported graph against eager PyTorch of the same weights.

Two baselines (`bench.eager`): the form in which a published implementation runs on a CPU, which the goals were set
against, and a tightened one, so that nobody need wonder whether the slower of two was picked. Each runs at the number
of threads that suits it best; all are held to one core, so that none gets what the other has not. Weights are random:
they don't change the time. Noise has a strength, as in trained networks; without one our graphs would leave it out.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from bench.eager import draw_as_published, draw_tightened
from bench.machine import held_to_one_core
from bench.report import Figure
from model.runtime import ncnn_engine, open_vino
from model.runtime.source import GraphSource
from model.runtime.tuning import Tuning
from model.sessions import open_graph
from training.export.graphs import export_module
from training.export.synthesis_graph import SynthesisGraph
from training.networks.stylegan2 import build_z_generator
from training.networks.synthesis import SynthesisLayer, SynthesisNetwork

Draw = Callable[[], np.ndarray]

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
    with held_to_one_core():
        peak = measure_peak()
        figures = [Figure("matrix-product peak of one core, fp32", peak, "GMAC/s")]
        for size_px in SIZES_PX:
            figures += _measure_size(size_px, peak)
    for name, module in (("bf16 (OpenVINO", open_vino), ("ncnn (it", ncnn_engine)):
        if not module.is_installed():
            sys.stderr.write(f"NOT MEASURED: {name} is not installed; `make bench` brings it)\n")
    return figures


def _measure_size(size_px: int, peak: float) -> list[Figure]:
    network, ws = build_network(size_px)
    baselines = {
        "eager PyTorch as rosinality/stylegan2-pytorch runs it on a CPU": draw_as_published,
        "tightened eager PyTorch": draw_tightened,
    }
    (published, published_rate), (tightened, tightened_rate) = (
        _measure_eager(name, draw, network, ws) for name, draw in baselines.items()
    )
    wanted = to_bytes(draw_as_published(network, ws))
    figures = []
    for precision, draws in _open(network, ws).items():
        rates = {runtime: frames_a_second(draw) for runtime, draw in draws.items()}
        best = max(rates, key=lambda runtime: rates[runtime])
        name, rate = f"synthesis-{size_px}-{precision}", rates[best]
        goal = GOALS[size_px, precision]
        figures += [
            Figure(name, rate, "frames/s", published_rate, published, goal),
            Figure(f"{name}, against tightened eager", rate, "frames/s", tightened_rate, tightened),
            *(Figure(f"{name}, by {one}", rates[one], "frames/s", published_rate, published) for one in rates),
            Figure(f"{name}, share of the fp32 peak ({best})", 100 * rate * MACS_G[size_px] / peak, "%"),
            Figure(f"{name}, nearness to the baseline's frame", psnr_db(draws[best](), wanted), "dB PSNR"),
        ]
    return figures


def build_network(size_px: int) -> tuple[SynthesisNetwork, Tensor]:
    """Return config-f at one size, its noise with a strength, and ws [1,num_ws,w_dim] to draw."""
    torch.manual_seed(1)
    network = build_z_generator(size_px).synthesis.eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, SynthesisLayer) and layer.noise_size is not None:
            layer.noise_strength.fill_(0.1)
    return network, torch.randn(1, network.num_ws, network.w_dim, generator=torch.Generator().manual_seed(2))


def _measure_eager(
    name: str, draw: Callable[[SynthesisNetwork, Tensor], Tensor], network: SynthesisNetwork, ws: Tensor
) -> tuple[str, float]:
    """Return how a baseline is to be called, and its frames a second."""
    rates = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        rates[threads] = frames_a_second(lambda: draw(network, ws))
    torch.set_num_threads(1)
    threads = max(rates, key=lambda count: rates[count])
    return f"{name}, the better of {' and '.join(map(str, rates))} threads ({threads})", rates[threads]


def _open(network: SynthesisNetwork, ws: Tensor) -> dict[str, dict[str, Draw]]:
    """Return what draws the frame, by precision and runtime, each with one thread."""
    data = export_module(SynthesisGraph(network), (torch.cat([ws, ws]),), ["ws"], ["frames"]).SerializeToString()
    source, inputs = GraphSource("synthesis", data), {"ws": ws.numpy()}
    session = open_graph(data, "synthesis")
    draws: dict[str, dict[str, Draw]] = {"fp32": {"onnxruntime": lambda: session.run(**inputs)["frames"]}}
    if ncnn_engine.is_installed():
        winograd = ncnn_engine.NcnnEngine(source, 1)
        draws["fp32"]["ncnn"] = lambda: winograd.run(["frames"], inputs)["frames"]
    if open_vino.is_installed():
        halves = open_vino.OpenVinoEngine(source, 1, Tuning("half"))
        name = "OpenVINO, the widest layers by ncnn" if ncnn_engine.is_installed() else "OpenVINO"
        full = open_vino.OpenVinoEngine(source, 1, Tuning())
        draws["fp32"][name] = lambda: full.run(["frames"], inputs)["frames"]
        draws["bf16"] = {name: lambda: halves.run(["frames"], inputs)["frames"]}
    return draws


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
