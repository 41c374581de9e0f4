"""LPIPS from a user's files: torchvision's VGG-16 and the channel weights of Zhang et al. (lpips 0.1, `vgg.pth`).

Neither is shipped. Files are read as plain tensors, never as programs.
Must not import: services, worker, model.
"""

from pathlib import Path

import torch
from torch import Tensor

from training.errors import DataError
from training.networks.vgg import WIDTHS, VggDescription


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a state dict.

    Raises: DataError with the file's name.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its many readers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path} can't be read as PyTorch weights ({reason})") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise DataError(f"{path} holds no plain state dict of tensors")
    return state


def name_convolutions() -> list[tuple[str, str]]:
    """Pair our names of VGG-16's convolutions with torchvision's, in which activations and poolings count too."""
    names, place = [], 0
    for stage, widths in enumerate(WIDTHS):
        for conv in range(len(widths)):
            names.append((f"stages.{stage}.{conv}", f"features.{place}"))
            place += 2
        place += 1
    return names


def load_lpips(vgg: Path, channel_weights: Path) -> VggDescription:
    """Load LPIPS.

    Raises: DataError with the file's and the tensor's name.
    """
    described = VggDescription()
    wanted = described.state_dict()
    loaded: dict[str, Tensor] = {}
    convolutions, weights = read_tensors(vgg), read_tensors(channel_weights)
    for ours, theirs in name_convolutions():
        for kind in ("weight", "bias"):
            loaded[f"{ours}.{kind}"] = take(convolutions, f"{theirs}.{kind}", wanted[f"{ours}.{kind}"], vgg)
    for stage in range(len(WIDTHS)):
        name = f"channel_weights.{stage}"
        found = take(weights, f"lin{stage}.model.1.weight", wanted[name].view(1, -1, 1, 1), channel_weights)
        loaded[name] = found.flatten().clamp_min(0)
    described.load_state_dict(loaded)
    return described


def take(state: dict[str, Tensor], name: str, like: Tensor, path: Path) -> Tensor:
    """Give a tensor of a file, of the shape that is wanted.

    Raises: DataError.
    """
    if name not in state:
        raise DataError(f"{path} has no tensor {name}: it is not the file that LPIPS on VGG-16 needs")
    if state[name].shape != like.shape:
        raise DataError(f"{path}: tensor {name} is {list(state[name].shape)}, and {list(like.shape)} is wanted")
    return state[name].float()
