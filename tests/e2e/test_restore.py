"""The restore drill of docs/backup.md, with its own commands: copy the two data places, start elsewhere, jobs go on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.store import JobStore
from services.launcher import embedded_service
from services.settings import Settings
from tests.e2e.test_launcher import ask, make_settings
from tests.house.tree import ROOT
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg
from tests.servers import PostgresServer
from tests.services.api.pictures import encode, make_photo
from tests.worker.workplace import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2000)]


def run_documented(title: str, **variables: str | Path) -> None:
    """Run the commands of docs/backup.md that stand under this comment."""
    text = (ROOT / "docs/backup.md").read_text(encoding="utf-8")
    (script,) = re.findall(rf"```sh\n# {title}\n(.*?)```", text, re.DOTALL)
    here = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment = os.environ | here | {name: str(value) for name, value in variables.items()}
    done = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def post(url: str, **fields: Any) -> str:
    body = {"prompt": "smiling", "source": "sampled", "frames": 4, **fields}
    return str(ask(f"{url}/v1/animations", body)["urls"]["self"])


def post_picture(url: str) -> str:
    """Post a job with a picture of its own: an object that the copy must hold."""
    edge = b"--edge\r\nContent-Disposition: form-data; "
    parts = [b'name="prompt"\r\n\r\nsmiling\r\n', b'name="frames"\r\n\r\n4\r\n']
    parts += [b'name="image"; filename="a.png"\r\n\r\n' + encode(make_photo()) + b"\r\n"]
    request = urllib.request.Request(
        f"{url}/v1/animations",
        data=b"".join(edge + part for part in parts) + b"--edge--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=edge"},
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        assert answer.status == 202
        return str(answer.headers["Location"])


def succeed(url: str, *jobs: str) -> None:
    """Wait until all of them have succeeded."""
    for job in jobs:
        wait_until(lambda job=job: ask(f"{url}{job}")["status"] not in ("queued", "running"), f"{job} ends")
        assert ask(f"{url}{job}")["status"] == "succeeded", ask(f"{url}{job}")


def download(url: str, job: str) -> bytes:
    with urllib.request.urlopen(f"{url}{job}/video", timeout=300) as answer:
        return bytes(answer.read())


def test_a_service_goes_on_from_its_copies(tmp_path: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def settings(name: str) -> Settings:
        return make_settings(tmp_path / name, tiny_bundle.parent, lease_s=20.0, heartbeat_s=1.0, sweep_s=1.0)

    folders = {name: tmp_path / name / "data" for name in ("original", "hot", "cold")}
    for name in ("hot", "cold"):
        folders[name].mkdir(parents=True)
    with monkeypatch.context() as slow, embedded_service(_paced(slow, settings("original"), tmp_path)) as url:
        finished = post(url)
        succeed(url, finished)
        film = download(url, finished)
        running = post(url, frames=480)  # 20 s at viewing speed, all that the test does meanwhile in front of the queue
        wait_until(lambda: ask(f"{url}{running}")["status"] == "running", "it runs")
        waiting = [post(url), post_picture(url)]
        run_documented("hot copy", DATA=folders["original"], BACKUP=folders["hot"])
        assert ask(f"{url}{waiting[-1]}")["status"] == "queued", "the copy was not made with jobs in the queue"
    run_documented("cold copy", DATA=folders["original"], BACKUP=folders["cold"])
    shutil.rmtree(folders["original"])
    for name in ("cold", "hot"):
        assert {path.name for path in folders[name].iterdir()} <= {
            "objects",
            *(f"jobs.sqlite3{end}" for end in ("", "-wal", "-shm", ".migrate-lock")),
        }
        with embedded_service(settings(name)) as url:
            assert download(url, finished) == film
            succeed(url, running, *waiting)
            assert len(ask(f"{url}/v1/animations")["data"]) == 4


def _paced(patch: pytest.MonkeyPatch, settings: Settings, folder: Path) -> Settings:
    """Let the workers that are started from here write films at viewing speed."""
    patch.setenv(FFMPEG_VARIABLE, str(pace_ffmpeg(folder)))
    return settings


def test_jobs_come_back_from_a_dump(
    tmp_path: Path, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = Path(postgres_server._arguments[0]).parent
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    for name in ("before", "after"):
        postgres_server.execute(f"CREATE DATABASE restore_{name}")
    urls = {name: postgres_server.url(f"restore_{name}") for name in ("before", "after")}
    plain = {name: url.replace("postgresql+psycopg://", "postgresql://") for name, url in urls.items()}
    before = JobStore(urls["before"])
    before.migrate()
    accepted = []
    for seed in range(3):
        record, _ = before.accept(
            job_id=make_job_id(),
            owner="me",
            options=AnimationOptions(prompt="smiling", source="sampled"),
            input=InputFacts(),
            seed=seed,
            model_id="human",
            idempotency=(f"key-{seed}", "hash"),
        )
        accepted.append(record.id)
    canceled = before.request_cancel(accepted[2])
    identity = before.identity()
    run_documented("dump of the jobs", DATABASE=plain["before"], BACKUP=tmp_path)
    before.close()
    run_documented("restore of the jobs", NEW_DATABASE=plain["after"], BACKUP=tmp_path)
    after = JobStore(urls["after"])
    after.migrate()
    try:
        assert after.get(canceled.id) == canceled
        again = after.find_accepted("me", "key-0", "hash")
        assert again is not None
        assert again.id == accepted[0]
        assert after.identity() == identity, "it would not tidy up in its own bucket"
        claimed = [lease.record.id for lease in (after.claim("w", 30), after.claim("w", 30)) if lease]
        assert claimed == accepted[:2]
        assert after.claim("w", 30) is None
    finally:
        after.close()
