"""Golden cases of encoders: picture → ws, with and without the average, in PyTorch and in ONNX Runtime.

Must not import: services, worker.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.checkpoints.encoders import FAMILIES, read_encoder
from training.errors import DataError
from training.export.bundle import run_graph
from training.export.graphs import export_module
from training.networks.irse import PyramidEncoder

Arrays = dict[str, np.ndarray]
OUTPUTS = ("codes", "ws")
"""As cases name them: what the encoder gives without the average, and with it."""


class CodesGraph(nn.Module):
    """The encoder with both outputs that cases ask for."""

    def __init__(self, encoder: PyramidEncoder) -> None:
        super().__init__()
        self.encoder, self.unlocked = encoder, int(encoder.unlocked_rows)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: image [N,3,R,R] → codes, ws [N,num_ws,w_dim] each."""
        codes = self.encoder.offsets(image, self.unlocked)
        return codes, self.encoder.w_avg + codes


def write_checkpoint(
    tensors: Mapping[str, Tensor], spec: Mapping[str, Any], average: np.ndarray | None
) -> dict[str, Any]:
    """Give what the original program would hand to `torch.save`."""
    family = "psp" if str(spec["format"]).lower().startswith("psp") else "e4e"
    meta = spec.get("meta", {})
    options = {
        "encoder_type": next(name for name, short in FAMILIES.items() if short == family),
        "stylegan_size": spec.get("stylegan_size", meta.get("stylegan_size")),
        "start_from_latent_avg": True,
    }
    checkpoint: dict[str, Any] = {"state_dict": dict(tensors), "opts": options}
    if average is not None:
        checkpoint["latent_avg"] = torch.from_numpy(average)
    return checkpoint


@torch.no_grad()
def run_case(
    tensors: Mapping[str, Tensor], spec: Mapping[str, Any], case: Mapping[str, np.ndarray], folder: Path
) -> dict[str, Arrays]:
    """Write a case's checkpoint into a folder, import it, export it, and run both on the case's picture.

    Gives: runtime ("pytorch", "onnxruntime") → those of OUTPUTS that the case has → [N,num_ws,w_dim].
    Raises: DataError where the case has no picture or nothing to compare with; what `read_encoder` raises.
    """
    names = [name for name in OUTPUTS if name in case]
    if "image" not in case or not names:
        raise DataError("case.npz wants an array `image`, and `codes` or `ws` to compare with")
    path = folder / "encoder.pt"
    torch.save(write_checkpoint(tensors, spec, case.get("latent_avg")), path)
    encoder = read_encoder(path).encoder
    image = np.asarray(case["image"], np.float32)
    graph = CodesGraph(encoder)
    pytorch = {name: value.numpy() for name, value in zip(OUTPUTS, graph(torch.from_numpy(image)), strict=True)}
    # two pictures, because an exporter takes a batch of one for a constant
    example = torch.from_numpy(np.repeat(image[:1], 2, axis=0))
    exported = run_graph(export_module(graph, (example,), ["image"], OUTPUTS), image=image)
    results = {"pytorch": pytorch, "onnxruntime": exported}
    return {runtime: {name: found[name] for name in names} for runtime, found in results.items()}
