"""The launcher with its real children: it starts, mends and ends them, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.errors import PermanentError
from services.launcher import Launcher, child_environment, embedded_service
from services.queue_server import answers, find_queue_server, free_port, plan_queue_server
from services.settings import Settings
from tests.worker.workplace import PATIENCE_S, descendants, parents, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2000)]

SCRIPT = """
import sys
from services.launcher import run_up
from services.settings import load_settings
run_up(load_settings(), on_ready=lambda url: print(url, flush=True))
"""


def make_settings(folder: Path, bundles_dir: Path, **others: Any) -> Settings:
    return Settings(data_dir=folder / "data", bundles_dir=bundles_dir, port=0, **others)


def ask(url: str, body: dict[str, Any] | None = None, **headers: str) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return json.load(answer)


def run_job(url: str, prompt: str) -> Any:
    """Post a small job and wait for its end."""
    job = ask(f"{url}/v1/animations", {"prompt": prompt, "source": "sampled", "frames": 4}, Prefer="wait=60")
    ends_s = time.monotonic() + PATIENCE_S
    while job["status"] in ("queued", "running") and time.monotonic() < ends_s:
        job = ask(f"{url}{job['urls']['self']}", Prefer="wait=60")
    return job


def commands(pids: set[int]) -> dict[str, int]:
    """Return the children by what they are."""
    found = {}
    for pid in pids:
        try:
            words = (Path("/proc") / str(pid) / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue  # it ended meanwhile
        for name in ("services.api.server", "worker.app", "worker.child"):
            if name in words[1:4]:
                found[name] = pid
        if "-server" in words[0]:
            found["queue"] = pid
    return found


@pytest.fixture
def running(tmp_path: Path, tiny_bundle: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``run_up`` in a process of its own, and its base URL."""
    environment = child_environment(make_settings(tmp_path, tiny_bundle.parent))
    del environment["ANIMATO_REDIS_URL"]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    assert url.startswith("http://127.0.0.1:"), url
    yield process, url
    if process.poll() is None:
        process.kill()
    process.wait()
    process.stdout.close()


def test_a_job_runs_and_a_second_start_finds_it_again(tmp_path: Path, tiny_bundle: Path):
    settings = make_settings(tmp_path, tiny_bundle.parent)
    before = descendants(os.getpid())
    with embedded_service(settings) as url:
        job = run_job(url, "smiling")
        assert job["status"] == "succeeded", job
        with pytest.raises(PermanentError, match="runs on"), embedded_service(settings):
            pass
        assert ask(f"{url}/readyz"), "the refused second one did no harm to the first"
    assert descendants(os.getpid()) <= before, "nothing is left, and no zombie"
    with embedded_service(settings) as url:
        assert ask(f"{url}{job['urls']['self']}")["status"] == "succeeded"


def test_kill_9_of_the_launcher_leaves_nothing(running: tuple[subprocess.Popen[str], str]):
    process, _ = running
    below = descendants(process.pid)
    assert set(commands(below)) == {"services.api.server", "worker.app", "worker.child", "queue"}
    process.kill()
    wait_until(lambda: not below & set(parents()), "every child is gone")


def test_dead_children_are_started_again_and_sigterm_ends_all(running: tuple[subprocess.Popen[str], str]):
    process, url = running
    first = commands(descendants(process.pid))
    for name in ("services.api.server", "worker.app", "queue"):
        os.kill(first[name], signal.SIGKILL)

    def mended() -> bool:
        now = commands(descendants(process.pid))
        return set(now) == set(first) and not set(now.values()) & set(first.values())

    wait_until(mended, "all four are new")
    job = run_job(url, "angry")
    assert job["status"] == "succeeded", job
    below = descendants(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE_S) == 0
    assert not below & set(parents())


def test_what_prevents_a_start_is_told(tmp_path: Path, tiny_bundle: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PermanentError, match="no model bundle"):
        Launcher(make_settings(tmp_path, tmp_path / "empty")).start()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = make_settings(tmp_path, tiny_bundle.parent).model_copy(update={"port": taken.getsockname()[1]})
        with pytest.raises(PermanentError, match="can't be used"):
            Launcher(settings).start()


def test_a_child_that_dies_at_the_start_is_shown_with_its_log(tmp_path: Path, tiny_bundle: Path):
    before = descendants(os.getpid())
    with pytest.raises(PermanentError, match="names no store that is known"):
        Launcher(make_settings(tmp_path, tiny_bundle.parent, storage_url="ftp://nowhere")).start()
    assert descendants(os.getpid()) <= before


def test_the_queue_server_is_private_durable_and_never_evicts(tmp_path: Path):
    assert os.access(find_queue_server(), os.X_OK)
    plan = plan_queue_server(tmp_path)
    configuration = Path(plan.command[1])
    assert configuration.stat().st_mode & 0o077 == 0, "it holds the password"
    words = configuration.read_text()
    for line in ("bind 127.0.0.1", "maxmemory-policy noeviction", "appendonly yes"):
        assert line in words
    import redis

    with subprocess.Popen(plan.command, stdout=subprocess.DEVNULL) as server:
        try:
            wait_until(lambda: answers(plan.port), "the queue server answers")
            assert redis.Redis.from_url(plan.url).ping()
            with pytest.raises(redis.exceptions.AuthenticationError):
                redis.Redis(port=plan.port).ping()
        finally:
            server.terminate()
    assert not answers(plan.port)
    assert not answers(free_port())
