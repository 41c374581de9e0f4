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
from training.checkpoints.spec import find_setting
from training.errors import DataError
from training.export.bundle import run_graph
from training.export.graphs import export_module
from training.networks.irse import PictureEncoder

Arrays = dict[str, np.ndarray]
SIZES = ("stylegan_size", "output_size", "n_styles")
"""What tells how many rows a generator has, in cases and in the options of files."""
OUTPUTS = ("codes", "ws")
"""As cases name them: what the encoder gives without the average, and with it."""


class CodesGraph(nn.Module):
    """The encoder with both outputs that cases ask for."""

    def __init__(self, encoder: PictureEncoder) -> None:
        super().__init__()
        self.encoder, self.unlocked = encoder, encoder.count_unlocked()

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: image [N,3,R,R] → codes, ws [N,num_ws,w_dim] each."""
        codes = self.encoder.offsets(image, self.unlocked)
        return codes, self.encoder.w_avg + codes


def write_checkpoint(
    tensors: Mapping[str, Tensor], spec: Mapping[str, Any], case: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Give what the original program would hand to `torch.save`."""
    options = {name: told for name in SIZES if (told := find_setting(spec, name)) is not None}
    if not options:  # an encoder of one w wants a number of rows; where a case shows but that w, any will do
        rows = [case[name].shape[1] for name in OUTPUTS if name in case and case[name].ndim == 3]
        options["n_styles"] = max(rows, default=2)
    options |= {"encoder_type": find_class(spec["format"]), "start_from_latent_avg": True}
    checkpoint: dict[str, Any] = {"state_dict": dict(tensors), "opts": options}
    if "latent_avg" in case:
        checkpoint["latent_avg"] = torch.from_numpy(case["latent_avg"])
    return checkpoint


def find_class(format: str) -> str:
    """Give the published class that a case's format names, or the first of the family that it begins with."""
    family = "e4e" if format.lower().startswith("e4e") else "psp"
    known = [name for name, short in FAMILIES.items() if short == family]
    # one name begins another
    return max((name for name in known if name.lower() in format.lower()), key=len, default=known[0])


@torch.no_grad()
def run_case(
    tensors: Mapping[str, Tensor], spec: Mapping[str, Any], case: Mapping[str, np.ndarray], folder: Path
) -> dict[str, Arrays]:
    """Write a case's checkpoint into a folder, import it, export it, and run both on the case's picture.

    Gives: runtime ("pytorch", "onnxruntime") → those of OUTPUTS that the case has → [N,num_ws,w_dim],
    or [N,w_dim] as the case has it.
    Raises: DataError where the case has no picture or nothing to compare with; what `read_encoder` raises.
    """
    names = [name for name in OUTPUTS if name in case]
    if "image" not in case or not names:
        raise DataError("case.npz wants an array `image`, and `codes` or `ws` to compare with")
    path = folder / "encoder.pt"
    torch.save(write_checkpoint(tensors, spec, case), path)
    encoder = read_encoder(path).encoder
    image = np.asarray(case["image"], np.float32)
    graph = CodesGraph(encoder)
    pytorch = {name: value.numpy() for name, value in zip(OUTPUTS, graph(torch.from_numpy(image)), strict=True)}
    # two pictures, because an exporter takes a batch of one for a constant
    example = torch.from_numpy(np.repeat(image[:1], 2, axis=0))
    exported = run_graph(export_module(graph, (example,), ["image"], OUTPUTS), image=image)
    results = {"pytorch": pytorch, "onnxruntime": exported}
    # of encoders of one w, a case may have that w instead of its rows
    return {
        runtime: {name: found[name][:, 0] if case[name].ndim == 2 else found[name] for name in names}
        for runtime, found in results.items()
    }
