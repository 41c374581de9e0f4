"""Health check of a worker's container: its last heartbeat, as its own metrics tell it, must be fresh.

A process that merely runs is not enough: the heartbeat is written by the loop that claims jobs.
Standard library only: it runs every few seconds.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.request

HEARTBEAT = "animation_worker_last_heartbeat_timestamp_seconds"
MAX_AGE_S = 45.0


def read_heartbeat(metrics: str) -> float | None:
    """Return the newest heartbeat of a Prometheus exposition, in Unix seconds, or None where it has none."""
    samples = [line.rsplit(" ", 1)[1] for line in metrics.splitlines() if line.startswith(HEARTBEAT)]
    return max((float(sample) for sample in samples), default=None)


def main() -> int:
    """Return 0 when the heartbeat is fresh, 1 with the reason otherwise."""
    url = f"http://127.0.0.1:{os.environ.get('ANIMATO_WORKER_METRICS_PORT', '9100')}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=8) as answer:
            heartbeat = read_heartbeat(answer.read().decode())
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    age_s = time.time() - (heartbeat or 0.0)
    if age_s > MAX_AGE_S:
        sys.stderr.write(f"last heartbeat {age_s:.0f} s ago, more than {MAX_AGE_S:.0f} s\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
