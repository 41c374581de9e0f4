"""Whole jobs through a real worker process: queue server, SQLite, object store, inference child, ffmpeg."""

from __future__ import annotations

import io
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from services.jobs.contract import JobRecord, JobState, Stage
from services.jobs.dispatch import Dispatcher
from services.queue import HintQueue, soft_shutdown_s
from tests.servers import QueueServer, free_port
from tests.worker.workplace import LONG, PATIENCE_S, Workplace, child_of, digest, draw_picture, wait_until
from worker.attempt import POLL_S
from worker.inference import CANCEL_PATIENCE_S
from worker.lease import CANCEL_LOOK_EVERY_S
from worker.playback import probe

pytestmark = pytest.mark.timeout(2000)


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path, queue_server: QueueServer
) -> Iterator[Workplace]:
    """One worker for all tests of this file that don't kill it."""
    redis_url = queue_server.url.removesuffix("/0") + "/1"
    place = Workplace(tmp_path_factory.mktemp("place"), tiny_bundle.parent, redis_url, worker_metrics_port=free_port())
    place.start_worker()
    yield place
    place.close()


def test_a_picture_and_a_sentence_become_a_stored_video(place: Workplace, tmp_path: Path):
    job_id = place.post(picture=draw_picture(), frames=20, output={"size": 96})
    record = place.wait(job_id)
    assert record.state is JobState.SUCCEEDED, record.error
    assert record.attempt == 1
    assert record.crashes == 0
    output = record.output
    assert output is not None
    data = place.storage.get(output.key)
    assert digest(data) == output.sha256
    assert output.sha256 in output.key
    assert len(data) == output.bytes
    (tmp_path / "video.mp4").write_bytes(data)
    seen = probe(tmp_path / "video.mp4")
    assert (seen.width, seen.height, seen.frames, seen.fps) == (96, 96, 20, 24)
    assert (output.width, output.height, output.frames, output.fps) == (96, 96, 20, 24)
    assert output.poster_key is not None
    with Image.open(io.BytesIO(place.storage.get(output.poster_key))) as poster:
        assert (poster.format, poster.size) == ("JPEG", (96, 96))
    wanted = {"queue_s", "fetch_s", "invert_s", "move_s", "render_s", "judge_s", "encode_s", "store_s"}
    assert wanted <= set(record.metrics)
    assert all(seconds >= 0 for seconds in record.metrics.values())
    assert record.expires_at is not None
    assert record.progress == 1.0


def test_the_same_job_twice_gives_the_same_bytes(place: Workplace):
    first, second = (place.wait(place.post(frames=9)) for _ in range(2))
    assert first.output is not None
    assert second.output is not None
    assert first.output.sha256 == second.output.sha256


def test_progress_and_preview_reach_the_record_while_frames_are_drawn(place: Workplace):
    job_id = place.post(**LONG)
    seen: list[JobRecord] = []

    def looked_enough() -> bool:
        record = place.get(job_id)
        assert not record.terminal, f"ended before it was seen: {record.state} {record.error}"
        if record.stage is Stage.RENDER and record.frames_done:
            seen.append(record)
        return len({r.frames_done for r in seen}) >= 4 and any(r.preview_jpeg for r in seen)

    wait_until(looked_enough, "progress and a preview are seen", *place.workers)
    place.store.request_cancel(job_id)
    assert [r.frames_done for r in seen] == sorted(r.frames_done for r in seen)
    assert [r.progress for r in seen] == sorted(r.progress for r in seen)
    preview = next(r.preview_jpeg for r in reversed(seen) if r.preview_jpeg)
    with Image.open(io.BytesIO(preview)) as picture:
        assert picture.format == "JPEG"
    place.wait(job_id)


def test_a_running_job_is_canceled_between_frames(place: Workplace):
    job_id = place.post(**LONG)
    place.wait_drawing(job_id)
    child = child_of(place.workers[0])
    assert place.store.request_cancel(job_id).cancel_requested
    record = place.wait(job_id)
    assert record.state is JobState.CANCELED
    assert 0 < record.frames_done < record.frames_total, "the film was not drawn to its end first"
    assert record.output is None
    assert place.wait(place.post(frames=2)).state is JobState.SUCCEEDED
    assert child_of(place.workers[0]) == child, "a cancel is no reason to lose the loaded bundle"


def test_a_picture_that_is_none_fails_in_words(place: Workplace):
    record = place.wait(place.post(picture=b"GIF89a, or not"))
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert (record.error.code, record.error.retryable) == ("image-corrupt", False)
    assert record.error.hint
    assert record.attempt == 1


def test_cancel_is_promised_within_five_seconds():
    """By its figures, as a clock would measure the machine: the longest time until it is heard, then the child's."""
    assert CANCEL_LOOK_EVERY_S + POLL_S + CANCEL_PATIENCE_S < 5.0


def test_a_vanished_picture_fails_in_words(place: Workplace):
    record = place.wait(place.post(picture=draw_picture(), stored=False))
    assert record.state is JobState.FAILED
    assert record.error is not None
    assert record.error.code == "gone"
    assert record.error.hint
    assert record.crashes == 0


def test_hints_start_jobs_before_the_sweep_does(make_workplace: Callable[..., Workplace]):
    place = make_workplace(sweep_s=100_000.0)
    # The one sweep, at the start, ends this job; whatever comes after it is found by a hint or not at all.
    late = place.post(deadline_s=1)
    time.sleep(1.1)
    place.start_worker()
    assert place.wait(late).state is JobState.EXPIRED
    job_id = place.post(frames=2)
    time.sleep(1.0)
    assert place.get(job_id).state is JobState.QUEUED, "nobody has hinted yet"
    dispatcher = Dispatcher(HintQueue(place.settings))
    dispatcher.hint(job_id)
    assert place.wait(job_id).state is JobState.SUCCEEDED
    dispatcher.close()


def test_jobs_run_without_any_queue_server(make_workplace: Callable[..., Workplace]):
    place = make_workplace(redis_url=f"redis://127.0.0.1:{free_port()}/0")
    place.start_worker()
    ids = [place.post(frames=2) for _ in range(3)]
    assert [place.wait(job_id).state for job_id in ids] == [JobState.SUCCEEDED] * 3


def test_metrics_are_served_under_their_names(place: Workplace):
    place.wait(place.post(frames=3))
    url = f"http://127.0.0.1:{place.settings.worker_metrics_port}/metrics"
    pages = [""]

    def idle() -> bool:  # the record says that it has ended a moment before the worker is done with it
        pages.append(urllib.request.urlopen(url, timeout=PATIENCE_S).read().decode())
        return "animation_jobs_in_progress 0.0" in pages[-1]

    wait_until(idle, "the worker is idle", *place.workers)
    page = pages[-1]
    for name in (
        'animation_jobs_total{code="",model="tiny",status="succeeded"}',
        "animation_queue_wait_seconds_count",
        'animation_stage_duration_seconds_count{stage="render"}',
        "animation_frames_total",
        'animation_model_info{model="tiny"',
        "animation_worker_last_heartbeat_timestamp_seconds",
    ):
        assert name in page


def test_expired_results_are_deleted(place: Workplace):
    job_id = place.post(frames=2, ttl_s=60)
    output = place.wait(job_id).output
    assert output is not None
    assert place.storage.head(output.key) is not None
    import sqlalchemy as sa

    with place.store._write() as connection:  # the clock can't be turned in another process, so the row is
        connection.execute(sa.text("UPDATE jobs SET expires_at = created_at WHERE id = :id"), {"id": job_id})
    wait_until(lambda: place.storage.head(output.key) is None, "the expired result is deleted", *place.workers)


def test_sigterm_drains_the_running_job_without_an_attempt(make_workplace: Callable[..., Workplace]):
    place = make_workplace(grace_s=4.0)
    assert soft_shutdown_s(place.settings.grace_s) == 2.0, "far less than the job would take"
    worker = place.start_worker()
    job_id = place.post(**LONG)
    place.wait_drawing(job_id)
    os.kill(worker.pid, signal.SIGTERM)
    worker.process.wait(PATIENCE_S)
    assert worker.process.returncode == 0
    record = place.get(job_id)
    assert (record.state, record.attempt, record.crashes) == (JobState.QUEUED, 0, 0)
    assert place.facts_of(worker) == {}, "a worker that leaves is off the list"


def test_sigterm_lets_a_short_job_end(make_workplace: Callable[..., Workplace]):
    place = make_workplace(grace_s=500.0)
    worker = place.start_worker()
    job_id = place.post(frames=96)
    place.wait_drawing(job_id)
    os.kill(worker.pid, signal.SIGTERM)
    worker.process.wait(600)
    assert worker.process.returncode == 0
    assert place.get(job_id).state is JobState.SUCCEEDED
    assert place.get(job_id).attempt == 1


def test_an_object_store_that_is_away_costs_a_retry_and_no_crash(make_workplace: Callable[..., Workplace]):
    place = make_workplace()
    place.start_worker()
    folder = place.settings.data_dir / "objects"
    aside = folder.with_name("aside")
    job_id = place.post(picture=draw_picture(), frames=2)
    if not place.get(job_id).terminal:
        place.wait(job_id)
    folder.rename(aside)
    folder.write_text("a file where the folder was")
    late = place.post(frames=2)
    wait_until(lambda: _retries(place, late) >= 1, "the job is released", *place.workers)
    folder.unlink()
    aside.rename(folder)
    record = place.wait(late)
    assert (record.state, record.attempt, record.crashes) == (JobState.SUCCEEDED, 1, 0)


def _retries(place: Workplace, job_id: str) -> int:
    import sqlalchemy as sa

    with place.store._read() as connection:
        return int(connection.execute(sa.text("SELECT retries FROM jobs WHERE id = :id"), {"id": job_id}).scalar_one())
