"""How well a picture, and a change of a picture, fits a sentence, by two towers that embed both.

For: reports. Which towers were used must stand in the report: a method that was trained against them has an advantage.
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.paper.towers import Towers

NEUTRAL_SENTENCE = "a neutral face"
"""Where a change of language starts from."""
NO_CHANGE = 1e-4
"""Change of an embedding under which a picture did not change: its direction is rounding, and counts as 0."""


@torch.no_grad()
def measure_language(towers: Towers, source: Tensor, pictures: Tensor, sentence: str) -> tuple[Tensor, Tensor]:
    """Measure the language score and the language direction of pictures.

    score = v(x)·τ(sentence); direction = cos(v(x) − v(x_source), τ(sentence) − τ(neutral)), 0 where nothing changed.

    Shapes: source [3,R,R], pictures [N,3,R,R] → [N], [N]. Range: pictures [-1,1]; both figures [-1,1].
    Source: CLIP score; StyleGAN-NADA's direction (Gal et al., 2022).
    """
    images = towers.embed_images(torch.cat([source[None], pictures]))
    texts = towers.embed_texts([NEUTRAL_SENTENCE, sentence])
    change, wanted = images[1:] - images[0], texts[1] - texts[0]
    sizes = change.norm(dim=1)
    cosine = change @ wanted / (sizes * wanted.norm()).clamp_min(1e-12)
    return images[1:] @ texts[1], torch.where(sizes < NO_CHANGE, torch.zeros_like(cosine), cosine)
