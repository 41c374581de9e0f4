"""Losses of inversion. Torch only; pictures are NCHW in [-1,1], every loss is a number a picture unless it says so.

Source: Tov et al. 2021 (e4e, arXiv 2102.02766), equations 3 to 8.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from training.networks.discriminator import WDiscriminator


def squared_error(drawn: Tensor, truth: Tensor) -> Tensor:
    """Give the mean squared error of each picture: [N,3,R,R] twice → [N]."""
    return (drawn - truth).square().mean((1, 2, 3))


def identity_loss(drawn: Tensor, truth: Tensor) -> Tensor:
    """Give 1 − cosine of identity features of unit norm: [N,k] twice → [N]."""
    return 1 - (drawn * truth).sum(1)


def delta_norm(ws: Tensor, unlocked: int) -> Tensor:
    """Give the sum of the lengths of the unlocked rows' deltas from row 0.

    Shapes: ws [N,num_ws,w_dim] → [N].
    """
    return (ws[:, 1 : unlocked + 1] - ws[:, :1]).norm(dim=2).sum(1)


def w_norm(ws: Tensor, centre: Tensor) -> Tensor:
    """Give the mean squared distance of ws from a centre.

    Shapes: ws [N,num_ws,w_dim], centre [w_dim] or as ws → [N].
    """
    return (ws - centre).square().mean((1, 2))


def latent_realism_loss(discriminator: WDiscriminator, ws: Tensor, unlocked: int) -> Tensor:
    """Give the non-saturating loss of row 0 and the unlocked rows: each should pass for a w of the mapping.

    Shapes: ws [N,num_ws,w_dim] → [N].
    """
    rows = ws[:, : unlocked + 1]
    return F.softplus(-discriminator(rows.flatten(0, 1))).view(rows.shape[:2]).mean(1)


def latent_discriminator_loss(discriminator: WDiscriminator, real: Tensor, fake: Tensor) -> Tensor:
    """Give the discriminator's side of it, a scalar. Shapes: real [M,w_dim], fake [K,w_dim]."""
    return F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean()


def r1_penalty(discriminator: WDiscriminator, real: Tensor) -> Tensor:
    """Give the mean squared gradient of the logits with respect to real w, a scalar.

    Shapes: real [M,w_dim]. Source: Mescheder et al. 2018 (arXiv 1801.04406).
    """
    real = real.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
    return gradient.square().sum(1).mean()
