"""Golden cases: a foreign checkpoint is rebuilt on disk, read, exported, run, and compared with what its own code gave.

    python -m training.checkpoints.golden CASE_DIR...

A line of JSON for each: {"case", "max_rel_err": {output: max|a − b| / max|b|}, "runtime": {"pytorch": …,
"onnxruntime": …}}; `max_rel_err` is the larger of both runtimes. Ends with 1 where a case
can't be run, after all the others.
Must not import: services, worker.
"""

import argparse
import contextlib
import importlib
import json
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.checkpoints.spec import read_spec, rebuild
from training.errors import DataError, TrainingError

Arrays = dict[str, NDArray[Any]]
"""Outputs by the names that `case.npz` has for them."""

UNLIKE = sys.float_info.max
"""The error of an output that can't be compared: JSON has no infinity."""

RUNNERS = {
    "rosinality stylegan2-pytorch": "training.checkpoints.golden_generators",
    "nvidia networks_stylegan2": "training.checkpoints.golden_generators",
    "e4e": "training.checkpoints.golden_encoders",
    "psp": "training.checkpoints.golden_encoders",
    "backboneencoderusinglastlayer": "training.checkpoints.golden_encoders",
    "official motion": "training.checkpoints.golden_motion",
}
"""What runs a case, by how its format begins: a module with `run_case(tensors, spec, case, folder)`, which gives
{"pytorch": Arrays, "onnxruntime": Arrays}. Loaded by need, for each brings the packages of its networks."""


def run(folder: Path) -> dict[str, Any]:
    """Run the case of a folder and give its line.

    Raises: DataError where the folder holds no case of a known format, CheckpointMismatchError.
    """
    spec = read_spec(folder)
    runner = next((name for format, name in RUNNERS.items() if spec["format"].lower().startswith(format)), None)
    if runner is None:
        raise DataError(f"{folder}: the format {spec['format']!r} begins with none of {', '.join(RUNNERS)}")
    case = read_case(folder / "case.npz")
    with tempfile.TemporaryDirectory() as work:
        outputs: Mapping[str, Arrays] = importlib.import_module(runner).run_case(rebuild(spec), spec, case, Path(work))
    errors = {
        runtime: {name: compare(value, case[name]) for name, value in found.items()}
        for runtime, found in outputs.items()
    }
    names = sorted({name for found in errors.values() for name in found})
    if not names:
        raise DataError(f"{folder}/case.npz holds no outputs that are known for this format")
    worst = {name: max(found[name] for found in errors.values() if name in found) for name in names}
    return {"case": folder.resolve().name, "max_rel_err": worst, "runtime": errors}


def read_case(path: Path) -> Arrays:
    """Read a case's inputs and outputs, as float32.

    Raises: DataError.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            held = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read: {error}") from error
    return {name: value.astype(np.float32) if value.dtype.kind == "f" else value for name, value in held.items()}


def compare(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Give max|ours − theirs| / max|theirs|; `UNLIKE` where ours has another shape or a number that is none."""
    if ours.shape != theirs.shape or not np.isfinite(ours).all():
        return UNLIKE
    theirs = theirs.astype(np.float64)
    difference = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0))
    return difference / max(float(np.abs(theirs).max(initial=0)), np.finfo(np.float64).tiny)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the cases that are named, and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m training.checkpoints.golden", description=__doc__)
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE_DIR", help="a folder with spec.json and case.npz")
    failed = False
    for folder in parser.parse_args(arguments).cases:
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what libraries say is no part of the answer
                line = run(folder)
        except TrainingError as error:
            sys.stderr.write(f"{error}\n")
            failed = True
            continue
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
