"""A fresh process that imports a room must not have loaded what that room may not know."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.house.tree import ROOT

REPORT = "import importlib, json, sys; importlib.import_module(sys.argv[1]); print(json.dumps(sorted(sys.modules)))"


def load(module: str) -> set[str]:
    """Import ``module`` in a fresh interpreter and return the names of everything that was loaded."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, module], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    ("module", "wanted", "unwanted"),
    [
        ("services.api.app", "fastapi", {"onnxruntime", "torch", "training", "worker", "model.sessions", "cli"}),
        # The root imports late, for a quick start; its rooms are tried one by one.
        ("worker.app", "structlog", {"torch", "training", "fastapi", "starlette", "services.api", "cli"}),
        ("worker.tasks", "celery", {"torch", "training", "fastapi", "starlette", "services.api", "cli"}),
        ("worker.runner", "sqlalchemy", {"torch", "training", "fastapi", "starlette", "services.api", "cli"}),
        ("worker.child", "numpy", {"torch", "training", "fastapi", "services.api", "celery", "sqlalchemy"}),
        ("model.animator", "cv2", {"torch", "training", "services", "worker", "pydantic", "celery"}),
        ("model.bundle.reader", "json", {"numpy", "onnxruntime", "cv2", "torch", "pydantic"}),
        ("model.bundle.writer", "json", {"numpy", "onnxruntime", "cv2", "torch", "pydantic"}),
        ("services.jobs.store", "sqlalchemy", {"fastapi", "celery", "onnxruntime", "torch", "obstore"}),
        # It reads what strangers send: the less there is in it, the less there is to take.
        (
            "services.pictures.child",
            "PIL.Image",
            {
                "numpy",
                "pydantic",
                "structlog",
                "sqlalchemy",
                "fastapi",
                "obstore",
                "services.settings",
                "services.jobs",
            },
        ),
        ("services.errors", "typing", {"sqlalchemy", "fastapi", "celery", "pydantic", "services.jobs"}),
        ("cli.app", "typer", {"torch", "training"}),
    ],
)
def test_a_room_loads_only_what_it_may(module: str, wanted: str, unwanted: set[str]) -> None:
    loaded = load(module)
    # Proves that the report shows what is loaded, so that an empty intersection means something.
    assert {module, wanted} <= loaded
    assert not unwanted & loaded
