"""The published motion generator as the bundle's graph `motion`, so that serving can run a motion trained by the paper.

The contract (docs/bundle.md) is served as follows.

- Frame k of T stands at progress k/(T−1). A frame at progress p is k = p·(T−1), whole or not, and its step from the
  frame before is r = (0.8/T)·decay(k, T)·(T−1)·(p − p_before): for evenly spread progress that is the published
  recurrence exactly, for any T; T is how many progresses are given. Serving gives `motion_steps` + 1 of them, so a
  bundle's manifest says `motion_steps` = recipe.inference_frames − 1.
- Frame 0 must be the inversion itself, while the paper's is ws + δ_v + Δ_0. So the paper's frame-0 offset is taken away
  at progress 0 and given back along the way: delta_ws(p) = intensity·[δ_v + Δ_k − (1 − p)·(δ_v + Δ_0)]. The last frame
  is the published one.
- noise is h_0 before its factor 0.01. motion_codes are m_k = z_k − z_0.

Call: `graph, difference = export_paper_motion(model.network, rng, model.recipe)`; then `graph.SerializeToString()` is
motion.onnx and `difference` its parity. Imports onnx and the network; no bundle is written here.
"""

from typing import cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from model.sessions import open_graph
from training.export.bundle import TOLERANCE, compare
from training.export.graphs import OPSET
from training.export.motion_graph import GraphBuilder
from training.networks.motion import PAPER_DECAYS, TOTAL_STEP, PaperMapper, PaperMotion
from training.networks.stylegan2 import SQRT2, FullyConnected
from training.recipes.paper import PaperRecipe


class PaperGraphBuilder(GraphBuilder):
    """Also knows plain linear layers and the paper's mapper."""

    def plain(self, layer: nn.Linear, x: str) -> str:
        """Add a linear layer."""
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        return self.add("Gemm", x, self.constant(weight), self.constant(bias), transB=1)

    def mapper(self, mapper: PaperMapper, x: str, output: str | None = None) -> str:
        """Add PixelNorm and the three layers: [T,embed_dim] → [T,num_ws,w_dim]."""
        axis = self.constant(np.array([1]), np.int64)
        power = self.add("ReduceMean", self.add("Mul", x, x), axis, keepdims=1)
        x = self.add("Div", x, self.add("Sqrt", self.add("Add", power, self.constant(1e-8))))
        for layer in mapper.layers:
            x = self.activate(self.linear(cast("FullyConnected", layer), x), 0.2, SQRT2)
        shape = self.constant(np.array([-1, mapper.num_ws, mapper.w_dim]), np.int64)
        return self.add("Reshape", x, shape, output=output)


def _describe(name: str, shape: tuple[int | str, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))


def _build_cell(network: PaperMotion) -> onnx.GraphProto:
    body = PaperGraphBuilder("cell_")
    hidden = body.activate(body.plain(network.cell.a, "z_in"), 0.01)
    u = body.add("Concat", hidden, "h_in", axis=1)
    for state, layer in (("z", network.cell.b), ("h", network.cell.c)):
        step = body.add("Mul", body.activate(body.plain(layer, u), 0.01), "rate")
        body.add("Add", f"{state}_in", step, output=f"{state}_out")
    body.add("Squeeze", "z_out", body.constant(np.array([0]), np.int64), output="z_row")
    embed_dim = network.cell.a.in_features
    states = [(1, embed_dim), (1, network.h_dim)]
    return helper.make_graph(
        body.nodes,
        "cell",
        [_describe("z_in", states[0]), _describe("h_in", states[1]), _describe("rate", (1,))],
        [_describe("z_out", states[0]), _describe("h_out", states[1]), _describe("z_row", (embed_dim,))],
        body.constants,
    )


def _add_decay(graph: PaperGraphBuilder, kind: str, share: str) -> str | None:
    """Add the decay at k/T = share; None where it is 1."""
    one = graph.constant(1)
    match kind:
        case "const":
            return None
        case "linear":
            return graph.add("Sub", one, share)
        case "sqrt":
            return graph.add("Sqrt", graph.add("Sub", one, share))
        case "exp":
            return graph.add("Sub", one, graph.add("Exp", graph.add("Sub", share, one)))
    raise ValueError(f"decay is one of {PAPER_DECAYS}, not {kind!r}")


def build_paper_graph(
    network: PaperMotion,
    *,
    decay: str = "linear",
    h_noise: float = 0.01,
    sampled: bool = False,
    published: bool = False,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """Build the graph.

    Shapes: text_embed, image_embed [1,E], noise [1,h_dim], intensity [1], progress [T] → delta_ws [T,num_ws,w_dim],
    motion_codes [T,E]. `sampled`: the motion was trained on τ alone, so v is not used. `published`: for comparisons
    with the original, delta_ws is Δ_k as it is, at any intensity, and visual_delta_ws [1,num_ws,w_dim] is δ_v.
    """
    assert not (sampled and published), "a motion without v has no δ_v to compare"
    graph = PaperGraphBuilder()
    codes = _add_recurrence(graph, network, decay, h_noise, sampled)
    if published:
        graph.mapper(network.text_mapper, codes, output="delta_ws")
        graph.mapper(network.visual_mapper, "image_embed", output="visual_delta_ws")
    else:
        moved = graph.mapper(network.text_mapper, codes)
        if not sampled:
            moved = graph.add("Add", moved, graph.mapper(network.visual_mapper, "image_embed"))
        _add_served(graph, moved)
    embed_dim, rows = network.cell.a.in_features, (network.text_mapper.num_ws, network.text_mapper.w_dim)
    inputs = [
        _describe("text_embed", (1, embed_dim)),
        _describe("image_embed", (1, embed_dim)),
        _describe("noise", (1, network.h_dim)),
        _describe("intensity", (1,)),
        _describe("progress", ("T",)),
    ]
    outputs = [_describe("delta_ws", ("T", *rows)), _describe("motion_codes", ("T", embed_dim))]
    if published:
        outputs.append(_describe("visual_delta_ws", (1, *rows)))
    built = helper.make_graph(graph.nodes, "motion", inputs, outputs, graph.constants)
    model = helper.make_model(built, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _add_recurrence(graph: PaperGraphBuilder, network: PaperMotion, decay: str, h_noise: float, sampled: bool) -> str:
    """Add the cell's run over all frames: motion_codes [T,embed_dim]."""
    image_embed = graph.add("Mul", "image_embed", graph.constant(0.0 if sampled else 1.0))
    z_0 = graph.add("Add", "text_embed", image_embed)
    h_0 = graph.add("Mul", "noise", graph.constant(h_noise))
    frames = graph.add("Cast", graph.add("Shape", "progress"), to=TensorProto.FLOAT)  # [1]
    last = graph.add("Sub", frames, graph.constant(1))
    column = _add_column(graph)
    stretch = graph.add("Div", graph.add("Mul", last, graph.constant(TOTAL_STEP)), frames)
    rates = graph.add("Mul", graph.add("Sub", column, graph.previous(column)), stretch)
    decayed = _add_decay(graph, decay, graph.add("Div", graph.add("Mul", column, last), frames))
    if decayed is not None:
        rates = graph.add("Mul", rates, decayed)
    scan = helper.make_node(
        "Scan", [z_0, h_0, rates], ["z_last", "h_last", "z_rows"], body=_build_cell(network), num_scan_inputs=1
    )
    graph.nodes.append(scan)
    return graph.add("Sub", "z_rows", z_0, output="motion_codes")


def _add_served(graph: PaperGraphBuilder, moved: str) -> None:
    """Add what serving gets of δ_v + Δ_k [T,num_ws,w_dim]: frame 0's share taken away, times the intensity."""
    left = graph.add("Sub", graph.constant(1), _add_column(graph))
    ahead = graph.add("Unsqueeze", left, graph.constant(np.array([2]), np.int64))
    taken = graph.add("Mul", graph.slice(moved, 0, 1), ahead)
    graph.add("Mul", graph.add("Sub", moved, taken), "intensity", output="delta_ws")


def _add_column(graph: PaperGraphBuilder) -> str:
    """Add progress as a column, [T,1]."""
    return graph.add("Unsqueeze", "progress", graph.constant(np.array([1]), np.int64))


@torch.no_grad()
def serve_as_published(
    network: PaperMotion, z_0: Tensor, image_embed: Tensor | None, h_0: Tensor, frames: int, decay: str
) -> Tensor:
    """Give in PyTorch what the graph gives at T evenly spread progresses and intensity 1.

    Shapes: z_0, image_embed [1,E], h_0 [1,h_dim] → [T,num_ws,w_dim].
    """
    _, delta_ws = network(z_0, h_0, frames, decay)
    if image_embed is not None:
        delta_ws = delta_ws + network.residual(image_embed)[:, None]
    progress = torch.linspace(0, 1, frames)[:, None, None]
    return delta_ws[0] - (1 - progress) * delta_ws[0, :1]


@torch.no_grad()
def export_paper_motion(
    network: PaperMotion, rng: np.random.Generator, recipe: PaperRecipe
) -> tuple[onnx.ModelProto, float]:
    """Build the graph and compare it with the network at several numbers of frames.

    Raises: ParityError when they differ.
    """
    network = network.cpu().eval()
    decay, embed_dim = recipe.inference_decay, network.cell.a.in_features
    graph = build_paper_graph(network, decay=decay, h_noise=recipe.h_noise, sampled=recipe.sampled)
    session, worst = open_graph(graph.SerializeToString()), 0.0
    for frames in (2, 4, 16, 100):
        embeds = rng.standard_normal((2, embed_dim), dtype=np.float32)
        text, face = (embeds / np.linalg.norm(embeds, axis=1, keepdims=True))[:, None]
        noise = rng.standard_normal((1, network.h_dim), dtype=np.float32)
        outputs = session.run(
            text_embed=text,
            image_embed=face,
            noise=noise,
            intensity=np.array([1.3], np.float32),
            progress=np.linspace(0, 1, frames, dtype=np.float32),
        )
        z_0 = torch.from_numpy(text if recipe.sampled else text + face)
        image_embed = None if recipe.sampled else torch.from_numpy(face)
        h_0 = recipe.h_noise * torch.from_numpy(noise)
        wanted = 1.3 * serve_as_published(network, z_0, image_embed, h_0, frames, decay)
        worst = max(worst, compare("motion", outputs["delta_ws"], wanted, TOLERANCE))
    return graph, worst
