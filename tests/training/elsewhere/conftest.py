"""Where training goes when it does not stay on the CPU: `ELSEWHERE=pretend|cuda pytest tests/training/elsewhere`.

In a process of its own (tests/training/test_elsewhere.py starts it): torch's autograd engine counts its devices once,
with the first gradient, and what else runs in the process would see the device that only pretends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from tests.training.elsewhere import pretend_device

WHERE = os.environ.get("ELSEWHERE", "")
collect_ignore_glob = [] if WHERE else ["test_*.py"]


@pytest.fixture
def device() -> Iterator[torch.device]:
    """A device that pretends, or a GPU."""
    if WHERE == "pretend":
        with pretend_device.device() as where:
            yield where
    else:
        yield torch.device(WHERE, 0)


@pytest.fixture
def where_trained(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The kind of device that each stage had its weights on."""
    from training import loop

    found: dict[str, str] = {}
    find = loop.find_device

    def note(stage: loop.Stage | loop.SteppedStage) -> torch.device:
        where = find(stage)
        found[stage.name] = where.type
        return where

    monkeypatch.setattr(loop, "find_device", note)
    return found
