"""What every graph of a bundle must take and give: names, types, shapes. Standard library only.

``model.sessions`` compares a graph with this when it opens it; docs/bundle.md says the same in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from model.bundle.manifest import Manifest

DYNAMIC = frozenset({"N", "T", "L"})  # a size that differs from call to call and must not be baked in


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one input or output; a letter in the shape is a size that is not fixed by the manifest."""

    dtype: str
    shape: tuple[int | str, ...]

    def objection(self, dtype: str, shape: Sequence[int | str | None]) -> str | None:
        """Return why a graph's tensor does not fit, as the end of a sentence, or None where it fits."""
        if dtype != self.dtype:
            return f"is {dtype} where {self.dtype} is expected"
        if len(shape) != len(self.shape):
            return f"has {len(shape)} axes where {self} is expected"
        for actual, expected in zip(shape, self.shape, strict=True):
            baked_in = isinstance(actual, int)
            if isinstance(expected, int) and baked_in and actual != expected:
                return f"has the shape {_show(shape)} where {self} is expected"
            if expected in DYNAMIC and baked_in:
                return f"has the shape {_show(shape)} with a fixed size where {self} must be free"
        return None

    def __str__(self) -> str:
        return _show(self.shape)


@dataclass(frozen=True)
class GraphSpec:
    """Inputs and outputs of one graph, by name."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


def list_graph_specs(manifest: Manifest) -> dict[str, GraphSpec]:
    """Return what each graph of this bundle must look like.

    Shapes: N pictures, T frames, L tokens, D whatever the graph likes.
    Range: pictures go in as NCHW in [-1, 1] and come out as NHWC uint8, RGB.
    """
    num_ws, w_dim, size = manifest.num_ws, manifest.w_dim, manifest.input_resolution
    image = {"image": TensorSpec("float32", ("N", 3, size, size))}
    ws = {"ws": TensorSpec("float32", ("N", num_ws, w_dim))}
    text_embed = TensorSpec("float32", ("N", manifest.embed_dim))
    one_embed = TensorSpec("float32", (1, manifest.embed_dim))
    return {
        "text": GraphSpec(
            {"input_ids": TensorSpec("int64", ("N", "L")), "attention_mask": TensorSpec("int64", ("N", "L"))},
            {"text_embed": text_embed},
        ),
        "image": GraphSpec(image, {"image_embed": text_embed}),
        "encoder": GraphSpec(image, ws),
        "motion": GraphSpec(
            {
                "text_embed": one_embed,
                "image_embed": one_embed,
                "noise": TensorSpec("float32", (1, manifest.h_dim)),
                "intensity": TensorSpec("float32", (1,)),
                "progress": TensorSpec("float32", ("T",)),
            },
            {
                "delta_ws": TensorSpec("float32", ("T", num_ws, w_dim)),
                "motion_codes": TensorSpec("float32", ("T", manifest.embed_dim)),
            },
        ),
        "mapping": GraphSpec(
            {"z": TensorSpec("float32", ("N", manifest.z_dim)), "truncation_psi": TensorSpec("float32", (1,))}, ws
        ),
        "synthesis": GraphSpec(ws, {"frames": TensorSpec("uint8", ("N", manifest.resolution, manifest.resolution, 3))}),
        "quality": GraphSpec(image, {"identity": TensorSpec("float32", ("N", "D"))}),
    }


def _show(shape: Sequence[int | str | None]) -> str:
    return "[" + ",".join("?" if size is None else str(size) for size in shape) + "]"
