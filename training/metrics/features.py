"""Networks that picture distances are measured with, by choice: ours on rendered faces, or weights a user brings.

Distances are comparable only when they were measured with one network: `name` goes into every figure's record.
Nothing is ever downloaded.
"""

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.errors import DataError
from training.metrics.inception import FEATURES, Inception
from training.networks.discriminator import Discriminator
from training.networks.encoder import Trunk

TRUNK_PX = 128
ADVICE = (
    "wanted is the TorchScript file known as inception-2015-12-05.pt, or a state dict in the form of "
    "pt_inception-2015-12-05-6726825d.pth"
)


@dataclass(frozen=True)
class FeatureNetwork:
    """Pictures [N,3,R,R] in [-1,1] → features [N,d]."""

    name: str
    describe: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def collect(self, batches: Iterable[Tensor]) -> npt.NDArray[np.float32]:
        """Describe many pictures, a batch at a time: [N,d]."""
        return np.concatenate([self.describe(batch).float().cpu().numpy() for batch in batches])


def use_trunk(trunk: Trunk) -> FeatureNetwork:
    """Use the encoder's trunk, which was trained to read what rendered faces show."""
    trunk = trunk.eval()

    def describe(pictures: Tensor) -> Tensor:
        if pictures.shape[-1] != TRUNK_PX:
            pictures = F.interpolate(pictures, (TRUNK_PX, TRUNK_PX), mode="bilinear", antialias=True)
        return trunk(pictures)

    return FeatureNetwork("trunk", describe)


def use_discriminator(discriminator: Discriminator) -> FeatureNetwork:
    """Use a trained discriminator's last map, averaged; to compare sets with one fixed discriminator, never in a
    run that goes on training it."""
    discriminator = discriminator.eval()
    return FeatureNetwork("discriminator", lambda pictures: discriminator.describe(pictures)[-1].float().mean((2, 3)))


def to_bytes(pictures: Tensor) -> Tensor:
    """Round pictures as a file would: [-1,1] → uint8 0 … 255."""
    return pictures.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)


def load_inception(path: Path, device: torch.device) -> FeatureNetwork:
    """Load the Inception network of FID from a file that the user has.

    Raises: DataError that says what is wrong with the file and what is wanted.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist; {ADVICE}")
    if _is_script(path):
        return _use_script(path, device)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever its many readers raise
        raise DataError(f"{path} can't be read as weights; {ADVICE}") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise DataError(f"{path} holds no state dict; {ADVICE}")
    return _use_state(path, weights, device)


def _is_script(path: Path) -> bool:
    """TorchScript files are zips that carry code."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _use_state(path: Path, weights: dict[str, Tensor], device: torch.device) -> FeatureNetwork:
    with torch.device("meta"):  # the shapes alone: every tensor comes from the file
        network = Inception()
    wanted = network.state_dict()
    for name, value in wanted.items():
        if name.endswith("num_batches_tracked"):
            weights.setdefault(name, torch.zeros((), dtype=value.dtype))
        elif name not in weights:
            raise DataError(f"{path} has no tensor {name}; {ADVICE}")
        elif weights[name].shape != value.shape:
            raise DataError(
                f"{path}: tensor {name} is {list(weights[name].shape)} where the network has {list(value.shape)}; "
                f"{ADVICE}"
            )
    network.load_state_dict({name: weights[name] for name in wanted}, assign=True)
    network = network.eval().requires_grad_(False).to(device)
    # pictures are rounded first, because what is measured are pictures as they are kept
    return FeatureNetwork("inception", lambda pictures: network(to_bytes(pictures).float() / 127.5 - 1))


def _use_script(path: Path, device: torch.device) -> FeatureNetwork:
    try:
        network: nn.Module = torch.jit.load(str(path), map_location=device).eval()
        probe = network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8, device=device), return_features=True)
    except Exception as error:  # whatever a foreign file does
        reason = str(error).strip().splitlines()[-1][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"{path} is not the Inception network of FID ({reason}); {ADVICE}") from error
    if not isinstance(probe, Tensor) or probe.shape != (1, FEATURES):
        raise DataError(f"{path} gives no {FEATURES} features a picture; {ADVICE}")
    return FeatureNetwork("inception", lambda pictures: network(to_bytes(pictures), return_features=True))
