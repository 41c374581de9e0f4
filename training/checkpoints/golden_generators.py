"""Golden cases of generators: z → w, its truncation, and ws → image, in PyTorch and through the exported graphs.

Must not import: services, worker.
"""

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.sessions import Session, open_graph
from training.checkpoints.assembly import fix_condition
from training.checkpoints.formats import open_contents
from training.checkpoints.generators import read_generator
from training.checkpoints.nvidia import DEFAULT_CLAMP, read_conditional
from training.checkpoints.spec import find_setting
from training.errors import DataError
from training.export.graphs import export_module
from training.export.synthesis_graph import SynthesisGraph
from training.networks.stylegan2 import ZGenerator, ZMapping
from training.photos.graphs import ZMappingGraph

Arrays = dict[str, NDArray[Any]]
TRUNCATIONS = {"w": 1.0, "w_psi07": 0.7}
"""Outputs of the mapping, with the psi of each."""


def run_case(
    tensors: Mapping[str, Tensor], spec: Mapping[str, Any], case: Mapping[str, NDArray[Any]], folder: Path
) -> dict[str, Arrays]:
    """Write the checkpoint into `folder`, read it as a user's would be, and compute the case's outputs twice."""
    if spec["format"].lower().startswith("nvidia"):
        path = folder / "network.pkl"
        write_nvidia(path, tensors, find_setting(spec, "conv_clamp", DEFAULT_CLAMP))
        generator = read_conditional(open_contents(path))
    else:
        path = folder / "generator.pt"
        average = case.get("latent_avg")
        held = {} if average is None else {"latent_avg": torch.from_numpy(average)}
        torch.save({"g_ema": dict(tensors), **held}, path)
        generator = read_generator(path).generator
    _check_inputs(generator, case)
    outputs: dict[str, Arrays] = {"pytorch": {}, "onnxruntime": {}}
    if "image" in case:
        for runtime, image in draw(generator, case["ws"]).items():
            outputs[runtime]["image"] = image
    if wanted := {name: psi for name, psi in TRUNCATIONS.items() if name in case}:
        for runtime, found in map_z(generator, _read_conditions(generator, spec, case), case["z"], wanted).items():
            # one w for all rows, or the rows themselves, as the case has it
            outputs[runtime] |= {name: ws if case[name].ndim == 3 else ws[:, 0] for name, ws in found.items()}
    return outputs


def _check_inputs(generator: ZGenerator, case: Mapping[str, NDArray[Any]]) -> None:
    """Make sure that there is something to draw and to map, and that it fits.

    Raises: DataError.
    """
    synthesis, z_dim = generator.synthesis, generator.mapping.z_dim
    wanted = {"ws": ("image", (synthesis.num_ws, synthesis.w_dim)), "z": ("w", (z_dim,))}
    for name, (output, shape) in wanted.items():
        if output not in case and output + "_psi07" not in case:
            continue
        found = list(case[name].shape) if name in case else "missing"
        if name not in case or case[name].shape[1:] != shape:
            raise DataError(f"case.npz wants {name} of {['N', *shape]} for {output}, and it is {found}")


def draw(generator: ZGenerator, ws: NDArray[Any]) -> Arrays:
    """Shapes: ws [N,num_ws,w_dim] → by runtime, image [N,3,R,R]."""
    network = generator.synthesis
    with torch.no_grad():
        eager = network(torch.from_numpy(ws), noise_mode="const").numpy()
    example = torch.zeros(2, network.num_ws, network.w_dim)  # the exporter takes a batch of one for a constant
    session = export(SynthesisGraph(network, frames=False), {"ws": example}, "image")
    return {"pytorch": eager, "onnxruntime": session.run(ws=ws)["image"]}


def map_z(
    generator: ZGenerator, conditions: Tensor | None, z: NDArray[Any], wanted: Mapping[str, float]
) -> dict[str, Arrays]:
    """Map every z with its own condition worked in, as a bundle of that condition does.

    Shapes: conditions [N,c_dim], z [N,z_dim] → by runtime and output, ws [N,num_ws,w_dim].
    Args: `wanted` gives each output's psi.
    """
    size = (len(z), generator.mapping.num_ws, generator.mapping.w_dim)
    found: dict[str, Arrays] = {
        runtime: {name: np.empty(size, np.float32) for name in wanted} for runtime in ("pytorch", "onnxruntime")
    }
    for rows, mapping in _split(generator, conditions, len(z)):
        example = {"z": torch.zeros(2, mapping.z_dim), "truncation_psi": torch.ones(1)}
        session = export(ZMappingGraph(mapping), example, "ws")
        for name, psi in wanted.items():
            with torch.no_grad():
                found["pytorch"][name][rows] = mapping(torch.from_numpy(z[rows]), truncation_psi=psi).numpy()
            exported = session.run(z=z[rows], truncation_psi=np.array([psi], np.float32))
            found["onnxruntime"][name][rows] = exported["ws"]
    return found


def _split(generator: ZGenerator, conditions: Tensor | None, count: int) -> Iterator[tuple[NDArray[Any], ZMapping]]:
    """Give the rows of each condition, with the mapping that it is worked into."""
    if conditions is None:
        yield np.arange(count), generator.mapping
        return
    for c in torch.unique(conditions, dim=0):
        yield np.flatnonzero((conditions == c).all(1).numpy()), fix_condition(generator, c).mapping


def _read_conditions(generator: ZGenerator, spec: Mapping[str, Any], case: Mapping[str, NDArray[Any]]) -> Tensor | None:
    """Give the condition of every z [N,c_dim]: `c` of the case, or the spec's `label`.

    Raises: DataError where a conditional case has neither.
    """
    c_dim, count = generator.mapping.c_dim, len(case["z"])
    if not c_dim:
        return None
    if "c" in case and case["c"].shape[-1:] == (c_dim,):
        return torch.from_numpy(np.broadcast_to(case["c"], (count, c_dim)).astype(np.float32))
    label = find_setting(spec, "label")
    if label is None or not 0 <= int(label) < c_dim:
        raise DataError(f"the case's generator has {c_dim} labels: case.npz wants an array `c`, or spec.json a `label`")
    return torch.eye(c_dim)[[int(label)] * count]


def export(module: nn.Module, inputs: Mapping[str, Tensor], output: str) -> Session:
    """Export a module and open the graph."""
    return open_graph(export_module(module, tuple(inputs.values()), list(inputs), [output]).SerializeToString(), output)


def write_nvidia(path: Path, tensors: Mapping[str, Tensor], conv_clamp: float | None) -> None:
    """Write a state dict the way that NVIDIA's repositories pickle a network.

    The name of the function that rebuilds an object is put in afterwards: Python pickles by name only what it can
    import, and that function must not exist here. In this old protocol a name is bare text.
    """
    network = _nest(tensors, "Generator", conv_clamp)
    data = pickle.dumps({"G": None, "D": None, "G_ema": network}, protocol=3)
    ours = f"c{_reconstruct_persistent_obj.__module__}\n{_reconstruct_persistent_obj.__qualname__}\n"
    path.write_bytes(data.replace(ours.encode(), b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"))


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    """Stand for the function of this name in `torch_utils.persistence`: a file names it, and nobody calls it."""
    raise AssertionError(f"a file of {sorted(meta)} was unpickled instead of read")


class _Network:
    """An object that pickles as a persistent one."""

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name, self.state = class_name, state

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {"type": "class", "version": 6, "module_src": "", "class_name": self.class_name, "state": self.state}
        return _reconstruct_persistent_obj, (meta,)


CLASSES = {
    "synthesis": "SynthesisNetwork",
    "mapping": "MappingNetwork",
    "conv": "SynthesisLayer",
    "torgb": "ToRGBLayer",
    "skip": "Conv2dLayer",
    "affine": "FullyConnectedLayer",
    "embed": "FullyConnectedLayer",
    "fc": "FullyConnectedLayer",
    "b": "SynthesisBlock",
}
"""Classes of `networks_stylegan2`, by the names of their attributes without numbers."""
BUFFERS = {"resample_filter", "noise_const", "w_avg"}


def _nest(tensors: Mapping[str, Tensor], class_name: str, conv_clamp: float | None) -> _Network:
    """Make a network of the tensors below one name."""
    parts: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        head, _, rest = name.partition(".")
        if rest:
            parts.setdefault(head, {})[rest] = tensor
        else:
            own[head] = tensor
    state: dict[str, Any] = {
        "training": False,
        "_parameters": {name: nn.Parameter(value) for name, value in own.items() if name not in BUFFERS},
        "_buffers": {name: value for name, value in own.items() if name in BUFFERS},
        "_modules": {
            name: _nest(inner, CLASSES.get(name.rstrip("0123456789"), "Module"), conv_clamp)
            for name, inner in parts.items()
        },
    }
    if class_name in {"SynthesisLayer", "ToRGBLayer"}:
        state["conv_clamp"] = conv_clamp
    return _Network(class_name, state)
