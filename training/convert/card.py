"""The model card of a bundle that was made from checkpoints."""

from collections.abc import Mapping
from typing import Any

CARD = """# Model card: {bundle_id}

This bundle animates faces at {resolution} × {resolution} px. It was made by `animato-train convert` from checkpoints
that were trained elsewhere.

{note}

## What it was made from

{origins}

Graphs compute in {precision}. Largest differences between the ONNX graphs and PyTorch: {parity}.

{remarks}
## Where it ends

- Faces unlike those that the generator was trained on come out as the nearest face that it knows.
- How well a picture is found again is the encoder's doing, and what a sentence does the motion's and CLIP's; nothing
  was trained or measured anew here.
- {identity}
- {framing}
- The licences of all the weights apply together. The manifest's `license` says what whoever converted them wrote.
"""

NO_NOTE = """Whose faces the networks were trained on, and what they agreed to, was not written down at the conversion.
Ask whoever made it before you use it."""


IDENTITY = {
    True: "A job's `identity` is the cosine of ir_se50's features of two of its frames; no recognition.",
    False: "No network here tells who someone is, so jobs of this bundle carry no identity figure.",
}
FRAMING = {
    True: "Serving looks for the face in a picture and cuts it as FFHQ's pictures are cut: that is what published "
    "encoders of faces were trained on.",
    False: "Serving cuts the centred square of a picture: it must be framed as the networks' training pictures were.",
}


def write_card(
    bundle_id: str,
    resolution: int,
    made_by: Mapping[str, Any],
    parity: Mapping[str, Mapping[str, Any]],
    *,
    align: bool,
    note: str = "",
) -> str:
    """Write the card; `note` tells whose faces and weights these are."""
    origins, remarks = made_by["sources"], made_by["remarks"]
    rows = ["| part | file | format | SHA-256 |", "| --- | --- | --- | --- |"]
    rows += [f"| {part} | {o['file']} | {o['format']} | `{o['sha256'][:16]}…` |" for part, o in origins.items()]
    return CARD.format(
        bundle_id=bundle_id,
        resolution=resolution,
        note=note.strip() or NO_NOTE,
        origins="\n".join(rows),
        precision="float32" if made_by["precision"] == "fp32" else "float16 (synthesis) and float32 (everything else)",
        parity=", ".join(f"{name} {entry['max_abs']:.1e}" for name, entry in parity.items()),
        remarks="".join(f"- {remark}\n" for remark in remarks) + ("\n" if remarks else ""),
        identity=IDENTITY["identity" in origins],
        framing=FRAMING[align],
    )
