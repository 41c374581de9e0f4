"""Who was hit by a fault, and when the job ran again: recovery, seen from outside."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.chaos.client import Away, Client

POLL_S = 0.2


@dataclass
class Hit:
    """A fault that took the ground from under running jobs.

    Args:
        kind: of the fault.
        at_s: ``time.time()`` of the fault.
        attempts: the jobs that it hit, and the attempts in which they were.
    """

    kind: str
    at_s: float
    attempts: dict[str, int]
    recovered_s: dict[str, float] = field(default_factory=dict)

    def notice(self, job_id: str, attempt: int, at_s: float) -> None:
        """Take in that a job was seen in this attempt at this time."""
        known = self.attempts.get(job_id)
        if known is not None and attempt > known and job_id not in self.recovered_s:
            self.recovered_s[job_id] = max(0.0, at_s - self.at_s)


class Watcher:
    """Looks at the running jobs a few times a second.

    A job that was hit has recovered when it is seen running in a later attempt, or has ended in one: what came first.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._hits: list[Hit] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._thread.join()

    def note(self, kind: str, victims: Mapping[str, int]) -> Hit:
        """Remember a fault that has just happened and the jobs that it hit; returns it, to be looked at."""
        hit = Hit(kind, time.time(), dict(victims))
        with self._lock:
            self._hits.append(hit)
        return hit

    def settle(self, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        """Take in how the jobs ended: an end says when it was, however short the last attempt."""
        with self._lock:
            for hit in self._hits:
                for job_id in hit.attempts:
                    job = jobs.get(job_id)
                    if job is not None and job["completed_at"] is not None:
                        ended_s = datetime.fromisoformat(job["completed_at"]).timestamp()
                        known_s = hit.recovered_s.get(job_id)
                        if known_s is None:
                            hit.notice(job_id, job["attempt"], ended_s)

    def recoveries(self) -> dict[str, list[float]]:
        """Return the seconds that jobs needed to run again, by kind of fault."""
        with self._lock:
            found: dict[str, list[float]] = {}
            for hit in self._hits:
                found.setdefault(hit.kind, []).extend(hit.recovered_s.values())
            return found

    def _watch(self) -> None:
        while not self._closing.wait(POLL_S):
            try:
                running = self._client.running()
            except Away:
                continue
            now_s = time.time()
            with self._lock:
                for hit in self._hits:
                    for job_id, attempt in running.items():
                        hit.notice(job_id, attempt, now_s)


def percentile(values: Collection[float], share: float) -> float | None:
    """Return the smallest value that this share of all doesn't exceed; None where there are none."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
