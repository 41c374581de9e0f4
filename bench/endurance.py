"""Memory after many jobs: what the API and a worker with its child hold after the first thousand and after all.

The API accepts them through HTTP, with pictures; the worker runs as many with trivial work (see ``queue_overhead``).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from PIL import Image

from bench.accepts import PICTURE_PX, picture_body, post, running_api, shrink
from bench.processes import PROC, find_roles
from bench.queue_overhead import our_workers
from bench.report import Figure
from services.settings import Settings
from tests.model.tiny_bundle import build_tiny_bundle

FIRST_JOBS = 1000
HANDFUL = 100  # handed in at once, and waited for
STEP_S = 5.0


def measure_api_memory(settings: Settings, sample: Path, jobs: int) -> list[Figure]:
    """Return the resident memory of the API after ``jobs`` accepts, against what it was after the first ones."""
    body = picture_body(shrink(sample, PICTURE_PX))
    accepted, first_jobs, first_mb = 0, 0, 0.0
    with running_api(settings) as api:
        while accepted < jobs:
            accepted += len(post(api, body, STEP_S).answers_ms)
            if not first_jobs and accepted >= min(FIRST_JOBS, jobs // 2):
                first_jobs, first_mb = accepted, _read_resident_mb([api.pid])
        return [_describe("the API", _read_resident_mb([api.pid]), accepted, first_mb, first_jobs, "accepts")]


def measure_worker_memory(jobs: int) -> list[Figure]:
    """Return the resident memory of a worker and its child after ``jobs`` jobs, against that after the first ones."""
    first_jobs = min(FIRST_JOBS, jobs // 2)
    with tempfile.TemporaryDirectory(prefix="animato-bench-") as name:
        folder = Path(name)
        build_tiny_bundle(folder / "bundles" / "tiny")
        picture = folder / "picture.png"
        Image.effect_noise((64, 64), 40).convert("RGB").save(picture)
        with our_workers(folder, picture, 1) as hand_in:
            roles = find_roles()
            first: dict[str, float] = {}
            for begun in range(0, jobs, HANDFUL):
                hand_in(min(HANDFUL, jobs - begun))
                if not first and begun + HANDFUL >= first_jobs:
                    first = {role: _read_resident_mb(roles[role]) for role in ("worker", "inference")}
            return [
                _describe(name, _read_resident_mb(roles[role]), jobs, first[role], first_jobs, "jobs")
                for role, name in (("worker", "the worker"), ("inference", "the inference child"))
            ]


def _describe(who: str, now_mb: float, jobs: int, first_mb: float, first_jobs: int, what: str) -> Figure:
    name = f"memory of {who} after {jobs:,} {what}"
    return Figure(name, now_mb, "MB", first_mb, f"after the first {first_jobs:,}", "flat")


def _read_resident_mb(pids: list[int]) -> float:
    lines = [line for pid in pids for line in (PROC / str(pid) / "status").read_text(encoding="utf-8").splitlines()]
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))
