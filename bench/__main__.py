"""Command line of the measurements: run them, print a table, write ``out/bench.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from bench.install import measure_install
from bench.machine import describe_machine
from bench.report import Figure, to_json, to_markdown, write_between_marks

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "frames",
    "service",
    "jobs",
    "install",
    "synthesis",
    "runtimes",
)  # the last two may bring OpenVINO in, which would run the others
OPENVINO = Path(sys.prefix) / "openvino"
"""Where `make bench` installs OpenVINO: beside the environment's packages, not among them."""


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", default="human", help="id of the bundle (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--skip-install", action="store_true", help="do not make a fresh environment for its size")
    parser.add_argument("--out", type=Path, default=Path("out/bench.json"), help="default: %(default)s")
    parser.add_argument(
        "--document",
        action="store_true",
        help="also put the tables into docs/benchmarks.md (for committed figures)",
    )
    arguments = parser.parse_args()
    wanted = set(arguments.only or PARTS) - ({"install"} if arguments.skip_install else set())

    machine = describe_machine()
    figures: list[Figure] = []
    for part in PARTS:
        if part in wanted:
            sys.stderr.write(f"measuring: {part}\n")
            found = _measurers(arguments.model)[part]()
            figures += found
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            # After every part: what was measured is kept when a later part fails.
            arguments.out.write_text(to_json(figures, machine), encoding="utf-8")
            if arguments.document:
                write_between_marks(ROOT / "docs" / "benchmarks.md", part, to_markdown(found, machine))
    sys.stdout.write(to_markdown(figures, machine))


def _measurers(model: str) -> dict[str, Callable[[], list[Figure]]]:
    return {
        "frames": lambda: _measure_frames(model),
        "synthesis": _measure_synthesis,
        "runtimes": lambda: _measure_runtimes(model),
        "service": lambda: _measure_service(model),
        "jobs": lambda: _measure_jobs(model),
        "install": measure_install,
    }


def _measure_frames(model: str) -> list[Figure]:
    from bench.frames import measure_frames
    from model.animator import Animator
    from model.bundle.reader import find_bundle
    from services.settings import load_settings

    settings = load_settings()
    return measure_frames(Animator.from_bundle(find_bundle(settings.bundles_dir, model), ("cpu",), threads=1))


def _measure_runtimes(model: str) -> list[Figure]:
    _bring_openvino()
    from bench.frames import measure_runtimes
    from model.bundle.reader import find_bundle, read_bundle
    from services.settings import load_settings

    return measure_runtimes(read_bundle(find_bundle(load_settings().bundles_dir, model)))


def _bring_openvino() -> None:
    if OPENVINO.is_dir() and str(OPENVINO) not in sys.path:
        sys.path.append(str(OPENVINO))


def _measure_synthesis() -> list[Figure]:
    _bring_openvino()
    from bench.synthesis import measure_synthesis

    return measure_synthesis()


def _measure_service(model: str) -> list[Figure]:
    from bench.service import measure_service
    from cli.demo import find_sample
    from model.animator import Animator
    from model.bundle.reader import find_bundle
    from services.settings import load_settings

    settings = load_settings()
    # The same threads on both sides, or the comparison would measure those.
    animator = Animator.from_bundle(find_bundle(settings.bundles_dir, model), settings.providers, settings.threads)
    return measure_service(settings, animator, find_sample(settings.samples_dir))


def _measure_jobs(model: str) -> list[Figure]:
    from bench.jobs import measure_jobs
    from cli.demo import find_sample
    from model.bundle.reader import find_bundle
    from services.settings import load_settings

    settings = load_settings()
    return measure_jobs(settings, find_bundle(settings.bundles_dir, model), find_sample(settings.samples_dir))


if __name__ == "__main__":
    main()
