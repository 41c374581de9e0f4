"""The model card of a bundle that was made from somebody's own pictures."""

from collections.abc import Mapping
from typing import Any

from training.recipes.photos import PhotoRecipe

CARD = """# Model card: {bundle_id}

This bundle animates faces like those of the picture set that it was trained on, at {resolution} × {resolution} px. It
was made by `animato-train all --recipe {recipe}`.

{note}

## How it was made

A StyleGAN2 trained against its discriminator, an e4e-style encoder, and the paper's recurrent motion generator (Hang et
al. 2022). Sentences and pictures meet in: {towers}. Steps: {steps}.

## What was measured

On pictures that encoder, tower and motion did not learn from (the generator saw all):

{figures}

Largest differences between the ONNX graphs and PyTorch: {parity}.

## Where it ends

- Serving cuts the centred square of a picture: pictures must be framed as the training set was.
- Faces unlike those of the set come out as the nearest face that the generator knows.
- No network here tells who someone is, so jobs of this bundle carry no identity figure.
- What a sentence does is as good as the towers are: an image tower taught by captions knows the captions' expressions
  and no other.
"""

NO_NOTE = """Whose faces these are, and what they agreed to, was not written down when this bundle was exported. Ask
whoever made it before you use it."""


def write_photo_card(
    bundle_id: str,
    recipe: PhotoRecipe,
    resolution: int,
    made_by: Mapping[str, Any],
    parity: Mapping[str, Mapping[str, Any]],
    note: str = "",
) -> str:
    """Write the card; `note` tells whose faces these are."""
    rows = ["| figure | value |", "| --- | --- |"]
    rows += [f"| {name} | {value:.4g} |" for name, value in made_by["measured"].items()]
    return CARD.format(
        bundle_id=bundle_id,
        resolution=resolution,
        recipe=recipe.name,
        note=note.strip() or NO_NOTE,
        towers=made_by["towers"],
        steps=", ".join(f"{name} {count:,}" for name, count in made_by["steps"].items()) or "unknown",
        figures="\n".join(rows),
        parity=", ".join(f"{name} {entry['max_abs']:.1e}" for name, entry in parity.items()),
    )
