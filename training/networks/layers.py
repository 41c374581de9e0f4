"""What StyleGAN2's networks are made of: equalised layers, the [1,3,3,1] blur, up- and downsampling, minibatch std.

Every operation here is the fast form; training.networks.reference holds the slow form by definition, and tests hold
them together. Plain PyTorch; knows no network, no file.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = math.sqrt(2.0)
SLOPE = 0.2
BLUR_TAPS = (1.0, 3.0, 3.0, 1.0)


def blur_kernel(gain: float) -> Tensor:
    """Give the [1,3,3,1] blur of StyleGAN2 as a 4×4 kernel that sums to `gain`."""
    taps = torch.tensor(BLUR_TAPS)
    kernel = taps[:, None] * taps[None]
    return kernel / kernel.sum() * gain


def normalize_second_moment(x: Tensor) -> Tensor:
    """Bring every row to a mean square of 1 (pixel norm): [N,C] → [N,C]."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def blur_depthwise(x: Tensor, kernel: Tensor, padding: int, stride: int = 1) -> Tensor:
    """Blur every channel by itself.

    Shapes: x [N,C,H,W], kernel [1,1,4,4] → [N,C,(H + 2·padding − 3)/stride, …].
    """
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, padding=padding, stride=stride, groups=channels)


def upsample_depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Double the size by zero insertion and blur, as one transposed convolution.

    Shapes: x [N,C,H,W], kernel [1,1,4,4] that sums to 4 → [N,C,2H,2W].
    """
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1)
    return F.conv_transpose2d(x, weight, stride=2, padding=1, groups=channels)


def downsample_depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    """Blur and halve the size.

    Shapes: x [N,C,H,W], kernel [1,1,4,4] that sums to 1 → [N,C,H/2,W/2].
    """
    return blur_depthwise(x, kernel, padding=1, stride=2)


def count_in_group(batch: int, group_size: int | None) -> int:
    """Give the size of a minibatch-std group: the largest divisor of the batch that is not above `group_size`.

    Source: where the batch divides, as in Karras et al. (all of a batch smaller than the group); a batch that does
    not divide is an error there.
    """
    largest = batch if group_size is None else min(group_size, batch)
    return next(size for size in range(largest, 0, -1) if batch % size == 0)


def append_minibatch_std(x: Tensor, group_size: int | None = 4, channels: int = 1) -> Tensor:
    """Append how much a group of pictures differs, as constant maps; members of a group stand batch/group apart.

    Shapes: [N,C,H,W] → [N,C+channels,H,W]. `group_size` None: the whole batch is one group.
    """
    batch, _, height, width = x.shape
    group = count_in_group(batch, group_size)
    # float32 at least: squares of bfloat16 differences are too coarse
    parts = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(group, batch // group, channels, -1)
    spread = (parts.var(0, unbiased=False) + 1e-8).sqrt().mean(2)
    maps = spread.to(x.dtype).repeat(group, 1)[:, :, None, None].expand(-1, -1, height, width)
    return torch.cat([x, maps], 1)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate and an optional leaky ReLU times √2."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        bias: float = 0.0,  # what is added at the start
        activate: bool = False,
        lr_multiplier: float = 1.0,  # weight and bias learn this much slower
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_dim, in_dim) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_dim,), bias / lr_multiplier))
        self.gain = lr_multiplier / math.sqrt(in_dim)
        self.bias_gain = lr_multiplier
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,in_dim] → [N,out_dim]."""
        bias = self.bias if self.bias_gain == 1 else self.bias * self.bias_gain
        y = F.linear(x, self.weight * self.gain, bias)
        return F.leaky_relu(y, SLOPE) * SQRT2 if self.activate else y


class Convolution(nn.Module):
    """Convolution with equalised learning rate, optionally with blur and halving or doubling, bias and leaky ReLU.

    3×3 halving blurs first and then strides; 1×1 halving blurs at the places that stay only; 1×1 doubling convolves
    before it spreads. The activation's √2 is folded into weight and bias.
    """

    blur: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,  # 1 or 3
        down: bool = False,
        up: bool = False,  # 1×1 only
        bias: bool = True,
        activate: bool = True,
        clamp: float | None = None,  # bound of what comes out, for half precision
    ) -> None:
        super().__init__()
        assert kernel in (1, 3), kernel
        assert not (up and (down or kernel == 3)), "up is for 1×1 kernels"
        self.kernel, self.down, self.up, self.activate, self.clamp = kernel, down, up, activate, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.gain = 1 / math.sqrt(in_channels * kernel * kernel)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        if down or up:
            self.register_buffer("blur", blur_kernel(4.0 if up else 1.0)[None, None], persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Shapes: [N,in,H,W] → [N,out,H,W], half or twice as large; `gain` multiplies the result."""
        folded = gain * SQRT2 if self.activate else gain
        weight = (self.weight * (self.gain * folded)).to(x.dtype)
        bias = None if self.bias is None else (self.bias * folded).to(x.dtype)
        if self.down and self.kernel == 3:
            x = F.conv2d(blur_depthwise(x, self.blur, padding=2), weight, bias, stride=2)
        elif self.down:
            x = F.conv2d(downsample_depthwise(x, self.blur), weight, bias)
        elif self.up:
            x = upsample_depthwise(F.conv2d(x, weight), self.blur)
            x = x if bias is None else x + bias[:, None, None]
        else:
            x = F.conv2d(x, weight, bias, padding=self.kernel // 2)
        if self.activate:
            x = F.leaky_relu(x, SLOPE)
        return x if self.clamp is None else x.clamp(-self.clamp * gain, self.clamp * gain)
