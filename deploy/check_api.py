"""Health check of the API's container: its ``/readyz`` must say that database and object store answer.

``/readyz`` also wants a worker. Here that is left out: an API without workers still accepts jobs and keeps them safe,
and its container is not the one to blame. Standard library only: it runs every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from typing import Any


def find_faults(readiness: dict[str, Any]) -> list[str]:
    """Return what is required and missing, the workers apart."""
    return [
        f"{name}: {check['detail']}"
        for name, check in readiness["checks"].items()
        if check["required"] and not check["ok"] and name != "worker"
    ]


def main() -> int:
    """Return 0 when the API can do its part, 1 with the reason otherwise."""
    url = f"http://127.0.0.1:{os.environ.get('ANIMATO_PORT', '8000')}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=8) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:  # 503 carries the same document
        body = error.read()
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    try:
        faults = find_faults(json.loads(body))
    except (ValueError, KeyError, AttributeError):
        faults = [f"{url} answers {body[:500]!r}"]
    if faults:
        sys.stderr.write("; ".join(faults) + "\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
