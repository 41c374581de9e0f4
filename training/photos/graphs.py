"""The bundle's graphs of an adversarially trained generator and of its encoder and towers, as PyTorch modules.

Noise is constant and inside the graph, so that all frames of a video share it. Must not import: services, worker.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import DataError
from training.export.graphs import ExportLayer, ExportToRGB
from training.networks.irse import PyramidEncoder
from training.networks.mapping import ZMapping
from training.networks.stylegan2 import SQRT2, ZGenerator
from training.networks.synthesis import SynthesisBlock, SynthesisLayer, ToRGB


class NoisyLayer(ExportLayer):
    """A synthesis layer with its constant noise and its bound."""

    noise: Tensor

    def __init__(self, layer: SynthesisLayer) -> None:
        super().__init__(layer)
        self.clamp, self.noisy = layer.clamp, layer.noise_size is not None
        if self.noisy:
            self.register_buffer("noise", layer.noise_const.detach() * layer.noise_strength.detach() * SQRT2)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,out,H,W], twice as large where the layer upsamples."""
        styles = self.affine(w)
        x = x * styles[:, :, None, None]
        if self.up:
            x = F.conv_transpose2d(x, self.weight, stride=2)
            x = F.conv2d(x, self.blur, padding=1, groups=self.blur.shape[0])
        else:
            x = F.conv2d(x, self.weight, padding=1)
        scale = torch.rsqrt(styles.square() @ self.energy + 1e-8) * SQRT2
        x = x * scale[:, :, None, None] + self.bias
        x = F.leaky_relu(x + self.noise if self.noisy else x, 0.2)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


class BoundedToRGB(ExportToRGB):
    """toRGB with its bound."""

    def __init__(self, layer: ToRGB) -> None:
        super().__init__(layer)
        self.clamp = layer.clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Shapes: x [N,in,H,W], w [N,w_dim] → [N,3,H,W]."""
        rgb = super().forward(x, w)
        return rgb if self.clamp is None else rgb.clamp(-self.clamp, self.clamp)


class ZSynthesisGraph(nn.Module):
    """ws → frames uint8 NHWC, for skip generators with or without noise."""

    const: Tensor
    upsample: Tensor

    def __init__(self, generator: ZGenerator) -> None:
        """Raises: DataError for another architecture than skip."""
        super().__init__()
        source = generator.synthesis
        if source.architecture != "skip":
            raise DataError(f"only skip generators can be exported; this one is {source.architecture!r}")
        self.register_buffer("const", source.const.detach().clone())
        self.register_buffer("upsample", source.upsample.detach().clone())
        self.conv1, self.torgb = NoisyLayer(source.conv1), BoundedToRGB(source.torgb)
        self.blocks = nn.ModuleList(
            nn.ModuleList([NoisyLayer(block.conv0), NoisyLayer(block.conv1), BoundedToRGB(block.torgb)])
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


class ZMappingGraph(nn.Module):
    """z → ws with truncation: psi 0 is the average face, 1 the full variety."""

    def __init__(self, mapping: ZMapping) -> None:
        super().__init__()
        self.mapping = mapping

    def forward(self, z: Tensor, truncation_psi: Tensor) -> Tensor:
        """Shapes: z [N,z_dim], truncation_psi [1] → ws [N,num_ws,w_dim]."""
        mapping = self.mapping
        w = mapping.w_avg + truncation_psi * (mapping.map(z) - mapping.w_avg)
        return mapping.broadcast(w)


class Scaled(nn.Module):
    """A module that looks at pictures of its own size, before it the scaling as two constant matrices.

    A matrix a side does what bilinear scaling with antialiasing does, and every runtime has it.
    """

    matrix: Tensor

    def __init__(self, module: nn.Module, from_px: int, to_px: int) -> None:
        super().__init__()
        self.module, self.scaled = module, from_px != to_px
        if self.scaled:
            unit = torch.eye(from_px)[None, None]
            matrix = F.interpolate(
                unit, (to_px, from_px), mode="bilinear", align_corners=False, antialias=from_px > to_px
            )
            self.register_buffer("matrix", matrix[0, 0])

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,from_px,from_px] → whatever the module gives for [N,3,to_px,to_px]."""
        if self.scaled:
            image = self.matrix @ image @ self.matrix.t()
        result: Tensor = self.module(image)
        return result


class EncoderGraph(nn.Module):
    """The encoder with its number of unlocked rows fixed."""

    def __init__(self, encoder: PyramidEncoder) -> None:
        super().__init__()
        self.encoder, self.unlocked = encoder, int(encoder.unlocked_rows)

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,R,R] → ws [N,num_ws,w_dim]."""
        return self.encoder(image, self.unlocked)
