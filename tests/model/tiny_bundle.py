"""Builds a small but real bundle: every graph of the contract, seeded random weights, smooth colour patterns.

It is no model of anything; it exercises each part that runs a bundle within milliseconds. Needs ``onnx`` (train extra).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.bundle.writer import write_bundle

OPSET = 20
NUM_WS, W_DIM, Z_DIM, EMBED_DIM, H_DIM, MAX_TOKENS = 4, 16, 8, 16, 24, 32
POOLED = 4  # pictures are averaged to 4 × 4 before any matrix sees them
WORDS = (
    *("smiling", "smile", "laughing", "angry", "sad", "surprised", "closing", "close", "eyes", "eye", "winking"),
    *("wink", "opening", "open", "mouth", "pouting", "pout", "the", "person", "is", "a", "and", "then", "not"),
)


def build_tiny_bundle(
    directory: Path, model_id: str = "tiny", resolution: int = 64, seed: int = 0, quality: bool = True
) -> Path:
    """Write the bundle and return its directory. The same arguments give the same bytes."""
    random = np.random.default_rng(seed)
    tokenizer = make_tokenizer()
    graphs = {
        "text": make_text(random, len(tokenizer["model"]["vocab"])),
        "image": make_image_graph(random, resolution, EMBED_DIM, "image_embed", unit_norm=True),
        "encoder": make_encoder(random, resolution),
        "motion": make_motion(random),
        "mapping": make_mapping(random),
        "synthesis": make_synthesis(random, resolution),
    }
    if quality:
        graphs["quality"] = make_image_graph(random, resolution, 8, "identity", unit_norm=True)
    files: dict[str, Path | bytes] = {f"{name}.onnx": graph.SerializeToString() for name, graph in graphs.items()}
    files["tokenizer.json"] = json.dumps(tokenizer).encode()
    files["README.md"] = b"# Tiny\n\nRandom weights for tests: colour patterns, no faces.\n"
    fields: dict[str, Any] = {
        "id": model_id,
        "version": "0.0.1",
        "domain": "human",
        "kind": "rendered",
        "resolution": resolution,
        "num_ws": NUM_WS,
        "w_dim": W_DIM,
        "z_dim": Z_DIM,
        "embed_dim": EMBED_DIM,
        "h_dim": H_DIM,
        "fps": 24,
        "opset": OPSET,
        "input_resolution": resolution,
        "max_tokens": MAX_TOKENS,
        "graphs": {name: f"{name}.onnx" for name in graphs} | ({} if quality else {"quality": None}),
        "tokenizer": "tokenizer.json",
        "expressions": ["smiling", "angry", "sad", "winking"],
        "presets": ["smiling", "winks, then laughs"],
        "detector": None,
        "parity": {},
        "license": "Apache-2.0",
        "made_by": {"recipe": "tiny", "seed": seed},
        "card": "README.md",
    }
    return write_bundle(directory, fields, files)


def make_tokenizer() -> dict[str, Any]:
    """Return a tokenizer.json with single characters and a few words."""
    characters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *characters,
        *(f"##{c}" for c in characters),
        "##s",
        "##ing",
    ]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *WORDS]))}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {
                token: {"id": token, "ids": [vocab[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }


class Graph:
    """A graph under construction: nodes with one output each, constants by value."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Any, dtype: type = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def add(self, op: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{self.name}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def normalise(self, x: str, output: str) -> str:
        norm = self.add("ReduceL2", x, self.constant([-1], np.int64), keepdims=1)
        return self.add("Div", x, self.add("Max", norm, self.constant(1e-6)), output=output)

    def finish(self, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, tuple[int, list[Any]]]) -> Any:
        values = [
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in tensors.items()]
            for tensors in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, self.name, values[0], values[1], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="tiny_bundle")
        model.ir_version = 10  # what onnxruntime has read for years; onnx itself would write its newest
        onnx.checker.check_model(model)
        return model


def make_text(random: np.random.Generator, vocab_size: int) -> Any:
    g = Graph("text")
    table = g.constant(random.standard_normal((vocab_size, EMBED_DIM)))
    tokens = g.add("Gather", table, "input_ids")
    mask = g.add("Unsqueeze", g.add("Cast", "attention_mask", to=TensorProto.FLOAT), g.constant([2], np.int64))
    axes = g.constant([1], np.int64)
    summed = g.add("ReduceSum", g.add("Mul", tokens, mask), axes, keepdims=0)
    g.normalise(summed, "text_embed")
    ids = (TensorProto.INT64, ["N", "L"])
    return g.finish({"input_ids": ids, "attention_mask": ids}, {"text_embed": (TensorProto.FLOAT, ["N", EMBED_DIM])})


def _pool(g: Graph, resolution: int) -> str:
    kernel = resolution // POOLED
    pooled = g.add("AveragePool", "image", kernel_shape=[kernel, kernel], strides=[kernel, kernel])
    return g.add("Flatten", pooled, axis=1)


def make_image_graph(random: np.random.Generator, resolution: int, size: int, output: str, unit_norm: bool) -> Any:
    g = Graph(output)
    weights = g.constant(random.standard_normal((3 * POOLED * POOLED, size)))
    features = g.add("Add", g.add("MatMul", _pool(g, resolution), weights), g.constant(random.standard_normal(size)))
    if unit_norm:
        g.normalise(features, output)
    image = {"image": (TensorProto.FLOAT, ["N", 3, resolution, resolution])}
    return g.finish(image, {output: (TensorProto.FLOAT, ["N", size])})


def make_encoder(random: np.random.Generator, resolution: int) -> Any:
    g = Graph("encoder")
    weights = g.constant(random.standard_normal((3 * POOLED * POOLED, NUM_WS * W_DIM)) * 0.3)
    flat = g.add("Tanh", g.add("MatMul", _pool(g, resolution), weights))
    g.add("Reshape", flat, g.constant([0, NUM_WS, W_DIM], np.int64), output="ws")
    image = {"image": (TensorProto.FLOAT, ["N", 3, resolution, resolution])}
    return g.finish(image, {"ws": (TensorProto.FLOAT, ["N", NUM_WS, W_DIM])})


def make_mapping(random: np.random.Generator) -> Any:
    g = Graph("mapping")
    flat = g.add("Tanh", g.add("MatMul", "z", g.constant(random.standard_normal((Z_DIM, NUM_WS * W_DIM)) * 0.5)))
    scaled = g.add("Mul", flat, "truncation_psi")
    g.add("Reshape", scaled, g.constant([0, NUM_WS, W_DIM], np.int64), output="ws")
    inputs = {"z": (TensorProto.FLOAT, ["N", Z_DIM]), "truncation_psi": (TensorProto.FLOAT, [1])}
    return g.finish(inputs, {"ws": (TensorProto.FLOAT, ["N", NUM_WS, W_DIM])})


def make_motion(random: np.random.Generator) -> Any:
    """The recurrence of docs/bundle.md as a Scan over T, then one linear mapper, gated by smoothstep(progress)."""
    g = Graph("motion")
    earlier = g.add("Slice", "progress", g.constant([0], np.int64), g.constant([-1], np.int64))
    steps = g.add("Sub", "progress", g.add("Concat", g.constant([0.0]), earlier, axis=0))
    start = g.add("Add", "text_embed", g.add("Mul", "image_embed", g.constant(0.3)))
    hidden = g.add("Mul", "noise", g.constant(0.1))
    g.nodes.append(
        helper.make_node(
            "Scan", [start, hidden, steps], ["z_end", "h_end", "codes"], body=_make_step(random), num_scan_inputs=1
        )
    )
    one = g.constant([1], np.int64)
    codes = g.add("Squeeze", "codes", one)
    g.add("Sub", codes, start, output="motion_codes")
    smooth = g.add(
        "Mul",
        g.add("Mul", "progress", "progress"),
        g.add("Sub", g.constant(3.0), g.add("Mul", "progress", g.constant(2.0))),
    )
    gate = g.add("Unsqueeze", g.add("Mul", smooth, "intensity"), one)
    aim = g.add("Add", g.add("Mul", "motion_codes", g.constant(0.5)), "text_embed")
    mapped = g.add("MatMul", aim, g.constant(random.standard_normal((EMBED_DIM, NUM_WS * W_DIM)) * 0.8))
    g.add("Reshape", g.add("Mul", mapped, gate), g.constant([0, NUM_WS, W_DIM], np.int64), output="delta_ws")
    f = TensorProto.FLOAT
    embed = (f, [1, EMBED_DIM])
    return g.finish(
        {
            "text_embed": embed,
            "image_embed": embed,
            "noise": (f, [1, H_DIM]),
            "intensity": (f, [1]),
            "progress": (f, ["T"]),
        },
        {"delta_ws": (f, ["T", NUM_WS, W_DIM]), "motion_codes": (f, ["T", EMBED_DIM])},
    )


def _make_step(random: np.random.Generator) -> onnx.GraphProto:
    g = Graph("step")
    a = random.standard_normal((EMBED_DIM, H_DIM)) / np.sqrt(EMBED_DIM)
    b = random.standard_normal((2 * H_DIM, EMBED_DIM)) / np.sqrt(2 * H_DIM)
    c = random.standard_normal((2 * H_DIM, H_DIM)) / np.sqrt(2 * H_DIM)
    seen = g.add("LeakyRelu", g.add("MatMul", "z", g.constant(a)), alpha=0.01)
    u = g.add("Concat", seen, "h", axis=1)
    for state, weights in (("z", b), ("h", c)):
        change = g.add("LeakyRelu", g.add("MatMul", u, g.constant(weights)), alpha=0.01)
        g.add("Add", state, g.add("Mul", change, "step"), output=f"{state}_next")
    g.add("Identity", "z_next", output="code")
    for index, constant in enumerate(g.constants):  # names of a body must not hide those of the graph around it
        g.nodes.insert(index, helper.make_node("Constant", [], [f"step_{constant.name}"], value=constant))
    for node in g.nodes[len(g.constants) :]:
        for index, name in enumerate(node.input):
            if name.startswith("c") and name[1:].isdigit():
                node.input[index] = f"step_{name}"
    f = TensorProto.FLOAT
    z, h = (f, [1, EMBED_DIM]), (f, [1, H_DIM])
    return helper.make_graph(
        g.nodes,
        "step",
        [helper.make_tensor_value_info(n, *s) for n, s in (("z", z), ("h", h), ("step", (f, [])))],
        [helper.make_tensor_value_info(n, *s) for n, s in (("z_next", z), ("h_next", h), ("code", z))],
    )


def make_synthesis(random: np.random.Generator, resolution: int) -> Any:
    """Colours as a mix of low cosine waves; every row of ws mixes waves of its own."""
    g = Graph("synthesis")
    y, x = np.mgrid[0:resolution, 0:resolution] * (np.pi / resolution)
    waves = np.stack([np.cos(i * x) * np.cos(j * y) / (1 + i + j) for i in range(5) for j in range(5)])
    weights = random.standard_normal((NUM_WS * W_DIM, 3 * len(waves))) * 0.35
    coefficients = g.add("MatMul", g.add("Flatten", "ws", axis=1), g.constant(weights))
    coefficients = g.add("Reshape", coefficients, g.constant([0, 3, len(waves)], np.int64))
    flat = g.add("Sigmoid", g.add("MatMul", coefficients, g.constant(waves.reshape(len(waves), -1))))
    pixels = g.add("Round", g.add("Mul", flat, g.constant(255.0)))
    nchw = g.add("Reshape", pixels, g.constant([0, 3, resolution, resolution], np.int64))
    nhwc = g.add("Transpose", nchw, perm=[0, 2, 3, 1])
    g.add("Cast", nhwc, to=TensorProto.UINT8, output="frames")
    return g.finish(
        {"ws": (TensorProto.FLOAT, ["N", NUM_WS, W_DIM])},
        {"frames": (TensorProto.UINT8, ["N", resolution, resolution, 3])},
    )
