"""StyleGAN2 by definition, slow: what every fast operation of these networks is tested against, and timed against.

Weights are modulated and demodulated a picture, convolutions are grouped, resampling inserts zeros and filters tap by
tap, minibatch std loops over groups. It reads the parameters of the fast networks, so both draw from the same weights.
Plain PyTorch; only tests and benchmarks import it.
"""

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks.discriminator import Discriminator, DiscriminatorBlock
from training.networks.layers import BLUR_TAPS, SLOPE, Convolution, count_in_group
from training.networks.synthesis import NoiseMode, NoiseSource, SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB

Padding = tuple[int, int, int, int]
"""left, right, top, bottom; negative crops"""


def upfirdn2d(x: Tensor, kernel: Tensor, up: int = 1, down: int = 1, padding: Padding = (0, 0, 0, 0)) -> Tensor:
    """Insert up − 1 zeros behind every value, pad, filter, keep every down-th value.

    Shapes: x [N,C,H,W], kernel [kh,kw] → [N,C,⌊(H·up + top + bottom − kh)/down⌋ + 1, …]. The filter is a true
    convolution: the kernel is turned around.
    """
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, height, up, width, up)
    spread[:, :, :, 0, :, 0] = x
    padded = F.pad(spread.reshape(batch, channels, height * up, width * up), padding)
    rows, columns = kernel.shape
    out_height, out_width = padded.shape[2] - rows + 1, padded.shape[3] - columns + 1
    total = padded.new_zeros(batch, channels, out_height, out_width)
    for i in range(rows):
        for j in range(columns):
            tap = kernel[rows - 1 - i, columns - 1 - j]
            total = total + tap * padded[:, :, i : i + out_height, j : j + out_width]
    return total[:, :, ::down, ::down]


def blur_taps(x: Tensor, gain: float = 1.0) -> Tensor:
    """Give the [1,3,3,1] kernel as [4,4] that sums to `gain`, of x's type and device."""
    taps = torch.tensor(BLUR_TAPS, dtype=x.dtype, device=x.device)
    kernel = torch.outer(taps, taps)
    return kernel * (gain / kernel.sum())


def upsample2d(x: Tensor) -> Tensor:
    """Double the size: [N,C,H,W] → [N,C,2H,2W]."""
    return upfirdn2d(x, blur_taps(x, 4.0), up=2, padding=(2, 1, 2, 1))


def downsample2d(x: Tensor) -> Tensor:
    """Halve the size: [N,C,H,W] → [N,C,H/2,W/2]."""
    return upfirdn2d(x, blur_taps(x), down=2, padding=(1, 1, 1, 1))


def bias_lrelu(x: Tensor, bias: Tensor | None, gain: float = 1.0) -> Tensor:
    """Add a bias a channel, take leaky ReLU of slope 0.2, times √2 and `gain`."""
    if bias is not None:
        x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    return torch.where(x > 0, x, SLOPE * x) * (math.sqrt(2) * gain)


def modulated_conv2d(x: Tensor, weight: Tensor, styles: Tensor, demodulate: bool, up: bool = False) -> Tensor:
    """Modulate the weights a picture, demodulate them, convolve in groups; doubling spreads and blurs x first.

    Shapes: x [N,in,H,W], weight [out,in,k,k], styles [N,in] → [N,out,H,W], or twice as large.
    Source: Karras et al. 2020, equations 1 to 3.
    """
    batch, in_channels = x.shape[:2]
    out_channels, _, size, _ = weight.shape
    modulated = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        modulated = modulated / (modulated.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    padding = size // 2
    if up:
        # zero insertion asks for the convolution proper, so the kernel is turned; blur and convolution commute as
        # long as what reaches beyond the border is kept until both are done
        x = upfirdn2d(x, blur_taps(x, 4.0), up=2, padding=(3, 3, 3, 3))
        modulated, padding = modulated.flip((3, 4)), size - 1
    grouped = modulated.reshape(batch * out_channels, in_channels, size, size)
    y = F.conv2d(x.reshape(1, batch * in_channels, *x.shape[2:]), grouped, padding=padding, groups=batch)
    y = y.reshape(batch, out_channels, *y.shape[2:])
    # zeros behind the last value make the spread map one longer than the transposed convolution's
    return y[:, :, 2:-3, 2:-3] if up else y


def minibatch_std(x: Tensor, group_size: int | None, channels: int) -> Tensor:
    """Append the mean standard deviation of each group: [N,C,H,W] → [N,C+channels,H,W]."""
    batch, width = x.shape[:2]
    group = count_in_group(batch, group_size)
    groups, share = batch // group, width // channels
    maps = x.new_zeros(batch, channels, *x.shape[2:])
    for m in range(groups):
        members = x[[m + k * groups for k in range(group)]]
        for channel in range(channels):
            part = members[:, channel * share : (channel + 1) * share]
            variance = sum((one - part.mean(0)).square() for one in part) / group
            spread = (cast("Tensor", variance) + 1e-8).sqrt().mean()
            for k in range(group):
                maps[m + k * groups, channel] = spread
    return torch.cat([x, maps], 1)


def convolve(layer: Convolution, x: Tensor, gain: float = 1.0) -> Tensor:
    """Do what a Convolution does: filter, convolve, bias, leaky ReLU."""
    weight = layer.weight * layer.gain
    if layer.down:
        side = 1 + layer.kernel // 2
        x = F.conv2d(upfirdn2d(x, blur_taps(x), padding=(side,) * 4), weight, stride=2)
    elif layer.up:
        x = F.conv2d(upsample2d(x), weight)
    else:
        x = F.conv2d(x, weight, padding=layer.kernel // 2)
    if layer.activate:
        x = bias_lrelu(x, layer.bias, gain)
    else:
        x = (x if layer.bias is None else x + layer.bias[:, None, None]) * gain
    return clamp(x, layer.clamp, gain)


def clamp(x: Tensor, bound: float | None, gain: float = 1.0) -> Tensor:
    """Keep x within ± bound · gain."""
    return x if bound is None else x.clamp(-bound * gain, bound * gain)


def run_layer(layer: SynthesisLayer, x: Tensor, w: Tensor, noise: Tensor | None, gain: float = 1.0) -> Tensor:
    """Do what a SynthesisLayer does, with the noise given."""
    x = modulated_conv2d(x, layer.weight * layer.gain, layer.affine(w), demodulate=True, up=layer.up)
    if noise is not None:
        x = x + noise * layer.noise_strength
    return clamp(bias_lrelu(x, layer.bias, gain), layer.clamp, gain)


def run_rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    """Do what a ToRGB does."""
    rgb = modulated_conv2d(x, layer.weight * layer.gain, layer.affine(w), demodulate=False)
    return clamp(rgb + layer.bias, layer.clamp)


def synthesize(network: SynthesisNetwork, ws: Tensor, noise_mode: NoiseMode | NoiseSource = "const") -> Tensor:
    """Draw what a SynthesisNetwork draws.

    Shapes: ws [N,num_ws,w_dim] → [N,3,R,R].
    """

    def run(layer: SynthesisLayer, x: Tensor, w: Tensor, gain: float = 1.0) -> Tensor:
        size = x.shape[-1] * (2 if layer.up else 1)
        noise = layer.draw_noise(x.new_empty(x.shape[0], 1, size, size), noise_mode)
        return run_layer(layer, x, w, noise, gain)

    x = run(network.conv1, network.const.repeat(ws.shape[0], 1, 1, 1), ws[:, 0])
    rgb = run_rgb(network.torgb, x, ws[:, 1]) if network.architecture == "skip" or not network.blocks else None
    for i, module in enumerate(network.blocks):
        block = cast("SynthesisBlock", module)
        first, second, third = ws[:, 2 * i + 1], ws[:, 2 * i + 2], ws[:, 2 * i + 3]
        if block.has_skip:
            shortcut = convolve(block.skip, x) * math.sqrt(0.5)
            x = shortcut + run(block.conv1, run(block.conv0, x, first), second, math.sqrt(0.5))
        else:
            x = run(block.conv1, run(block.conv0, x, first), second)
        if rgb is not None:
            rgb = upsample2d(rgb)
        if block.has_rgb:
            drawn = run_rgb(block.torgb, x, third)
            rgb = drawn if rgb is None else rgb + drawn
    assert rgb is not None
    return rgb


def describe(network: Discriminator, image: Tensor) -> list[Tensor]:
    """Give the map behind every block of a Discriminator, large ones first.

    Shapes: image [N,3,R,R] → [N,channels at R/2,R/2,R/2] … [N,channels[0],4,4].
    """
    maps: list[Tensor] = []
    x: Tensor | None = None
    for module in network.blocks:
        block = cast("DiscriminatorBlock", module)
        if block.has_rgb:
            seen = convolve(block.fromrgb, image)
            x = seen if x is None else x + seen
        if network.architecture == "skip":
            image = downsample2d(image)
        assert x is not None
        y = convolve(block.conv1, convolve(block.conv0, x))
        x = (y + convolve(block.skip, x)) / math.sqrt(2) if block.has_skip else y
        maps.append(x)
    if network.architecture == "skip":
        maps[-1] = maps[-1] + convolve(network.fromrgb, image)
    return maps


def judge(network: Discriminator, image: Tensor, c: Tensor | None = None) -> Tensor:
    """Judge what a Discriminator judges.

    Shapes: image [N,3,R,R], c [N,c_dim] → logits [N].
    """
    x = describe(network, image)[-1]
    if network.std_channels:
        x = minibatch_std(x, network.group_size, network.std_channels)
    x = convolve(network.conv, x).flatten(1)
    x = bias_lrelu(x @ (network.fc.weight * network.fc.gain).t(), network.fc.bias)
    x = x @ (network.out.weight * network.out.gain).t() + network.out.bias
    if not network.c_dim:
        return x[:, 0]
    return (x * network.mapping.map(None, c)).sum(1) / math.sqrt(network.cmap_dim)
