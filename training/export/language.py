"""What a bundle says of its language: a prototype of every expression, and how near a sentence must come to one.

Written as `language.json` beside the text tower, read by `model.language`. Both bounds are measured on captions that
the tower was taught: `floor` is what unrelated sentences reach, `ceiling` what plain wordings do.
Must not import: services, worker.
"""

import json
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from training.faces.captions import EXPRESSION_CLASSES, NEUTRAL, Caption, sample_caption, unrelated
from training.language import Embed, class_prototypes
from training.lessons import LABELS, PLAIN_STRENGTHS

SHOWN_NAMES: dict[str, str] = {
    "smile": "smiling", "laugh": "laughing", "close_eyes": "closing eyes", "wink_l": "winking", "wink_r": "winking",
    "open_mouth": "opening mouth", "pout": "pouting", "raise_brows": "raising eyebrows", "frown_brows": "frowning",
    "skeptic": "skeptical", "disgust": "disgusted", "look_left": "looking left", "look_right": "looking right",
    "look_up": "looking up", "look_down": "looking down", "blush": "blushing", "blink": "blinking",
}  # fmt: skip
"""Names that the service shows, where they are not the renderer's own."""

FLOOR_SHARE, CEILING_SHARE = 0.9, 0.3
WEAK_STRENGTH = 0.6


def plain_captions(count: int, seed: int) -> list[Caption]:
    """Captions of one expression each, at about its full strength."""
    rng = np.random.default_rng(seed)
    found: list[Caption] = []
    while len(found) < count:
        caption = sample_caption(rng, EXPRESSION_CLASSES[len(found) % len(EXPRESSION_CLASSES)])
        low, high = PLAIN_STRENGTHS
        if len(caption.targets) == 1 and low <= caption.targets[0][1] <= high:
            found.append(caption)
    return found


def weak_prototypes(embed: Embed, count: int = 48, seed: int = 92) -> torch.Tensor:
    """Mean τ of captions that ask for a hint of each expression, which lies apart from plain ones.

    Shapes: [len(EXPRESSION_CLASSES), embed_dim], unit norm.
    """
    rng = np.random.default_rng(seed)
    found = []
    for name in EXPRESSION_CLASSES:
        texts: list[str] = []
        while len(texts) < count:
            caption = sample_caption(rng, name)
            if len(caption.targets) == 1 and caption.targets[0][1] <= WEAK_STRENGTH:
                texts.append(caption.text)
        found.append(F.normalize(embed(texts).mean(0), dim=0))
    return torch.stack(found)


def unrelated_sentences(count: int, seed: int) -> list[str]:
    """Sentences that ask for no facial motion."""
    rng = np.random.default_rng(seed)
    return [unrelated(rng) for _ in range(count)]


def describe_language(embed: Embed, count: int = 660, seed: int = 91) -> bytes:
    """Measure the prototypes and both bounds of a text tower and give `language.json`."""
    prototypes = class_prototypes(embed)
    expressions = prototypes[: len(EXPRESSION_CLASSES)]
    captions = plain_captions(count, seed)
    own = torch.tensor([EXPRESSION_CLASSES.index(c.targets[0][0]) for c in captions])
    near = (embed([c.text for c in captions]) * expressions[own]).sum(1)
    weak = weak_prototypes(embed)
    far = (embed(unrelated_sentences(count, seed)) @ torch.cat([expressions, weak]).T).amax(1)
    floor, ceiling = float(far.quantile(FLOOR_SHARE)), float(near.quantile(CEILING_SHARE))
    if not floor < ceiling:
        floor = ceiling - 0.1  # a tower that tells nothing apart still has an order
    return write_language((*LABELS, *EXPRESSION_CLASSES), torch.cat([prototypes, weak]), floor, ceiling)


def write_language(labels: Sequence[str], prototypes: torch.Tensor, floor: float, ceiling: float) -> bytes:
    """Give `language.json`.

    Shapes: prototypes [len(labels), embed_dim], unit norm: the plain ones of LABELS first, then any weaker ones.
    """
    rows = [[round(value, 4) for value in row] for row in prototypes.tolist()]
    names = [SHOWN_NAMES.get(label, label) for label in labels]
    content = {
        "names": names, "neutral": NEUTRAL, "floor": round(floor, 4), "ceiling": round(ceiling, 4),
        "paired": len(EXPRESSION_CLASSES), "prototypes": rows,
    }  # fmt: skip
    return (json.dumps(content, separators=(",", ":")) + "\n").encode()
