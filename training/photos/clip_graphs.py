"""CLIP's towers as a bundle's graphs `text` and `image`, compared with PyTorch, and its tokenizer."""

import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.sessions import open_graph
from model.tokenizer import read_tokenizer
from training.checkpoints.clip import ClipTowers
from training.errors import DataError
from training.export.bundle import ParityError
from training.export.graphs import OPSET
from training.export.traces import strip_traces
from training.photos.words import IMAGE_TOLERANCE, Words

SENTENCES = ("smiling", "The person is closing eyes.", "it's a 2nd SURPRISE, isn't it?! ünïcode")


class ClipEye(nn.Module):
    """CLIP's image tower with the scaling from the bundle's size."""

    def __init__(self, towers: ClipTowers, from_px: int) -> None:
        super().__init__()
        self.images = towers.images
        self.images.prepare(torch.zeros(1, 3, from_px, from_px))  # the scaling's matrix is made once, not in the graph

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,from_px,from_px] in [-1,1] → image_embed [N,embed_dim], unit norm."""
        embed: Tensor = self.images(image)
        return embed


def export_clip_text(towers: object) -> Words:
    """Export the text tower and compare it, tokenizer and all, with PyTorch.

    Raises: ParityError, DataError for towers that are no CLIP.
    """
    if not isinstance(towers, ClipTowers):
        raise DataError(f"towers of the kind {type(towers).__name__} can't be exported")
    ids, mask = towers.encode(["smiling", "closing both eyes"])
    axes = {0: torch.export.Dim("N"), 1: torch.export.Dim("L", max=towers.texts.max_tokens)}
    with (
        torch.inference_mode(mode=False),
        torch.no_grad(),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
    ):
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated internals
        program = torch.onnx.export(
            towers.texts.eval(),
            (ids, mask),
            dynamo=True,
            opset_version=OPSET,
            input_names=["input_ids", "attention_mask"],
            output_names=["text_embed"],
            dynamic_shapes=(axes, axes),
            verbose=False,
        )
        assert program is not None
        path = Path(folder) / "text.onnx"
        program.save(path, external_data=False)
        graph = strip_traces(onnx.load(path)).SerializeToString()
    tokenizer = towers.tokenizer.to_str().encode()
    return Words(graph, tokenizer, _compare_words(towers, graph, tokenizer), towers.texts.max_tokens)


@torch.no_grad()
def _compare_words(towers: ClipTowers, graph: bytes, tokenizer: bytes) -> float:
    """Run sentences through what serving runs and through PyTorch; give the largest difference."""
    session, reader = open_graph(graph, "text"), read_tokenizer(tokenizer)
    worst = 0.0
    for sentence in SENTENCES:
        ids = np.asarray([reader.encode(sentence, towers.texts.max_tokens)], np.int64)
        given = session.run(input_ids=ids, attention_mask=np.ones_like(ids))["text_embed"]
        worst = max(worst, float(np.abs(given - towers.embed_texts([sentence]).numpy()).max()))
    if not worst <= IMAGE_TOLERANCE:
        raise ParityError(f"text: serving's CLIP is {worst:.3g} off PyTorch; {IMAGE_TOLERANCE:.3g} is allowed")
    return worst


def build_clip_eye(towers: object, from_px: int) -> ClipEye:
    """Give the image graph.

    Raises: DataError for towers that are no CLIP.
    """
    if not isinstance(towers, ClipTowers):
        raise DataError(f"towers of the kind {type(towers).__name__} can't be exported")
    return ClipEye(towers, from_px)
