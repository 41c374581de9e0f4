"""Writes a picture set's run as a bundle that serving animates: every graph is compared with PyTorch first.

Must not import: services, worker, cli.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.bundle.writer import write_bundle
from training.export.bundle import (
    FPS,
    HALF_SYNTHESIS_TOLERANCE,
    HALF_TOLERANCE,
    SYNTHESIS_TOLERANCE,
    TOLERANCE,
    ParityError,
    compare,
    run_graph,
    shrink,
)
from training.export.graphs import OPSET, export_module
from training.export.text import export_text_tower
from training.networks.text import MAX_TOKENS
from training.paper.animation import PaperAnimation
from training.paper.graph import export_paper_motion
from training.paper.towers import TOWER_RESOLUTION, RenderedTowers, Towers
from training.photos.card import write_photo_card
from training.photos.graphs import EncoderGraph, Scaled, ZMappingGraph, ZSynthesisGraph
from training.stages import CARD_NOTE, read_version

if TYPE_CHECKING:
    from training.networks.irse import PyramidEncoder
    from training.paper.parts import FrozenParts
    from training.photos.run import PhotoRun

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


def export_picture_graph(
    name: str, module: nn.Module, image: Tensor, output: str, tolerance: float = IMAGE_TOLERANCE
) -> tuple[bytes, dict[str, float]]:
    """Export a graph that looks at a picture.

    Raises: ParityError.
    """
    wanted = module(image)
    graph = export_module(module, (image[:2],), ["image"], [output])
    given = run_graph(graph, image=image.numpy())[output]
    scale = max(1.0, float(wanted.abs().max()))
    difference = compare(name, given, wanted, tolerance * scale)
    data, halved = shrink(graph, {"image": image.numpy()}, {output: wanted}, 4 * HALF_TOLERANCE)
    return data, {"max_abs": difference, "halved_max_abs": halved[output]}


@torch.no_grad()
def export_photo_graphs(
    parts: "FrozenParts", motion: PaperAnimation, seed: int = 0
) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """Export all graphs but the text tower's.

    Returns: file name → bytes, and graph → the largest difference that was seen.
    Raises: ParityError.
    """
    rng = np.random.default_rng(seed)
    generator = cast("Any", parts.generator)
    resolution = parts.resolution
    files: dict[str, bytes] = {}
    parity: dict[str, dict[str, Any]] = {}

    mapping = ZMappingGraph(generator.mapping).eval()
    z = torch.from_numpy(rng.standard_normal((5, parts.z_dim), dtype=np.float32))
    psi = torch.tensor([0.8])
    ws = mapping(z, psi).contiguous()
    inputs = {"z": z.numpy(), "truncation_psi": psi.numpy()}
    graph = export_module(mapping, (z[:2], psi), ["z", "truncation_psi"], ["ws"])
    difference = compare("mapping", run_graph(graph, **inputs)["ws"], generator.mapping(z, None, 0.8), TOLERANCE)
    files["mapping.onnx"], halved = shrink(graph, inputs, {"ws": ws}, HALF_TOLERANCE)
    parity["mapping"] = {"max_abs": difference, "halved_max_abs": halved["ws"]}

    pictures = generator.synthesis(ws).clamp(-1, 1)
    drawn = ((pictures + 1) * 127.5).round().permute(0, 2, 3, 1)
    graph = export_module(ZSynthesisGraph(generator), (ws[:2],), ["ws"], ["frames"])
    difference = compare("synthesis", run_graph(graph, ws=ws.numpy())["frames"], drawn, SYNTHESIS_TOLERANCE)
    files["synthesis.onnx"], halved = shrink(graph, {"ws": ws.numpy()}, {"frames": drawn}, HALF_SYNTHESIS_TOLERANCE)
    parity["synthesis"] = {"max_abs": difference, "halved_max_abs": halved["frames"], "unit": "uint8"}

    noise = torch.from_numpy(rng.uniform(-1, 1, (2, 3, resolution, resolution)).astype(np.float32))
    image = torch.cat([pictures[:2], noise])
    encoder = EncoderGraph(cast("PyramidEncoder", parts.encode)).eval()
    files["encoder.onnx"], parity["encoder"] = export_picture_graph("encoder", encoder, image, "ws")
    eye = build_eye(motion.towers, resolution).eval()
    files["image.onnx"], parity["image"] = export_picture_graph("image", eye, image, "image_embed")
    seen = motion.towers.embed_images(image)
    compare("image tower as it was trained", eye(image).numpy(), seen, IMAGE_TOLERANCE)

    moved, difference = export_paper_motion(motion.network, rng, motion.recipe)
    files["motion.onnx"] = moved.SerializeToString()
    parity["motion"] = {"max_abs": difference}
    for name, data in files.items():
        onnx.checker.check_model(onnx.load_from_string(data))
        assert data, name
    return files, parity


def export_photo_bundle(run: "PhotoRun", directory: Path, *, share_text: bool = False) -> Path:
    """Export everything and write the bundle, all or nothing.

    Raises: ParityError, MissingStageError.
    """
    recipe = run.recipe
    run.device = torch.device("cpu")
    parts = run.frozen_parts()
    motion = run.load_motion(parts)
    blobs, parity = export_photo_graphs(parts, motion)
    words = export_words(motion.towers)
    parity["text"] = {"max_abs": words.difference}
    figures = run.read_figures()
    made_by = {
        "recipe": recipe.name,
        "version": read_version(),
        "steps": run.count_steps(),
        "towers": "CLIP" if run.clip else "own text tower, image tower taught by captions",
        "measured": figures,
    }
    name = directory.name.lower() if directory.name.lower() != "bundle" else recipe.name
    text = {"text.onnx": words.graph, "tokenizer.json": words.tokenizer}
    note = run.folder / CARD_NOTE
    words_of_maker = note.read_text() if note.exists() else ""
    card = write_photo_card(name, recipe, parts.resolution, made_by, parity, words_of_maker)
    graphs = {graph: f"{graph}.onnx" for graph in parity} | {"quality": None}
    prompts = list(motion.recipe.prompts)
    fields = {
        "id": "".join(c if c.isalnum() or c in "._-" else "-" for c in name),
        "version": recipe.version,
        "domain": "human",
        "kind": "photo",
        "resolution": parts.resolution,
        "num_ws": parts.num_ws,
        "w_dim": parts.w_dim,
        "z_dim": parts.z_dim,
        "embed_dim": parts.towers.embed_dim,
        "h_dim": motion.recipe.h_dim,
        "fps": FPS,
        "opset": OPSET,
        "input_resolution": parts.resolution,
        "max_tokens": words.max_tokens,
        "motion_steps": motion.recipe.inference_frames - 1,
        "graphs": graphs,
        "tokenizer": "tokenizer.json",
        "expressions": prompts,
        "presets": prompts[:12],
        "detector": None,
        "parity": parity,
        "license": "LicenseRef-as-your-pictures",
        "made_by": made_by,
        "card": "README.md",
    }
    files = {**blobs, "README.md": card.encode()}
    if share_text:
        return write_bundle(directory, fields, files, shared=text)
    return write_bundle(directory, fields, {**files, **text})
