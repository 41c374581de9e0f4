"""``python -m tests.worker.slow_store``: the real worker on an object store that a test can keep waiting.

Storing a job's film waits as long as there is a file ``DATA_DIR/hold/JOB``, and is refused when that file says so.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from services.errors import TemporaryError
from services.settings import load_settings
from services.storage import ObjectStore, job_of
from worker import app

REFUSE = "refuse"


def hold_of(data_dir: Path, job_id: str) -> Path:
    """Return the file that holds up the storing of this job."""
    return data_dir / "hold" / job_id


def main() -> int:
    """Be a worker."""
    data_dir = load_settings().data_dir
    put_all = ObjectStore.put_all

    def wait_and_put(store: ObjectStore, objects: Iterable[tuple[Any, ...]]) -> None:
        kept = list(objects)
        hold = hold_of(data_dir, str(job_of(kept[0][0])))
        while hold.exists():
            if hold.read_text() == REFUSE:
                hold.unlink()
                raise TemporaryError("storage-failed", "The store was told to refuse.", "Wait.", delay_s=0.1)
            time.sleep(0.02)
        put_all(store, kept)

    ObjectStore.put_all = wait_and_put  # type: ignore[method-assign]
    return app.main()


if __name__ == "__main__":
    app.leave(main())
