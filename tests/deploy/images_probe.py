"""Probe of the worker images of ``deploy/images.yml`` while they run: each draws, by the runtime that it is for.

A program, not a pytest module: ``.ci/run images`` calls it. The GPU image must know its providers and find every
library that they need; what may be absent where there is no GPU is the driver's own (and TensorRT, an image of its
own), and then it draws on the processor and says so. Exit status 0: every check held.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

COMPOSE_FILE = os.environ.get("COMPOSE_FILE", "deploy/images.yml")
DRAW = """
import json, sys
from model.animator import Animator
animator = Animator.from_bundle("/app/bundles/human", sys.argv[1].split(","), threads=1)
face = animator.sample_face(1)
frames = sum(len(batch) for batch in animator.draw(face, animator.move(face, "smiling", frames=8, seed=1), 4))
import onnxruntime
told = [[fallback.failed, fallback.using] for fallback in animator.fallbacks]
print(json.dumps({
    "frames": frames, "synthesis": animator.providers_in_use["synthesis"], "told": told,
    "known": onnxruntime.get_available_providers(),
}))
"""
LIBRARIES = """
import json, onnxruntime, pathlib
from subprocess import run
folder = pathlib.Path(onnxruntime.__file__).parent / "capi"
missing = {}
for name in ("cuda", "tensorrt"):
    found = run(["ldd", folder / f"libonnxruntime_providers_{name}.so"], capture_output=True, text=True, check=True)
    missing[name] = sorted(line.split()[0] for line in found.stdout.splitlines() if "not found" in line)
print(json.dumps(missing))
"""
OF_THE_DRIVER = {"libcuda.so.1"}
OF_TENSORRT = {"libnvinfer.so.10", "libnvonnxparser.so.10"}


def ask(service: str, program: str, *arguments: str) -> Any:
    """Run a program in a container and return the JSON of its last line."""
    command = ["docker", "compose", "-f", COMPOSE_FILE, "exec", "-T", service, "python", "-c", program, *arguments]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{service}: exit code {done.returncode}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def require(holds: bool, sentence: str) -> None:
    """End with the sentence unless the condition holds."""
    if not holds:
        sys.exit(sentence)


def main() -> None:
    """Ask every image."""
    for service, wanted in (("cpu-openvino", "openvino"), ("cpu-ncnn", "ncnn"), ("gpu", None)):
        drawn = ask(service, DRAW, "tensorrt,cuda,cpu" if wanted is None else f"{wanted},cpu")
        sys.stderr.write(f"{service}: {drawn}\n")
        require(drawn["frames"] == 8, f"{service} drew {drawn['frames']} frames of 8")
        if wanted is not None:
            require(drawn["synthesis"] == wanted, f"{service} draws by {drawn['synthesis']}, not by {wanted}")
            require(not drawn["told"], f"{service} fell back: {drawn['told']}")
            continue
        require({"CUDAExecutionProvider", "TensorrtExecutionProvider"} <= set(drawn["known"]), f"{service}: no GPU's")
        missing = ask(service, LIBRARIES)
        sys.stderr.write(f"{service}: not found {missing}\n")
        require(set(missing["cuda"]) <= OF_THE_DRIVER, f"{service} lacks libraries: {missing['cuda']}")
        require(set(missing["tensorrt"]) <= OF_THE_DRIVER | OF_TENSORRT, f"{service} lacks {missing['tensorrt']}")
        on_gpu = drawn["synthesis"] in {"cuda", "tensorrt"}
        require(on_gpu or ["cuda", "cpu"] in drawn["told"], f"{service} draws by {drawn['synthesis']} and says nothing")
        if not on_gpu:
            sys.stderr.write("NOT TRIED: there is no GPU here, so no provider of one drew anything\n")
    sys.stderr.write("every image draws\n")


if __name__ == "__main__":
    main()
