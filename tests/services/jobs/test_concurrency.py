"""Many threads in many processes, one table: every job is claimed once and ended once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.store import JobStore

ROOT = Path(__file__).parents[3]
JOBS = 200
PROCESSES = 4
THREADS = 2

# Each thread claims until nothing is left; every fifth job is given back once, as a worker that shuts down does. The
# first claims come before anybody goes on, so that no process finds everything done by quicker ones.
WORKER = f"""
import json, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
from services.jobs import database
from services.jobs.store import JobStore
from services.jobs.contract import OutputFacts
database.BUSY_TIMEOUT_S = 600.0  # this is about who gets what, not about how long a loaded machine takes
store = JobStore(sys.argv[1])
store.counts()
claims, lock = [], threading.Lock()
names = [f"{{os.getpid()}}-{{number}}" for number in range({THREADS})]
first = {{name: store.claim(name, 3600) for name in names}}
print("ready", flush=True)
sys.stdin.readline()

def work(name):
    lease = first[name]
    while lease is not None:
        number = int(lease.record.options.metadata["number"])
        with lock:
            claims.append((number, lease.record.revision))
        if number % 5 == 0 and lease.record.revision == 2:
            store.drain(lease)
            lease = store.claim(name, 3600)
            continue
        store.report(lease, progress=0.5)
        output = OutputFacts(key="k", format="mp4", width=1, height=1, fps=1, frames=1, bytes=1, sha256=name)
        store.succeed(lease, output, None, {{}}, lease.expires_at)
        lease = store.claim(name, 3600)

with ThreadPoolExecutor({THREADS}) as pool:
    list(pool.map(work, names))
print(json.dumps(claims))
"""


@pytest.mark.timeout(2000)  # seconds on a free machine, minutes on one that trains a model meanwhile
def test_every_job_is_claimed_once_and_ends_once(database_url: str) -> None:
    store = JobStore(database_url)
    store.migrate()
    made = []
    for number in range(JOBS):
        record, _ = store.accept(
            job_id=make_job_id(),
            owner="me",
            options=AnimationOptions(prompt="smiling", metadata={"number": str(number)}),
            input=InputFacts(),
            seed=number,
            model_id="human",
        )
        made.append(record.id)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, database_url],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    answers = [_finish(child) for child in children]
    claims = Counter(tuple(claim) for answer in answers for claim in answer)
    # revision 2 is the first claim of a job, revision 4 the claim after it was drained
    expected = {(number, 2) for number in range(JOBS)} | {(number, 4) for number in range(0, JOBS, 5)}
    assert claims == Counter(dict.fromkeys(expected, 1))
    assert all(len(answer) >= THREADS for answer in answers), "every thread of every process took part"
    assert store.counts()["succeeded"] == JOBS
    ended = [store.get(job_id) for job_id in made]
    assert {record.attempt for record in ended if record} == {1}
    store.close()


def _finish(child: subprocess.Popen[str]) -> list[Any]:
    out, err = child.communicate(timeout=1800)
    assert child.returncode == 0, err
    answer: list[Any] = json.loads(out)
    return answer
