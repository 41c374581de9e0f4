"""A real headless Chromium for the tests of the page, and the running service that it looks at.

The browser is the system's own (Debian: ``apt install chromium``); playwright only drives it. Where there is none the
browser tests are skipped, and say so.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from services.settings import Settings

ROOT = Path(__file__).parents[2]
# Only ever waited for by a test that fails.
JOB_MS = 400_000
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class NoBrowserError(Exception):
    """There is no Chromium or nothing to drive it with; the message says how to get it."""


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Yield a headless Chromium with a fresh profile. Raises: NoBrowserError."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    if binary is None:
        raise NoBrowserError("no Chromium on this machine (apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise NoBrowserError("playwright is not installed (pip install -e '.[dev]')") from None
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=list(FLAGS), headless=True)
        try:
            yield browser
        finally:
            browser.close()


def wait_true(page: Page, expression: str, timeout: float = JOB_MS) -> None:
    """Wait until an expression is true in the page. Raises: AssertionError after ``timeout`` ms.

    Asked from outside: playwright's own ``wait_for_function`` polls by eval inside the page, which its content policy
    forbids.
    """
    deadline_s = time.monotonic() + timeout / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline_s, f"not true within {timeout / 1000:.0f} s: {expression}"
        page.wait_for_timeout(100)


@dataclass
class Witness:
    """Hears what a page says and asks for: console messages, script errors and requests."""

    base_url: str
    troubles: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    refusals_expected: bool = False

    def watch(self, page: Page) -> None:
        """Listen from before the first request."""
        page.on("console", lambda message: self._hear(message.type, message.text))
        page.on("pageerror", lambda error: self.troubles.append(f"uncaught: {error}"))
        page.on("request", lambda request: self._see(request.url))

    def _hear(self, kind: str, text: str) -> None:
        if self.refusals_expected and text.startswith(
            "Failed to load resource: the server responded with a status of 4"
        ):
            return  # the browser's own line about an answer that the test provoked
        if kind in {"error", "warning"}:
            self.troubles.append(f"{kind}: {text}")

    def _see(self, url: str) -> None:
        if urlsplit(url).scheme not in {"data", "blob"} and not url.startswith(self.base_url):
            self.foreign.append(url)


def find_bundles_dir() -> Path | None:
    """Return the folder of bundles to test with: the one asked for, or the one that ships; None where there is none."""
    asked = os.environ.get("ANIMATO_BUNDLES_DIR")
    folder = Path(asked) if asked else ROOT / "bundles"
    return folder if any(folder.glob("*/manifest.json")) else None


def find_samples_dir() -> Path | None:
    """Return the folder of sample faces that ships, or None where there is none."""
    folder = ROOT / "samples"
    return folder if any(folder.glob("*.png")) else None


def draw_face(path: Path, size_px: int = 256) -> Path:
    """Draw a plain face, for a tree without samples."""
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (size_px, size_px), "#9fc8d8")
    pen = ImageDraw.Draw(picture)
    unit = size_px / 16
    pen.ellipse((3 * unit, 2 * unit, 13 * unit, 14 * unit), fill="#d9a47c")
    for left in (5, 9.5):
        pen.ellipse((left * unit, 6 * unit, (left + 1.5) * unit, 7.5 * unit), fill="#2b1d14")
    pen.arc((6 * unit, 8 * unit, 10 * unit, 11.5 * unit), 20, 160, fill="#7c2f2f", width=round(unit / 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return path


def wait_for_result(page: Page) -> None:
    page.wait_for_selector("#result:not([hidden]), #problem:not([hidden])", timeout=JOB_MS)
    assert page.is_hidden("#problem"), page.inner_text("#problem")


def set_duration(page: Page, seconds: float) -> None:
    """Move the slider as far as it goes, and beyond where a test needs a job that lasts (the API allows 40 s)."""
    page.evaluate(
        """value => { const dial = document.getElementById("duration");
        dial.max = Math.max(dial.max, value); dial.value = value; dial.dispatchEvent(new Event("input")); }""",
        seconds,
    )


def locked_settings(folder: Path, bundles_dir: Path, **changes: object) -> Settings:
    """Settings of a service below ``folder`` that asks for keys, with one sample face."""
    from services.settings import Settings

    draw_face(folder / "samples" / "ada.png")
    places = {"data_dir": folder / "data", "bundles_dir": bundles_dir, "samples_dir": folder / "samples"}
    return Settings.model_validate({**places, "host": "127.0.0.1", "port": 0, "auth": "on", **changes})
