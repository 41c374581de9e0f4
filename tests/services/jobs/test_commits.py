"""Writers of one process share commits on SQLite: one sync for many, and no writer hurts another."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from services.errors import AnimatoError, TemporaryError
from services.jobs.contract import AnimationOptions, InputFacts
from services.jobs.store import JobStore

ROOT = Path(__file__).parents[3]
PATIENCE_S = 120.0


class Desk:
    """A job store on SQLite whose commits are counted, and a way to have writers meet in one transaction."""

    def __init__(self, path: Path, commit_batch: int = 64) -> None:
        self.path = path
        self.store = JobStore(f"sqlite:///{path}", commit_batch=commit_batch)
        self.store.migrate()
        self.commits = 0
        sa.event.listen(self.store._writing_engine, "commit", self._count)
        self.pool = ThreadPoolExecutor(32)

    def _count(self, _connection: object) -> None:
        self.commits += 1

    def accept(self, number: int, prompt: str = "smiling") -> str:
        """Accept a job and say whether another connection sees it at once."""
        record, _created = self.store.accept(
            job_id=f"anm_{number:032x}",
            owner="me",
            options=AnimationOptions(prompt=prompt),
            input=InputFacts(),
            seed=1,
            model_id="human",
        )
        assert record.id in self.stored(), "it was answered before it was on disk"
        return record.id

    def accept_together(self, numbers: range) -> list[Future[str]]:
        """Accept all of these while one writer keeps the others waiting, so that they meet."""
        commits = self.store._commits
        assert commits is not None
        with self.store._write() as connection:
            connection.execute(sa.text("SELECT 1"))
            futures = [self.pool.submit(self.accept, number) for number in numbers]
            gate = threading.Event()
            while commits._waiting < len(numbers):
                gate.wait(0.001)
        return futures

    def stored(self) -> set[str]:
        connection = sqlite3.connect(self.path)
        try:
            return {row[0] for row in connection.execute("SELECT id FROM jobs")}
        finally:
            connection.close()

    def close(self) -> None:
        self.pool.shutdown()
        self.store.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "jobs.sqlite3")
    yield desk
    desk.close()


def test_writers_that_wait_share_one_commit(desk: Desk) -> None:
    before = desk.commits
    ids = {future.result(PATIENCE_S) for future in desk.accept_together(range(20))}
    assert ids == desk.stored()
    assert len(ids) == 20
    assert desk.commits - before == 1


def test_a_batch_of_one_shares_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "jobs.sqlite3", commit_batch=1)
    before = desk.commits
    for future in desk.accept_together(range(5)):
        future.result(PATIENCE_S)
    assert desk.commits - before == 6
    desk.close()


@pytest.mark.parametrize("bad", [0, 7, 19])
def test_who_fails_takes_back_its_own_writes_alone(desk: Desk, bad: int) -> None:
    desk.accept(100 + bad)
    commits = desk.store._commits
    assert commits is not None

    def fail() -> None:
        with desk.store._write() as connection:
            connection.execute(sa.text("DELETE FROM jobs"))
            raise RuntimeError("a fault of this writer")

    with desk.store._write() as connection:
        connection.execute(sa.text("SELECT 1"))
        futures: list[Future[object]] = []
        for number in range(20):
            futures.append(desk.pool.submit(fail) if number == bad else desk.pool.submit(desk.accept, number))
            while commits._waiting < len(futures):
                threading.Event().wait(0.001)
    faults = [future.exception(PATIENCE_S) for future in futures]
    assert [number for number, fault in enumerate(faults) if fault is not None] == [bad]
    assert isinstance(faults[bad], RuntimeError)
    assert len(desk.stored()) == 20, "the others' 19 jobs and the one before them"
    desk.accept(999)  # and the next writer finds everything in order


def test_what_was_answered_is_there_when_the_disk_is_full(desk: Desk) -> None:
    """The database may not grow: some writers get in, the others are refused; never a false answer."""

    def limit(connection: sqlite3.Connection, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 20}")

    desk.store._writing_engine.dispose()
    sa.event.listen(desk.store._writing_engine, "connect", limit)
    answered: set[str] = set()
    refused: list[AnimatoError] = []

    def work(first: int) -> None:
        for number in range(first, first + 40):
            try:
                answered.add(desk.accept(number, prompt="smiling " + "x" * 200))
            except AnimatoError as error:
                refused.append(error)

    list(desk.pool.map(work, range(0, 800, 40)))
    assert answered == desk.stored(), "answered and stored are not the same"
    assert answered, "some got in"
    assert {error.code for error in refused} == {"storage-failed"}, "some did not"
    assert all(isinstance(error, TemporaryError) for error in refused)
    with sqlite3.connect(desk.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


CLIENT = """
import sys, threading
from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.store import JobStore
store, lock = JobStore(sys.argv[1]), threading.Lock()
def work():
    while True:
        record, _ = store.accept(job_id=make_job_id(), owner="me", options=AnimationOptions(prompt="smiling"),
                                 input=InputFacts(), seed=1, model_id="human")
        with lock:
            print(record.id, flush=True)
for _ in range(16):
    threading.Thread(target=work).start()
"""


def test_what_was_answered_survives_a_kill(desk: Desk) -> None:
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT, f"sqlite:///{desk.path}"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert client.stdout is not None
    answered = {client.stdout.readline().strip() for _ in range(100)}
    client.send_signal(signal.SIGKILL)
    # What was answered after we looked; the last line may be cut off.
    answered |= {line.strip() for line in client.stdout.read().splitlines() if len(line.strip()) == 36}
    client.wait(PATIENCE_S)
    assert len(answered) >= 100
    assert answered <= desk.stored()
