"""StyleGAN2, put together: generators of rendered domains and of trained ones; the place to import its parts from.

Layers, mappings, synthesis, discriminator and averages have modules of their own. No file formats here.
"""

import math

from torch import Tensor, nn

from training.networks.discriminator import Discriminator, DiscriminatorBlock, WDiscriminator
from training.networks.ema import decay_of_half_life, update_ema
from training.networks.layers import SQRT2, Convolution, FullyConnected, append_minibatch_std, blur_kernel
from training.networks.mapping import (
    FACTOR_GAIN,
    OPTION_GAIN,
    FactorFeatures,
    FactorMapping,
    MappingLayers,
    ZMapping,
    draw_crossovers,
    mix_styles,
    truncate,
)
from training.networks.synthesis import (
    CROP_RESOLUTION,
    Architecture,
    Crop,
    NoiseMode,
    NoiseSource,
    SynthesisBlock,
    SynthesisLayer,
    SynthesisNetwork,
    ToRGB,
)

__all__ = [
    "CROP_RESOLUTION",
    "FACTOR_GAIN",
    "OPTION_GAIN",
    "SQRT2",
    "Architecture",
    "Convolution",
    "Crop",
    "Discriminator",
    "DiscriminatorBlock",
    "FactorFeatures",
    "FactorMapping",
    "FullyConnected",
    "Generator",
    "MappingLayers",
    "NoiseMode",
    "NoiseSource",
    "SynthesisBlock",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGB",
    "WDiscriminator",
    "ZGenerator",
    "ZMapping",
    "append_minibatch_std",
    "blur_kernel",
    "build_discriminator",
    "build_z_generator",
    "config_f_channels",
    "decay_of_half_life",
    "draw_crossovers",
    "mix_styles",
    "truncate",
    "update_ema",
]


def config_f_channels(
    resolution: int, channel_base: int = 32768, channel_max: int = 512, multiplier: float = 1.0
) -> tuple[int, ...]:
    """Give the width at 4, 8, … resolution: min(base · multiplier / resolution, max), 1 at least.

    32768 and 512 are config-f (rosinality's multiplier 2); half the base is the smaller network often used at 256 px.
    """
    sizes = [2**level for level in range(2, int(math.log2(resolution)) + 1)]
    return tuple(max(1, min(int(channel_base * multiplier) // size, channel_max)) for size in sizes)


class Generator(nn.Module):
    """Mapping and synthesis of a rendered domain."""

    def __init__(self, mapping: FactorMapping, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis

    def broadcast(self, w: Tensor) -> Tensor:
        """Shapes: w [N,w_dim] → ws [N,num_ws,w_dim]."""
        return w[:, None].expand(-1, self.synthesis.num_ws, -1)

    def forward(self, factors: Tensor, resolution: int | None = None, crop: Crop | None = None) -> Tensor:
        """Shapes: factors [N,Z_DIM] → [N,3,R,R]."""
        return self.synthesis(self.broadcast(self.mapping(factors)), resolution, crop)


class ZGenerator(nn.Module):
    """Mapping of Gaussian z and synthesis, as adversarial training makes them."""

    def __init__(self, mapping: ZMapping, synthesis: SynthesisNetwork) -> None:
        super().__init__()
        assert mapping.num_ws == synthesis.num_ws, (mapping.num_ws, synthesis.num_ws)
        assert mapping.w_dim == synthesis.w_dim, (mapping.w_dim, synthesis.w_dim)
        self.mapping, self.synthesis = mapping, synthesis

    def forward(
        self,
        z: Tensor,
        c: Tensor | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode | NoiseSource = "random",
    ) -> Tensor:
        """Shapes: z [N,z_dim], c [N,c_dim] → [N,3,R,R], about [-1,1]."""
        ws = self.mapping(z, c, truncation_psi, truncation_cutoff)
        return self.synthesis(ws, noise_mode=noise_mode)


def build_z_generator(
    resolution: int,
    channels: tuple[int, ...] | None = None,  # None: config-f
    z_dim: int = 512,
    w_dim: int = 512,
    c_dim: int = 0,
    mapping_layers: int = 8,
    architecture: Architecture = "skip",
    noise: bool = True,
    clamp: float | None = None,
) -> ZGenerator:
    """Build an untrained generator."""
    channels = channels or config_f_channels(resolution)
    synthesis = SynthesisNetwork(resolution, w_dim, channels, noise, architecture, clamp)
    return ZGenerator(ZMapping(z_dim, w_dim, synthesis.num_ws, c_dim, mapping_layers), synthesis)


def build_discriminator(
    resolution: int,
    channels: tuple[int, ...] | None = None,  # None: config-f
    c_dim: int = 0,
    architecture: Architecture = "resnet",
    group_size: int | None = 4,
    clamp: float | None = None,
) -> Discriminator:
    """Build an untrained discriminator."""
    return Discriminator(
        resolution, channels or config_f_channels(resolution), c_dim, architecture, group_size, clamp=clamp
    )
