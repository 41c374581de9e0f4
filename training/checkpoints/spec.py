"""Rebuilds the tensors of a golden case from its `spec.json`: weights of any size from a seed, with nothing stored.

Tensor i of the list comes from `default_rng([seed, i])`, so both sides of a comparison have equal weights to the bit.
Must not import: services, worker.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.errors import DataError


def read_spec(folder: Path) -> dict[str, Any]:
    """Read a case's `spec.json`.

    Raises: DataError where it is missing or no such thing.
    """
    path = folder / "spec.json"
    try:
        spec = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    if (
        not isinstance(spec, dict)
        or not isinstance(spec.get("tensors"), list)
        or not isinstance(spec.get("format"), str)
    ):
        raise DataError(f"{path} is no golden case: it wants `format`, `seed` and a list `tensors`")
    return spec


def find_setting(spec: Mapping[str, Any], name: str, default: Any = None) -> Any:
    """Give a setting of a case, which stands beside the tensors or under `meta`."""
    meta = spec.get("meta")
    return spec.get(name, meta.get(name, default) if isinstance(meta, Mapping) else default)


def rebuild(spec: Mapping[str, Any]) -> dict[str, Tensor]:
    """Make a spec's tensors, in its order.

    Raises: DataError that names a tensor which can't be made.
    """
    tensors = {}
    for index, entry in enumerate(spec["tensors"]):
        try:
            tensors[entry["name"]] = _make(entry, spec.get("seed"), index)
        except (KeyError, TypeError, ValueError, MemoryError) as error:
            name = entry.get("name", index) if isinstance(entry, Mapping) else index
            raise DataError(f"tensor {name} can't be made of seed {spec.get('seed')!r}: {error!r}") from error
    return tensors


def _make(entry: Mapping[str, Any], seed: Any, index: int) -> Tensor:
    """Make one tensor.

    The numbers are drawn, scaled and shifted in float32: the order of these steps is part of the format.
    """
    init, shape, dtype = entry["init"], entry["shape"], np.dtype(entry.get("dtype", "float32"))
    if init["kind"] == "values":
        values = np.array(init["values"], dtype).reshape(shape)
    elif init["kind"] in {"normal", "abs"}:
        noise = np.random.default_rng([seed, index]).standard_normal(shape, dtype=np.float32)
        values = noise * np.float32(init.get("scale", 1)) + np.float32(init.get("shift", 0))
        values = np.abs(values) if init["kind"] == "abs" else values
    else:
        raise DataError(f"tensor {entry['name']} is made by {init['kind']!r}: known are normal, abs and values")
    if (factor := entry.get("post", init.get("post"))) is not None:
        values = values * np.float32(factor)
    return torch.from_numpy(np.array(values, dtype))
