"""Accepting a job once, and never falsely: idempotency keys, a full queue, a full disk, a lost database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from services.api.resources import Resources
from services.errors import TemporaryError
from services.jobs.intake import NewJob, Taken
from services.settings import Settings
from tests.services.api.conftest import (
    claim,
    expect_problem,
    post_photo,
    post_sampled,
    rooms_of,
    stored_files,
)
from tests.services.api.pictures import encode, make_photo


def test_idempotency_same_body(client: TestClient, rooms: Resources, photo: bytes, settings: Settings) -> None:
    headers = {"Idempotency-Key": "order-12"}
    first = post_photo(client, photo, headers)
    second = post_photo(client, photo, headers)  # another multipart boundary
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert rooms.store.counts()["queued"] == 1
    assert len(stored_files(settings)) == 1


def test_idempotency_other_body(client: TestClient, photo: bytes, settings: Settings) -> None:
    headers = {"Idempotency-Key": "order-12"}
    post_photo(client, photo, headers)
    expect_problem(post_photo(client, photo, headers, prompt="angry"), 422, "idempotency-mismatch")
    other = encode(make_photo(seed=1))
    expect_problem(post_photo(client, other, headers), 422, "idempotency-mismatch")
    assert len(stored_files(settings)) == 1


def test_idempotency_concurrent(client: TestClient, rooms: Resources, photo: bytes, settings: Settings) -> None:
    answers: list[Any] = []
    gate = threading.Barrier(20)

    def post() -> None:
        gate.wait()
        answers.append(post_photo(client, photo, {"Idempotency-Key": "one"}))

    threads = [threading.Thread(target=post) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert rooms.store.counts()["queued"] == 1
    assert len(stored_files(settings)) == 1  # the orphans of the losers are gone


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "é".encode("latin-1")])
def test_idempotency_bad_key(client: TestClient, key: str | bytes) -> None:
    response = client.post(
        "/v1/animations", json={"prompt": "smiling", "source": "sampled"}, headers={"Idempotency-Key": key}
    )
    expect_problem(response, 422, "validation-failed")


def test_full_queue(serve: Callable[..., TestClient], photo: bytes, settings: Settings) -> None:
    client = serve(queue_limit=2)
    post_sampled(client)
    kept = post_photo(client, photo, {"Idempotency-Key": "kept"})
    problem = expect_problem(post_photo(client, photo), 503, "queue-full")
    assert problem["retryable"]
    assert len(stored_files(settings)) == 1  # what the refused one had stored is gone
    # What was accepted stays accepted.
    assert post_photo(client, photo, {"Idempotency-Key": "kept"}).json()["id"] == kept.json()["id"]
    claim(rooms_of(client))
    assert post_photo(client, photo).status_code == 202


def test_full_disk_is_no_false_202(client: TestClient, rooms: Resources, photo: bytes, settings: Settings) -> None:
    post_photo(client, photo)
    objects = settings.data_dir / "objects"
    for path in sorted(objects.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    objects.rmdir()
    objects.write_bytes(b"a file where the folder was: nothing can be written, whoever runs this test")
    expect_problem(post_photo(client, photo), 503, "storage-failed")
    assert rooms.store.counts()["queued"] == 1
    assert post_sampled(client).status_code == 202  # needs no storage


def test_no_database_is_no_false_202(client: TestClient, photo: bytes, settings: Settings) -> None:
    post_photo(client, photo)
    for path in settings.data_dir.glob("jobs.sqlite3*"):
        path.unlink()
    settings.data_dir.joinpath("jobs.sqlite3").mkdir()
    client.app.state.resources.store.close()  # type: ignore[attr-defined]  # its connections still had the old file
    expect_problem(post_photo(client, photo), 503, "not-ready")
    expect_problem(client.get("/v1/animations"), 503, "not-ready")
    assert client.get("/readyz").status_code == 503
    assert client.get("/livez").status_code == 200


def test_a_job_whose_answer_was_lost_is_answered_and_hinted_at(
    client: TestClient, rooms: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept_all, hinted = rooms.store.accept_all, []

    def lose_the_answer(newcomers: Sequence[NewJob]) -> list[Taken | Exception]:
        accept_all(newcomers)
        return [TemporaryError("not-ready", "The connection broke.", "Wait.", delay_s=1.0)] * len(newcomers)

    monkeypatch.setattr(rooms.store, "accept_all", lose_the_answer)
    monkeypatch.setattr(rooms.dispatcher, "hint", hinted.append)
    job = post_sampled(client)
    assert job.status_code == 202
    assert rooms.store.counts()["queued"] == 1
    assert hinted == [job.json()["id"]], "it would wait for a worker's next sweep"


def test_nearly_full_disk_is_told_before_the_body_is_read(
    serve: Callable[..., TestClient], photo: bytes, settings: Settings
) -> None:
    client = serve(min_free_bytes=2**62)
    problem = expect_problem(post_photo(client, photo), 503, "queue-full")
    assert "disk" in problem["detail"]
    expect_problem(client.post("/v1/animations", content=b"no form at all"), 503, "queue-full")
    assert stored_files(settings) == []
    assert rooms_of(client).store.counts()["queued"] == 0
    assert client.get("/v1/animations").status_code == 200  # what is there can still be looked at
    assert post_sampled(serve(min_free_bytes=0)).status_code == 202


def test_full_database_is_no_false_202(client: TestClient, rooms: Resources, photo: bytes, settings: Settings) -> None:
    """The disk fills up meanwhile: what was answered with 202 is there, all else is a 503 and leaves nothing."""
    engine = rooms.store._writing_engine

    def limit(connection: Any, _record: object) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages + 8}")

    engine.dispose()
    sa.event.listen(engine, "connect", limit)
    answers = [post_photo(client, photo, metadata='{"note": "' + "x" * 400 + '"}') for _ in range(40)]
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    for answer in answers:
        if answer.status_code != 202:
            expect_problem(answer, 503, "storage-failed")
    assert 0 < len(accepted) < len(answers)
    assert rooms.store.counts()["queued"] == len(accepted)
    assert all(client.get(f"/v1/animations/{job_id}").status_code == 200 for job_id in accepted)
    assert len(stored_files(settings)) == len(accepted), "what the refused ones had stored is gone"
