"""The page at "/" in a real headless Chromium, against the real service: queue, API, worker, model, video."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

from tests.e2e.browser import JOB_MS, Witness, draw_face, set_duration, wait_for_result, wait_true

if TYPE_CHECKING:
    from playwright.sync_api import Page

PATIENCE_S = JOB_MS / 1000
pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(1500)]


def test_sample_to_playing_film(open_page: Callable[..., Page], base_url: str, tmp_path: Path) -> None:
    page = open_page()
    samples = page.locator(".samples .tile")
    assert samples.first.get_attribute("aria-pressed") == "true", "a face stands ready from the start"
    samples.nth(1).click()
    assert samples.nth(1).get_attribute("aria-pressed") == "true"
    page.locator(".chip").first.click()
    words = page.input_value("#prompt")
    assert words == page.locator(".chip").first.inner_text()
    set_duration(page, 10)  # and ten seconds until it is ready, with at most two events in each
    page.evaluate(
        """() => { window.heard = []; window.shown = new Set();
        new MutationObserver(() => window.heard.push(document.getElementById("status").textContent))
          .observe(document.getElementById("status"), {childList: true, characterData: true, subtree: true});
        new MutationObserver(() => window.shown.add(document.getElementById("stage").dataset.show))
          .observe(document.getElementById("stage"), {attributes: true}); }"""
    )
    page.click("#submit")
    assert page.is_disabled("#submit"), "one click, one job"
    wait_for_result(page)

    heard = page.evaluate("window.heard")
    assert "Drawing" in heard, heard
    assert "preview" in page.evaluate("[...window.shown]"), "a frame is seen before the film is ready"
    wait_true(page, "document.getElementById('video').readyState >= 2")
    facts = page.evaluate("(({duration, paused, loop, videoWidth}) => ({duration, paused, loop, videoWidth}))(video)")
    assert facts["duration"] == pytest.approx(10.0, abs=0.2)
    assert facts["loop"] is True
    assert facts["videoWidth"] > 0
    wait_true(page, "document.getElementById('video').currentTime > 0.3")

    page.click("#looping")
    assert page.evaluate("document.getElementById('video').loop") is False
    with page.expect_download() as waiting:
        page.click("#download")
    film = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(film)
    assert film.suffix == ".mp4"
    assert film.read_bytes()[4:8] == b"ftyp"
    take = page.locator(".take")
    assert take.count() == 1
    assert words in take.inner_text()
    wait_true(page, "document.querySelector('.take img').naturalWidth > 0")


@pytest.mark.skipif(shutil.which("curl") is None, reason="THE CURL COMMAND WAS NOT TESTED: curl is not installed")
def test_curl_makes_the_same_film(open_page: Callable[..., Page], base_url: str, tmp_path: Path) -> None:
    page = open_page()
    page.fill("#prompt", 'winks; it\'s "fun" $HOME, then laughs')
    set_duration(page, 0.5)
    page.select_option("#sway", "false")
    page.click("#submit")
    wait_for_result(page)
    page.click("summary")
    command = page.inner_text("#curl")
    assert "sway=false" in command
    film = httpx.get(
        f"{base_url}{page.get_attribute('#download', 'href')}", follow_redirects=True, timeout=PATIENCE_S
    ).content

    ran = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    made = httpx.Response(200, content=ran.stdout).json()
    assert made["status"] == "succeeded", made
    assert made["input"]["prompt"] == 'winks; it\'s "fun" $HOME, then laughs'
    assert made["output"]["sha256"] == hashlib.sha256(film).hexdigest()


def test_keyboard_alone(open_page: Callable[..., Page]) -> None:
    page = open_page()
    visited: list[str] = []

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            label, ringed = page.evaluate(
                """() => { const element = document.activeElement; const box = element.closest(".line") ?? element;
                const look = getComputedStyle(element);
                return [element.id || element.className,
                        look.outlineStyle !== "none" || getComputedStyle(box).boxShadow !== "none"]; }"""
            )
            visited.append(label)
            assert ringed, f"{label} has the focus and does not show it"
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}: {visited}")

    tab_to(".samples .tile:nth-child(2)")
    page.keyboard.press("Enter")
    assert page.get_attribute(".samples .tile:nth-child(2)", "aria-pressed") == "true"
    tab_to("#prompt")
    page.keyboard.type("smiling")
    tab_to("#duration")
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("#duration-value") == "0.5 s"
    page.keyboard.press("Control+Enter")
    wait_for_result(page)
    page.keyboard.press("Shift+Tab")
    page.focus("#prompt")
    page.keyboard.press("Enter")
    wait_true(page, "document.querySelectorAll('.take').length === 2")
    assert page.input_value("#prompt") == "smiling", "Enter sends and writes no line break"
    wait_for_result(page)


def test_errors_come_in_words(open_page: Callable[..., Page], witness: Witness, tmp_path: Path) -> None:
    witness.refusals_expected = True
    page = open_page()
    page.click("#submit")
    assert "Say what the face should do." in page.inner_text("#problem")

    page.fill("#prompt", "smiling")
    text = tmp_path / "letter.txt"
    text.write_text("not a picture")
    page.set_input_files("#file", text)
    page.click("#submit")
    page.wait_for_selector("#problem:not([hidden])")
    first = page.inner_text("#problem")

    tiny = tmp_path / "tiny.png"
    Image.new("RGB", (8, 8), "red").save(tiny)
    page.set_input_files("#file", tiny)
    assert page.is_hidden("#problem"), "a new face clears the old complaint"
    page.click("#submit")
    page.wait_for_selector("#problem:not([hidden])")
    second = page.inner_text("#problem")

    page.fill("#seed", "-3")
    page.click("#submit")
    third = page.inner_text("#problem")
    for words in (first, second, third):
        assert len(words.splitlines()) == 2, f"what happened, and what to do: {words!r}"
        assert "{" not in words
        assert "undefined" not in words
    assert len({first, second, third}) == 3
    assert page.is_enabled("#submit"), "one can try again"

    page.fill("#seed", "")
    set_duration(page, 0.5)
    page.locator(".samples .tile").first.click()
    page.click("#submit")
    wait_for_result(page)


def test_unreachable_service_is_told(open_page: Callable[..., Page], witness: Witness) -> None:
    page = open_page()
    page.context.set_offline(True)
    page.fill("#prompt", "smiling")
    page.click("#surprise")
    page.click("#submit")
    page.wait_for_selector("#problem:not([hidden])")
    assert "The service does not answer." in page.inner_text("#problem")
    witness.troubles[:] = [trouble for trouble in witness.troubles if "ERR_INTERNET_DISCONNECTED" not in trouble]


def test_cancel(open_page: Callable[..., Page], base_url: str) -> None:
    page = open_page()
    page.fill("#prompt", "smiling")
    set_duration(page, 40)
    page.click("#submit")
    page.wait_for_selector("#cancel:not([hidden])", timeout=JOB_MS)
    job_id = page.evaluate("location.hash.slice(1)")
    page.click("#cancel")
    page.wait_for_selector("#problem:not([hidden])", timeout=JOB_MS)
    assert "Canceled." in page.inner_text("#problem")
    assert page.is_enabled("#submit")
    assert page.locator(".take").count() == 0
    assert httpx.get(f"{base_url}/v1/animations/{job_id}", timeout=PATIENCE_S).json()["status"] == "canceled"


def test_a_job_that_somebody_deletes_is_no_longer_asked_for(
    open_page: Callable[..., Page], witness: Witness, base_url: str
) -> None:
    witness.refusals_expected = True
    page = open_page()
    page.route("**/events", lambda route: route.abort())
    page.fill("#prompt", "smiling")
    set_duration(page, 40)
    page.click("#submit")
    page.wait_for_selector("#cancel:not([hidden])", timeout=JOB_MS)
    job = f"/v1/animations/{page.evaluate('location.hash.slice(1)')}"
    page.route(f"**{job}", lambda route: route.abort())  # it does not see the job end, only that it is no more
    httpx.post(f"{base_url}{job}/cancel", timeout=PATIENCE_S)
    while httpx.get(f"{base_url}{job}", timeout=PATIENCE_S).json()["status"] != "canceled":
        page.wait_for_timeout(100)
    assert httpx.delete(f"{base_url}{job}", timeout=PATIENCE_S).status_code == 204
    page.unroute(f"**{job}")
    page.wait_for_selector("#problem:not([hidden])", timeout=JOB_MS)
    assert page.is_enabled("#submit")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.wait_for_timeout(3000)
    assert not asked
    witness.troubles[:] = [trouble for trouble in witness.troubles if "ERR_FAILED" not in trouble]


def test_polls_where_events_do_not_come_through(open_page: Callable[..., Page], witness: Witness) -> None:
    page = open_page()
    page.route("**/events", lambda route: route.abort())
    page.fill("#prompt", "smiling")
    set_duration(page, 1)
    page.click("#submit")
    wait_for_result(page)
    witness.troubles[:] = [trouble for trouble in witness.troubles if "ERR_FAILED" not in trouble]


def test_reload_finds_the_job_and_the_history(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.fill("#prompt", "smiling")
    set_duration(page, 2)
    page.click("#submit")
    page.wait_for_selector("#cancel:not([hidden])", timeout=JOB_MS)
    page.reload()
    wait_for_result(page)
    assert page.locator(".take").count() == 1
    page.reload()
    wait_for_result(page)
    assert page.locator(".take").count() == 1
    page.locator(".samples .tile").first.click()
    assert page.is_hidden("#result")
    page.locator(".take").click()
    wait_for_result(page)
    assert page.get_attribute("#stage", "data-show") == "video"


def test_surprise_as_a_gif(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.click("#surprise")
    assert page.get_attribute("#stage", "data-show") == "surprise"
    page.fill("#prompt", "laughing")
    page.select_option("#format", "gif")
    set_duration(page, 0.5)
    page.click("#submit")
    wait_for_result(page)
    assert page.get_attribute("#stage", "data-show") == "picture"
    wait_true(page, "document.getElementById('picture').naturalWidth > 0")
    assert (page.get_attribute("#download", "download") or "").endswith(".gif")
    page.click("summary")
    assert "source=sampled" in page.inner_text("#curl")
    assert "image=" not in page.inner_text("#curl")


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_face_by_drop_and_paste(open_page: Callable[..., Page], way: str, tmp_path: Path) -> None:
    page = open_page()
    data = list(draw_face(tmp_path / "me.png").read_bytes())
    page.evaluate(
        """([way, bytes]) => {
        const parcel = new DataTransfer();
        parcel.items.add(new File([new Uint8Array(bytes)], "me.png", {type: "image/png"}));
        dispatchEvent(way === "drop" ? new DragEvent("drop", {dataTransfer: parcel, cancelable: true})
                                     : new ClipboardEvent("paste", {clipboardData: parcel})); }""",
        [way, data],
    )
    wait_true(page, "document.getElementById('face').naturalWidth === 256")
    assert (page.get_attribute("#face", "src") or "").startswith("blob:")
    page.fill("#prompt", "smiling")
    set_duration(page, 0.5)
    page.click("#submit")
    wait_for_result(page)


def test_hostile_words_stay_words(open_page: Callable[..., Page]) -> None:
    page = open_page()
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    words = "<img src=x onerror=alert(1)><b>smiling</b>"
    page.fill("#prompt", words)
    set_duration(page, 0.5)
    page.click("#submit")
    wait_for_result(page)
    assert words in page.inner_text("#summary")
    assert words in page.inner_text(".take")
    assert page.locator("main b, img[src='x']").count() == 0


def test_policy_forbids_inline_scripts(base_url: str) -> None:
    policy = httpx.get(base_url, timeout=PATIENCE_S).headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
