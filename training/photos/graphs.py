"""The bundle's graphs of an adversarial generator's mapping, of its encoder and of towers, as PyTorch modules.

Must not import: services, worker.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.irse import PictureEncoder
from training.networks.mapping import ZMapping


class ZMappingGraph(nn.Module):
    """z → ws with truncation: psi 0 is the average face, 1 the full variety."""

    def __init__(self, mapping: ZMapping) -> None:
        super().__init__()
        assert mapping.c_dim == 0, "a condition is worked into the mapping first"
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

    def __init__(self, encoder: PictureEncoder) -> None:
        super().__init__()
        self.encoder, self.unlocked = encoder, encoder.count_unlocked()

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,R,R] → ws [N,num_ws,w_dim]."""
        return self.encoder(image, self.unlocked)
