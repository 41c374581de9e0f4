"""Opens bundles as the inference child does: ``python -m tests.fuzz.bundle_opener``, one directory a line on stdin.

A program of its own, so that a graph on which the runtime dies takes no test with it. Answers each directory with one
line of JSON: {"outcome": "opened" | a code of BundleError or ModelError | "escaped", "said": …}.
"""

from __future__ import annotations

import json
import resource
import sys
import traceback
from pathlib import Path

from model.animator import Animator
from model.errors import ModelError

MOST_MEMORY_BYTES = 4 << 30


def open_bundle(directory: Path) -> dict[str, str]:
    """Open and run every graph once."""
    try:
        Animator.from_bundle(directory, ("cpu",), threads=1).warm_up(batch_size=1)
    except ModelError as error:
        return {"outcome": error.code, "said": str(error), "kind": type(error).__name__}
    except Exception:  # noqa: BLE001 - what no ModelError says is what is looked for
        return {"outcome": "escaped", "said": traceback.format_exc()}
    return {"outcome": "opened", "said": ""}


def main() -> None:
    """Answer until the end of the input."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    for line in sys.stdin:
        print(json.dumps(open_bundle(Path(line.rstrip("\n")))), flush=True)


if __name__ == "__main__":
    main()
