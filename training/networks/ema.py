"""Averages of weights over training: parameters follow slowly, buffers are copied. Torch only."""

import torch
from torch import Tensor, nn


def decay_of_half_life(
    batch: int, half_life_kimg: float, seen_kimg: float | None = None, rampup: float = 0.05
) -> float:
    """Give the decay of one step so that half of the average is renewed every `half_life_kimg` thousand pictures.

    `seen_kimg`: pictures so far; early on the half-life is `rampup` of them, so that the first weights are forgotten.
    Source: Karras et al. 2020a (arXiv 2006.06676), code.
    """
    if seen_kimg is not None:
        half_life_kimg = min(half_life_kimg, seen_kimg * rampup)
    return 0.5 ** (batch / max(half_life_kimg * 1000, 1e-8))


@torch.no_grad()
def update_ema(ema: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the average towards a module: parameters by 1 − decay, buffers (w_avg, noise maps) whole."""
    kept: list[Tensor] = list(ema.parameters())
    new: list[Tensor] = list(module.parameters())
    assert len(kept) == len(new)
    if kept:
        torch._foreach_lerp_(kept, new, 1 - decay)
    for buffer, source in zip(ema.buffers(), module.buffers(), strict=True):
        buffer.copy_(source)
