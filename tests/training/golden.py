"""Rebuilds the tensors of a golden case from its recipe (tests/assets/golden)."""

import json
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent.parent / "assets" / "golden"


def load_case(name: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Give a case's weights by their original names, and its inputs and outputs."""
    spec = json.loads((GOLDEN / name / "spec.json").read_text())
    weights = {}
    for index, entry in enumerate(spec["tensors"]):
        init = entry["init"]
        if init["kind"] == "values":
            weights[entry["name"]] = torch.tensor(init["values"]).reshape(entry["shape"])
            continue
        assert init["kind"] == "normal", init
        noise = np.random.default_rng([spec["seed"], index]).standard_normal(entry["shape"], dtype=np.float32)
        value = noise * np.float32(init["scale"]) + np.float32(init["shift"])
        weights[entry["name"]] = torch.from_numpy(value * np.float32(entry.get("post", 1.0)))
    arrays = np.load(GOLDEN / name / "case.npz")
    return weights, {key: torch.from_numpy(arrays[key]) for key in arrays.files}
