"""The model card of a rendered domain's bundle: what it is, how it was made, what was measured, where it ends."""

from collections.abc import Mapping
from typing import Any

CARD = """# Model card: {bundle_id}

**Rendered avatars, not photographs.** This bundle animates drawn {domain} faces of the kind that the project's own
renderer draws, at {resolution} × {resolution} px. No picture of a real person was used to make it, and it does not
know what real people look like.

## What it does

One still picture of such a face and one sentence in; a short video out, in which the face does what the sentence
says: smiling, angry, sad, surprised, closing eyes, winking, opening mouth, pouting, and a dozen more (`expressions`
in manifest.json). Sentences are English. Without a picture it draws a face of its own from a seed.

## How it was made

By `animato-train all --recipe {recipe}` on a CPU, from nothing but the renderer: a StyleGAN2 generator supervised by
rendered pairs, an encoder that reads the renderer's factors and refines them in W+, a small text tower distilled from
a sentence encoder, and a recurrent motion generator taught by the renderer's own trajectories. Steps: {steps}.{note}

## What was measured

On identities and sentences that no training saw (definitions in docs/evaluation.md; the same figures stand in
manifest.json under `made_by.measured`):

{figures}

Largest differences between the ONNX graphs and PyTorch: {parity}.

## Where it ends

- A photograph, another drawing style, or something that is no face at all is not refused: it comes out as the nearest
  face of this domain, which will not look like the picture.
- The picture should show one frontal face, centred, shoulders at the lower edge. Large turns of the head are outside
  of what it knows.
- Details that the renderer does not draw (earrings, hats, wrinkles of age) are lost in the inversion.
- "Left" and "right" are the viewer's. Winking closes the eye on the left of the picture unless the sentence says
  otherwise.
- Thin things (glasses, a thin moustache) can come out faint.
- Sentences that name no expression leave the face nearly still.

## Licence

Apache-2.0, like the project. The renderer, its factors and all weights were made within the project; the text tower
was distilled from all-MiniLM-L6-v2 (Apache-2.0).
"""


def write_card(
    bundle_id: str,
    domain: str,
    resolution: int,
    made_by: Mapping[str, Any],
    figures: Mapping[str, Any],
    parity: Mapping[str, Mapping[str, Any]],
    note: str = "",
) -> str:
    """Write the card; `note` tells what was different about this very run."""
    rows = ["| figure | value |", "| --- | --- |"]
    rows += [f"| {name} | {value:.4g} |" for name, value in figures.items() if isinstance(value, (int, float))]
    steps = ", ".join(f"{name} {count:,}" for name, count in made_by.get("steps", {}).items())
    differences = ", ".join(f"{name} {entry['max_abs']:.1e}" for name, entry in parity.items())
    return CARD.format(
        bundle_id=bundle_id,
        domain=domain,
        resolution=resolution,
        recipe=made_by.get("recipe", "unknown"),
        steps=steps or "unknown",
        note=f"\n\n{note.strip()}" if note.strip() else "",
        figures="\n".join(rows),
        parity=differences,
    )
