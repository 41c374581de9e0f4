"""Foreign checkpoints, damaged and hostile: read as data or refused in a sentence; nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from tests.fuzz.mutants import blamed, how_many, make_mutants
from tests.training.checkpoints.published_stylegan2 import Generator, as_rosinality
from training.checkpoints.formats import open_contents
from training.errors import TrainingError

HANGING_S = 120.0


class Run:
    """Pickles as a command for the shell."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.fixture(scope="module")
def mark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that only code from inside a checkpoint would make."""
    return tmp_path_factory.mktemp("mark") / "ran"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, mark: Path) -> dict[str, bytes]:
    state = as_rosinality(Generator().state_dict())
    few = {name: tensor.clone() for name, tensor in list(state.items())[:4]}
    path = tmp_path_factory.mktemp("corpus") / "file.pt"
    torch.save({"g_ema": state, "latent_avg": torch.zeros(8)}, path)
    zipped = path.read_bytes()
    torch.save({"g_ema": few}, path, _use_new_zipfile_serialization=False)
    hostile = {"g_ema": Run(f"touch '{mark}'"), "few": OrderedDict(a=[1, 2.5, "text", None])}
    return {
        "legacy": path.read_bytes(),
        "safetensors": save(few),
        "zip": zipped,
        **{f"pickle-{protocol}": pickle.dumps(hostile, protocol) for protocol in (2, 4, 5)},
        "plain": pickle.dumps({"g_ema": {"weight": [1.0, 2.0]}, "names": {"a", "b"}, "n": 2**70}),
    }


@contextmanager
def not_for_ever() -> Iterator[None]:
    """End the whole test process where a reader does not come back: nothing else stops native code."""
    watch = threading.Timer(HANGING_S, os.abort)
    watch.start()
    try:
        yield
    finally:
        watch.cancel()


def test_damaged_checkpoints_are_read_or_refused_and_never_run(
    tmp_path: Path, corpus: dict[str, bytes], mark: Path
) -> None:
    path, refused = tmp_path / "file.pt", 0
    for mutant in make_mutants(corpus, how_many(350)):
        path.write_bytes(mutant.data)
        with blamed(mutant), not_for_ever():
            try:
                open_contents(path)
            except TrainingError as error:
                refused += 1
                assert str(path) in str(error)  # noqa: PT017 - one of two good ends
            assert not mark.exists(), "code from the file was run"
    assert refused


def test_the_hostile_ones_would_run_elsewhere(corpus: dict[str, bytes], mark: Path) -> None:
    # Else the test above shows nothing.
    pickle.loads(corpus["pickle-4"])
    assert mark.exists()
    mark.unlink()
