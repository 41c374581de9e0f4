"""The page where the stream of events finds no place, or breaks and finds none then: the film comes all the same."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from services.jobs.contract import AnimationOptions, InputFacts, make_job_id
from services.jobs.store import JobStore
from services.launcher import embedded_service
from services.settings import Settings
from tests.chaos.proxy import Proxy, Road, to_port
from tests.e2e.browser import JOB_MS, Witness, locked_settings, set_duration, wait_for_result, wait_true
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE_S = JOB_MS / 1000
pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(1500)]
# Three quarters of the connections may wait for jobs, a quarter of all for those of one owner.
CONNECTIONS, PLACES_OF_ONE = 32, 8


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Settings:
    return locked_settings(tmp_path_factory.mktemp("service"), tiny_bundle.parent, max_connections=CONNECTIONS)


@pytest.fixture(scope="module")
def service_url(browser: Browser, settings: Settings) -> Iterator[str]:
    # Films are written at viewing speed, so that a job lasts long enough for its stream to be broken.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FFMPEG_VARIABLE, str(pace_ffmpeg(settings.data_dir.parent)))
        with embedded_service(settings) as url:
            yield url


@pytest.fixture(scope="module")
def road(service_url: str) -> Iterator[Proxy]:
    """The page's way to the service."""
    proxy = Proxy(to_port(httpx.URL(service_url).port or 0))
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def base_url(road: Proxy) -> str:
    return f"http://127.0.0.1:{road.port}"


class Crowd:
    """Clients that wait for jobs which nobody runs, each on a connection of its own."""

    def __init__(self, store: JobStore, service_url: str) -> None:
        self._store = store
        self._client = httpx.Client(base_url=service_url, timeout=PATIENCE_S, trust_env=False)
        self._streams: list[httpx.Response] = []

    def wait(self, owner: str, places: int) -> None:
        """Take so many places in an owner's name, each as soon as it is free."""
        headers = {"Authorization": f"Bearer {self._store.create_key(owner)[0]}"}
        path = f"/v1/animations/{self._accept(owner)}/events"
        deadline_s = time.monotonic() + PATIENCE_S
        while places:
            answer = self._client.send(self._client.build_request("GET", path, headers=headers), stream=True)
            self._streams.append(answer)
            places -= answer.status_code == httpx.codes.OK
            assert time.monotonic() < deadline_s, f"no place became free: {answer.status_code}"

    def leave(self) -> None:
        """Give all places back."""
        for stream in self._streams:
            stream.close()
        self._client.close()

    def _accept(self, owner: str) -> str:
        asked = AnimationOptions(prompt="smiling", source="sampled")
        job_id = make_job_id()
        self._store.accept(
            job_id=job_id, owner=owner, options=asked, input=InputFacts(), seed=1, model_id="carried by no worker"
        )
        return job_id


@pytest.fixture
def store(settings: Settings, service_url: str) -> Iterator[JobStore]:
    store = JobStore.from_settings(settings)
    yield store
    store.close()


@pytest.fixture
def crowd(store: JobStore, service_url: str) -> Iterator[Crowd]:
    crowd = Crowd(store, service_url)
    yield crowd
    crowd.leave()


@pytest.fixture
def page(browser: Browser, base_url: str, store: JobStore, witness: Witness) -> Iterator[Page]:
    """A page with a key of ada's."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(JOB_MS)
    context.add_init_script(f"sessionStorage.setItem('animato-key', '{store.create_key('ada')[0]}')")
    page = context.new_page()
    witness.watch(page)
    page.goto(base_url)
    page.wait_for_selector(".samples .tile")
    page.wait_for_selector(".chip")
    yield page
    context.close()


@pytest.fixture
def streams(page: Page) -> list[int]:
    """The statuses of the page's requests for events, as they come."""
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if answer.url.endswith("/events") else None)
    return statuses


def submit(page: Page, seconds: float) -> None:
    page.fill("#prompt", "smiling")
    set_duration(page, seconds)
    page.click("#submit")


def expect_film(page: Page) -> None:
    wait_for_result(page)
    wait_true(page, "document.getElementById('video').readyState >= 2")
    assert page.get_attribute("#stage", "data-show") == "video"


@pytest.mark.parametrize(("owners", "status"), [(["ada"], 429), (["bob", "cleo", "dan"], 503)])
def test_film_comes_where_the_stream_is_refused(
    page: Page, crowd: Crowd, streams: list[int], witness: Witness, owners: list[str], status: int
) -> None:
    for owner in owners:
        crowd.wait(owner, PLACES_OF_ONE)
    submit(page, 2)
    expect_film(page)
    assert set(streams) == {status}, "every stream was refused"
    witness.troubles[:] = [trouble for trouble in witness.troubles if f"a status of {status}" not in trouble]


def test_film_comes_where_the_stream_breaks_and_finds_no_place_again(
    page: Page, crowd: Crowd, road: Proxy, streams: list[int], witness: Witness
) -> None:
    crowd.wait("ada", PLACES_OF_ONE - 1)
    submit(page, 12)
    wait_true(page, "document.getElementById('stage').dataset.show === 'preview'")  # nothing but the stream carries one
    with road.made(Road.CUT):
        crowd.wait("ada", 1)  # the page's own place, once the service has seen that it is gone
    expect_film(page)
    assert streams[0] == 200
    assert set(streams[1:]) == {429}, "it was never let in again"
    expected = ("a status of 429", "net::ERR_")
    witness.troubles[:] = [trouble for trouble in witness.troubles if not any(words in trouble for words in expected)]
