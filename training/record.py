"""RUN/run.json: everything that is needed to repeat a run, written before its first step and after every command.

Recipe with all numbers, program version and commit, PyTorch, device, seeds, the pictures' fingerprint, and the commands
that were given. Must not import: services, worker, cli.
"""

import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from training.errors import DataError
from training.files import write_atomically
from training.stages import read_version

RECORD = "run.json"


def find_commit() -> str | None:
    """Give the program's commit, with "+" where files differ from it; None outside a repository."""
    here = Path(__file__).resolve().parent

    def ask(*words: str) -> str:
        found = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20)
        return found.stdout.strip()

    try:
        changed = ask("status", "--porcelain", "--untracked-files=no", "--", ".")
        return ask("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def find_seeds(numbers: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, int]]:
    """Give every seed of a recipe by its place."""
    for name, value in numbers.items():
        if isinstance(value, Mapping):
            yield from find_seeds(value, f"{path}{name}.")
        elif name.endswith("seed") and isinstance(value, int):
            yield f"{path}{name}", value


def describe_device(device: torch.device) -> str:
    """Name a device: CUDA's with the model, the CPU's with its kind and PyTorch's threads, another one as it is
    called.
    """
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    if device.type != "cpu":
        return str(device)
    return f"cpu {platform.machine()}, {torch.get_num_threads()} thread(s)"


def read_record(folder: Path) -> dict[str, Any]:
    """Read RUN/run.json; empty where there is none.

    Raises: DataError where it is damaged.
    """
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{folder / RECORD} is damaged ({error}); remove it, the stages don't need it") from error
    return found


def write_record(
    folder: Path,
    recipe: Any,  # a recipe's dataclass
    command: str,
    device: torch.device,
    data: Mapping[str, Any] | None = None,  # path, fingerprint, pictures
    options: Mapping[str, Any] | None = None,  # what else was chosen
) -> None:
    """Write RUN/run.json, keeping the list of commands that were given before.

    Raises: DataError where the run was begun with other pictures or another recipe.
    """
    before = read_record(folder)
    numbers = json.loads(json.dumps(dataclasses.asdict(recipe)))
    if before and before["recipe"] != recipe.name:
        raise DataError(
            f"{folder} was begun with the recipe {before['recipe']}, not {recipe.name}; choose another --out"
        )
    known = before.get("data")
    if data and known and known["fingerprint"] != data["fingerprint"]:
        raise DataError(
            f"{folder} was begun with other pictures ({known['path']}, {known['pictures']} of them) than "
            f"{data['path']} ({data['pictures']}) holds now; choose another --out, or put the old pictures back"
        )
    version, commit = read_version(), find_commit()
    entry = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "version": version,
        "commit": commit,
        "torch": torch.__version__,
        "device": describe_device(device),
        "numbers_sha256": hashlib.sha256(json.dumps(numbers, sort_keys=True).encode()).hexdigest(),
    }
    record = {
        "recipe": recipe.name,
        "numbers": numbers,
        "seeds": dict(find_seeds(numbers)),
        "version": version,
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": describe_device(device),
        "data": dict(data) if data else known,
        "options": before.get("options", {}) | dict(options or {}),
        "commands": [*before.get("commands", []), entry],
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    write_atomically(folder / RECORD, lambda path: path.write_text(text, encoding="utf-8"))
