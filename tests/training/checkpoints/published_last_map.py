"""pSp's two encoders of the last map as they were published: torch's own modules under the names that files have.

The linear layers of the original take 512 for granted, here w_dim. Slow, and shares nothing with the networks that it
judges. Source: Richardson et al. 2021 (arXiv 2008.00951), `models/encoders/psp_encoders.py`.
"""

import torch
from torch import Tensor, nn

from tests.training.checkpoints.published_irse import NARROW, UNITS, State, draw

SINGLE, FLAT = "BackboneEncoderUsingLastLayerIntoW", "BackboneEncoderUsingLastLayerIntoWPlus"


class EqualLinear(nn.Module):
    """rosinality's, with a learning rate of 1 and no activation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(outputs, inputs)), nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.weight / self.weight.shape[1] ** 0.5).t() + self.bias


class SEModule(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // 16, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // 16, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(torch.relu(self.fc1(nn.AdaptiveAvgPool2d(1)(x)))))


class Unit(nn.Module):
    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if before != width:
            convolution = nn.Conv2d(before, width, 1, stride, bias=False)
            self.shortcut_layer = nn.Sequential(convolution, nn.BatchNorm2d(width))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, width, 3, 1, 1, bias=False),
            nn.PReLU(width),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            SEModule(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_layer(x) + self.shortcut_layer(x)


class LastMapEncoder(nn.Module):
    """What both begin with."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        stem = nn.Conv2d(channels, NARROW[0], 3, 1, 1, bias=False)
        self.input_layer = nn.Sequential(stem, nn.BatchNorm2d(NARROW[0]), nn.PReLU(NARROW[0]))
        units, before = [], NARROW[0]
        for width, count in zip(NARROW, UNITS, strict=True):
            for place in range(count):
                units.append(Unit(before, width, 1 if place else 2))
                before = width
        self.body = nn.Sequential(*units)


class IntoW(LastMapEncoder):
    def __init__(self, w_dim: int = 24, channels: int = 3) -> None:
        super().__init__(channels)
        self.output_pool, self.linear = nn.AdaptiveAvgPool2d((1, 1)), EqualLinear(NARROW[3], w_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.output_pool(self.body(self.input_layer(x))).view(len(x), -1))


class IntoWPlus(LastMapEncoder):
    def __init__(self, num_ws: int, w_dim: int = 24) -> None:
        super().__init__()
        self.w_dim = w_dim
        pool, map_linear = nn.AdaptiveAvgPool2d((7, 7)), nn.Linear(NARROW[3] * 49, w_dim)
        self.output_layer_2 = nn.Sequential(nn.BatchNorm2d(NARROW[3]), pool, nn.Flatten(), map_linear)
        self.linear = EqualLinear(w_dim, w_dim * num_ws)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.output_layer_2(self.body(self.input_layer(x))))
        return x.view(len(x), -1, self.w_dim)


def fill(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network weights, and batch norms that have seen something."""
    state = draw({name: tuple(value.shape) for name, value in network.state_dict().items()}, seed)
    network.load_state_dict(state)
    return network.double().eval().requires_grad_(False)


def to_file(network: nn.Module, prefix: str = "encoder.") -> State:
    return {
        f"{prefix}{name}": value.float() if value.is_floating_point() else value
        for name, value in network.state_dict().items()
    }
