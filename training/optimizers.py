"""Optimisers: Muon for convolutions and matrices, Adam for the rest, and the learning-rate schedule. Torch only."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrix: Tensor, steps: int = 5) -> Tensor:
    """Bring all singular values near 1 by Newton–Schulz, iterated on the small Gram matrix only.

    Shapes: [m,n] → [m,n]. Singular values end within about [0.7, 1.2].
    Source: Jordan et al. 2024, "Muon"; the Gram form does the same polynomial with fewer multiplications.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.t() if tall else matrix
    x = x / (x.norm() + 1e-7)
    gram = x @ x.t()
    eye = torch.eye(gram.shape[0], dtype=x.dtype, device=x.device)
    a, b, c = NEWTON_SCHULZ
    total = eye
    for _ in range(steps):
        factor = a * eye + b * gram + c * (gram @ gram)
        total = factor @ total
        gram = factor @ gram @ factor
    result = total @ x
    return result.t() if tall else result


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum with Nesterov, scaled so that every update has root mean square 1 × lr."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-2, momentum: float = 0.95) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.mul_(group["momentum"]).add_(parameter.grad)
                nesterov = parameter.grad.add(momentum, alpha=group["momentum"])
                update = orthogonalize(nesterov.reshape(nesterov.shape[0], -1))
                update = update * max(update.shape) ** 0.5
                parameter.add_(update.reshape(parameter.shape), alpha=-group["lr"])
        return None


def is_matrix(parameter: Tensor) -> bool:
    """Say whether Muon takes a parameter: matrices and real 3×3 convolutions, not toRGB, constants or biases."""
    if parameter.ndim == 2:
        return min(parameter.shape) > 3
    return parameter.ndim == 4 and parameter.shape[-1] == 3 and parameter.shape[0] > 1 and parameter.shape[1] > 3


def build_optimizers(
    modules: Iterable[nn.Module], lr: float, adam_lr: float | None = None
) -> list[torch.optim.Optimizer]:
    """Give Muon and Adam (0.9, 0.99) for all trainable parameters; each group remembers its base rate."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices := [p for p in parameters if is_matrix(p)]:
        optimizers.append(Muon(matrices, lr))
    if rest := [p for p in parameters if not is_matrix(p)]:
        optimizers.append(torch.optim.Adam(rest, adam_lr or lr, (0.9, 0.99)))
    return optimizers


def schedule(step: int, steps: int, flat: float, warmup: int = 40, final: float = 0.02) -> float:
    """Give the learning rate's factor: a short rise, flat until the share `flat`, then linear to `final`."""
    rise = min(1.0, (step + 1) / warmup)
    share = step / max(steps, 1)
    return rise if share < flat else rise * max(final, (1 - share) / (1 - flat))


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], lr: float) -> None:
    """Set every group's learning rate."""
    for optimizer in optimizers:
        groups: list[dict[str, Any]] = optimizer.param_groups
        for group in groups:
            group["lr"] = lr
