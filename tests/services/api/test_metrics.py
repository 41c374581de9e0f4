"""What ``/metrics`` says is true on every replica, never falls, and does not grow with what clients send."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from services.api.free_space import measure_free_bytes
from services.api.metrics import JOB_CODES, ApiMetrics
from services.api.resources import Resources
from services.errors import TemporaryError
from services.pictures.cleaner import Death
from services.settings import Settings
from tests.services.api.conftest import claim, fail, finish, post_photo, post_sampled, rooms_of
from tests.services.api.pictures import encode, make_photo

# Only ever waited for by a test that fails.
PATIENCE_S = 120.0
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(client: TestClient) -> Series:
    """Read every series as Prometheus does: (name, labels) → value."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.startswith("process_")
    }


def of_jobs(series: Series) -> Series:
    """What all replicas must agree about."""
    own = ("animation_webhook_tries", "animation_hints", "animation_picture")
    return {
        key: number
        for key, number in series.items()
        if key[0].startswith("animation_")
        and not key[0].startswith(own)
        and not key[0].endswith(("_seconds", "_bytes"))
    }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, tuple(sorted(labels.items()))]


def test_counters_never_fall_though_jobs_are_deleted(client: TestClient, rooms: Resources) -> None:
    urls = [post_sampled(client).headers["Location"] for _ in range(3)]
    finish(rooms, claim(rooms))
    fail(rooms, claim(rooms))
    client.post(f"{urls[2]}/cancel")
    before = scrape(client)
    ended = {key: number for key, number in before.items() if key[0] == "animation_jobs_total" and number}
    assert ended == {
        ("animation_jobs_total", (("code", ""), ("model", "human"), ("status", "succeeded"))): 1,
        ("animation_jobs_total", (("code", "inversion-failed"), ("model", "human"), ("status", "failed"))): 1,
        ("animation_jobs_total", (("code", ""), ("model", "human"), ("status", "canceled"))): 1,
    }
    for url in urls:
        assert client.delete(url).status_code == 204
    after = scrape(client)
    assert {key: number for key, number in after.items() if key[0] == "animation_jobs_total" and number} == ended


def test_failures_are_told_from_nought(client: TestClient) -> None:
    """A series that begins at 1 has no rise, and no alert would see the first failure."""
    series = scrape(client)
    for code in JOB_CODES:
        assert value(series, "animation_jobs_total", status="failed", code=code, model="human") == 0


def test_what_a_client_asked_to_wait_is_no_slowness(client: TestClient) -> None:
    posted = post_sampled(client, headers={"Prefer": "wait=1"})
    assert (posted.status_code, posted.headers["Preference-Applied"]) == (202, "wait=1")
    labels = {"method": "POST", "route": "/v1/animations", "status": "202"}
    series = scrape(client)
    assert value(series, "http_request_duration_seconds_count", **labels) == 1
    waited_for = rooms_of(client).store.list_page(None)[0][0]
    assert waited_for.state == "queued"
    within = value(series, "http_request_duration_seconds_sum", **labels)
    assert 0 <= within < posted.elapsed.total_seconds() - 0.9, "the second that it asked for is counted"


def test_every_replica_tells_the_same_of_the_jobs(serve: Callable[..., TestClient]) -> None:
    first, second = serve(), serve()
    for _ in range(3):
        post_sampled(first)
    finish(rooms_of(first), claim(rooms_of(second)))
    one, other = scrape(first), scrape(second)
    assert of_jobs(one) == of_jobs(other)
    assert value(one, "animation_queue_depth") == 2
    posts = {"method": "POST", "route": "/v1/animations", "status": "202"}
    assert value(one, "http_request_duration_seconds_count", **posts) == 3, "its own requests are each replica's own"
    assert ("http_request_duration_seconds_count", tuple(sorted(posts.items()))) not in other


def test_what_clients_send_makes_no_series(client: TestClient) -> None:
    def ask(number: int) -> None:
        client.get(f"/v1/animations/anm_{number:032x}", headers={"X-Request-ID": f"r{number}"})
        client.get(f"/nowhere/{number}?q={number}")
        client.request(f"BREW{number}", "/v1/animations")
        client.post("/v1/animations", json={"prompt": f"p{number}", "source": "sampled", "model": f"m{number}"})

    ask(0)
    client.get("/metrics")
    before = set(scrape(client))
    for number in range(1, 30):
        ask(number)
    assert set(scrape(client)) == before


def test_a_database_that_is_away_is_told_and_nothing_is_guessed(
    client: TestClient, rooms: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    post_sampled(client)
    assert value(scrape(client), "animation_database_up") == 1

    def be_away() -> None:
        raise TemporaryError("not-ready", "The database is away.", "Wait.")

    monkeypatch.setattr(rooms.store, "outbox_facts", be_away)  # the last but one to be asked
    series = scrape(client)
    assert value(series, "animation_database_up") == 0
    assert not any(name.startswith(("animation_jobs", "animation_queue")) for name, _ in series)
    assert (
        value(series, "http_request_duration_seconds_count", method="POST", route="/v1/animations", status="202") == 1
    )


def test_dropped_hints_are_counted(serve: Callable[..., TestClient]) -> None:
    client = serve(redis_url="redis://127.0.0.1:1/0")
    assert value(scrape(client), "animation_hints_dropped_total") == 0
    assert post_sampled(client).status_code == 202
    ends_s = time.monotonic() + PATIENCE_S
    while value(scrape(client), "animation_hints_dropped_total") < 1:
        assert time.monotonic() < ends_s, "the dropped hint is not told"
        time.sleep(0.05)


def test_tries_of_webhooks_are_counted_from_nought() -> None:
    metrics = ApiMetrics()
    metrics.count_webhook_try("retried")
    metrics.count_webhook_try("delivered")
    metrics.count_webhook_try("delivered")
    counted = {
        outcome: metrics.registry.get_sample_value("animation_webhook_tries_total", {"outcome": outcome})
        for outcome in ("delivered", "retried", "abandoned")
    }
    assert counted == {"delivered": 2, "retried": 1, "abandoned": 0}


def test_deaths_of_decoding_children_are_counted_from_nought(client: TestClient, rooms: Resources) -> None:
    def deaths() -> dict[str, float]:
        series = scrape(client)
        return {death.value: value(series, "animation_picture_child_deaths_total", reason=death) for death in Death}

    none = dict.fromkeys(("crashed", "timeout", "lied", "killed"), 0.0)
    photo = encode(make_photo())
    assert post_photo(client, photo).status_code == 202
    assert deaths() == none
    (child,) = rooms.pictures._idle
    os.kill(child._process.pid, signal.SIGKILL)
    assert post_photo(client, photo).status_code == 202, "it costs no client a picture"
    assert deaths() == none | {"killed": 1}


def test_free_disk_is_that_of_local_data_alone(client: TestClient, tmp_path: Path) -> None:
    assert value(scrape(client), "animation_disk_free_bytes") > 0
    far = {"database_url": "postgresql+psycopg://u@h/d", "storage_url": "s3://bucket"}
    assert measure_free_bytes(Settings(data_dir=tmp_path / "not" / "made", **far)) is None
    for name in far:
        left = {other: url for other, url in far.items() if other != name}
        assert (measure_free_bytes(Settings(data_dir=tmp_path / "not" / "made", **left)) or 0) > 0
    elsewhere = Settings(
        data_dir=Path("/proc/nothing"), database_url=far["database_url"], storage_url=tmp_path.as_uri()
    )
    assert (measure_free_bytes(elsewhere) or 0) > 0
