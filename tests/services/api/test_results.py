"""Videos and posters: ranges, caching, expiry, redirects; on a local folder, and on PostgreSQL with a real S3 store."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi.testclient import TestClient

from services.api.resources import Resources
from services.settings import Settings
from tests.servers import S3Server, s3_settings
from tests.services.api.conftest import claim, expect_problem, finish, post_photo, post_sampled, rooms_of

VIDEO = bytes(range(256)) * 40


@pytest.fixture
def url(client: TestClient, rooms: Resources) -> str:
    location = post_sampled(client).headers["Location"]
    finish(rooms, claim(rooms), VIDEO)
    return str(location)


def test_video_and_poster(client: TestClient, url: str) -> None:
    response = client.get(f"{url}/video")
    assert response.status_code == 200
    assert response.content == VIDEO
    job = client.get(url).json()
    assert response.headers["ETag"] == f'"{job["output"]["sha256"]}"'
    assert response.headers["Content-Type"] == "video/mp4"
    assert response.headers["Content-Length"] == str(len(VIDEO))
    assert response.headers["Accept-Ranges"] == "bytes"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{job["id"]}.mp4"'
    poster = client.get(job["output"]["poster_url"])
    assert poster.status_code == 200
    assert poster.content == b"the poster"
    assert poster.headers["Content-Type"] == "image/jpeg"
    assert poster.headers["ETag"] != response.headers["ETag"]


def test_head(client: TestClient, url: str) -> None:
    response = client.head(f"{url}/video")
    assert response.status_code == 200
    assert response.content == b""
    assert response.headers["Content-Length"] == str(len(VIDEO))


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [
        ("bytes=0-", 0, len(VIDEO)),
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=10000-99999999", 10_000, len(VIDEO)),
        ("bytes=-10", len(VIDEO) - 10, len(VIDEO)),
        ("bytes=-99999999", 0, len(VIDEO)),
        (f"bytes={len(VIDEO) - 1}-", len(VIDEO) - 1, len(VIDEO)),
    ],
)
def test_ranges(client: TestClient, url: str, header: str, start: int, end: int) -> None:
    response = client.get(f"{url}/video", headers={"Range": header})
    assert response.status_code == 206
    assert response.content == VIDEO[start:end]
    assert response.headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(VIDEO)}"
    assert response.headers["Content-Length"] == str(end - start)


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=0-1,5-6", "lines=0-1", "bytes=a-b", "bytes=-", "", "bytes"])
def test_other_ranges_mean_the_whole(client: TestClient, url: str, header: str) -> None:
    response = client.get(f"{url}/video", headers={"Range": header})
    assert response.status_code == 200
    assert response.content == VIDEO


@pytest.mark.parametrize("header", [f"bytes={len(VIDEO)}-", "bytes=999999999999-", "bytes=-0"])
def test_ranges_behind_the_end(client: TestClient, url: str, header: str) -> None:
    response = client.get(f"{url}/video", headers={"Range": header})
    expect_problem(response, 416, "range-not-satisfiable")
    assert response.headers["Content-Range"] == f"bytes */{len(VIDEO)}"


def test_if_range_and_if_none_match(client: TestClient, url: str) -> None:
    tag = client.get(f"{url}/video").headers["ETag"]
    headers = {"Range": "bytes=0-9"}
    assert client.get(f"{url}/video", headers={**headers, "If-Range": tag}).status_code == 206
    assert client.get(f"{url}/video", headers={**headers, "If-Range": '"old"'}).status_code == 200
    cached = client.get(f"{url}/video", headers={"If-None-Match": tag})
    assert cached.status_code == 304
    assert cached.content == b""


def test_not_ready(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    expect_problem(client.get(f"{url}/video"), 409, "result-not-ready")
    lease = claim(rooms)
    expect_problem(client.get(f"{url}/poster"), 409, "result-not-ready")
    client.post(f"{url}/cancel")
    rooms.store.finish_canceled(lease)
    problem = expect_problem(client.get(f"{url}/video"), 409, "result-not-ready")
    assert "canceled" in problem["detail"]


def test_no_poster(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client, output={"poster": False}).headers["Location"]
    finish(rooms, claim(rooms), poster=None)
    assert client.get(url).json()["output"]["poster_url"] is None
    expect_problem(client.get(f"{url}/poster"), 404, "not-found")


def test_expired(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    finish(rooms, claim(rooms), ttl_s=-1)
    expect_problem(client.get(f"{url}/video"), 410, "gone")
    expect_problem(client.get(f"{url}/poster"), 410, "gone")
    assert client.get(url).json()["status"] == "succeeded"


def test_removed_behind_our_back(client: TestClient, rooms: Resources) -> None:
    url = post_sampled(client).headers["Location"]
    output = finish(rooms, claim(rooms))
    rooms.storage.delete([output.key])
    expect_problem(client.get(f"{url}/video"), 410, "gone")


def test_whole_life_on_postgresql_and_s3(
    serve: Callable[..., TestClient], settings: Settings, s3_server: S3Server, postgres_url: str, photo: bytes
) -> None:
    s3 = s3_settings(s3_server, "api-tests")
    names = ("storage_url", "s3_endpoint", "s3_public_endpoint", "s3_access_key_id", "s3_secret_access_key")
    client = serve(database_url=postgres_url, **{name: getattr(s3, name) for name in names})
    rooms = rooms_of(client)
    posted = post_photo(client, photo, {"Idempotency-Key": "k"}, metadata='{"a": "ü"}')
    assert posted.status_code == 202, posted.text
    assert (
        post_photo(client, photo, {"Idempotency-Key": "k"}, metadata='{"a": "ü"}').json()["id"] == posted.json()["id"]
    )
    url = posted.headers["Location"]
    lease = claim(rooms)
    assert lease.record.input.key is not None
    assert rooms.storage.get(lease.record.input.key).startswith(b"\x89PNG")
    finish(rooms, lease, VIDEO)
    response = client.get(f"{url}/video")
    assert response.status_code == 307
    assert response.headers["Cache-Control"] == "no-store"
    with httpx.Client() as outside:
        fetched = outside.get(response.headers["Location"], headers={"Range": "bytes=1-3"})
        assert fetched.status_code == 206
        assert fetched.content == VIDEO[1:4]
        assert fetched.headers["Content-Disposition"].startswith("attachment")
        assert outside.get(response.headers["Location"].partition("?")[0]).status_code == 403
    assert s3_server.endpoint in client.get("/").headers["Content-Security-Policy"]
    page = client.get("/v1/animations?limit=1").json()
    assert [job["id"] for job in page["data"]] == [posted.json()["id"]]
    assert 'animation_jobs_total{code="",model="human",status="succeeded"} 1.0' in client.get("/metrics").text
    assert client.delete(url).status_code == 204
    expect_problem(client.get(url), 404, "not-found")


def test_s3_that_clients_can_not_reach_is_streamed(serve: Callable[..., TestClient], s3_server: S3Server) -> None:
    s3 = s3_settings(s3_server, "api-streamed")
    names = ("storage_url", "s3_endpoint", "s3_access_key_id", "s3_secret_access_key")
    client = serve(**{name: getattr(s3, name) for name in names})
    url = post_sampled(client).headers["Location"]
    finish(rooms_of(client), claim(rooms_of(client)), VIDEO)
    assert client.get(f"{url}/video").content == VIDEO
    assert client.get(f"{url}/video", headers={"Range": "bytes=-7"}).content == VIDEO[-7:]
