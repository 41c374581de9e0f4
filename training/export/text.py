"""Text tower → `text.onnx`, with the word table kept as int8 and one scale a row; checked against torch.

Must not import: services, worker.
"""

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from model.sessions import open_graph
from training.export.traces import strip_traces
from training.networks.text import MAX_TOKENS, TextTower, quantise_rows

OPSET = 20


class _Int8Tower(nn.Module):
    """The tower with its table as int8: rows are gathered first and scaled after, so the graph holds no float table."""

    def __init__(self, tower: TextTower) -> None:
        super().__init__()
        table, scale = quantise_rows(tower.table.weight.detach())
        self.register_buffer("table", table)
        self.register_buffer("scale", scale)
        self.tower = tower

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes: int64 [N, L] twice → text_embed [N, embed_dim]."""
        table, scale = cast(Tensor, self.table), cast(Tensor, self.scale)
        n, length = input_ids.shape
        flat = input_ids.reshape(-1)  # index_select becomes a plain Gather
        words = table.index_select(0, flat).to(torch.float32) * scale.index_select(0, flat)
        words = words.reshape(n, length, table.shape[1])
        return self.tower.embed_features(self.tower.encode_words(words, attention_mask))


def export_text_tower(tower: TextTower, path: Path) -> float:
    """Write the graph and give the largest absolute difference between torch and onnxruntime over several lengths.

    Graph: input_ids, attention_mask int64 [N, L], L ≤ 64 → text_embed float32 [N, embed_dim], unit norm.
    """
    tower = tower.eval()
    wrapped = _Int8Tower(tower).eval()
    example = torch.ones(
        2, 9, dtype=torch.int64
    )  # given twice as copies: the exporter merges inputs that are one tensor
    axes = {0: torch.export.Dim("N"), 1: torch.export.Dim("L", max=MAX_TOKENS)}
    with torch.inference_mode(mode=False), torch.no_grad():
        program = torch.onnx.export(
            wrapped, (example, example.clone()), dynamo=True, opset_version=OPSET,
            input_names=["input_ids", "attention_mask"], output_names=["text_embed"],
            dynamic_shapes=(axes, axes), external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(str(path), external_data=False)
    model = strip_traces(onnx.load(str(path)))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return measure_parity(tower, path)


def measure_parity(tower: TextTower, path: Path, seed: int = 0) -> float:
    """Largest absolute difference of τ between torch and the exported graph, padded and unpadded, short and long."""
    session = open_graph(path.read_bytes(), "text")
    rng = np.random.default_rng(seed)
    worst = 0.0
    for count, length in ((1, 2), (1, 7), (3, 12), (2, MAX_TOKENS)):
        input_ids = rng.integers(0, tower.dims["vocabulary_size"], (count, length))
        mask = (np.arange(length) < rng.integers(2, length + 1, (count, 1))).astype(np.int64)
        given = session.run(input_ids=input_ids, attention_mask=mask)["text_embed"]
        with torch.inference_mode():
            wanted = tower(torch.from_numpy(input_ids), torch.from_numpy(mask)).numpy()
        worst = max(worst, float(np.abs(given - wanted).max()))
    return worst
