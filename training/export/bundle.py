"""Writes a trained run as a bundle: exports every graph, compares it with PyTorch in ONNX Runtime, adds card and
manifest.

Raises ParityError before anything is written when a graph and its PyTorch original disagree.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from model.bundle.writer import write_bundle
from model.sessions import open_graph
from training.export.card import write_card
from training.export.graphs import OPSET, MappingGraph, PictureGraph, export_module
from training.export.halves import store_halves
from training.export.language import describe_language
from training.export.motion_graph import build_motion_graph
from training.export.synthesis_graph import SynthesisGraph
from training.export.text import export_text_tower
from training.faces.parameters import Z_DIM
from training.language import embed_texts
from training.networks.encoder import ImageTower, WPlusEncoder
from training.networks.motion import MotionNetwork
from training.networks.stylegan2 import Generator
from training.networks.text import MAX_TOKENS, TextTower
from training.vocabulary import write_tokenizer

FPS = 24
TOLERANCE = 1e-4
SYNTHESIS_TOLERANCE = 1.0  # a rounding's worth of uint8
HALF_TOLERANCE = 4e-3  # of weights stored as float16, as a share of an output's largest value
HALF_SYNTHESIS_TOLERANCE = 4.0  # levels of uint8
PICTURE_FILE = "encoder.onnx"
GRAPH_FILES = dict.fromkeys(("encoder", "image", "quality"), PICTURE_FILE)
PICTURE_OUTPUTS = ("ws", "image_embed", "identity")
EXPRESSIONS = (
    *("smiling", "angry", "sad", "surprised", "closing eyes", "winking", "opening mouth", "pouting"),
    *("laughing", "shocked", "blinking", "raising eyebrows", "frowning", "skeptical", "sleepy", "disgusted"),
    *("looking left", "looking right", "looking up", "looking down", "blushing"),
)
PRESETS = (
    *("smiling", "laughing out loud", "winking", "surprised", "angry", "sad", "pouting", "closing eyes"),
    *("opening mouth", "blinks, then smiles", "smiles, then winks", "looks left, then looks right"),
)


class ParityError(RuntimeError):
    """A graph does not compute what PyTorch computes."""


@dataclass(frozen=True)
class Parts:
    """The trained networks of one domain."""

    generator: Generator
    encoder: WPlusEncoder
    tower: ImageTower
    motion: MotionNetwork
    text: TextTower
    tokenizer: Tokenizer
    input_resolution: int


def run_graph(model: onnx.ModelProto, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Run a graph on one thread and give its outputs by name."""
    return open_graph(model.SerializeToString()).run(**inputs)


def compare(name: str, given: np.ndarray, wanted: Tensor | np.ndarray, tolerance: float) -> float:
    """Give the largest absolute difference.

    Raises: ParityError when it is above the tolerance or the shapes differ.
    """
    expected = wanted.numpy() if isinstance(wanted, Tensor) else wanted
    if given.shape != expected.shape:
        raise ParityError(f"{name}: ONNX Runtime gives the shape {given.shape}, PyTorch {expected.shape}")
    difference = float(np.abs(given.astype(np.float64) - expected.astype(np.float64)).max())
    if not difference <= tolerance:
        raise ParityError(f"{name}: ONNX Runtime is {difference:.3g} off PyTorch; at most {tolerance:.3g} is allowed")
    return difference


def shrink(
    model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], wanted: Mapping[str, Tensor], tolerance: float
) -> tuple[bytes, dict[str, float]]:
    """Store a graph's weights as float16 and measure what that changes.

    Args:
        tolerance: of the largest difference, as a share of the output's largest value; in levels for uint8 outputs.

    Returns: the file, and output → largest absolute difference.
    Raises: ParityError.
    """
    small = store_halves(model)
    given = run_graph(small, **inputs)
    differences = {}
    for name, tensor in wanted.items():
        scale = 1.0 if given[name].dtype == np.uint8 else max(1.0, float(tensor.abs().max()))
        differences[name] = compare(f"{name} in float16", given[name], tensor, tolerance * scale)
    return small.SerializeToString(), differences


def export_motion(network: MotionNetwork, rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, float]]:
    """Export the motion network and compare it at several numbers of frames, evenly spread and not, swaying to
    either side first and not at all."""
    graph = build_motion_graph(network, OPSET)
    worst = 0.0
    for frames, side in ((1, 1), (2, -1), (17, 1), (33, 0), (100, -1)):
        progress = np.sort(np.concatenate([[0.0], rng.random(frames - 1)])).astype(np.float32)
        embeds = rng.standard_normal((2, network.embed_dim), dtype=np.float32)
        text, face = embeds / np.linalg.norm(embeds, axis=1, keepdims=True)
        noise = rng.standard_normal((1, network.h_dim), dtype=np.float32)
        noise[0, 0] = side * abs(noise[0, 0])
        intensity = np.array([1.3], np.float32)
        tensors = [torch.from_numpy(a) for a in (text[None], face[None], noise, intensity, progress[None])]
        wanted, _ = network(*tensors)
        inputs = {
            "text_embed": text[None],
            "image_embed": face[None],
            "noise": noise,
            "intensity": intensity,
            "progress": progress,
        }
        given = run_graph(graph, **inputs)["delta_ws"]
        worst = max(worst, compare("motion", given, wanted[0], TOLERANCE))
    _, halved = shrink(graph, inputs, {"delta_ws": wanted[0]}, HALF_TOLERANCE)
    return store_halves(graph), {"max_abs": worst, "halved_max_abs": halved["delta_ws"]}


@torch.no_grad()
def export_graphs(parts: Parts, seed: int = 0) -> tuple[dict[str, bytes], dict[str, dict[str, Any]]]:
    """Export all graphs but the text tower's.

    Returns: file name → bytes, and graph → the largest difference that was seen.
    """
    rng = np.random.default_rng(seed)
    generator = parts.generator.eval()
    resolution = generator.synthesis.resolution
    z = torch.from_numpy(rng.standard_normal((5, Z_DIM), dtype=np.float32))
    psi = torch.tensor([0.8])
    mapping = MappingGraph(generator).eval()
    ws = mapping(z, psi).contiguous()
    image = torch.from_numpy(rng.uniform(-1, 1, (3, 3, parts.input_resolution, parts.input_resolution)).astype("f4"))
    shrunk = generator.synthesis(ws[:2]).clamp(-1, 1)
    image[:2] = F.avg_pool2d(shrunk, resolution // parts.input_resolution)
    files: dict[str, bytes] = {}
    parity: dict[str, dict[str, Any]] = {}

    graph = export_module(SynthesisGraph(generator.synthesis), (ws[:2],), ["ws"], ["frames"])
    drawn = ((generator.synthesis(ws).clamp(-1, 1) + 1) * 127.5).round().permute(0, 2, 3, 1)
    difference = compare("synthesis", run_graph(graph, ws=ws.numpy())["frames"], drawn, SYNTHESIS_TOLERANCE)
    files["synthesis.onnx"], halved = shrink(graph, {"ws": ws.numpy()}, {"frames": drawn}, HALF_SYNTHESIS_TOLERANCE)
    parity["synthesis"] = {"max_abs": difference, "halved_max_abs": halved["frames"], "unit": "uint8"}

    inputs = {"z": z.numpy(), "truncation_psi": psi.numpy()}
    graph = export_module(mapping, (z[:2], psi), ["z", "truncation_psi"], ["ws"])
    difference = compare("mapping", run_graph(graph, **inputs)["ws"], ws, TOLERANCE)
    files["mapping.onnx"], halved = shrink(graph, inputs, {"ws": ws}, HALF_TOLERANCE)
    parity["mapping"] = {"max_abs": difference, "halved_max_abs": halved["ws"]}

    reader = PictureGraph(parts.encoder, parts.tower).eval()
    graph = export_module(reader, (image[:2],), ["image"], PICTURE_OUTPUTS)
    wanted = dict(zip(PICTURE_OUTPUTS, reader(image), strict=True))
    given = run_graph(graph, image=image.numpy())
    files[PICTURE_FILE], halved = shrink(graph, {"image": image.numpy()}, wanted, HALF_TOLERANCE)
    for name, output in zip(("encoder", "image", "quality"), PICTURE_OUTPUTS, strict=True):
        difference = compare(name, given[output], wanted[output], TOLERANCE)
        parity[name] = {"max_abs": difference, "halved_max_abs": halved[output]}

    motion_graph, parity["motion"] = export_motion(parts.motion.eval(), rng)
    files["motion.onnx"] = motion_graph.SerializeToString()
    return files, parity


def export_bundle(
    parts: Parts,
    directory: Path,
    *,
    bundle_id: str,
    domain: str,
    version: str,
    made_by: Mapping[str, Any],
    figures: Mapping[str, Any],
    share_text: bool = False,
    note: str = "",
) -> Path:
    """Export everything and write the bundle, all or nothing.

    `note` goes into the model card.
    `share_text` puts the text tower into the folder `shared` beside the bundle, for other domains to use too.

    `figures` are what was measured on held-out data; they go into the manifest and the card.

    Raises: ParityError.
    """
    for module in (parts.generator, parts.encoder, parts.tower, parts.motion, parts.text):
        module.requires_grad_(False)
    blobs, parity = export_graphs(parts)
    synthesis = parts.generator.synthesis
    with tempfile.TemporaryDirectory() as folder:
        text_path = Path(folder) / "text.onnx"
        difference = export_text_tower(parts.text, text_path)
        if not difference <= TOLERANCE:
            raise ParityError(f"text: ONNX Runtime is {difference:.3g} off PyTorch; {TOLERANCE:.3g} is allowed")
        blobs["text.onnx"] = text_path.read_bytes()
    parity["text"] = {"max_abs": difference}
    text = {"text.onnx": blobs.pop("text.onnx"), "tokenizer.json": write_tokenizer(parts.tokenizer)}
    text["language.json"] = describe_language(lambda sentences: embed_texts(parts.text, parts.tokenizer, sentences))
    files = {
        **blobs,
        "README.md": write_card(bundle_id, domain, synthesis.resolution, made_by, figures, parity, note).encode(),
    }
    fields = {
        "id": bundle_id,
        "version": version,
        "domain": domain,
        "kind": "rendered",
        "resolution": synthesis.resolution,
        "num_ws": synthesis.num_ws,
        "w_dim": synthesis.w_dim,
        "z_dim": Z_DIM,
        "embed_dim": parts.motion.embed_dim,
        "h_dim": parts.motion.h_dim,
        "fps": FPS,
        "opset": OPSET,
        "input_resolution": parts.input_resolution,
        "max_tokens": MAX_TOKENS,
        "graphs": {name: GRAPH_FILES.get(name, f"{name}.onnx") for name in parity},
        "tokenizer": "tokenizer.json",
        "expressions": list(EXPRESSIONS),
        "presets": list(PRESETS),
        "detector": None,
        "parity": parity,
        "license": "Apache-2.0",
        "made_by": {**made_by, "measured": dict(figures)},
        "card": "README.md",
        "language": "language.json",
    }
    if not share_text:
        return write_bundle(directory, fields, {**files, **text})
    return write_bundle(directory, fields, files, shared=text)
