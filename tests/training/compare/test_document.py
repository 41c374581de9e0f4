"""What a report is written with: blocks, plots, grids."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from training.compare.document import Heading, Listing, Paragraph, Picture, Table, to_html, to_markdown
from training.compare.pictures import CELL_PX, GAP_PX, LABEL_PX, break_label, draw_flow, draw_grid, pick_columns
from training.compare.plots import BARS_PX, colour_of, plot_bars, plot_lines

BLOCKS = [
    Heading("a < b", 1),
    Paragraph("one & two"),
    Listing(["first", "second"]),
    Table(["gate", "result"], [["x | y", "PASS"], ["z", "FAIL"], ["w", "NOT MEASURED"]]),
    Picture("strip.jpg", "a “strip”"),
]


def test_markdown_has_every_block() -> None:
    text = to_markdown(BLOCKS)
    assert text.startswith("# a < b\n")
    assert "- first\n- second" in text
    assert "| gate | result |\n| --- | ---: |\n| x \\| y | PASS |" in text
    assert "![a “strip”](strip.jpg)" in text


def test_html_is_whole_escaped_and_needs_nothing_from_elsewhere() -> None:
    page = to_html(BLOCKS)
    assert "<h1>a &lt; b</h1>" in page
    assert "one &amp; two" in page
    assert "<td class='PASS'>PASS</td>" in page
    assert "<td class='NOT'>NOT MEASURED</td>" in page
    assert "<script" not in page
    assert not re.search(r"https?:", page)
    ET.fromstring(page.removeprefix("<!doctype html>\n").replace("<meta charset='utf-8'>", ""))


NS = "{http://www.w3.org/2000/svg}"


def test_bars_are_as_long_as_their_means() -> None:
    root = ET.fromstring(
        plot_bars(["a", "b<", "c"], [("t", [2.0, 1.0, float("nan")], [float("nan"), 0.0, float("nan")])])
    )
    bars = [r for r in root.iter(f"{NS}rect") if r.get("fill", "").startswith("#")]
    assert [float(r.get("width", "0")) for r in bars] == [BARS_PX, BARS_PX / 2], "what is no number has no bar"
    assert [r.get("fill") for r in bars] == [colour_of(0), colour_of(1)]


def test_lines_keep_a_method_s_colour_when_another_is_missing() -> None:
    line = np.array([0.0, 0.5, 1.0])
    root = ET.fromstring(plot_lines("t", "x", ["a", "b"], [None, line]))
    strokes = {p.get("stroke") for p in root.iter(f"{NS}path")}
    assert colour_of(1) in strokes
    assert colour_of(0) not in strokes


def test_a_grid_has_a_row_a_method_and_shows_the_first_and_last_frame() -> None:
    assert pick_columns(16)[0] == 0
    assert pick_columns(16)[-1] == 15
    cells = np.zeros((8, 64, 64, 3), np.uint8)
    cells[3] = 200
    sheet = draw_grid([("ours", cells), ("a very long name of a method", cells[:2])])
    assert sheet.size == (LABEL_PX + 8 * (CELL_PX + GAP_PX), 2 * (CELL_PX + GAP_PX))
    middle = CELL_PX // 2
    assert sheet.getpixel((LABEL_PX + 3 * (CELL_PX + GAP_PX) + middle, middle)) == (200, 200, 200)
    assert sheet.getpixel((LABEL_PX + 2 * (CELL_PX + GAP_PX) + middle, middle)) == (0, 0, 0)


@pytest.mark.parametrize(
    "label", ["ours", "renderer (the truth)", "mocogan-hd", "The paper, without the contrastive loss"]
)
def test_labels_fit_their_margin(label: str) -> None:
    lines = break_label(label)
    assert 1 <= len(lines) <= 3
    assert all(len(line) <= 18 for line in lines)
    assert " ".join(lines).replace("- ", "-") == label


def test_flow_of_all_methods_has_one_scale() -> None:
    slow, fast = np.full((2, 8, 8, 2), 0.5, np.float32), np.full((2, 8, 8, 2), 1.0, np.float32)
    sheet, full_px = draw_flow([("fast", fast), ("slow", slow), ("jumps", 50 * fast)])
    assert full_px == pytest.approx(2**0.5, rel=0.01), "a rival that jumps must not bleach the others"
    at = LABEL_PX + CELL_PX // 2
    deep, pale = sheet.getpixel((at, CELL_PX // 2)), sheet.getpixel((at, CELL_PX + GAP_PX + CELL_PX // 2))
    assert isinstance(pale, tuple)
    assert isinstance(deep, tuple)
    assert min(pale) > min(deep) + 80, "half as fast is half as deep"
