"""The judge: what became of every accepted job, by what the service says and what it serves."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.client import Accepted, Away, Client, Ledger
from tests.chaos.orders import DEADLY

ENDS = frozenset({"succeeded", "failed", "canceled", "expired"})
AWAY_PATIENCE_S = 60.0
# What must never change once a job has ended.
LASTING = ("status", "attempt", "completed_at", "output", "error")

Job = Mapping[str, Any]


@dataclass
class Verdict:
    """Ids of jobs by what became of them; sentences in ``why``."""

    accepted: int = 0
    succeeded: list[str] = field(default_factory=list)
    failed_by_design: list[str] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    innocent_failures: list[str] = field(default_factory=list)
    why: list[str] = field(default_factory=list)

    def enter(self, column: list[str], job_id: str, why: str) -> None:
        """Enter a job that something is wrong with."""
        column.append(job_id)
        self.why.append(f"{job_id}: {why}")


def read_jobs(client: Client) -> dict[str, Job]:
    """Return every job that the service knows, by id; waits for an API that is away. Raises: Away."""
    ends_s = time.monotonic() + AWAY_PATIENCE_S
    while True:
        try:
            return {job["id"]: job for job in client.every_job()}
        except Away:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.5)


def judge(
    ledger: Ledger,
    jobs: Mapping[str, Job],
    earlier: Mapping[str, Job],
    films: Mapping[str, bytes],
    log_lines: Iterable[str],
    canceled: Collection[str] = (),
    told: Mapping[str, Mapping[str, str]] | None = None,
) -> Verdict:
    """Return what became of every accepted job.

    Args:
        ledger: what the clients were told.
        jobs: every job of the service, at the end.
        earlier: the same, some time before: who had ended then must not have changed.
        films: the bytes that the service serves for each succeeded job.
        log_lines: the workers' logs: who made a result visible.
        canceled: jobs whose clients asked for their end.
        told: what a receiver of webhooks was told: the kind of each event, by job and event id.
    """
    verdict = Verdict(accepted=len(ledger.accepted))
    for taken in ledger.accepted.values():
        _judge_job(verdict, taken, jobs.get(taken.id), films, taken.id in canceled)
        if "webhook" in taken.order.body:
            _judge_webhooks(verdict, jobs.get(taken.id), dict((told or {}).get(taken.id, {})))
    for key in ledger.two_ids:
        verdict.enter(verdict.duplicated, key, "one key was answered with two jobs")
    for key, count in Counter(job["metadata"].get("chaos") for job in jobs.values()).items():
        if count > 1:
            verdict.enter(verdict.duplicated, str(key), f"one key made {count} jobs")
    for job_id, before in earlier.items():
        if before["status"] in ENDS and _lasting(before) != _lasting(jobs.get(job_id)):
            verdict.enter(
                verdict.duplicated, job_id, f"ended twice: {_lasting(before)}, then {_lasting(jobs.get(job_id))}"
            )
    for job_id, count in count_successes(log_lines).items():
        if count > 1:
            verdict.enter(verdict.duplicated, job_id, f"{count} workers made a result visible")
    return verdict


def _judge_job(verdict: Verdict, taken: Accepted, job: Job | None, films: Mapping[str, bytes], asked_end: bool) -> None:
    if job is None:
        verdict.enter(verdict.lost, taken.id, "accepted, and unknown now")
        return
    status, deadly = job["status"], taken.order.kind in DEADLY
    if status == "succeeded":
        film = films.get(taken.id, b"")
        if hashlib.sha256(film).hexdigest() != job["output"]["sha256"] or len(film) != job["output"]["bytes"]:
            verdict.enter(verdict.lost, taken.id, f"succeeded, but its film is not there ({len(film)} bytes)")
        elif deadly:
            verdict.enter(verdict.lost, taken.id, "it kills whoever runs it and succeeded all the same: nobody ran it")
        else:
            verdict.succeeded.append(taken.id)
    elif status == "canceled" and asked_end:
        verdict.canceled.append(taken.id)
    elif status == "failed" and deadly:
        if job["error"]["code"] == "worker-lost" and job["attempt"] == 3:
            verdict.failed_by_design.append(taken.id)
        else:
            told = f"it failed otherwise than promised: {job['error']['code']} in attempt {job['attempt']}"
            verdict.enter(verdict.innocent_failures, taken.id, told)
    elif status in ENDS:
        verdict.enter(verdict.innocent_failures, taken.id, f"{status} in attempt {job['attempt']}: {job['error']}")
    else:
        verdict.enter(verdict.lost, taken.id, f"accepted, and still {status}")


def _judge_webhooks(verdict: Verdict, job: Job | None, events: Mapping[str, str]) -> None:
    if job is None:
        return  # lost already
    if not events:
        verdict.enter(verdict.lost, job["id"], "nobody was told of its end")
    if len(events) > 1:
        verdict.enter(
            verdict.duplicated, job["id"], f"its end was told under {len(events)} ids: {sorted(events.values())}"
        )
    for kind in events.values():
        if kind != f"animation.{job['status']}":
            verdict.enter(verdict.duplicated, job["id"], f"{kind} was told, and it shows {job['status']}")


def _lasting(job: Job | None) -> dict[str, Any]:
    return {} if job is None else {name: job[name] for name in LASTING}


def count_successes(log_lines: Iterable[str]) -> Counter[str]:
    """Return how often a worker said that it made a job's result visible, by job."""
    found: Counter[str] = Counter()
    for line in log_lines:
        if '"job_left"' not in line:
            continue
        try:
            event = json.loads(line)
        except ValueError:
            continue  # cut off by a kill
        if event.get("event") == "job_left" and event.get("status") == "succeeded":
            found[event["job_id"]] += 1
    return found


def read_lines(logs: Iterable[Path]) -> Iterable[str]:
    """Yield every line of these logs."""
    for log in logs:
        with log.open(errors="replace") as lines:
            yield from lines


def fetch_films(client: Client, jobs: Mapping[str, Job]) -> dict[str, bytes]:
    """Return the film of every succeeded job as its URL serves it; an API that is away is asked again. Raises: Away."""
    films = {}
    for job_id, job in jobs.items():
        if job["status"] == "succeeded":
            films[job_id] = _fetch(client, job["output"]["url"])
    return films


def _fetch(client: Client, path: str) -> bytes:
    ends_s = time.monotonic() + AWAY_PATIENCE_S
    while True:
        try:
            return client.fetch(path)
        except Away:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.5)
