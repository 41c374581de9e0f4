"""``animato demo`` and ``animato up`` as a stranger runs them: real processes, and nothing left of them afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.e2e.browser import draw_face
from worker.playback import probe

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]

MARK = "E2E_MARK"
# Only ever waited for by a test that fails.
PATIENCE_S = 400.0


@pytest.fixture
def environment(tmp_path: Path, tiny_bundle: Path) -> Iterator[dict[str, str]]:
    """Variables of a command whose every descendant can be found again by a mark, and must be gone at the end."""
    draw_face(tmp_path / "samples" / "ada.png")
    (tmp_path / "tmp").mkdir()
    mark = uuid.uuid4().hex
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANIMATO_")}
    yield kept | {
        MARK: mark,
        "ANIMATO_BUNDLES_DIR": str(tiny_bundle.parent),
        "ANIMATO_SAMPLES_DIR": str(tmp_path / "samples"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "TMPDIR": str(tmp_path / "tmp"),
        "NO_COLOR": "1",
    }
    gives_up = time.monotonic() + PATIENCE_S
    while (left := find_marked(mark)) and time.monotonic() < gives_up:
        time.sleep(0.1)
    assert left == [], "every process that a command started ends with it"


def find_marked(mark: str) -> list[str]:
    """Return the command lines of the living processes that inherited the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue  # it ended meanwhile, or belongs to somebody else
    return found


def animato(*words: object) -> list[str]:
    return [sys.executable, "-m", "cli", *map(str, words)]


def test_demo_leaves_a_film_and_nothing_else(environment: dict[str, str], tmp_path: Path) -> None:
    # What the environment says of other servers must not matter: the demo brings its own.
    environment |= {
        "ANIMATO_REDIS_URL": "redis://127.0.0.1:1/0",
        "ANIMATO_DATABASE_URL": "postgresql+psycopg://nowhere/x",
    }
    ran = subprocess.run(
        animato("demo", "--prompt", "winks, then laughs"),
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    film, strip = tmp_path / "out/winks-then-laughs.mp4", tmp_path / "out/winks-then-laughs-strip.png"
    assert [tmp_path / line for line in ran.stdout.splitlines()] == [film, strip]
    assert probe(film).frames == 48
    picture = Image.open(strip)
    assert picture.width > 7 * picture.height
    assert "from POST to film" in ran.stderr
    assert list((tmp_path / "tmp").iterdir()) == [], "nothing is left in the folder for temporary files"
    assert not (tmp_path / ".animato").exists()


def test_up_serves_until_interrupted(environment: dict[str, str], tmp_path: Path) -> None:
    service = subprocess.Popen(
        animato("up", "--port", "0", "--data-dir", tmp_path / "data"),
        env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert service.stderr is not None
        greeting = service.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", greeting)
        assert found is not None, greeting + service.stderr.read()
        url = found[0]
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S).json()["status"] == "ready"
        assert "animato" in httpx.get(url, timeout=PATIENCE_S).text

        ran = subprocess.run(
            animato("demo", "--url", url, "--out-dir", "films"),
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        assert (tmp_path / "films/smiling.mp4").exists()
        assert httpx.get(f"{url}/readyz", timeout=PATIENCE_S).json()["status"] == "ready", (
            "a demo beside it does not stop it"
        )
    finally:
        service.send_signal(signal.SIGINT)
        _, said = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0
    assert "Traceback" not in said
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_up_refuses_in_words(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    ran = subprocess.run(
        animato("up", "--port", "0"),
        env=environment | {"ANIMATO_BUNDLES_DIR": str(tmp_path / "none")},
        cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "There is no model bundle" in ran.stderr
    assert "Traceback" not in ran.stderr
