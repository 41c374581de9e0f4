"""Losses of every stage. Torch only; pictures are NCHW in [-1,1]."""

import torch
import torch.nn.functional as F
from torch import Tensor


def face_weights(resolution: int, gain: float = 6.0) -> Tensor:
    """Weigh eyes and mouth up to 1 + `gain` times as much as the rest, mean near 1.

    Shapes: [1,1,R,R].
    """
    rows, columns = torch.meshgrid(torch.linspace(0, 1, resolution), torch.linspace(0, 1, resolution), indexing="ij")
    window = torch.exp(-(((columns - 0.5) / 0.25) ** 4 + ((rows - 0.62) / 0.25) ** 4))
    return (1 + gain * window)[None, None] / (1 + 0.25 * gain)


def picture_loss(error: Tensor, weights: Tensor, squared: float = 0.0) -> Tensor:
    """Give L1 + L1 of the gradients + half of L1 at half size, weighted by place, plus `squared` times their squares.

    L1 alone is content to leave thin things out (glasses, the nose's line, a collar); squares are not.

    Shapes: error [N,3,H,W], weights [N or 1,1,H,W].
    """
    across, down = error[..., 1:] - error[..., :-1], error[..., 1:, :] - error[..., :-1, :]
    half, half_weights = F.avg_pool2d(error, 2), F.avg_pool2d(weights, 2)
    parts = ((error, weights, 1.0), (across, weights[..., 1:], 1.0), (down, weights[..., 1:, :], 1.0))
    loss = error.new_zeros(())
    for part, local, share in (*parts, (half, half_weights, 0.5)):
        loss = loss + share * (part.abs() * local).mean()
        if squared:
            loss = loss + squared * share * (part.square() * local).mean()
    return loss


def pair_loss(
    drawn: Tensor, truth: Tensor, weights: Tensor, difference_weight: float = 1.5, squared: float = 0.0
) -> Tensor:
    """Compare pictures and what changes between the two of each pair, with more weight where the pair differs.

    Shapes: drawn, truth [2P,3,H,W], rows 2i and 2i+1 one identity; weights [1,1,H,W].
    """
    error = drawn - truth
    change = (truth[0::2] - truth[1::2]).abs().mean(1, keepdim=True)
    local = weights * (1 + 3 * (change * 4).clamp(max=1))
    whole = picture_loss(error, local.repeat_interleave(2, 0), squared)
    return whole + difference_weight * picture_loss(error[0::2] - error[1::2], local)


def explained_difference(drawn: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Give the share of the change between two expressions that the drawn pair reproduces (1 is all of it)."""
    drawn_change = (drawn * weights)[0::2] - (drawn * weights)[1::2]
    true_change = (truth * weights)[0::2] - (truth * weights)[1::2]
    return 1 - (drawn_change - true_change).square().sum() / true_change.square().sum()


def psnr_db(drawn: Tensor, truth: Tensor) -> Tensor:
    """Give the mean peak signal-to-noise ratio of pictures in [-1,1], clipped as they would be shown."""
    mse = ((drawn.clamp(-1, 1) - truth) / 2).square().mean((1, 2, 3))
    return (-10 * torch.log10(mse)).mean()


NEAR = 0.03
"""Share of the teacher's size below which a motion counts as found: there the loss is round, not pointed."""


def relative_motion_loss(delta_ws: Tensor, teacher: Tensor, floor: float) -> Tensor:
    """Give |Δ − Δ*| ÷ |Δ*| of each motion over its frames; a floor under the divisor is for teachers that stand still.

    Not squared: of a sentence that may mean two things the mean of squares asks for half of each, the mean of distances
    for the likelier one in full (a geometric median in place of a mean; docs/decisions/0027).

    Shapes: delta_ws, teacher [N,T,rows,w_dim] → scalar.
    """
    error = (delta_ws - teacher).square().sum((2, 3)).mean(1)
    size = teacher.square().sum((2, 3)).mean(1)
    return ((error / (size + floor) + NEAR**2).sqrt() - NEAR).mean()


def directional_loss(image_change: Tensor, text_change: Tensor) -> Tensor:
    """Give 1 − cosine between how the image embedding and the text embedding change.

    Shapes: [N,embed_dim] each → scalar.
    """
    return (1 - F.cosine_similarity(image_change, text_change, dim=1, eps=1e-6)).mean()
