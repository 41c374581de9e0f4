"""Refinement of ws a picture by optimisation, from the encoder's guess.

Every picture's loss stands alone and Adam works number by number, so a batch gives what single pictures give.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from training.inversion.features import Description, compare_maps
from training.inversion.losses import identity_loss, squared_error, w_norm
from training.inversion.parts import Identity


class DrawsFromWs(Protocol):
    """A generator, as far as refinement goes."""

    @property
    def synthesis(self) -> Callable[[Tensor], Tensor]:
        """Give what draws: ws [N,num_ws,w_dim] → [N,3,R,R]."""


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Rise over the first share of the steps, then fall along a cosine to nearly nothing."""
    share = (step + 1) / steps
    rise = min(1.0, share / warmup) if warmup > 0 else 1.0
    return rise * (0.5 + 0.5 * math.cos(math.pi * step / steps))


def refine_ws(
    generator: DrawsFromWs,  # Generator, ZGenerator or InversionParts
    ws: Tensor,  # [N,num_ws,w_dim], where to start
    picture: Tensor,  # [N,3,R,R] in [-1,1], what should be drawn
    steps: int,
    *,
    lr: float = 0.1,  # in units of w_scale
    w_scale: float = 1.0,  # the mapping's spread of w (InversionParts.w_scale)
    describe: Description | None = None,  # None: squared error alone
    identity: Identity | None = None,
    l2_weight: float = 1.0,
    feature_weight: float = 0.8,
    identity_weight: float = 0.0,
    w_norm_weight: float = 0.01,  # holds ws near the start, where edits still work
    warmup: float = 0.05,
) -> Tensor:
    """Optimise ws until the generator draws the picture, and give the best ws on the way, the start among them.

    Shapes: → ws [N,num_ws,w_dim], detached.
    """
    start = ws.detach().clone()
    moving = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([moving], lr * w_scale, (0.9, 0.99))
    with torch.no_grad():
        wanted_maps = describe(picture) if describe is not None and feature_weight else None
        wanted_identity = identity(picture) if identity is not None and identity_weight else None

    def judge(candidate: Tensor) -> Tensor:
        drawn = generator.synthesis(candidate)
        loss = l2_weight * squared_error(drawn, picture)
        if describe is not None and wanted_maps is not None:
            loss = loss + feature_weight * compare_maps(describe(drawn), wanted_maps)
        if identity is not None and wanted_identity is not None:
            loss = loss + identity_weight * identity_loss(identity(drawn), wanted_identity)
        return loss + w_norm_weight / w_scale**2 * w_norm(candidate, start)

    best, lowest = start.clone(), torch.full((len(start),), math.inf, device=start.device)

    def keep_best(loss: Tensor) -> None:
        nonlocal lowest
        better = loss.detach() < lowest
        best[better] = moving.detach()[better]
        lowest = torch.where(better, loss.detach(), lowest)

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * w_scale * rate_factor(step, steps, warmup)
        loss = judge(moving)
        keep_best(loss)
        (moving.grad,) = torch.autograd.grad(loss.sum(), moving)
        optimizer.step()
    with torch.no_grad():
        keep_best(judge(moving))
    return best
