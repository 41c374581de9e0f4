"""The page of a service that asks for keys: it asks for one, keeps it in the tab, and shows films that need it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.jobs.store import JobStore
from services.launcher import embedded_service
from services.settings import Settings
from tests.e2e.browser import JOB_MS, Witness, locked_settings, set_duration, wait_for_result, wait_true

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(2000)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Settings:
    return locked_settings(tmp_path_factory.mktemp("service"), tiny_bundle.parent)


@pytest.fixture(scope="module")
def base_url(browser: Browser, settings: Settings) -> Iterator[str]:
    with embedded_service(settings) as url:
        yield url


@pytest.fixture
def store(settings: Settings, base_url: str) -> Iterator[JobStore]:
    store = JobStore.from_settings(settings)
    yield store
    store.close()


@pytest.fixture
def page(browser: Browser, base_url: str, witness: Witness) -> Iterator[Page]:
    witness.refusals_expected = True
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    context.set_default_timeout(JOB_MS)
    page = context.new_page()
    witness.watch(page)
    page.goto(base_url)
    yield page
    context.close()


def give_key(page: Page, key: str) -> None:
    page.wait_for_selector("#key-sheet[open]")
    page.fill("#key", key)
    page.keyboard.press("Enter")


def test_asks_for_a_key_and_shows_the_film(page: Page, store: JobStore, settings: Settings) -> None:
    give_key(page, "ank_" + "0" * 16 + "_" + "x" * 43)
    page.wait_for_selector("#key-problem:not(:empty)")
    assert "not known" in page.inner_text("#key-problem")
    key, record = store.create_key("ada")
    give_key(page, key)
    page.wait_for_selector(".chip")
    assert page.is_hidden("#key-sheet")

    page.fill("#prompt", "smiling")
    set_duration(page, 1)
    page.click("#submit")
    wait_for_result(page)
    wait_true(page, "document.getElementById('video').readyState >= 2")
    assert page.get_attribute("#download", "href").startswith("blob:"), "an element can't send the key"
    with page.expect_download() as waiting:
        page.click("#download")
    assert Path(waiting.value.path()).read_bytes()[4:8] == b"ftyp"
    wait_true(page, "document.querySelector('.take img').naturalWidth > 0")
    page.click("summary")
    assert "$ANIMATO_API_KEY" in page.inner_text("#curl")
    assert key not in page.content(), "the key stands nowhere on the page"
    assert [job.owner for job in store.list_page(None)[0]] == ["ada"]

    page.reload()
    page.wait_for_selector(".chip")  # the tab remembers it
    store.revoke_key(record.id)
    page.click("#surprise")
    page.fill("#prompt", "smiling")
    wait_true(page, "fetch('/v1/models', {headers: {Authorization: `Bearer ${sessionStorage['animato-key']}`}})"
              ".then((answer) => answer.status === 401)")  # fmt: skip
    page.click("#submit")
    page.wait_for_selector("#key-sheet[open]")
    assert "revoked" in page.inner_text("#key-problem")
    for log in (settings.data_dir / "logs").iterdir():
        assert key.split("_", 2)[2] not in log.read_text(errors="replace"), log.name


def test_another_key_is_another_client(page: Page, store: JobStore) -> None:
    give_key(page, store.create_key("bob")[0])
    page.wait_for_selector(".chip")
    page.click("#other-key")
    page.wait_for_selector("#key-sheet[open]")
    assert page.evaluate("sessionStorage.getItem('animato-key')") is None
    page.keyboard.press("Escape")
    page.wait_for_selector("#problem:not([hidden])")
    assert "asks for an API key" in page.inner_text("#problem"), "who puts the sheet away is told why nothing works"
    page.fill("#prompt", "smiling")
    page.click("#surprise")
    page.click("#submit")
    page.wait_for_selector("#key-sheet[open]")
    assert page.is_hidden("#key-problem"), "no key was refused: none was given"
