"""What the house tests know of the tree: its root, its files as git sees them, its Python modules."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("services", "cli", "worker", "model", "training")


@cache
def list_files() -> tuple[Path, ...]:
    """Return every file that git tracks or would track, relative to the root (outside git: every file)."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if done.returncode == 0:
        found = [Path(name) for name in done.stdout.decode().split("\0") if name]
    else:  # an unpacked archive
        hidden = {".git", ".venv", "__pycache__", "out", "runs"}
        found = [p.relative_to(ROOT) for p in ROOT.rglob("*") if p.is_file() and not hidden & set(p.parts)]
    return tuple(sorted(path for path in found if (ROOT / path).is_file()))


def list_python() -> list[Path]:
    """Return every Python file, relative to the root."""
    return [path for path in list_files() if path.suffix == ".py"]


def list_documents() -> list[Path]:
    """Return every Markdown file that people read as documentation, relative to the root."""
    return [path for path in list_files() if path.suffix == ".md" and path.parts[0] in {"docs", "README.md"}]


def read_text(path: Path) -> str | None:
    """Return a file's text, or None for a binary file."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None
