"""The one training loop: run folder, exact resume, progress, signals, and a clear end when a loss is not a number.

A stage says what its modules, optimisers and loss are; randomness must come from (seed, step) or from torch's
generator, both of which a checkpoint restores, so a resumed run equals an uninterrupted one bit for bit.
Run folder: options.json, stats.jsonl, checkpoint.pt (weights, optimisers, EMA, torch's generator, step).
"""

import copy
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from training.optimizers import set_learning_rate

CHECKPOINT = "checkpoint.pt"
Report = Callable[[str], None]


class DivergedError(RuntimeError):
    """A loss was not a finite number; the last checkpoint is from before."""


class InterruptedRunError(RuntimeError):
    """The run was asked to stop by a signal; its checkpoint is good to resume from."""


class Stage(Protocol):
    """What the loop needs of a stage."""

    name: str
    steps: int
    modules: nn.ModuleDict
    optimizers: list[torch.optim.Optimizer]
    ema_decay: float

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""

    def ema_warmup(self, step: int) -> int:
        """Give the number of steps since the average last began anew."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Give the loss of one batch and what is worth logging."""

    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure on held-out data with averaged weights."""


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the file, flush to the disk, then rename: a reader sees the old file or the whole new one."""
    temporary = path.with_name(path.name + ".part")
    write(temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_checkpoint(stage: Stage, ema: nn.ModuleDict, step: int, folder: Path) -> None:
    """Save everything that a resumed run needs."""
    state = {
        "step": step,
        "modules": stage.modules.state_dict(),
        "ema": ema.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in stage.optimizers],
        "torch_rng": torch.get_rng_state(),
    }
    write_atomically(folder / CHECKPOINT, lambda path: torch.save(state, path))


def load_checkpoint(stage: Stage, ema: nn.ModuleDict, folder: Path) -> int:
    """Restore a run and give the step to go on with; 0 when there is no checkpoint."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    stage.modules.load_state_dict(state["modules"])
    ema.load_state_dict(state["ema"])
    for optimizer, saved in zip(stage.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    torch.set_rng_state(state["torch_rng"])
    return int(state["step"])


def load_ema(folder: Path) -> dict[str, Tensor]:
    """Read a run's averaged weights.

    Raises: FileNotFoundError when the run has no checkpoint yet.
    """
    weights: dict[str, Tensor] = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["ema"]
    return weights


def is_finished(folder: Path, steps: int) -> bool:
    """Say whether a run has done its steps."""
    path = folder / CHECKPOINT
    return path.exists() and int(torch.load(path, map_location="cpu", weights_only=True)["step"]) >= steps


class StopSignal:
    """Notes SIGINT and SIGTERM while the loop runs, so that it ends at a step's boundary."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.number = number


def _average(ema: nn.ModuleDict, modules: nn.ModuleDict, decay: float, steps: int) -> None:
    decay = min(decay, 1 - 1 / (steps * 0.1 + 1))
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(modules.parameters()), 1 - decay)
        for kept, buffer in zip(ema.buffers(), modules.buffers(), strict=True):
            kept.copy_(buffer)


def _time_left(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"


def train(
    stage: Stage,
    folder: Path,
    options: Mapping[str, Any],
    *,
    report: Report = print,
    log_every: int = 100,
    evaluate_every: int = 1000,
    save_every_s: float = 60.0,
) -> nn.ModuleDict:
    """Run a stage to its last step, resuming what the folder holds, and give the averaged weights.

    Raises: DivergedError when a loss is not finite; InterruptedRunError after SIGINT or SIGTERM, with a checkpoint
    written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(options), indent=2, sort_keys=True)
    write_atomically(folder / "options.json", lambda path: path.write_text(text))
    ema = copy.deepcopy(stage.modules).eval().requires_grad_(False)
    first = load_checkpoint(stage, ema, folder)
    if first:
        report(f"{stage.name}: resumed at step {first} of {stage.steps}")
    started = saved = time.monotonic()
    with StopSignal() as stop, (folder / "stats.jsonl").open("a", buffering=1) as stats:
        for step in range(first, stage.steps):
            rate = stage.learning_rate(step)
            set_learning_rate(stage.optimizers, rate)
            loss, metrics = stage.loss(step)
            value = float(loss.detach())
            if not torch.isfinite(loss.detach()).all():
                raise DivergedError(
                    f"{stage.name}: the loss became {value} at step {step} (learning rate {rate:.2g}); "
                    f"lower the learning rate; the checkpoint in {folder} is from before"
                )
            for optimizer in stage.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in stage.optimizers:
                optimizer.step()
            done = step + 1
            _average(ema, stage.modules, stage.ema_decay, stage.ema_warmup(step) + 1)
            last = done == stage.steps
            if done % log_every == 0 or last:
                per_step = (time.monotonic() - started) / (done - first)
                left = _time_left(per_step * (stage.steps - done))
                record = {"step": done, "loss": value, "lr": rate, "s_per_step": round(per_step, 4), **metrics}
                if done % evaluate_every == 0 or last:
                    record |= {f"held_{name}": figure for name, figure in stage.evaluate(ema).items()}
                stats.write(json.dumps(record) + "\n")
                shown = " ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in ("step", "s_per_step"))
                report(f"{stage.name}: {done}/{stage.steps} {shown} · {left}")
            if last or stop.number is not None or time.monotonic() - saved > save_every_s:
                save_checkpoint(stage, ema, done, folder)
                saved = time.monotonic()
            if stop.number is not None and not last:
                raise InterruptedRunError(
                    f"{stage.name}: stopped by signal {stop.number} after step {done}; run the same command to go on"
                )
    return ema
