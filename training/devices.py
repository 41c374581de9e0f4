"""Where training runs: one choice of device, one way of lower precision."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

CPU = torch.device("cpu")


def pick_device(name: str = "auto") -> torch.device:
    """Give the device that a name stands for: "auto" is the first GPU, or the CPU without one.

    Raises: ValueError where the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{name}: this PyTorch ({torch.__version__}) sees no GPU; use --device cpu or install CUDA's")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"{name}: there are only {torch.cuda.device_count()} GPUs, numbered from 0")
    return device


def autocast(device: torch.device) -> AbstractContextManager[None]:
    """Compute convolutions and matrix products in bfloat16, which needs no loss scaling on either kind of device."""
    return torch.autocast(device.type, dtype=torch.bfloat16)
