"""The one training loop: run folder, exact resume, progress, signals, and a clear end when a loss is not a number.

A stage says what its modules and optimisers are and gives a loss a step (`Stage`), or takes the whole step itself
(`SteppedStage`: several losses, several optimisers). Randomness must come from (seed, step) or from torch's
generators, which a checkpoint restores, so a resumed run equals an uninterrupted one bit for bit. What else a stage
remembers from step to step it gives as `extra_state`.
Run folder: options.json, stats.jsonl, checkpoint.pt (weights, optimisers, EMA, torch's generators, step). Of several
processes (`training.ranks`) the first one writes; all stop together.
"""

import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from training.errors import (
    CheckpointMismatchError,
    DamagedCheckpointError,
    DataError,
    DivergedError,
    InterruptedRunError,
)
from training.files import PatientFile, check_room, hold_signals, tell_full_disk, write_atomically
from training.optimizers import set_learning_rate
from training.ranks import any_rank, current_ranks

__all__ = [
    "CHECKPOINT",
    "DivergedError",
    "InterruptedRunError",
    "Report",
    "Stage",
    "SteppedStage",
    "is_finished",
    "load_checkpoint",
    "load_ema",
    "save_checkpoint",
    "train",
    "write_atomically",
]

CHECKPOINT = "checkpoint.pt"
Report = Callable[[str], None]


class Trained(Protocol):
    """What the loop needs of every stage."""

    name: str
    steps: int
    modules: nn.ModuleDict
    optimizers: list[torch.optim.Optimizer]
    ema_decay: float

    def ema_warmup(self, step: int) -> int:
        """Give the number of steps since the average last began anew."""

    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure on held-out data with averaged weights."""


class Stage(Trained, Protocol):
    """A stage with one loss: the loop does backward and the optimisers' steps."""

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Give the loss of one batch and what is worth logging."""


@runtime_checkable
class SteppedStage(Trained, Protocol):
    """A stage that takes its steps itself: backward, optimisers, learning rates."""

    def advance(self, step: int) -> dict[str, float]:
        """Take one step and give what is worth logging, `loss` among it; every value must be finite."""


@runtime_checkable
class Remembering(Protocol):
    """What a stage may have beside: state from step to step that is neither a weight nor an optimiser's."""

    def extra_state(self) -> dict[str, Any]:
        """Give it, made of tensors, numbers, texts, lists and dictionaries alone."""

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take it back."""


@runtime_checkable
class OwnAverage(Protocol):
    """What a stage may have beside: fewer modules to average than to train, and a decay rule of its own."""

    averaged: nn.ModuleDict

    def ema_decay_at(self, step: int) -> float:
        """Give the average's decay at a step."""


def find_device(stage: Stage | SteppedStage) -> torch.device:
    """Give the device of a stage's first weight."""
    return next((parameter.device for parameter in stage.modules.parameters()), torch.device("cpu"))


def _count_bytes(state: object) -> int:
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_count_bytes(part) for part in state.values())
    return sum(_count_bytes(part) for part in state) if isinstance(state, list | tuple) else 0


def _check_weights(stage: Stage | SteppedStage, ema: nn.ModuleDict, step: int, folder: Path) -> None:
    """Refuse weights that are no finite numbers: they must not replace a good checkpoint."""
    for kind, modules in (("weight", stage.modules), ("averaged weight", ema)):
        named = list(modules.named_parameters())
        sums = torch.stack([parameter.detach().float().sum() for _, parameter in named])
        if torch.isfinite(sums).all():
            continue
        for name, parameter in named:
            if not torch.isfinite(parameter).all():
                raise DivergedError(
                    f"{stage.name}: {kind} {name} holds numbers that are not finite after step {step}; lower the "
                    f"learning rate; the checkpoint in {folder}, if there is one, is from before"
                )


def save_checkpoint(stage: Stage | SteppedStage, ema: nn.ModuleDict, step: int, folder: Path) -> None:
    """Save everything that a resumed run needs.

    Raises: DivergedError when a weight is not finite; DiskFullError when there is no room. The checkpoint from before
    stays whole in both cases.
    """
    _check_weights(stage, ema, step, folder)
    state: dict[str, Any] = {
        "step": step,
        "modules": stage.modules.state_dict(),
        "ema": ema.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in stage.optimizers],
        "torch_rng": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda_rng"] = torch.cuda.get_rng_state_all()
    if isinstance(stage, Remembering):
        state["extra"] = stage.extra_state()
    path = folder / CHECKPOINT
    check_room(path, _count_bytes(state))
    write_atomically(path, lambda target: _write_state(state, target))


def _write_state(state: dict[str, Any], path: Path) -> None:
    file = PatientFile(path)
    try:
        torch.save(state, file)  # type: ignore[arg-type]  # it needs no more of a file than this
    finally:
        file.close()


def read_checkpoint(folder: Path) -> dict[str, Any]:
    """Read a run's checkpoint into main memory, whatever device it was written on.

    Raises: FileNotFoundError when there is none; DamagedCheckpointError when it can't be read.
    """
    path = folder / CHECKPOINT
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = state["step"], state["modules"], state["ema"], state["optimizers"], state["torch_rng"]
    except FileNotFoundError:
        raise
    except Exception as error:  # torch.load raises whatever its many readers raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedCheckpointError(
            f"{path} can't be read as a checkpoint ({reason}); put a copy of it back, or remove it to begin anew"
        ) from error
    return state


def match_weights(module: nn.Module, saved: Mapping[str, Tensor], path: Path) -> None:
    """Load weights strictly.

    Raises: CheckpointMismatchError that names the first tensor that differs, and both shapes.
    """
    wanted = module.state_dict()
    advice = "use the recipe that it was made with, or another run folder"
    for name, value in wanted.items():
        if name not in saved:
            raise CheckpointMismatchError(f"{path} has no tensor {name}, which is {list(value.shape)} here: {advice}")
        if saved[name].shape != value.shape:
            raise CheckpointMismatchError(
                f"{path}: tensor {name} is {list(saved[name].shape)} in the checkpoint and {list(value.shape)} here: "
                f"{advice}"
            )
    for name, value in saved.items():
        if name not in wanted:
            raise CheckpointMismatchError(
                f"{path} holds a tensor {name} {list(value.shape)} that is not known here: {advice}"
            )
    module.load_state_dict(saved)


def load_checkpoint(stage: Stage | SteppedStage, ema: nn.ModuleDict, folder: Path) -> int:
    """Restore a run and give the step to go on with; 0 when there is no checkpoint.

    Raises: CheckpointMismatchError when it is of another shape; DamagedCheckpointError when it can't be read.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return 0
    state = read_checkpoint(folder)
    match_weights(stage.modules, state["modules"], path)
    match_weights(ema, state["ema"], path)
    if not state.get("restored"):  # a bundle keeps weights alone; its optimisers begin anew
        _load_optimizers(stage, state["optimizers"], path)
    torch.set_rng_state(state["torch_rng"])
    if "cuda_rng" in state and torch.cuda.is_available():
        for index, generator in enumerate(state["cuda_rng"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator, index)
    if isinstance(stage, Remembering) and "extra" in state:
        stage.load_extra_state(state["extra"])
    return int(state["step"])


def _load_optimizers(stage: Stage | SteppedStage, states: list[Any], path: Path) -> None:
    if len(states) != len(stage.optimizers):
        raise CheckpointMismatchError(
            f"{path} holds {len(states)} optimisers, this stage has {len(stage.optimizers)}: "
            "use the recipe that it was made with, or another run folder"
        )
    for index, (optimizer, saved) in enumerate(zip(stage.optimizers, states, strict=True)):
        try:
            optimizer.load_state_dict(saved)
        except (ValueError, KeyError) as error:
            raise CheckpointMismatchError(f"{path}: optimiser {index} has other parameters: {error}") from error


def load_ema(folder: Path) -> dict[str, Tensor]:
    """Read a run's averaged weights.

    Raises: FileNotFoundError when the run has no checkpoint yet; DamagedCheckpointError when it can't be read.
    """
    weights: dict[str, Tensor] = read_checkpoint(folder)["ema"]
    return weights


def is_finished(folder: Path, steps: int) -> bool:
    """Say whether a run has done its steps."""
    return (folder / CHECKPOINT).exists() and int(read_checkpoint(folder)["step"]) >= steps


def _average(stage: Stage | SteppedStage, ema: nn.ModuleDict, step: int) -> None:
    if isinstance(stage, OwnAverage):
        modules, decay = stage.averaged, stage.ema_decay_at(step)
    else:
        modules = stage.modules
        decay = min(stage.ema_decay, 1 - 1 / ((stage.ema_warmup(step) + 1) * 0.1 + 1))
    with torch.no_grad():
        torch._foreach_lerp_(list(ema.parameters()), list(modules.parameters()), 1 - decay)
        for kept, buffer in zip(ema.buffers(), modules.buffers(), strict=True):
            kept.copy_(buffer)


def _time_left(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} left"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min left" if hours < 48 else f"{hours // 24} days {hours % 24} h left"


def _forget_later_records(path: Path, step: int) -> None:
    """Drop what was logged after the checkpoint, because those steps are done again."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        write_atomically(path, lambda target: target.write_text("".join(kept)))


def _take_step(stage: Stage | SteppedStage, step: int, folder: Path) -> dict[str, float]:
    """Do one step of either kind and give its figures, `loss` first.

    Raises: DivergedError when one of them is not finite.
    """
    if isinstance(stage, SteppedStage):
        figures = stage.advance(step)
        rate = ""
        assert "loss" in figures, f"{stage.name}: advance() must give a loss"
        figures = {"loss": figures["loss"], **figures}
    else:
        lr = stage.learning_rate(step)
        rate = f" (learning rate {lr:.2g})"
        set_learning_rate(stage.optimizers, lr)
        loss, more = stage.loss(step)
        figures = {"loss": float(loss.detach()), "lr": lr, **more}
        if torch.isfinite(loss.detach()).all():
            for optimizer in stage.optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for optimizer in stage.optimizers:
                optimizer.step()
    for name, value in figures.items():
        if not math.isfinite(value):
            what = "the loss" if name == "loss" else name
            raise DivergedError(
                f"{stage.name}: {what} became {value} at step {step}{rate}; lower the learning rate; "
                f"the checkpoint in {folder}, if there is one, is from before"
            )
    return figures


def train(
    stage: Stage | SteppedStage,
    folder: Path,
    options: Mapping[str, Any],
    *,
    report: Report = print,
    log_every: int = 100,
    evaluate_every: int = 1000,
    save_every_s: float = 60.0,
    watch: Callable[[Mapping[str, float]], None] | None = None,  # shown every record, too
) -> nn.ModuleDict:
    """Run a stage to its last step, resuming what the folder holds, and give the averaged weights.

    Raises: DivergedError when a loss is not finite; InterruptedRunError after SIGINT or SIGTERM, with a checkpoint
    written; DataError after a bad picture, with a checkpoint written; CheckpointMismatchError, DamagedCheckpointError,
    DiskFullError.
    """
    ranks, device = current_ranks(), find_device(stage)
    averaged = stage.averaged if isinstance(stage, OwnAverage) else stage.modules
    ema = copy.deepcopy(averaged).eval().requires_grad_(False)
    with tell_full_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    first = load_checkpoint(stage, ema, folder)
    if ranks.is_main:
        text = json.dumps(dict(options), indent=2, sort_keys=True)
        write_atomically(folder / "options.json", lambda path: path.write_text(text))
        _forget_later_records(folder / "stats.jsonl", first)
    if first and ranks.is_main:
        report(f"{stage.name}: resumed at step {first} of {stage.steps}")
    started = saved = time.monotonic()
    with hold_signals() as stop:
        for step in range(first, stage.steps):
            try:
                figures = _take_step(stage, step, folder)
            except DataError:
                # stages read before they change anything: what was learnt so far is not lost with a bad picture
                if step > first and ranks.is_main:
                    save_checkpoint(stage, ema, step, folder)
                raise
            done = step + 1
            _average(stage, ema, step)
            last = done == stage.steps
            evaluating = done % evaluate_every == 0 or last
            if done % log_every == 0 or evaluating:
                per_step = (time.monotonic() - started) / (done - first)
                loss, rest = figures.pop("loss"), figures
                record = {"step": done, "loss": loss, "s_per_step": round(per_step, 4), **rest}
                if evaluating:
                    record |= {f"held_{name}": figure for name, figure in stage.evaluate(ema).items()}
                if ranks.is_main:
                    with tell_full_disk(folder), (folder / "stats.jsonl").open("a") as stats:
                        stats.write(json.dumps(record) + "\n")
                    if watch is not None:
                        watch(record)
                    shown = " ".join(f"{k} {v:.4g}" for k, v in record.items() if k not in ("step", "s_per_step"))
                    left = _time_left(per_step * (stage.steps - done))
                    report(f"{stage.name}: {done}/{stage.steps} {shown} · {left}")
            stopped = any_rank(stop.number is not None, device)
            if (last or stopped or time.monotonic() - saved > save_every_s) and ranks.is_main:
                save_checkpoint(stage, ema, done, folder)
                saved = time.monotonic()
            if stopped or last:
                any_rank(False, device)  # wait for the first process to have written
            if stopped and not last:
                cause = f"signal {stop.number}" if stop.number is not None else "a signal to another process"
                raise InterruptedRunError(
                    f"{stage.name}: stopped by {cause} after step {done}; run the same command to go on"
                )
    return ema
