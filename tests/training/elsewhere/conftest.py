"""Where training goes when it does not stay on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tests.training.elsewhere import pretend_device


@pytest.fixture(params=["pretend", "cuda"])
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device that pretends, and a GPU where there is one."""
    if request.param == "pretend":
        with pretend_device.device() as where:
            yield where
    elif torch.cuda.is_available():
        yield torch.device("cuda", 0)
    else:
        pytest.skip("no GPU: training on CUDA was NOT tried")


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
