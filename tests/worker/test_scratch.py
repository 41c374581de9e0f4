"""Folders of jobs: gone after the job, left alone by other workers, mended after a kill."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from worker import scratch
from worker.scratch import Scratch, remove_orphans


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name != ".alive"]


def test_the_next_job_finds_nothing_of_the_last_one(folder: Path) -> None:
    made = Scratch()
    with made.folder() as first:
        (first / "frame").write_bytes(b"x")
    with made.folder() as second:
        assert second == first, "making a folder costs more than emptying it"
        assert files_in(second) == []
        with made.folder() as beside:
            assert beside != second
    made.close()
    assert list(folder.iterdir()) == []


def test_nobody_gets_the_folder_of_a_job_that_failed(folder: Path) -> None:
    made = Scratch()

    def fail() -> Path:
        with made.folder() as own:
            raise ChildProcessError(own)

    with pytest.raises(ChildProcessError) as failed:
        fail()
    assert list(folder.iterdir()) == [], "an ffmpeg that outlived its child may still write there"
    with made.folder() as own:
        assert own != failed.value.args[0]


@pytest.mark.parametrize("rest", ["a folder in the folder", "no folder at all"])
def test_a_folder_that_can_not_be_used_again_is_not(folder: Path, rest: str) -> None:
    made = Scratch()
    with made.folder() as first:
        if rest == "a folder in the folder":
            (first / "deep").mkdir()
    if rest == "no folder at all":
        shutil.rmtree(first)  # as those do who tidy the temporary folder
    with made.folder() as second:
        assert second.is_dir()
        assert files_in(second) == []
        assert list(folder.iterdir()) == [second]


def test_orphans_are_removed_and_the_living_are_not(folder: Path) -> None:
    orphan = folder / f"{scratch.PREFIX}orphan"
    orphan.mkdir()
    (orphan / ".alive").touch()
    made = Scratch()
    with made.folder() as own:
        assert remove_orphans() == 1
        assert list(folder.iterdir()) == [own]
    assert remove_orphans() == 0, "a folder between two jobs is no orphan"
    with made.folder() as again:
        assert again == own


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
    made = Scratch()
    with made.folder() as own:
        assert removed == [1], "the folder was not locked yet"
        (own / "frame").write_bytes(b"x")
    made.close()
    assert list(folder.iterdir()) == []
