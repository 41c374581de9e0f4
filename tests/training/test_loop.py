import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from training.errors import CheckpointMismatchError, DamagedCheckpointError, DiskFullError, TrainingError
from training.loop import (
    CHECKPOINT,
    DivergedError,
    InterruptedRunError,
    SteppedStage,
    is_finished,
    load_checkpoint,
    load_ema,
    train,
)
from training.optimizers import build_optimizers, schedule


class LineStage:
    """Fits a small network; its noise comes from torch's own generator, its data from the step."""

    name = "line"

    def __init__(self, steps=30, stop_at=None, bad_at=None):
        torch.manual_seed(11)
        self.modules = nn.ModuleDict({"net": nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6))})
        self.optimizers = build_optimizers([self.modules], 1e-2)
        self.steps, self.stop_at, self.bad_at, self.ema_decay = steps, stop_at, bad_at, 0.9

    def learning_rate(self, step):
        return 1e-2 * schedule(step, self.steps, 0.5, warmup=5)

    def ema_warmup(self, step):
        return step

    def loss(self, step):
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((4, 6), dtype=np.float32))
        loss = (self.modules["net"](x + 0.1 * torch.randn(4, 6)) - x).square().mean()
        return (loss * float("nan") if step == self.bad_at else loss), {}

    def evaluate(self, ema):
        return {"norm": float(sum(p.norm() for p in ema.parameters()))}


def weights(stage):
    return torch.cat([p.detach().flatten() for p in stage.modules.parameters()])


class PairStage:
    """Two networks with an optimiser each, and a number that it remembers from step to step."""

    name = "pair"

    def __init__(self, steps=20, stop_at=None, bad_at=None, hidden=8):
        torch.manual_seed(3)
        make = lambda: nn.Sequential(nn.Linear(6, hidden), nn.Tanh(), nn.Linear(hidden, 6))  # noqa: E731
        self.modules = nn.ModuleDict({"first": make(), "second": make()})
        self.averaged = nn.ModuleDict({"first": self.modules["first"]})
        self.optimizers = [torch.optim.Adam(module.parameters(), 1e-2) for module in self.modules.values()]
        self.steps, self.stop_at, self.bad_at, self.ema_decay, self.gain = steps, stop_at, bad_at, 0.9, 1.0

    def ema_warmup(self, step):
        return step

    def ema_decay_at(self, step):
        return 0.5

    def advance(self, step):
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        x = torch.from_numpy(np.random.default_rng(step).standard_normal((4, 6), dtype=np.float32))
        losses = {}
        for module, optimizer, (name, sign) in zip(
            self.modules.values(), self.optimizers, (("loss", 1), ("other", -1)), strict=True
        ):
            optimizer.zero_grad()
            loss = (module(x) - sign * self.gain * x).square().mean()
            loss.backward()
            optimizer.step()
            losses[name] = float(loss.detach())
        self.gain *= 1.01
        return losses | ({"other": float("inf")} if step == self.bad_at else {})

    def extra_state(self):
        return {"gain": self.gain, "history": [torch.tensor(self.gain)]}

    def load_extra_state(self, state):
        self.gain = state["gain"]

    def evaluate(self, ema):
        return {"norm": float(sum(p.norm() for p in ema.parameters()))}


def quiet(_):
    pass


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole = LineStage()
    ema = train(whole, tmp_path / "whole", {}, report=quiet)
    cut = LineStage(stop_at=12)
    with pytest.raises(InterruptedRunError, match="after step 13"):
        train(cut, tmp_path / "cut", {}, report=quiet)
    torch.manual_seed(999)  # another process would have another generator
    resumed = LineStage()
    ema_resumed = train(resumed, tmp_path / "cut", {}, report=quiet)
    assert torch.equal(weights(whole), weights(resumed))
    for name, value in ema.state_dict().items():
        assert torch.equal(value, ema_resumed.state_dict()[name]), name
    assert is_finished(tmp_path / "cut", 30)
    assert set(load_ema(tmp_path / "cut")) == set(ema.state_dict())


def test_the_run_folder_tells_what_happened(tmp_path):
    train(LineStage(), tmp_path, {"lr": 1e-2}, report=quiet, log_every=10, evaluate_every=20)
    assert json.loads((tmp_path / "options.json").read_text()) == {"lr": 1e-2}
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [10, 20, 30]
    assert "held_norm" in records[1]
    assert "held_norm" not in records[0]
    assert not list(tmp_path.glob("*.part"))


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_checkpoint(tmp_path):
    with pytest.raises(InterruptedRunError):
        train(LineStage(stop_at=5), tmp_path, {}, report=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(DivergedError, match=r"step 9 .*lower the learning rate"):
        train(LineStage(bad_at=9), tmp_path, {}, report=quiet)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_from_outside_leaves_a_good_checkpoint(tmp_path, number):
    program = textwrap.dedent(
        f"""
        import sys, time
        sys.path[:0] = {[str(p) for p in sys.path if p]!r}
        import importlib.util
        spec = importlib.util.spec_from_file_location("stage", {__file__!r})
        module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)
        from pathlib import Path
        stage = module.LineStage(steps=10**6)
        slow = stage.loss
        stage.loss = lambda step: (time.sleep(0.01), slow(step))[1]
        from training.loop import train
        train(stage, Path({str(tmp_path)!r}), {{}}, report=lambda s: print(s, flush=True), log_every=5)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert "line: 5/" in child.stdout.readline()
    child.send_signal(number)
    _, errors = child.communicate(timeout=600)  # the whole run would take hours
    assert child.returncode != 0
    assert f"stopped by signal {int(number)}" in errors
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] >= 5
    assert not list(tmp_path.glob("*.part"))


def test_a_stepped_stage_with_memory_resumes_bit_for_bit(tmp_path):
    whole = PairStage()
    assert isinstance(whole, SteppedStage)
    ema = train(whole, tmp_path / "whole", {}, report=quiet)
    with pytest.raises(InterruptedRunError):
        train(PairStage(stop_at=7), tmp_path / "cut", {}, report=quiet)
    resumed = PairStage()
    again = train(resumed, tmp_path / "cut", {}, report=quiet)
    assert torch.equal(weights(whole), weights(resumed))
    assert whole.gain == resumed.gain
    assert set(ema.state_dict()) == {name for name in whole.modules.state_dict() if name.startswith("first.")}
    for name, value in ema.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_stages_own_decay_rules_its_average(tmp_path):
    stage = PairStage(steps=1)
    before = [p.detach().clone() for p in stage.averaged.parameters()]
    ema = train(stage, tmp_path, {}, report=quiet)
    for kept, old, new in zip(ema.parameters(), before, stage.averaged.parameters(), strict=True):
        assert torch.allclose(kept, (old + new) / 2, atol=1e-7)


def test_any_figure_of_a_step_must_be_finite(tmp_path):
    with pytest.raises(DivergedError, match=r"pair: other became inf at step 4"):
        train(PairStage(bad_at=4), tmp_path, {}, report=quiet)
    assert not (tmp_path / CHECKPOINT).exists()


def test_weights_that_are_no_numbers_never_reach_the_checkpoint(tmp_path):
    with pytest.raises(InterruptedRunError):
        train(PairStage(stop_at=3), tmp_path, {}, report=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    stage = PairStage(stop_at=8)
    step = stage.advance

    def poison(number):
        figures = step(number)
        if number == 8:  # the step's own losses were still fine
            with torch.no_grad():
                stage.modules["second"][2].bias[1] = float("nan")
        return figures | {"loss": 0.5, "other": 0.5}

    stage.advance = poison
    with pytest.raises(DivergedError, match=r"weight second\.2\.bias holds numbers that are not finite after step"):
        train(stage, tmp_path, {}, report=quiet)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_disk_that_fills_up_leaves_the_old_checkpoint(tmp_path):
    with pytest.raises(InterruptedRunError):
        train(PairStage(stop_at=3), tmp_path, {}, report=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    # the kernel's own full device: every byte written to it meets ENOSPC
    (tmp_path / (CHECKPOINT + ".part")).symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match=r"checkpoint\.pt"):
        train(PairStage(stop_at=8), tmp_path, {}, report=quiet)
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob("*.part"))
    assert load_checkpoint(PairStage(), PairStage().averaged, tmp_path) == 4


def test_a_write_that_breaks_off_in_the_middle_leaves_the_old_checkpoint(tmp_path):
    with pytest.raises(InterruptedRunError):
        train(PairStage(stop_at=3), tmp_path, {}, report=quiet)
    before = (tmp_path / CHECKPOINT).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(DiskFullError, match=r"checkpoint\.pt"):
            train(PairStage(stop_at=8), tmp_path, {}, report=quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / CHECKPOINT).read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_no_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("training.files.shutil.disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(DiskFullError, match=r"checkpoint\.pt needs 0 MB and the disk has 0 MB left; nothing was"):
        train(PairStage(steps=2), tmp_path, {}, report=quiet)
    assert not list(tmp_path.glob("checkpoint*"))


def test_a_checkpoint_of_another_shape_is_named_with_both_shapes(tmp_path):
    train(PairStage(steps=2), tmp_path, {"made": "first"}, report=quiet)
    with pytest.raises(CheckpointMismatchError, match=r"first\.0\.weight is \[8, 6\] in the checkpoint and \[5, 6\]"):
        train(PairStage(hidden=5), tmp_path, {"made": "second"}, report=quiet)
    assert json.loads((tmp_path / "options.json").read_text()) == {"made": "first"}
    with pytest.raises(CheckpointMismatchError, match=r"has no tensor net\.0\.weight"):
        train(LineStage(), tmp_path, {}, report=quiet)


def test_a_damaged_checkpoint_is_named(tmp_path):
    train(PairStage(steps=2), tmp_path, {}, report=quiet)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(DamagedCheckpointError, match=r"checkpoint\.pt can't be read"):
        train(PairStage(), tmp_path, {}, report=quiet)
    assert issubclass(DamagedCheckpointError, TrainingError)


def test_records_of_steps_that_are_done_again_are_dropped(tmp_path):
    with pytest.raises(InterruptedRunError):
        train(PairStage(stop_at=5), tmp_path, {}, report=quiet, log_every=2)
    stats = tmp_path / "stats.jsonl"
    stats.write_text(stats.read_text() + '{"step": 8, "loss": 1.0}\n{"step": 10, "lo')  # died after the checkpoint
    train(PairStage(steps=8), tmp_path, {}, report=quiet, log_every=2)
    assert [json.loads(line)["step"] for line in stats.read_text().splitlines()] == [2, 4, 6, 8]


def test_a_stage_restored_from_a_bundle_trains_on_with_new_optimisers(tmp_path):
    train(LineStage(steps=10), tmp_path, {}, report=quiet)
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    state["optimizers"] = []
    torch.save(state, tmp_path / CHECKPOINT)
    with pytest.raises(CheckpointMismatchError, match="0 optimisers"):
        load_checkpoint(LineStage(steps=12), LineStage().modules, tmp_path)

    torch.save(state | {"restored": True}, tmp_path / CHECKPOINT)
    stage = LineStage(steps=12)
    assert load_checkpoint(stage, LineStage().modules, tmp_path) == 10
    assert torch.equal(weights(stage), torch.cat([p.flatten() for p in state["modules"].values()]))
    train(LineStage(steps=12), tmp_path, {}, report=quiet)
    assert is_finished(tmp_path, 12)
