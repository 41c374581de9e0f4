"""Puts a foreign generator's weights into a network of ours: layout from their shapes, names by a rule, nothing left
over. Knows no file format. Must not import: services, worker.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from training.errors import CheckpointMismatchError
from training.networks.layers import FullyConnected, blur_kernel, normalize_second_moment
from training.networks.stylegan2 import Architecture, SynthesisNetwork, ZGenerator, ZMapping

W_AVG = "mapping.w_avg"
NOISE_SEED = 20191203
"""Noise maps that a file does not hold are drawn from this, so that a face looks the same every day."""


@dataclass(frozen=True)
class Layout:
    """A generator's sizes, as the shapes in a file tell them."""

    channels: tuple[int, ...]  # at 4, 8, … px
    z_dim: int
    w_dim: int
    mapping_layers: int
    c_dim: int = 0
    architecture: Architecture = "skip"
    noise: bool = True
    clamp: float | None = None
    lr_multiplier: float = 0.01  # of the mapping: a factor of its weights and biases
    hidden: int | None = None  # length of what goes from one of its layers to the next; None: w_dim
    embed_dim: int | None = None  # length of its embedded condition; None: w_dim

    def build(self) -> ZGenerator:
        """Build the untrained network, the same each time."""
        resolution = 4 * 2 ** (len(self.channels) - 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(NOISE_SEED)
            synthesis = SynthesisNetwork(
                resolution, self.w_dim, self.channels, self.noise, self.architecture, self.clamp
            )
            mapping = ZMapping(
                self.z_dim,
                self.w_dim,
                synthesis.num_ws,
                self.c_dim,
                self.mapping_layers,
                self.lr_multiplier,
                hidden=self.hidden,
                embed_dim=self.embed_dim,
            )
        return ZGenerator(mapping, synthesis)


class Weights:
    """The tensors of a file by their own names, and which of them found a place."""

    def __init__(self, path: Path | str, tensors: Mapping[str, Tensor]) -> None:
        """`path` is for messages only."""
        self.path, self.tensors = path, tensors
        self.used: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Say whether the file has a tensor of this name."""
        return name in self.tensors

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Give a tensor's shape, to read a size from.

        Raises: CheckpointMismatchError where it is missing or has another number of axes.
        """
        if name not in self.tensors:
            raise CheckpointMismatchError(f"{self.path} holds no {name}, which every such generator has")
        shape = tuple(self.tensors[name].shape)
        if len(shape) != axes or 0 in shape:
            raise CheckpointMismatchError(f"{self.path}: {name} is {list(shape)}, where {axes} axes are wanted")
        return shape

    def take(self, name: str, wanted: torch.Size) -> Tensor:
        """Give a tensor in the shape that we keep it in; axes of one may stand elsewhere in the file.

        Raises: CheckpointMismatchError where it is missing or has another shape.
        """
        if name not in self.tensors:
            raise CheckpointMismatchError(
                f"{self.path} holds no {name}, which a generator of its size has: the file is not whole"
            )
        self.used.add(name)
        tensor = self.tensors[name]
        if [size for size in tensor.shape if size != 1] != [size for size in wanted if size != 1]:
            raise CheckpointMismatchError(
                f"{self.path}: {name} is {list(tensor.shape)}, and its other weights ask for {list(wanted)}"
            )
        return tensor.detach().to(torch.float32).reshape(wanted)

    def take_filters(self, suffix: str) -> None:
        """Make sure that every filter of the file is the blur that is built into our networks.

        Raises: CheckpointMismatchError that names the first that is not.
        """
        for name in sorted(self.tensors):
            if not name.endswith(suffix):
                continue
            self.used.add(name)
            kernel = self.tensors[name].detach().to(torch.float32)
            if kernel.ndim != 2 or not torch.allclose(kernel / kernel.sum() * 16, 16 * _blur(kernel), atol=1e-3):
                raise CheckpointMismatchError(
                    f"{self.path}: the filter {name} is not [1,3,3,1], and no other is supported"
                )

    def check_all_used(self) -> None:
        """Make sure that nothing was left out, for then the pictures would be others.

        Raises: CheckpointMismatchError that names the first that was.
        """
        left = sorted(set(self.tensors) - self.used)
        if left:
            more = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise CheckpointMismatchError(
                f"{self.path} holds {left[0]}{more}, for which a StyleGAN2 generator has no place: "
                "it comes from a changed network, whose pictures would not be the same"
            )


def _blur(kernel: Tensor) -> Tensor:
    blur = blur_kernel(1.0)
    return blur if kernel.shape == blur.shape else torch.full_like(kernel, torch.nan)


def assemble(
    layout: Layout, weights: Weights, rename: Callable[[str], str], optional: Callable[[str], bool]
) -> ZGenerator:
    """Build a generator and load a file's weights, in evaluation mode and frozen.

    Args: `rename` gives the file's name for one of ours; `optional` says of ours which may be missing: noise maps are
    drawn then, and w_avg is measured.
    Raises: CheckpointMismatchError that names the first tensor that is missing, has another shape or no place.
    """
    with torch.device("meta"):  # no memory before all shapes are known to be right
        blank = layout.build().state_dict()
    state = {
        name: weights.take(rename(name), tensor.shape)
        for name, tensor in blank.items()
        if rename(name) in weights or not optional(name)
    }
    weights.check_all_used()
    generator = layout.build().eval().requires_grad_(False)
    generator.load_state_dict({**generator.state_dict(), **state})
    if W_AVG not in state and not layout.c_dim:
        generator.mapping.w_avg.copy_(generator.mapping.measure_w()[0])
    return generator


def fix_condition(generator: ZGenerator, c: Tensor) -> ZGenerator:
    """Work a condition into the mapping for good: the same w of the same z, and no c to be given any more.

    c is embedded and normalised beside z, so for one c it only adds a constant to what the first layer says.

    Shapes: c [c_dim].
    """
    mapping = generator.mapping
    assert mapping.c_dim, "this mapping has no condition"
    first = cast("FullyConnected", mapping.layers[0])
    layers, z_dim = len(mapping.layers), mapping.z_dim
    fixed = ZMapping(z_dim, mapping.w_dim, mapping.num_ws, 0, layers, first.bias_gain, hidden=mapping.hidden)
    fixed.requires_grad_(False)
    plain = cast("FullyConnected", fixed.layers[0])
    with torch.no_grad():
        embedded = normalize_second_moment(mapping.embed(c[None]))[0]
        plain.weight.copy_(first.weight[:, :z_dim] * (first.gain / plain.gain))
        plain.bias.copy_(first.bias + first.weight[:, z_dim:] @ embedded * (first.gain / first.bias_gain))
        fixed.w_avg.copy_(mapping.w_avg)
    for i in range(1, layers):
        fixed.layers[i] = mapping.layers[i]
    return ZGenerator(fixed, generator.synthesis).eval()
