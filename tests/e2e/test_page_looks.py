"""How the page looks and who can use it: light and dark, desktop and phone, contrast, names, reduced motion."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.e2e.browser import set_duration, wait_for_result, wait_true

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.e2e, pytest.mark.browser, pytest.mark.timeout(1500)]


def test_every_control_has_a_name(open_page: Callable[..., Page]) -> None:
    page = open_page()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, select, textarea, video, progress")]
        .filter(e => e.getAttribute("aria-hidden") !== "true")
        .filter(e => !(e.ariaLabel || e.textContent.trim() && e.tagName !== "SELECT" || e.labels?.length))
        .map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert page.get_attribute("#status", "aria-live") == "polite"
    assert page.get_attribute("#problem", "role") == "alert"


def brightness(picture: bytes) -> float:
    return float(np.asarray(Image.open(io.BytesIO(picture)).convert("L")).mean())


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 320)])
def test_light_dark_desktop_phone(open_page: Callable[..., Page], scheme: str, width: int) -> None:
    page = open_page(color_scheme=scheme, viewport={"width": width, "height": 800}, has_touch=width < 500)
    bare = page.evaluate("() => { document.querySelector('.theatre').style.visibility = 'hidden'; }")
    assert bare is None
    shade = brightness(page.screenshot())
    assert shade > 200 if scheme == "light" else shade < 60
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing hangs over the edge"
    faint = page.evaluate(
        """() => { const levels = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
        const linear = (c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const luminance = (rgb) => rgb.map(c => linear(c / 255))
          .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const paper = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
          if (!c.startsWith("rgba(0, 0, 0, 0")) return c; } return "rgb(255, 255, 255)"; };
        return [...document.querySelectorAll("p, label, button, a, h2, output, summary")]
          .filter(e => e.offsetParent && !e.closest(".theatre") && e.textContent.trim())
          .map(e => { const [a, b] = [getComputedStyle(e).color, paper(e)].map(c => luminance(levels(c)));
            return [e.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)]; })
          .filter(([, contrast]) => contrast < 4.5); }"""
    )
    assert faint == [], "too little contrast to read (WCAG AA asks for 4.5)"
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, select, .fields input, summary, nav a")]
        .filter(e => e.offsetParent).map(e => [e.textContent.trim() || e.id, e.getBoundingClientRect().height])
        .filter(([, height]) => height < 24)"""
    )
    assert small == [], "too small for a thumb (WCAG asks for 24 px)"


def test_reduced_motion_is_respected(open_page: Callable[..., Page]) -> None:
    page = open_page(reduced_motion="reduce")
    page.fill("#prompt", "smiling")
    set_duration(page, 0.5)
    page.click("#submit")
    assert page.evaluate("getComputedStyle(document.querySelector('.stage'), '::after').animationName") == "none"
    wait_for_result(page)
    wait_true(page, "document.getElementById('video').readyState >= 2")
    assert page.evaluate("document.getElementById('video').paused") is True
