import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from training.loop import CHECKPOINT, DivergedError, InterruptedRunError, is_finished, load_ema, train
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
    started = time.monotonic()
    _, errors = child.communicate(timeout=60)
    assert child.returncode != 0
    assert f"stopped by signal {int(number)}" in errors
    assert time.monotonic() - started < 30
    state = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert state["step"] >= 5
    assert not list(tmp_path.glob("*.part"))
