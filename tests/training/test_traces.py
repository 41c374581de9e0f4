"""Shipped graphs tell nothing of the machine that made them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from model.sessions import open_graph
from training.export.graphs import export_module

BUNDLES = Path(__file__).parents[2] / "bundles"


@pytest.mark.parametrize("path", sorted(BUNDLES.glob("*/*.onnx")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_graphs_carry_no_traces(path: Path) -> None:
    data = path.read_bytes()
    assert b"stack_trace" not in data
    assert b"site-packages" not in data


def test_an_exported_module_carries_no_traces_and_still_computes() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    x = torch.randn(2, 3)
    model = export_module(module, (x,), ["x"], ["y"])
    assert isinstance(model, onnx.ModelProto)
    data = model.SerializeToString()
    assert b"test_traces" not in data
    assert b"stack_trace" not in data
    np.testing.assert_allclose(open_graph(data).run(x=x.numpy())["y"], module(x).detach().numpy(), atol=1e-6)
