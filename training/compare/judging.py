"""Reads frames once for all figures: factors, identity and feature maps by the evaluator, embeddings by the bundle.

The evaluator's reader was seen by no loss. The bundle's own towers were: figures of language that rest on them say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.animator import Animator
from model.bundle.reader import read_bundle
from model.sessions import Session, open_sessions
from model.text import TextEncoder
from model.tokenizer import WordPieceTokenizer
from training.evaluate import Judge
from training.paper.towers import resize

CHUNK = 32


class Reading(NamedTuple):
    """What the evaluator makes of T frames."""

    factors: npt.NDArray[np.float32]  # [T,15] in half-ranges
    identity: npt.NDArray[np.float32]  # [T,64] unit norm
    stages: tuple[Tensor, ...]  # feature maps [T,C,H,W], four depths


class FrameReader:
    """The evaluator's factor reader, giving its feature maps too."""

    name = "the evaluator's factor reader (four stages, no learned channel weights)"

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._stages: list[Tensor] = []
        for stage in judge.reader.stages:
            stage.register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self._stages.append(output)

    def read(self, frames: npt.NDArray[np.uint8]) -> Reading:
        """Read frames [T,H,W,3] of any size."""
        factors, identity, stages = [], [], []
        for start in range(0, len(frames), CHUNK):
            self._stages = []
            read = self.judge.read(frames[start : start + CHUNK])
            factors.append(read[0])
            identity.append(read[1])
            stages.append(self._stages)
        maps = tuple(torch.cat(depth) for depth in zip(*stages, strict=True))
        return Reading(np.concatenate(factors), np.concatenate(identity), maps)


class BundleTowers:
    """The bundle's text and image graphs as towers (`training.paper.towers.Towers`)."""

    name = "the bundle's own text and image towers"

    def __init__(self, text: TextEncoder, image: Session, input_px: int, embed_dim: int) -> None:
        self._text, self._image, self._input_px, self.embed_dim = text, image, input_px, embed_dim

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Embed sentences → [N,embed_dim], unit norm."""
        return torch.from_numpy(np.stack([self._text.embed(text) for text in texts]))

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Embed pictures [N,3,R,R] in [-1,1] → [N,embed_dim], unit norm."""
        small = resize(pictures, self._input_px)
        return torch.from_numpy(self._image.run(image=small.numpy())["image_embed"])


def open_bundle(path: object) -> tuple[Animator, BundleTowers]:
    """Open a bundle once, as animator and as towers.

    Raises: BundleError.
    """
    bundle = read_bundle(str(path))
    sessions = open_sessions(bundle, ("cpu",), 1)
    manifest = bundle.manifest
    tokenizer = WordPieceTokenizer.from_bytes(bundle.read(manifest.tokenizer))
    text = TextEncoder(sessions["text"], tokenizer, manifest.max_tokens)
    towers = BundleTowers(text, sessions["image"], manifest.input_resolution, manifest.embed_dim)
    return Animator(bundle, sessions), towers
