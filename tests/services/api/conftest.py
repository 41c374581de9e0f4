"""A real API for the tests: real SQLite, object folder, bundle directory and queue server; no worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

import services.api.health as health_room
from model.bundle.writer import write_bundle
from services.api.app import create_app
from services.api.resources import Resources
from services.jobs.contract import JobError, Lease, OutputFacts, Stage, VideoFormat
from services.logs import configure_logging
from services.settings import Settings
from services.storage import poster_key, video_key
from tests.servers import QueueServer
from tests.services.api.pictures import encode, make_photo

GRAPHS = ("text", "image", "encoder", "motion", "mapping", "synthesis")


def write_model(
    bundles_dir: Path, model_id: str = "human", domain: str = "human", detector: bytes | None = None
) -> None:
    """Write a bundle as the API sees one: its manifest is real, its graphs are never opened here."""
    fields: dict[str, Any] = {
        "id": model_id,
        "version": "2026.11.0",
        "domain": domain,
        "kind": "rendered" if detector is None else "photo",
        "resolution": 128,
        "num_ws": 12,
        "w_dim": 128,
        "z_dim": 64,
        "embed_dim": 128,
        "h_dim": 384,
        "fps": 24,
        "opset": 20,
        "input_resolution": 128,
        "max_tokens": 64,
        "graphs": {**{name: f"{name}.onnx" for name in GRAPHS}, "quality": None},
        "tokenizer": "tokenizer.json",
        "expressions": ["smiling", "angry"],
        "presets": ["smiling", "winks, then laughs"],
        "detector": None if detector is None else "faces.npz",
        "parity": {},
        "license": "Apache-2.0",
        "made_by": {},
        "card": None,
    }
    files: dict[str, Path | bytes] = {f"{name}.onnx": name.encode() for name in GRAPHS} | {"tokenizer.json": b"{}"}
    if detector is not None:
        files["faces.npz"] = detector
    write_bundle(bundles_dir / model_id, fields, files)


@pytest.fixture(autouse=True, scope="session")
def _logs() -> None:
    """The format that is served with; the default one would draw every traceback with all locals."""
    configure_logging(service="api", log_format="json", level="info")


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is slow to answer is not one that is not ready."""
    monkeypatch.setattr(health_room, "CHECK_TIMEOUT_S", 120.0)


@pytest.fixture
def settings(tmp_path: Path, queue_server: QueueServer) -> Settings:
    bundles_dir = tmp_path / "bundles"
    write_model(bundles_dir)
    # Leases and heartbeats outlast a test: whoever is heard once in it lives to its end.
    return Settings(
        data_dir=tmp_path / "data",
        bundles_dir=bundles_dir,
        redis_url=queue_server.url,
        auth="off",
        lease_s=3600.0,
        heartbeat_s=1200.0,
    )


@pytest.fixture
def serve(settings: Settings) -> Iterator[Callable[..., TestClient]]:
    """Start the app in process with some settings changed; all are shut down at the end."""
    clients: list[TestClient] = []

    def start(**changes: Any) -> TestClient:
        app = create_app(settings.model_copy(update=changes))
        client = TestClient(app, raise_server_exceptions=False, follow_redirects=False)
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, queue_server: QueueServer) -> Iterator[TestClient]:
    """One app for all refusals of a module: none of them may leave anything behind, which is checked at the end."""
    folder = tmp_path_factory.mktemp("shared")
    write_model(folder / "bundles")
    settings = Settings(
        data_dir=folder / "data", bundles_dir=folder / "bundles", redis_url=queue_server.url, auth="off"
    )
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client
        assert rooms_of(client).store.counts()["queued"] == 0
        assert stored_files(settings) == []


@pytest.fixture(scope="session")
def photo() -> bytes:
    return encode(make_photo())


def rooms_of(client: TestClient) -> Resources:
    app = client.app
    assert isinstance(app, FastAPI)
    resources = app.state.resources
    assert isinstance(resources, Resources)
    return resources


@pytest.fixture
def rooms(client: TestClient) -> Resources:
    return rooms_of(client)


def post_photo(client: Any, photo: bytes, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    """Post a form with a picture; the prompt is "smiling" unless it is given."""
    data = {
        "prompt": "smiling",
        **{name: value if isinstance(value, str) else str(value) for name, value in fields.items()},
    }
    return client.post(
        "/v1/animations", data=data, files={"image": ("face.png", photo, "image/png")}, headers=headers or {}
    )


def post_sampled(client: Any, headers: dict[str, str] | None = None, **fields: Any) -> Any:
    return client.post(
        "/v1/animations", json={"prompt": "smiling", "source": "sampled", **fields}, headers=headers or {}
    )


def claim(rooms: Resources, lease_s: float = 3600.0) -> Lease:
    """Take the next job as a worker does; the lease outlasts the test."""
    lease = rooms.store.claim("test-worker", lease_s)
    assert lease is not None
    return lease


def finish(
    rooms: Resources,
    lease: Lease,
    video: bytes = b"the video's bytes" * 100,
    poster: bytes | None = b"the poster",
    ttl_s: float = 3600,
) -> OutputFacts:
    """Do what a worker does at the end of a job: store the result, then make it visible."""
    job_id = lease.record.id
    sha256 = hashlib.sha256(video).hexdigest()
    key = video_key(job_id, sha256, "mp4")
    rooms.storage.put(key, video, "video/mp4")
    poster_at = None
    if poster is not None:
        poster_at = poster_key(job_id, hashlib.sha256(poster).hexdigest())
        rooms.storage.put(poster_at, poster, "image/jpeg")
    output = OutputFacts(
        key=key,
        format=VideoFormat.MP4,
        width=128,
        height=128,
        fps=24,
        frames=lease.record.frames_total,
        bytes=len(video),
        sha256=sha256,
        poster_key=poster_at,
    )
    rooms.store.report(lease, stage=Stage.STORE, progress=0.99)
    expires_at = datetime.now(UTC) + timedelta(seconds=ttl_s)
    rooms.store.succeed(lease, output, {"identity": 0.9}, {"render_s": 1.0}, expires_at)
    return output


def fail(rooms: Resources, lease: Lease) -> None:
    error = JobError(code="inversion-failed", message="The face could not be found again.", hint="Try another picture.")
    rooms.store.fail(lease, error)


def expect_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is a whole problem document with this code; returns it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"] == f"urn:animato:problem:{code}"
    for name in ("title", "detail", "hint"):
        assert isinstance(problem[name], str)
        assert len(problem[name]) > 5, (name, problem)
    assert isinstance(problem["retryable"], bool)
    if status in (429, 503):
        assert int(response.headers["Retry-After"]) >= 1
        assert problem["retryable"]
    return problem


def stored_files(settings: Settings) -> list[Path]:
    """All objects that are in the local store."""
    folder = settings.data_dir / "objects"
    return [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
