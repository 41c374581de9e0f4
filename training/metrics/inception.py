"""The Inception network that FID was defined with, for weights that a user brings; this package ships none.

Layers and names are those of the state dict known as pt_inception-2015-12-05 (a translation of TensorFlow's 2015
network): average pools don't count the padding, and the last block pools by maximum. Plain PyTorch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZE_PX = 299
FEATURES = 2048
CLASSES = 1008
Spec = tuple[str, int, int | tuple[int, int], int]
"""A convolution: name, channels, kernel, stride. Stride 1 keeps the size."""


class BasicConv2d(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, before: int, after: int, kernel: int | tuple[int, int], stride: int, padded: bool) -> None:
        super().__init__()
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (high // 2, wide // 2) if padded else 0
        self.conv = nn.Conv2d(before, after, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,before,H,W] → [N,after,H',W']."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Block(nn.Module):
    """Branches side by side, each a chain of convolutions; a chain's last entry may be a fork of two."""

    def __init__(self, before: int, branches: list[list[Spec | tuple[Spec, Spec]]], pool: str) -> None:
        """`pool`: "average" or "maximum" with a convolution behind it as the last branch, or "halve"."""
        super().__init__()
        self.pool = pool
        self.branches: list[list[tuple[str, ...]]] = []
        for branch in branches:
            width, names = before, []
            for entry in branch:
                forks = entry if isinstance(entry[0], tuple) else (entry,)
                for name, after, kernel, stride in forks:
                    self.add_module(name, BasicConv2d(width, after, kernel, stride, padded=stride == 1))
                names.append(tuple(fork[0] for fork in forks))
                width = sum(fork[1] for fork in forks)
            self.branches.append(names)

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [N,before,H,W] → [N,sum of the branches,H',W']."""
        outputs = []
        for number, branch in enumerate(self.branches):
            y = x
            if self.pool != "halve" and number == len(self.branches) - 1:
                average = self.pool == "average"
                y = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) if average else F.max_pool2d(x, 3, 1, 1)
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            outputs.append(y)
        if self.pool == "halve":
            outputs.append(F.max_pool2d(x, 3, 2))
        return torch.cat(outputs, 1)


def _block_a(before: int, pooled: int) -> Block:
    return Block(
        before,
        [
            [("branch1x1", 64, 1, 1)],
            [("branch5x5_1", 48, 1, 1), ("branch5x5_2", 64, 5, 1)],
            [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 1)],
            [("branch_pool", pooled, 1, 1)],
        ],
        "average",
    )


def _block_b() -> Block:
    return Block(
        288,
        [
            [("branch3x3", 384, 3, 2)],
            [("branch3x3dbl_1", 64, 1, 1), ("branch3x3dbl_2", 96, 3, 1), ("branch3x3dbl_3", 96, 3, 2)],
        ],
        "halve",
    )


def _block_c(width: int) -> Block:
    across, down = (1, 7), (7, 1)
    return Block(
        768,
        [
            [("branch1x1", 192, 1, 1)],
            [("branch7x7_1", width, 1, 1), ("branch7x7_2", width, across, 1), ("branch7x7_3", 192, down, 1)],
            [
                ("branch7x7dbl_1", width, 1, 1),
                ("branch7x7dbl_2", width, down, 1),
                ("branch7x7dbl_3", width, across, 1),
                ("branch7x7dbl_4", width, down, 1),
                ("branch7x7dbl_5", 192, across, 1),
            ],
            [("branch_pool", 192, 1, 1)],
        ],
        "average",
    )


def _block_d() -> Block:
    return Block(
        768,
        [
            [("branch3x3_1", 192, 1, 1), ("branch3x3_2", 320, 3, 2)],
            [
                ("branch7x7x3_1", 192, 1, 1),
                ("branch7x7x3_2", 192, (1, 7), 1),
                ("branch7x7x3_3", 192, (7, 1), 1),
                ("branch7x7x3_4", 192, 3, 2),
            ],
        ],
        "halve",
    )


def _block_e(before: int, pool: str) -> Block:
    def fork(name: str) -> tuple[Spec, Spec]:
        return (f"{name}a", 384, (1, 3), 1), (f"{name}b", 384, (3, 1), 1)

    return Block(
        before,
        [
            [("branch1x1", 320, 1, 1)],
            [("branch3x3_1", 384, 1, 1), fork("branch3x3_2")],
            [("branch3x3dbl_1", 448, 1, 1), ("branch3x3dbl_2", 384, 3, 1), fork("branch3x3dbl_3")],
            [("branch_pool", 192, 1, 1)],
        ],
        pool,
    )


class Inception(nn.Module):
    """Picture → the 2048 features before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = BasicConv2d(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = BasicConv2d(32, 32, 3, 1, padded=False)
        self.Conv2d_2b_3x3 = BasicConv2d(32, 64, 3, 1, padded=True)
        self.Conv2d_3b_1x1 = BasicConv2d(64, 80, 1, 1, padded=False)
        self.Conv2d_4a_3x3 = BasicConv2d(80, 192, 3, 1, padded=False)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _block_a(192, 32), _block_a(256, 64), _block_a(288, 64)
        self.Mixed_6a = _block_b()
        self.Mixed_6b, self.Mixed_6c = _block_c(128), _block_c(160)
        self.Mixed_6d, self.Mixed_6e = _block_c(160), _block_c(192)
        self.Mixed_7a = _block_d()
        self.Mixed_7b, self.Mixed_7c = _block_e(1280, "average"), _block_e(2048, "maximum")
        self.fc = nn.Linear(FEATURES, CLASSES)  # unused; the weights' file has it

    def forward(self, pictures: Tensor) -> Tensor:
        """Shapes: pictures [N,3,H,W] in [-1,1], any size → [N,2048]."""
        x = F.interpolate(pictures, (SIZE_PX, SIZE_PX), mode="bilinear", align_corners=False)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(F.max_pool2d(x, 3, 2))))
        x = self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))))
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))
