"""Command line of what the queue is measured by: accepts a second, the cost of a job, memory after many jobs.

``python -m bench.reliability`` prints a table and writes ``out/bench-reliability.json``. What faults do is measured by
``make chaos``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.machine import describe_machine
from bench.report import Figure, to_json, to_markdown, write_between_marks
from services.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.reliability", description=__doc__)
    parser.add_argument("--only", choices=_PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--jobs", type=int, default=10_000, help="after so many memory is read; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/bench-reliability.json"), help="default: %(default)s")
    parser.add_argument("--document", action="store_true", help="also put the tables into docs/reliability.md")
    arguments = parser.parse_args()

    machine = describe_machine()
    figures: list[Figure] = []
    for part, measure in _PARTS.items():
        if arguments.only and part not in arguments.only:
            continue
        sys.stderr.write(f"measuring: {part}\n")
        found = measure(arguments.jobs)
        figures += found
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        # After every part: what was measured is kept when a later part fails.
        arguments.out.write_text(to_json(figures, machine), encoding="utf-8")
        if arguments.document:
            # Each part between its own marks: what is not measured now keeps the figures that it has.
            write_between_marks(ROOT / "docs" / "reliability.md", part, to_markdown(found, machine))
    sys.stdout.write(to_markdown(figures, machine))


def _accepts(_jobs: int) -> list[Figure]:
    from bench.accepts import measure_accepts
    from cli.demo import find_sample

    settings = load_settings()
    return measure_accepts(settings, find_sample(settings.samples_dir))


def _queue(_jobs: int) -> list[Figure]:
    from bench.queue_overhead import measure_queue_overhead

    return measure_queue_overhead()


def _api_memory(jobs: int) -> list[Figure]:
    from bench.endurance import measure_api_memory
    from cli.demo import find_sample

    settings = load_settings()
    return measure_api_memory(settings, find_sample(settings.samples_dir), jobs)


def _worker_memory(jobs: int) -> list[Figure]:
    from bench.endurance import measure_worker_memory

    return measure_worker_memory(jobs)


_PARTS: dict[str, Callable[[int], list[Figure]]] = {
    "accepts": _accepts,
    "queue": _queue,
    "api-memory": _api_memory,
    "worker-memory": _worker_memory,
}


if __name__ == "__main__":
    main()
