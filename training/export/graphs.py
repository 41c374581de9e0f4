"""The bundle's graphs of a rendered domain as small PyTorch modules with the contract's names, types and value ranges,
and the export of any module to ONNX. Synthesis has a module of its own (`synthesis_graph`)."""

import logging
import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.export.traces import strip_traces
from training.faces.parameters import (
    ALIGNED_POSE,
    CATEGORIES,
    CATEGORY_SLICES,
    FACTOR_HIGHS,
    FACTOR_LOWS,
    FACTOR_MEANS,
    FACTOR_NAMES,
    FACTOR_STDS,
    HALF_RANGES,
    NUM_CONTINUOUS,
    NUM_EXPRESSION,
    OPTION_SHARPNESS,
    POSE_FACTORS,
)
from training.networks.encoder import FactorHead, ImageTower, Trunk, WPlusEncoder
from training.networks.stylegan2 import Generator

OPSET = 20


class MappingGraph(nn.Module):
    """Gaussian z → ws of a plausible, nearly calm face: the renderer's own `decode`, then the generator's mapping.

    truncation_psi scales z: 1 is the whole variety, 0 one most common face.
    """

    means: Tensor
    stds: Tensor
    lows: Tensor
    highs: Tensor
    pose: Tensor
    half_ranges: Tensor

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator
        pose = np.ones(NUM_CONTINUOUS, np.float32)
        for name in POSE_FACTORS:
            pose[FACTOR_NAMES.index(name)] = ALIGNED_POSE
        self.register_buffer("means", torch.from_numpy(FACTOR_MEANS))
        self.register_buffer("stds", torch.from_numpy(FACTOR_STDS))
        self.register_buffer("lows", torch.from_numpy(FACTOR_LOWS))
        self.register_buffer("highs", torch.from_numpy(FACTOR_HIGHS))
        self.register_buffer("pose", torch.from_numpy(pose))
        self.register_buffer("half_ranges", torch.from_numpy(HALF_RANGES))
        for category in CATEGORIES:
            priors = np.asarray(category.priors, np.float32) * len(category.options)
            self.register_buffer(f"priors_{category.name}", torch.from_numpy(OPTION_SHARPNESS * np.log(priors)))
        self.fem = FACTOR_NAMES.index("fem")

    def forward(self, z: Tensor, truncation_psi: Tensor) -> Tensor:
        """Shapes: z [N,Z_DIM], truncation_psi [1] → ws [N,num_ws,w_dim]."""
        return self.generator.broadcast(self.generator.mapping(self.decode(z * truncation_psi)))

    def decode(self, z: Tensor) -> Tensor:
        """Turn Gaussians into factor vectors, as `training.faces.parameters.decode` and `encode` do.

        Shapes: [N,Z_DIM] → [N,Z_DIM].
        """
        values = self.means + self.stds * z[:, :NUM_CONTINUOUS]
        values = torch.maximum(torch.minimum(values, self.highs), self.lows)
        fem = values[:, self.fem : self.fem + 1]
        parts = [(values * self.pose - self.means) / self.half_ranges]
        for category in CATEGORIES:
            scores = z[:, CATEGORY_SLICES[category.name]] + getattr(self, f"priors_{category.name}")
            chosen = (scores >= scores.amax(1, keepdim=True)).float()
            if category.name == "beard":
                chosen = self._replace(chosen, category.options, fem > 0.15, None, "none")
            if category.name == "hair":
                chosen = self._replace(chosen, category.options, fem > 0.3, "bald", "bun")
                chosen = self._replace(chosen, category.options, fem < -0.3, "bun", "short")
            parts.append(chosen)
        return torch.cat(parts, 1)

    @staticmethod
    def _replace(chosen: Tensor, options: Sequence[str], where: Tensor, old: str | None, new: str) -> Tensor:
        """Choose `new` instead of `old` (or of anything) in the rows of `where` [N,1]."""
        target = torch.zeros(len(options), device=chosen.device)
        target[options.index(new)] = 1.0
        if old is not None:
            where = where & (chosen[:, options.index(old)][:, None] > 0.5)
        return torch.where(where, target[None].expand_as(chosen), chosen)


class IdentityGraph(nn.Module):
    """Picture → who it is: the identity factors and options that the factor head reads, unit norm."""

    def __init__(self, trunk: Trunk, head: FactorHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,S,S] → identity [N,D], unit norm."""
        return self.project(self.trunk(image))

    def project(self, features: Tensor) -> Tensor:
        """Shapes: [N,feature_dim] → [N,D], unit norm."""
        read = self.head(features)
        parts = [read.continuous[:, NUM_EXPRESSION:] / math.sqrt(2)]
        parts += [read.logits[:, options].softmax(1) for options in self.head.option_slices]
        return F.normalize(torch.cat(parts, 1), dim=1)


class PictureGraph(nn.Module):
    """Everything that is read off a picture: ws, image embedding, identity. One trunk, run once for each of them."""

    def __init__(self, encoder: WPlusEncoder, tower: ImageTower) -> None:
        super().__init__()
        self.encoder, self.tower = encoder, tower
        self.identity = IdentityGraph(encoder.trunk, encoder.head)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shapes: image [N,3,S,S] in [-1,1] → ws [N,num_ws,w_dim], image_embed [N,embed_dim], identity [N,D]."""
        features = self.encoder.trunk(image)
        ws, _ = self.encoder.invert(features, image)
        return ws, self.tower.project(features), self.identity.project(features)


def export_module(
    module: nn.Module,
    example: tuple[Tensor, ...],
    inputs: Sequence[str],
    outputs: Sequence[str],
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Export a module whose first axis is the batch, of any size.

    Inputs of shape [1] (as truncation_psi) stay fixed.
    """
    batch = torch.export.Dim("N")
    shapes = tuple({0: batch} if tensor.ndim > 1 else None for tensor in example)
    # operators of torchvision, which is not installed, are none of anybody's business here
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated internals
        program = torch.onnx.export(
            module.eval(),
            example,
            dynamo=True,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_shapes=shapes,
            opset_version=opset,
            verbose=False,
        )
        path = Path(folder) / "graph.onnx"
        assert program is not None
        program.save(path, external_data=False)
        return strip_traces(onnx.load(path))
