"""A running service and a browser that looks at it, for one module: the driver's event loop must not outlive it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from tests.e2e.browser import (
    JOB_MS,
    NoBrowserError,
    Witness,
    draw_face,
    find_bundles_dir,
    find_samples_dir,
    open_browser,
)
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NO_BROWSER = "THE PAGE WAS NOT TESTED: {}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    try:
        with open_browser() as opened:
            yield opened
    except NoBrowserError as error:
        pytest.skip(NO_BROWSER.format(error))


@pytest.fixture(scope="module")
def base_url(
    browser: Browser, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    running = os.environ.get("E2E_BASE_URL")  # for instance the one that docker compose brought up
    if running:
        yield running.rstrip("/")
        return
    from services.launcher import embedded_service
    from services.settings import Settings

    folder = tmp_path_factory.mktemp("service")
    bundles_dir = find_bundles_dir() or request.getfixturevalue("tiny_bundle").parent
    samples_dir = find_samples_dir()
    if samples_dir is None:
        samples_dir = folder / "samples"
        draw_face(samples_dir / "ada.png")
        draw_face(samples_dir / "bob.png", 200)
    settings = Settings(
        data_dir=folder / "data", bundles_dir=bundles_dir, samples_dir=samples_dir, host="127.0.0.1", port=0
    )
    # Films are written at viewing speed, so that a job lasts long enough to be looked at on any machine.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FFMPEG_VARIABLE, str(pace_ffmpeg(folder)))
        with embedded_service(settings) as url:
            yield url


@pytest.fixture
def witness(base_url: str) -> Iterator[Witness]:
    seen = Witness(base_url)
    yield seen
    assert seen.troubles == []
    assert seen.foreign == [], "the page must ask nobody but its own service"


@pytest.fixture
def open_page(browser: Browser, base_url: str, witness: Witness) -> Iterator[Callable[..., Page]]:
    contexts = []

    def open_one(**options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})  # type: ignore[arg-type]
        context.set_default_timeout(JOB_MS)
        contexts.append(context)
        page = context.new_page()
        witness.watch(page)
        page.goto(base_url)
        page.wait_for_selector(".samples .tile")
        page.wait_for_selector(".chip")
        return page

    yield open_one
    for context in contexts:
        context.close()
