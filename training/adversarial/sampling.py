"""Sampling a picture along a grid, differentiable as often as one likes with respect to the picture.

PyTorch's own grid_sample has no second derivative, which R1 needs when it looks through the augmentation. Sampling is
linear in the picture, so its backward pass is the transposed operation, and that one's backward is sampling again.
Plain PyTorch.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

BILINEAR, REFLECTION = 0, 2
"""Numbers that ATen knows the modes by."""


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, picture: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = picture.shape
        return F.grid_sample(picture, grid, mode="bilinear", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _Spread.apply(gradients[0], grid, ctx.size), None


class _Spread(torch.autograd.Function):
    """The transpose of sampling: every sample's weight goes back to the four pixels that it came from."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        empty = gradient.new_empty(()).expand(size)  # only its shape matters
        result, _ = torch.ops.aten.grid_sampler_2d_backward(
            gradient.contiguous(), empty, grid, BILINEAR, REFLECTION, True, [True, False]
        )
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _Sample.apply(gradients[0], grid), None, None


def sample_reflected(picture: Tensor, grid: Tensor) -> Tensor:
    """Sample bilinearly, reflected about the outermost pixels; no gradient reaches the grid.

    Shapes: picture [N,C,H,W], grid [N,h,w,2] in [-1,1] from the first pixel's centre to the last one's → [N,C,h,w].
    """
    return _Sample.apply(picture, grid)
