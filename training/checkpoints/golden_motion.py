"""Golden cases of the published motion: embeddings → motion codes and delta_ws, in PyTorch and in ONNX Runtime.

Outputs are named T{frames}_{decay}_{motion_codes|delta_ws}, "train" being the constant decay of training, and
visual_delta_ws. h_0 is zero here. Of frames and ws rows, a case keeps a few.
Must not import: services, worker.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.sessions import open_graph
from training.checkpoints.official_motion import W_DIM, read_motion
from training.errors import DataError
from training.networks.motion import PAPER_DECAYS, PaperMotion
from training.paper.graph import build_paper_graph

Arrays = dict[str, np.ndarray]
Move = Callable[[np.ndarray, np.ndarray, int, str], Arrays]
"""text_embed, image_embed [N,embed_dim], the number of frames, the decay → motion_codes [N,T,embed_dim], delta_ws
[N,T,num_ws,w_dim], visual_delta_ws [N,num_ws,w_dim]."""

KEPT_ROWS = (0, 8, 17)


def run_case(
    tensors: Mapping[str, Tensor], spec: Mapping[str, Any], case: Mapping[str, np.ndarray], folder: Path
) -> dict[str, Arrays]:
    """Write a case's checkpoint into a folder, import it, export it, and run both on the case's embeddings.

    Gives: runtime ("pytorch", "onnxruntime") → output, in the frames and rows that the case keeps.
    Raises: DataError where the case has no embeddings or a decay that is not known; what `read_motion` raises.
    """
    if not {"text_embed", "image_embed"} <= case.keys():
        raise DataError("case.npz wants arrays `text_embed` and `image_embed`")
    path = folder / "motion.pth"
    torch.save({"iter": 0, "arch": spec.get("arch", "RN50"), "state_dict": dict(tensors), "optimizer": {}}, path)
    network = read_motion(path, _measure_row(case)).network
    return {
        "pytorch": _collect(lambda *given: run_network(network, *given), spec, case),
        "onnxruntime": _collect(lambda *given: run_graph(network, *given), spec, case),
    }


@torch.no_grad()
def run_network(
    network: PaperMotion, text_embed: np.ndarray, image_embed: np.ndarray, frames: int, decay: str
) -> Arrays:
    """Be a Move in PyTorch."""
    text, image = torch.from_numpy(text_embed), torch.from_numpy(image_embed)
    codes, delta_ws = network(text + image, torch.zeros(len(text), network.h_dim), frames, decay)
    return {
        "motion_codes": codes.numpy(),
        "delta_ws": delta_ws.numpy(),
        "visual_delta_ws": network.residual(image).numpy(),
    }


def run_graph(network: PaperMotion, text_embed: np.ndarray, image_embed: np.ndarray, frames: int, decay: str) -> Arrays:
    """Be a Move in ONNX Runtime: bundles' graph, one face at a time."""
    session = open_graph(build_paper_graph(network, decay=decay, published=True).SerializeToString())
    rows = [
        session.run(
            text_embed=text[None],
            image_embed=image[None],
            noise=np.zeros((1, network.h_dim), np.float32),
            intensity=np.ones(1, np.float32),
            progress=np.linspace(0, 1, frames, dtype=np.float32),
        )
        for text, image in zip(text_embed, image_embed, strict=True)
    ]
    moved = {name: np.stack([row[name] for row in rows]) for name in ("motion_codes", "delta_ws")}
    return moved | {"visual_delta_ws": np.concatenate([row["visual_delta_ws"] for row in rows])}


def _collect(move: Move, spec: Mapping[str, Any], case: Mapping[str, np.ndarray]) -> Arrays:
    """Run a case's motions and give the outputs that it has, in the parts that it keeps."""
    embeds = case["text_embed"], case["image_embed"]
    motions = {match[0]: match for name in case if (match := re.match(r"T(\d+)_([a-z]+)(?=_(motion|delta))", name))}
    outputs: Arrays = {}
    for prefix, match in motions.items():
        frames, decay = int(match[1]), "const" if match[2] == "train" else match[2]
        if not frames or decay not in PAPER_DECAYS:
            raise DataError(
                f"case.npz: {match[0]}_… has no frames or a decay that is none of {', '.join(PAPER_DECAYS)}"
            )
        moved = move(*embeds, frames, decay)
        outputs["visual_delta_ws"] = moved.pop("visual_delta_ws")
        kept = _list_kept(spec, "frames", [0, 1, frames // 2, frames - 1])
        for name, value in moved.items():
            outputs[f"{prefix}_{name}"] = _keep(value, 1, kept, case.get(f"{prefix}_{name}"))
    for name, value in outputs.items():
        if name.endswith("delta_ws"):
            outputs[name] = _keep(value, -2, _list_kept(spec, "ws rows", KEPT_ROWS), case.get(name))
    return {name: value for name, value in outputs.items() if name in case}


def _keep(value: np.ndarray, axis: int, kept: Sequence[int], wanted: np.ndarray | None) -> np.ndarray:
    """Take the kept items of an axis, unless the case keeps all of them; what lies beyond the end means the last."""
    if wanted is None or wanted.shape[axis] == value.shape[axis]:
        return value
    places = [min(place, value.shape[axis] - 1) for place in kept]
    return value.take(places, axis)


def _list_kept(spec: Mapping[str, Any], what: str, otherwise: Sequence[int]) -> Sequence[int]:
    """Read which rows a case's note says that it keeps; of frames it speaks in terms of T."""
    match = re.search(rf"{what} (?:are )?\[([\d, ]+)\]", str(spec.get("note", "")))
    return [int(place) for place in match[1].split(",")] if match else otherwise


def _measure_row(case: Mapping[str, np.ndarray]) -> int:
    """Give w_dim, which the tensors tell no more of than its product with num_ws."""
    return next((value.shape[-1] for name, value in case.items() if name.endswith("delta_ws")), W_DIM)
