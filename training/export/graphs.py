"""The bundle's graphs as small PyTorch modules with the contract's names, types and value ranges, and their export to
ONNX."""

import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

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
from training.networks.stylegan2 import SQRT2, FullyConnected, Generator, SynthesisBlock, SynthesisLayer, ToRGB

OPSET = 20


class ExportLayer(nn.Module):
    """A synthesis layer with everything constant worked out: weights, demodulation matrix, √2 in bias and scale."""

    weight: Tensor
    energy: Tensor
    bias: Tensor
    blur: Tensor

    def __init__(self, layer: SynthesisLayer) -> None:
        super().__init__()
        weight = layer.weight.detach() * layer.gain
        self.up, self.affine = layer.up, bake(layer.affine)
        self.register_buffer("energy", weight.square().sum((2, 3)).t().contiguous())
        self.register_buffer("weight", weight.transpose(0, 1).contiguous() if layer.up else weight)
        self.register_buffer("bias", layer.bias.detach() * SQRT2)
        if layer.up:
            self.register_buffer("blur", layer.blur.detach().clone())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,out,H,W]."""
        styles = self.affine(w)
        x = x * styles[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, self.weight, stride=2)
            x = F.conv2d(x, self.blur, padding=1, groups=self.blur.shape[0])
        else:
            x = F.conv2d(x, self.weight, padding=1)
        scale = torch.rsqrt(styles.square() @ self.energy + 1e-8) * SQRT2
        return F.leaky_relu(x * scale[:, :, None, None] + self.bias, 0.2)


class ExportToRGB(nn.Module):
    """toRGB as a batched matrix product, which needs no convolution with changing weights."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: ToRGB) -> None:
        super().__init__()
        self.affine = bake(layer.affine)
        self.register_buffer("weight", (layer.weight.detach() * layer.gain)[:, :, 0, 0])
        self.register_buffer("bias", layer.bias.detach().clone())

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,3,H,W]."""
        weight = self.weight * self.affine(w)[:, None]
        rgb = torch.matmul(weight, x.flatten(2))
        return rgb.view(-1, 3, x.shape[2], x.shape[3]) + self.bias


def bake(layer: FullyConnected) -> nn.Linear:
    """Turn an equalised layer without activation into a plain one."""
    assert not layer.activate
    plain = nn.Linear(layer.weight.shape[1], layer.weight.shape[0])
    plain.weight.data = layer.weight.detach() * layer.gain
    plain.bias.data = layer.bias.detach().clone()
    return plain


class SynthesisGraph(nn.Module):
    """ws → frames uint8 NHWC."""

    const: Tensor
    upsample: Tensor

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        source = generator.synthesis
        self.num_ws = source.num_ws
        self.register_buffer("const", source.const.detach().clone())
        self.register_buffer("upsample", source.upsample.detach().clone())
        self.conv1, self.torgb = ExportLayer(source.conv1), ExportToRGB(source.torgb)
        self.blocks = nn.ModuleList(
            nn.ModuleList([ExportLayer(block.conv0), ExportLayer(block.conv1), ExportToRGB(block.torgb)])
            for block in cast("list[SynthesisBlock]", source.blocks)
        )

    def forward(self, ws: Tensor) -> Tensor:
        """Shapes: ws [N,num_ws,w_dim] → frames [N,R,R,3] uint8 RGB."""
        x = self.conv1(self.const.expand(ws.shape[0], -1, -1, -1), ws[:, 0])
        rgb = self.torgb(x, ws[:, 1])
        for i, block in enumerate(self.blocks):
            conv0, conv1, torgb = cast("list[nn.Module]", block)
            row = 2 * i + 1
            x = conv1(conv0(x, ws[:, row]), ws[:, row + 1])
            rgb = F.conv_transpose2d(rgb, self.upsample, stride=2, padding=1, groups=3) + torgb(x, ws[:, row + 2])
        pixels = torch.round((rgb.clamp(-1, 1) + 1) * 127.5)
        return pixels.permute(0, 2, 3, 1).to(torch.uint8)


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
        target = torch.zeros(len(options))
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
