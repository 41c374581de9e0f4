"""The paper's losses of a motion, each a function of its own. Torch only.

Source: Hang et al. 2022, section 3.3, in the form of the code published with it.
"""

import torch.nn.functional as F
from torch import Tensor, nn


def path_length_loss(delta_ws: Tensor) -> Tensor:
    """Give mean‖(Δ_{k+1} − Δ_k) − (Δ_k − Δ_{k−1})‖²: the motion goes on as it goes.

    Shapes: delta_ws [N,T,num_ws,w_dim] → scalar, 0 for fewer than three frames.
    """
    if delta_ws.shape[1] < 3:
        return delta_ws.new_zeros(())
    return delta_ws.diff(n=2, dim=1).square().mean()


def first_last_loss(delta_ws: Tensor) -> Tensor:
    """Give mean‖Δ_0 − Δ_{T−1}‖²: the motion goes no farther than it must.

    Shapes: delta_ws [N,T,num_ws,w_dim] → scalar.
    """
    return (delta_ws[:, 0] - delta_ws[:, -1]).square().mean()


def latent_loss(offsets: Tensor) -> Tensor:
    """Give Σ_k mean‖w_k − ws‖².

    Shapes: offsets [N,T,num_ws,w_dim], w_k − ws → scalar.
    """
    return offsets.square().mean((0, 2, 3)).sum()


class RowAdversary(nn.Module):
    """The paper's optional adversary: an MLP of four layers on single rows of w."""

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(w_dim, 1))

    def forward(self, ws: Tensor) -> Tensor:
        """Shapes: [...,w_dim] → [...,1]."""
        logits: Tensor = self.layers(ws)
        return logits


def fooling_loss(logits: Tensor) -> Tensor:
    """Give the non-saturating loss of what wants to pass for real: softplus(−D(fake))."""
    return F.softplus(-logits).mean()


def telling_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Give the adversary's own loss: softplus(−D(real)) + softplus(D(fake))."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()
