"""The pool that runs the queue's task, with Celery's own loop."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kombu.asynchronous import Hub

from worker.tasks import ListeningPool

# Only ever waited for by a test that fails.
PATIENCE_S = 60.0


class SoundSleeper(Hub):  # type: ignore[misc]  # kombu has no types
    """Celery's loop, but between two rounds it sleeps until it is woken, and not for a second at most."""

    def __init__(self) -> None:
        super().__init__()
        self.rounds = threading.Semaphore(0)
        self.on_tick.add(self.rounds.release)

    def fire_timers(self, **_options: Any) -> float:
        return 10 * PATIENCE_S


@pytest.fixture
def loop() -> Iterator[SoundSleeper]:
    hub = SoundSleeper()
    hub.timer.call_after(3600.0, print)  # else it would not ask how long it may sleep
    ours, theirs = socket.socketpair()
    with ours, theirs:
        hub.add_reader(ours, print)  # else there is nothing that it would sleep for
        thread = threading.Thread(target=hub.run_forever, daemon=True)
        thread.start()
        yield hub
        hub.stop()
        thread.join(PATIENCE_S)
        hub.close()


def test_the_end_of_a_task_wakes_the_loop_once_it_is_counted_as_done(loop: SoundSleeper):
    pool = ListeningPool(limit=1)
    pool.start()
    pool.register_with_event_loop(loop)
    assert loop.rounds.acquire(timeout=PATIENCE_S), "it runs, and sleeps now"
    for _ in range(3):
        done, counted = threading.Event(), threading.Event()
        pool.apply_async(done.wait, callback=lambda _result, counted=counted: counted.wait())
        for step in (done, counted):
            time.sleep(0.05)
            assert not loop.rounds.acquire(blocking=False), "it would find the worker still busy"
            step.set()
        assert loop.rounds.acquire(timeout=PATIENCE_S), "it has slept on"
    pool.stop()


def test_a_pool_without_a_loop_runs_tasks_too():
    pool = ListeningPool(limit=1)
    pool.start()
    assert pool.apply_async(str, callback=lambda _result: None).wait(PATIENCE_S) is None
    pool.stop()
