"""The two towers of a bundle as graphs, whichever towers they are: our own text tower with its picture tower, or CLIP.

Must not import: services, worker, cli.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from training.export.bundle import TOLERANCE, ParityError
from training.export.text import export_text_tower
from training.networks.text import MAX_TOKENS
from training.paper.towers import TOWER_RESOLUTION, RenderedTowers, Towers
from training.photos.graphs import Scaled

IMAGE_TOLERANCE = 1e-3
"""Of encoders with many layers and of CLIP: rounding adds up over dozens of convolutions."""


@dataclass(frozen=True)
class Words:
    """The text side of a bundle."""

    graph: bytes
    tokenizer: bytes
    difference: float
    max_tokens: int


def export_words(towers: Towers) -> Words:
    """Export the text tower, ours or CLIP's.

    Raises: ParityError.
    """
    if not isinstance(towers, RenderedTowers):
        from training.photos.clip_graphs import export_clip_text

        return export_clip_text(towers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.onnx"
        difference = export_text_tower(towers.text, path)
        if not difference <= TOLERANCE:
            raise ParityError(f"text: ONNX Runtime is {difference:.3g} off PyTorch; {TOLERANCE:.3g} is allowed")
        return Words(path.read_bytes(), towers.tokenizer.to_str().encode(), difference, MAX_TOKENS)


def build_eye(towers: Towers, from_px: int) -> nn.Module:
    """Give the graph from a picture to its embedding."""
    if isinstance(towers, RenderedTowers):
        return Scaled(towers.image, from_px, TOWER_RESOLUTION)
    from training.photos.clip_graphs import build_clip_eye

    return build_clip_eye(towers, from_px)
