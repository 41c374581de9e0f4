"""Folders of jobs: gone after the job, left alone by other workers, mended after a kill."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from worker import scratch
from worker.scratch import job_scratch, remove_orphans


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_ends_with_its_job(folder: Path) -> None:
    with job_scratch() as own:
        (own / "frame").write_bytes(b"x")
        assert list(folder.iterdir()) == [own]
    assert list(folder.iterdir()) == []


def test_orphans_are_removed_and_the_living_are_not(folder: Path) -> None:
    orphan = folder / f"{scratch.PREFIX}orphan"
    orphan.mkdir()
    (orphan / ".alive").touch()
    with job_scratch() as own:
        assert remove_orphans() == 1
        assert list(folder.iterdir()) == [own]


def test_a_worker_that_starts_between_making_and_locking_does_no_harm(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = scratch.fcntl.flock
    removed: list[int] = []

    def start_another_worker_first(*args: Any) -> None:
        monkeypatch.setattr(scratch.fcntl, "flock", flock)
        removed.append(remove_orphans())
        flock(*args)

    monkeypatch.setattr(scratch.fcntl, "flock", start_another_worker_first)
    with job_scratch() as own:
        assert removed == [1], "the folder was not locked yet"
        (own / "frame").write_bytes(b"x")
    assert list(folder.iterdir()) == []
