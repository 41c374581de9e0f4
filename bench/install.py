"""How large an installation without torch is: a fresh environment, measured on disk."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.report import Figure

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = "api,worker,cpu,embedded,cli"


def measure_install() -> list[Figure]:
    """Install the serving extras into a fresh environment and return its size.

    Raises: subprocess.CalledProcessError when pip fails.
    """
    with tempfile.TemporaryDirectory(prefix="animato-install-") as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = str(Path(folder) / "bin" / "python")
        command = [python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[{EXTRAS}]"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        (site,) = (Path(folder) / "lib").glob("python3*/site-packages")
        if (site / "torch").exists():
            raise RuntimeError("the serving extras installed torch")
        sizes = {entry.name: tree_bytes(entry) for entry in site.iterdir()}
    total_mb = sum(sizes.values()) / 2**20
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:4]
    named = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in largest)
    return [Figure(f"installation without torch ({EXTRAS}; largest, in MB: {named})", total_mb, "MB")]


def tree_bytes(path: Path) -> int:
    """Return the bytes that a file or folder takes on disk."""
    if path.is_symlink() or path.is_file():
        return path.lstat().st_blocks * 512
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512 for folder, _, names in os.walk(path) for name in names
    )
