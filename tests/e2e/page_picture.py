"""Takes the README's picture of the page: a finished film on a desktop, in light colours. Run by ``make page-picture``.

With ``--all FOLDER`` it also takes dark, phone, working and failing pages, to be looked at.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page

from services.launcher import embedded_service
from services.settings import Settings
from tests.e2e.browser import (
    ROOT,
    find_bundles_dir,
    find_samples_dir,
    open_browser,
    set_duration,
    wait_for_result,
    wait_true,
)

TAKES = (("surprised", 1, 7), ("winking", 2, 3), ("laughing out loud", 0, 11))


def main() -> None:
    """Start the service (on its usual port: the picture shows its address), make three films and take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/images/page.png")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="also take the other looks of the page into FOLDER")
    parser.add_argument("--samples", type=Path, default=find_samples_dir())
    options = parser.parse_args()
    bundles_dir = find_bundles_dir()
    if bundles_dir is None or options.samples is None:
        parser.error("there is no bundle or no sample face in this tree")
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), bundles_dir=bundles_dir, samples_dir=options.samples)
        with embedded_service(settings) as url, open_browser() as browser:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            take_finished(browser, url, options.out, color_scheme="light", viewport={"width": 1280, "height": 860})
            if options.all:
                take_others(browser, url, options.all)


def take_finished(browser: Browser, url: str, path: Path, **options: object) -> None:
    """Take the page with three films in its history, the last one standing at its liveliest frame."""
    context = browser.new_context(**options)  # type: ignore[arg-type]
    page = context.new_page()
    open_page(page, url)
    for words, face, seed in TAKES:
        page.locator(".samples .tile").nth(face).click()
        page.fill("#prompt", words)
        page.dispatch_event("#prompt", "input")
        page.fill("#seed", str(seed))
        page.click("#submit")
        wait_for_result(page)
    page.click("summary")
    page.evaluate(
        "video => { video.pause(); video.currentTime = video.duration * 0.98; }", page.query_selector("video")
    )
    page.evaluate("video => { video.controls = false; }", page.query_selector("video"))
    page.mouse.move(2, 2)
    page.wait_for_timeout(800)
    page.screenshot(path=path, full_page=True)
    context.close()


def take_others(browser: Browser, url: str, folder: Path) -> None:
    """Take what a person sees on other screens and at other moments."""
    folder.mkdir(parents=True, exist_ok=True)
    take_finished(browser, url, folder / "dark.png", color_scheme="dark", viewport={"width": 1280, "height": 860})
    take_finished(browser, url, folder / "phone.png", color_scheme="light", viewport={"width": 390, "height": 844})
    for name, scheme, width in (("start", "light", 1280), ("small", "dark", 320)):
        context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800})  # type: ignore[arg-type]
        page = context.new_page()
        open_page(page, url)
        page.screenshot(path=folder / f"{name}.png", full_page=True)
        page.fill("#prompt", "laughing")
        set_duration(page, 8)
        page.click("#submit")
        page.wait_for_selector("#stage[data-show=preview]", timeout=60_000)
        page.screenshot(path=folder / f"{name}-working.png", full_page=True)
        page.click("#cancel")
        page.wait_for_selector("#problem:not([hidden])", timeout=60_000)
        page.screenshot(path=folder / f"{name}-canceled.png", full_page=True)
        context.close()


def open_page(page: Page, url: str) -> None:
    """Go to the page and wait until it has its samples and suggestions."""
    page.goto(url)
    page.wait_for_selector(".samples .tile")
    page.wait_for_selector(".chip")
    wait_true(page, "document.getElementById('face').naturalWidth > 0")


if __name__ == "__main__":
    main()
