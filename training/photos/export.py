"""An adversarial generator with its encoder, towers and paper motion, as the files of a bundle; each graph is compared
with PyTorch before anything is kept.

Where the networks come from does not matter here: a run folder (`photos.bundle`) or foreign checkpoints (`convert`).
Must not import: services, worker, cli.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.bundle.writer import write_bundle
from model.faces.detector import DETECTOR_FILE
from training.errors import DataError
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
from training.export.synthesis_graph import Precision, SynthesisGraph
from training.loop import Report
from training.networks.irse import PictureEncoder
from training.networks.stylegan2 import ZGenerator
from training.paper.animation import PaperAnimation
from training.paper.graph import export_paper_motion
from training.paper.towers import resize
from training.photos.graphs import EncoderGraph, ZMappingGraph
from training.photos.words import IMAGE_TOLERANCE, build_eye, export_words

LEAST_PSNR_DB = 40.0
"""Below that somebody sees the difference: float16 is refused."""
LARGE_PX = 512
"""From here on parity is measured on two faces instead of five: a picture takes seconds."""
MOST_PARAMETERS = 500_000_000
"""An ONNX file without external data ends at 2 GiB."""
DEFAULT_PRESETS = 12
DETECTOR = "faces.npz"


@dataclass(frozen=True)
class PhotoNetworks:
    """What a bundle of kind `photo` is made from; everything on the CPU, in evaluation mode."""

    generator: ZGenerator
    encoder: PictureEncoder
    animation: PaperAnimation  # the motion with the towers that it was trained with
    input_resolution: int  # px: what serving scales a picture to for all that look at it
    identity: nn.Module | None = None  # pictures → who it is, unit norm; None: no network tells

    @property
    def resolution(self) -> int:
        """Edge length of the frames, px."""
        return self.generator.synthesis.resolution


@dataclass
class Export:
    """Files that are made in a folder, and what was measured of each."""

    folder: Path
    precision: Precision = "fp32"
    halves: bool = True  # store large weights as float16, and compute with them in float32
    parity: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    report: Report = lambda line: None

    def keep(
        self,
        name: str,
        graph: onnx.ModelProto,
        inputs: Mapping[str, np.ndarray],
        wanted: Mapping[str, Tensor],
        halved_tolerance: float,
        **measured: Any,
    ) -> None:
        """Write one graph's file and remember how far it is from PyTorch.

        Raises: ParityError where its weights don't bear float16.
        """
        if self.halves:
            data, halved = shrink(graph, inputs, wanted, halved_tolerance)
            measured["halved_max_abs"] = max(halved.values())
        else:
            data = graph.SerializeToString()
        self.write(f"{name}.onnx", data)
        self.parity[name] = measured

    def write(self, file: str, data: bytes) -> None:
        """Write a file; graphs are checked as ONNX files first."""
        if file.endswith(".onnx"):
            onnx.checker.check_model(data)
        self.files[file] = self.folder / file
        self.files[file].write_bytes(data)
        self.report(f"  {file}: {len(data) / 1e6:.1f} MB")


@torch.no_grad()
def export_photo_graphs(networks: PhotoNetworks, export: Export, seed: int = 0) -> None:
    """Export all graphs but the text tower's.

    Raises: ParityError; DataError for a network that no ONNX file can hold.
    """
    animation = networks.animation
    for module in (networks.generator, networks.encoder, animation.towers, animation.network):
        require_size(module)
    rng = np.random.default_rng(seed)
    ws = export_mapping(networks.generator, export, rng)
    pictures = export_synthesis(networks.generator, export, ws)
    _export_picture_graphs(networks, export, pictures, rng)
    graph, difference = export_paper_motion(animation.network, rng, animation.recipe)
    export.write("motion.onnx", graph.SerializeToString())
    export.parity["motion"] = {"max_abs": difference}


def require_size(module: object) -> None:
    """Refuse a network that would not fit into one ONNX file.

    Raises: DataError.
    """
    if not isinstance(module, nn.Module):
        return
    for name, part in module.named_children():
        count = sum(parameter.numel() for parameter in part.parameters())
        if count > MOST_PARAMETERS:
            raise DataError(
                f"{type(module).__name__}.{name} has {count / 1e6:.0f} million weights; a graph of a bundle holds "
                f"{MOST_PARAMETERS / 1e6:.0f} million at most (an ONNX file ends at 2 GiB): take a smaller model"
            )


def export_mapping(generator: ZGenerator, export: Export, rng: np.random.Generator) -> Tensor:
    """Export z → ws; give some faces' ws.

    Raises: ParityError.
    """
    mapping = ZMappingGraph(generator.mapping).eval()
    count = 5 if generator.synthesis.resolution < LARGE_PX else 2
    z = torch.from_numpy(rng.standard_normal((count, generator.mapping.z_dim), dtype=np.float32))
    psi = torch.tensor([0.8])
    wanted = generator.mapping(z, None, 0.8)
    inputs = {"z": z.numpy(), "truncation_psi": psi.numpy()}
    graph = export_module(mapping, (z[:2], psi), ["z", "truncation_psi"], ["ws"])
    largest = max(1.0, float(wanted.abs().max()))
    difference = compare("mapping", run_graph(graph, **inputs)["ws"], wanted, TOLERANCE * largest)
    export.keep("mapping", graph, inputs, {"ws": wanted}, HALF_TOLERANCE, max_abs=difference)
    return wanted.contiguous()


def export_synthesis(generator: ZGenerator, export: Export, ws: Tensor) -> Tensor:
    """Export ws → frames; give what PyTorch drew: [N,3,R,R] within [-1,1].

    Raises: ParityError, also where float16 is seen in the pictures.
    """
    network = generator.synthesis
    pictures = torch.cat([network(row) for row in ws.split(1)]).clamp(-1, 1)
    drawn = ((pictures + 1) * 127.5).round().permute(0, 2, 3, 1)
    graph = export_module(SynthesisGraph(network, export.precision), (ws[:2],), ["ws"], ["frames"])
    inputs = {"ws": ws.numpy()}
    given = run_graph(graph, **inputs)["frames"]
    psnr = measure_psnr(given, drawn)
    if export.precision == "fp16":
        if not psnr >= LEAST_PSNR_DB:
            raise ParityError(
                f"synthesis: in float16 this generator's pictures are only {psnr:.1f} dB near its own; at least "
                f"{LEAST_PSNR_DB:.0f} are wanted: use --precision fp32"
            )
        difference = float(np.abs(given.astype(np.float32) - drawn.numpy()).max())
        export.write("synthesis.onnx", graph.SerializeToString())
        export.parity["synthesis"] = {"max_abs": difference, "psnr_db": round(min(psnr, 99.0), 2), "unit": "uint8"}
        return pictures
    difference = compare("synthesis", given, drawn, SYNTHESIS_TOLERANCE)
    measured = {"max_abs": difference, "psnr_db": round(min(psnr, 99.0), 2), "unit": "uint8"}
    export.keep("synthesis", graph, inputs, {"frames": drawn}, HALF_SYNTHESIS_TOLERANCE, **measured)
    return pictures


def measure_psnr(given: np.ndarray, wanted: Tensor) -> float:
    """Give the peak signal-to-noise ratio of frames in dB, 255 being the peak; infinite for equal ones."""
    power = float(np.square(given.astype(np.float64) - wanted.numpy().astype(np.float64)).mean())
    return float("inf") if power == 0 else float(10 * np.log10(255**2 / power))


def _export_picture_graphs(networks: PhotoNetworks, export: Export, pictures: Tensor, rng: np.random.Generator) -> None:
    """Export what looks at a picture: encoder, image tower, and what tells who it is."""
    size = networks.input_resolution
    noise = torch.from_numpy(rng.uniform(-1, 1, (2, 3, size, size)).astype(np.float32))
    image = torch.cat([resize(pictures[:2], size), noise])
    towers = networks.animation.towers
    eye = build_eye(towers, size).eval()
    _export_picture_graph("encoder", EncoderGraph(networks.encoder).eval(), image, "ws", export)
    _export_picture_graph("image", eye, image, "image_embed", export)
    if networks.identity is not None:
        _export_picture_graph("quality", networks.identity.eval(), image, "identity", export)
    compare("image tower as it was trained", eye(image).numpy(), towers.embed_images(image), IMAGE_TOLERANCE)


def _export_picture_graph(name: str, module: nn.Module, image: Tensor, output: str, export: Export) -> None:
    wanted = module(image)
    graph = export_module(module, (image[:2],), ["image"], [output])
    inputs = {"image": image.numpy()}
    scale = max(1.0, float(wanted.abs().max()))
    difference = compare(name, run_graph(graph, **inputs)[output], wanted, IMAGE_TOLERANCE * scale)
    export.keep(name, graph, inputs, {output: wanted}, 4 * HALF_TOLERANCE, max_abs=difference)


def write_photo_bundle(
    directory: Path,
    networks: PhotoNetworks,
    export: Export,
    fields: Mapping[str, Any],
    card: str,
    *,
    share_text: bool = False,
    detector: bool = False,
) -> Path:
    """Add the manifest and write the bundle, all or nothing.

    `detector`: serving shall find the face in a picture and cut it as FFHQ's pictures are cut; without it the centred
    square is the face.

    `fields`: what the networks don't say of themselves (id, version, domain, made_by, license …). The text tower must
    be exported already (`export_text`).
    """
    generator, animation = networks.generator, networks.animation
    prompts = list(animation.recipe.prompts)
    manifest = {
        "kind": "photo",
        "resolution": networks.resolution,
        "num_ws": generator.synthesis.num_ws,
        "w_dim": generator.synthesis.w_dim,
        "z_dim": generator.mapping.z_dim,
        "embed_dim": animation.towers.embed_dim,
        "h_dim": animation.network.h_dim,
        "fps": FPS,
        "opset": OPSET,
        "input_resolution": networks.input_resolution,
        "motion_steps": animation.recipe.inference_frames - 1,
        "graphs": {"quality": None} | {graph: f"{graph}.onnx" for graph in export.parity},
        "tokenizer": "tokenizer.json",
        "expressions": prompts,
        "presets": prompts[:DEFAULT_PRESETS],
        "detector": DETECTOR if detector else None,
        "parity": export.parity,
        "card": "README.md",
        **fields,
    }
    text = {name: export.files[name] for name in ("text.onnx", "tokenizer.json")}
    files: dict[str, Path | bytes] = {name: path for name, path in export.files.items() if name not in text}
    files["README.md"] = card.encode()
    if detector:
        files[DETECTOR] = DETECTOR_FILE
    if share_text:
        return write_bundle(directory, manifest, files, shared=text)
    return write_bundle(directory, manifest, {**files, **text})


def export_text(networks: PhotoNetworks, export: Export) -> int:
    """Export the text tower and its tokenizer; give the longest token sequence.

    Raises: ParityError.
    """
    words = export_words(networks.animation.towers)
    export.write("text.onnx", words.graph)
    export.write("tokenizer.json", words.tokenizer)
    export.parity["text"] = {"max_abs": words.difference}
    return words.max_tokens


def name_bundle(name: str) -> str:
    """Give the id that a folder's name makes: lower case, everything unusual as a dash."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name.lower())[:64]
    return kept if kept[:1].isalnum() else f"b{kept}"[:64]
