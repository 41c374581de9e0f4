"""The providers by our names, and what a deployment may choose about them. Imports no runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from model.errors import ModelError

Precision = Literal["full", "half"]

PROVIDERS = ("tensorrt", "cuda", "openvino", "ncnn", "cpu")
DEFAULT_PROVIDERS = PROVIDERS
"""Who gives no list of their own leaves the choice to us: ncnn then draws wide networks only."""
WIDE_BYTES = 16_000_000
"""A synthesis file from here on is of a wide network, which ncnn draws faster; narrow ones gain nothing there."""
GPU_PROVIDERS = frozenset({"tensorrt", "cuda"})
# Graphs of a few small matrix products, some with a loop over time: handing them to other threads costs more than it
# saves, and sending every step of the loop to a GPU more than the step.
SMALL_GRAPHS = frozenset({"text", "motion", "mapping"})

logger = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Tuning:
    """How graphs are run.

    Args:
        precision: "half" lets TensorRT compute in float16 and OpenVINO in bfloat16, where the hardware can. Frames then
            differ a little (docs/decisions/0015-providers.md has the figures). CUDA, ncnn and the
            plain CPU know no halves.
        cache_dir: where engines and prepared weights are kept for later starts and other processes; None: nowhere.
        cuda_graphs: replay the synthesis on CUDA as one recorded graph per batch size.
    """

    precision: Precision = "full"
    cache_dir: Path | None = None
    cuda_graphs: bool = False


def choose_providers(wanted: Sequence[str], available: Sequence[str]) -> tuple[str, ...]:
    """Return the wanted providers that are installed, in the wanted order; warn of the others.

    Raises:
        ModelError: provider-unknown, provider-unavailable.
    """
    unknown = [name for name in wanted if name not in PROVIDERS]
    if unknown or not wanted:
        raise ModelError(
            "provider-unknown",
            f"Unknown execution provider: {', '.join(unknown) or '(none given)'}.",
            f"ANIMATO_PROVIDERS takes a list of {', '.join(PROVIDERS)}, best first.",
        )
    usable = tuple(name for name in wanted if name in available)
    missing = [name for name in wanted if name not in usable]
    if not usable:
        raise ModelError(
            "provider-unavailable",
            f"None of the wanted execution providers ({', '.join(wanted)}) is installed.",
            "Install the gpu extra (onnxruntime-gpu) instead of the cpu extra, or the openvino extra beside it, "
            "or add cpu to ANIMATO_PROVIDERS.",
        )
    if missing:
        logger.warning("providers.fallback", missing=missing, using=list(usable), hint="not installed")
    return usable


def providers_of(graph: str, usable: Sequence[str]) -> tuple[str, ...]:
    """Return where one graph may be tried, best first: a small graph on the CPU as soon as the CPU is allowed.

    Raises:
        ModelError: provider-unavailable where only such are allowed as do not take the graph.
    """
    if graph == "synthesis":
        return tuple(usable)
    # ncnn is told about layers that draw, and no others. OpenVINO compiles for fixed sizes, and the small graphs'
    # differ from prompt to prompt; TensorRT knows no Scan.
    chain = tuple(name for name in usable if name != "ncnn")
    if graph in SMALL_GRAPHS:
        chain = tuple(name for name in ("cpu", "cuda") if name in usable)
    if not chain:
        reason = "whose sizes differ from call to call" if graph in SMALL_GRAPHS else "which draws nothing"
        raise ModelError(
            "provider-unavailable",
            f"{', '.join(usable)} can't run the {graph} graph, {reason}.",
            "Add cpu to ANIMATO_PROVIDERS.",
        )
    return chain
