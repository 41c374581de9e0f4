"""The losses of StyleGAN2 as sums over rows, so that shares of a batch add up to what the whole batch would give.

Plain PyTorch. Source: Goodfellow et al. 2014 (non-saturating), Mescheder et al. 2018 (R1), Karras et al. 2020 (path
length, lazy regularisation).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Give −log sigmoid of the scores of drawn pictures: [N] → [N]."""
    return F.softplus(-fake_logits)


def fake_loss(fake_logits: Tensor) -> Tensor:
    """Give the discriminator's loss on drawn pictures: [N] → [N]."""
    return F.softplus(fake_logits)


def real_loss(real_logits: Tensor) -> Tensor:
    """Give the discriminator's loss on real pictures: [N] → [N]."""
    return F.softplus(-real_logits)


def r1_penalty(real_logits: Tensor, real_pictures: Tensor) -> Tensor:
    """Give the squared size of the discriminator's gradient on each real picture, differentiable once more.

    Shapes: real_logits [N] of real_pictures [N,3,R,R] (which require gradients) → [N]. The loss is γ/2 times it.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_pictures, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def path_lengths(pictures: Tensor, ws: Tensor, noise: Tensor) -> Tensor:
    """Give how far the picture moves with ws along a random direction of pictures, differentiable once more.

    Shapes: pictures [N,3,R,R] drawn from ws [N,num_ws,w_dim], noise as pictures, unit normal → [N].
    """
    noise = noise / math.sqrt(pictures.shape[2] * pictures.shape[3])
    (gradient,) = torch.autograd.grad((pictures * noise).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_penalty(lengths: Tensor, mean: Tensor) -> Tensor:
    """Give how far lengths are from their running mean, squared: [N], [] → [N].

    Differs from the published code: the mean is from before this batch, so that shares of a batch need not know of
    each other.
    """
    return (lengths - mean).square()
