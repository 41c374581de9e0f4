"""Every training loop at a tiny scale, in float32, on data that no renderer and no grammar decides.

`python -m tests.training.golden_losses.loops [NAME …]` writes the curves anew; do it only where a loop is meant to
change, and say why in the commit. A curve holds means of 20 steps, for each loss that the loop logs.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from tests.training.golden_losses import photographs, published, rendered
from tests.training.golden_losses.data import STEPS
from training.loop import SteppedStage
from training.optimizers import set_learning_rate

HERE = Path(__file__).parent
WINDOW = 20
LOGGED = (
    *("loss", "generator", "discriminator", "r1", "path_length", "contrast", "kept", "l2", "features", "language"),
    *("presence", "strength", "change", "distil", "direction", "identity", "off_face"),
    *("adversarial", "telling", "video", "image", "match", "mutual", "penalty", "hinge"),
)
Curve = dict[str, list[float]]
Records = list[dict[str, float]]

STAGES: dict[str, Callable[[], Any]] = {
    "generator": rendered.build_generator_loop,
    "encoder": rendered.build_encoder_loop,
    "inversion": rendered.build_inversion_loop,
    "language": rendered.build_language_loop,
    "embedding": rendered.build_embedding_loop,
    "motion": rendered.build_motion_loop,
    "motion-pictures": rendered.build_motion_pictures_loop,
    "gan": photographs.build_gan_loop,
    "pyramid": photographs.build_pyramid_loop,
    "tower": photographs.build_tower_loop,
    "paper": published.build_paper_loop,
    "paper-adversary": published.build_paper_adversary_loop,
    "mapper": published.build_mapper_loop,
    "mocogan-hd": published.build_mocogan_hd_loop,
}
"""Stages of training.loop."""
FUNCTIONS: dict[str, Callable[[], None]] = {
    "reader": rendered.fit_reader,
    "reader-identity": rendered.fit_reader_identity,
    "refinement": photographs.refine_pictures,
    "latent": published.optimise_latents,
}
"""Loops that are one function; what they differentiate is their loss."""
LOOPS = (*STAGES, *FUNCTIONS)


def take_steps(stage: Any, steps: int = STEPS) -> Records:
    """Do what training.loop does, without its folder."""
    records = []
    for step in range(steps):
        if isinstance(stage, SteppedStage):
            records.append(stage.advance(step))
            continue
        set_learning_rate(stage.optimizers, stage.learning_rate(step))
        loss, figures = stage.loss(step)
        for optimizer in stage.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for optimizer in stage.optimizers:
            optimizer.step()
        records.append({"loss": float(loss.detach()), **figures})
    return records


def watch_steps(function: Callable[[], None]) -> Records:
    """Run a loop that shows nothing of its steps, and note every loss that it differentiates."""
    records: Records = []
    backward, grad = Tensor.backward, torch.autograd.grad

    def note_backward(loss: Tensor, *arguments: Any, **options: Any) -> None:
        records.append({"loss": float(loss.detach())})
        backward(loss, *arguments, **options)

    def note_grad(loss: Tensor, *arguments: Any, **options: Any) -> tuple[Tensor, ...]:
        records.append({"loss": float(loss.detach())})
        return grad(loss, *arguments, **options)

    with mock.patch.object(Tensor, "backward", note_backward), mock.patch("torch.autograd.grad", note_grad):
        function()
    assert len(records) == STEPS, f"{len(records)} losses were differentiated in {STEPS} steps"
    return records


@contextmanager
def in_float32() -> Iterator[None]:
    """Leave the lower precision out: bfloat16 differs from CPU to CPU."""
    with mock.patch("torch.autocast", return_value=nullcontext()):
        yield


def run(name: str) -> Curve:
    """Take a loop's steps and give its curve; what was not logged at a step counts as 0."""
    with in_float32():
        records = take_steps(STAGES[name]()) if name in STAGES else watch_steps(FUNCTIONS[name])
    logged = [loss for loss in LOGGED if any(loss in record for record in records)]
    return {
        loss: [
            float(np.mean([record.get(loss, 0.0) for record in records[first : first + WINDOW]]))
            for first in range(0, STEPS, WINDOW)
        ]
        for loss in logged
    }


def read(name: str) -> Curve:
    """Read a committed curve."""
    found: Curve = json.loads((HERE / f"{name}.json").read_text())
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or LOOPS:
        curve = {name: [round(value, 6) for value in row] for name, row in run(chosen).items()}
        (HERE / f"{chosen}.json").write_text(json.dumps(curve, indent=1) + "\n")
        sys.stdout.write(f"{chosen}: {curve['loss']}\n")
