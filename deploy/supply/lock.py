"""Resolves pyproject.toml into deploy/locks: ``python -m deploy.supply.lock [--upgrade | --check]``.

uv resolves once for all Pythons and systems that the project knows and notes the SHA-256 of every file of each
version that the index offers, so that one lock serves x86-64 and ARM alike. torch is no part of it: its builds differ
by platform and are installed by version (TORCH in the Makefile).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.supply.pins import BUILD, IMAGE, LOCKS, ROOT, Lock, read_pins

_HEADER = """\
# Made by `make lock` from pyproject.toml ({extras}); edit that instead.
# Every version is exact and every file known by its SHA-256: install with `pip install --require-hashes`.
"""


def resolve(lock: Lock, known: Path | None, upgrade: bool) -> str:
    """Return the text of a lock file.

    ``known`` is a lock whose versions win; pins that the file holds already stay where they still fit, unless
    ``upgrade``. Raises: RuntimeError with uv's own words when nothing fits.
    """
    extras = [word for extra in lock.extras for word in ("--extra", extra)]
    command: list[str | Path] = [Path(sys.executable).with_name("uv"), "pip", "compile", "pyproject.toml", *extras]
    command += [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--quiet",
    ]
    # Where an image is built, or a first `make demo` runs, no package's own program does.
    command += [] if lock.name == "development" else ["--only-binary", ":all:"]
    command += [] if lock.image else [str(BUILD.relative_to(ROOT))]
    command += ["--constraint", str(known)] if known else []
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "lock.txt"
        if lock.path.exists() and not upgrade:
            output.write_text(
                lock.path.read_text(encoding="utf-8").split("\n", _HEADER.count("\n"))[-1], encoding="utf-8"
            )
        done = subprocess.run(
            [*command, "--output-file", output], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{lock.name} can't be resolved: {done.stderr.strip()}")
        return _HEADER.format(extras=", ".join(lock.extras)) + output.read_text(encoding="utf-8")


def find_faults(lock: Lock) -> Iterator[str]:
    """Yield, in sentences, where a lock does not give what pyproject.toml asks for. Needs no network.

    Only direct requirements are compared: whether theirs are whole is what installing with --require-hashes tells.
    """
    pins = {pin.name: pin for pin in read_pins(lock.path) if pin.holds(IMAGE)}
    for requirement in requirements(lock.extras):
        pin = pins.get(canonicalize_name(requirement.name))
        if pin is None:
            yield f"{lock.path.name} lacks {requirement.name}, which pyproject.toml asks for. Run `make lock`."
        elif not requirement.specifier.contains(pin.version, prereleases=True):
            yield f"{lock.path.name} has {pin.name} {pin.version}, pyproject.toml wants {requirement}. Run `make lock`."


def requirements(extras: tuple[str, ...]) -> list[Requirement]:
    """Return the base dependencies and those of ``extras``, as pyproject.toml states them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    return [Requirement(line) for line in [*project["dependencies"], *(line for e in extras for line in optional[e])]]


def main(arguments: list[str] | None = None) -> int:
    """Write the locks, or check them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Lock what pyproject.toml asks for, with hashes.")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--upgrade", action="store_true", help="take the newest versions that fit")
    group.add_argument(
        "--check", action="store_true", help="change nothing; fail where a lock is behind pyproject.toml"
    )
    options = parser.parse_args(arguments)
    if options.check:
        faults = [fault for lock in LOCKS for fault in find_faults(lock)]
        sys.stderr.writelines(f"{fault}\n" for fault in faults)
        return 1 if faults else 0
    known = None
    for lock in LOCKS:
        text = resolve(lock, known, options.upgrade)
        # An unchanged file keeps its time, so that make installs nothing anew.
        if not lock.path.exists() or lock.path.read_text(encoding="utf-8") != text:
            lock.path.write_text(text, encoding="utf-8")
        known = known or lock.path
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
