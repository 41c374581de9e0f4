"""Towers: sentences and pictures in one space. The protocol that CLIP keeps too, and the rendered domains' own pair.

Torch only; no file formats. CLIP's towers lie in training/checkpoints.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.networks.encoder import ImageTower
from training.networks.text import TextTower
from training.teacher import pad_ids
from training.vocabulary import encode_rows

TOWER_RESOLUTION = 128
"""Edge length that the rendered image tower takes."""


@runtime_checkable
class Towers(Protocol):
    """What the losses and the motion need of a pair of towers.

    Both verbs can be differentiated, the second through the pictures. Towers that shall be trained along are modules.
    """

    embed_dim: int

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Shapes: N sentences → [N,embed_dim], unit norm."""

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Shapes: [N,3,R,R] in [-1,1], any R → [N,embed_dim], unit norm."""


class RenderedTowers(nn.Module):
    """A rendered domain's text tower and image tower."""

    def __init__(self, text: TextTower, tokenizer: Tokenizer, image: ImageTower) -> None:
        super().__init__()
        self.text, self.image, self.tokenizer = text, image, tokenizer
        self.embed_dim = image.out.out_features

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Shapes: N sentences → [N,embed_dim], unit norm."""
        input_ids, attention_mask = pad_ids(encode_rows(self.tokenizer, list(texts)))
        device = self.text.table.weight.device
        embed: Tensor = self.text(input_ids.to(device), attention_mask.to(device))
        return embed

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Shapes: [N,3,R,R] in [-1,1], any R → [N,embed_dim], unit norm."""
        embed: Tensor = self.image(resize(pictures, TOWER_RESOLUTION))
        return embed


def resize(pictures: Tensor, size_px: int) -> Tensor:
    """Bring square pictures to a size, smoothly enough to be differentiated.

    Shapes: [N,3,R,R] → [N,3,size_px,size_px].
    """
    if pictures.shape[-1] == size_px:
        return pictures
    smaller = pictures.shape[-1] > size_px
    return F.interpolate(pictures, (size_px, size_px), mode="bilinear", align_corners=False, antialias=smaller)


def contrastive_loss(image_embed: Tensor, text_embed: Tensor, temperature: float) -> Tensor:
    """Give mean_i log(1 + Σ_j exp((s_ij − s_ii)/temperature)), s = cosine of picture i and sentence j.

    Σ_j holds j = i too, as published, so that the least value is log 2.

    Shapes: image_embed, text_embed [N,d] unit norm → scalar.
    """
    similarity = image_embed @ text_embed.t()
    excess = (similarity - similarity.diagonal()[:, None]) / temperature
    return F.softplus(torch.logsumexp(excess, 1)).mean()


def plain_loss(image_embed: Tensor, text_embed: Tensor) -> Tensor:
    """Give mean_i (1 − s_ii).

    Shapes: image_embed, text_embed [N,d] unit norm → scalar.
    """
    return (1 - (image_embed * text_embed).sum(1)).mean()
