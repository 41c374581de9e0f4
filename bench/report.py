"""What a measurement hands back, and how the figures become a table and a file. Measures nothing itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Args:
        name: what was measured, in a few words; stable, so that two runs can be compared.
        value: the number, in ``unit``.
        unit: s, ms, MB, frames/s, ...
        baseline: what it is compared with, in the same unit; None where nothing is.
        compared_with: what the baseline is.
        goal: what the project promises, in words; empty where nothing is promised.
    """

    name: str
    value: float
    unit: str
    baseline: float | None = None
    compared_with: str = ""
    goal: str = ""

    @property
    def ratio(self) -> float | None:
        """Value ÷ baseline, or None."""
        return None if not self.baseline else self.value / self.baseline


def to_json(figures: Iterable[Figure], machine: dict[str, str]) -> str:
    """Return the figures as a JSON list; each carries its ratio and the machine that it was measured on."""
    rows = [asdict(figure) | {"ratio": figure.ratio, "machine": machine} for figure in figures]
    return json.dumps(rows, indent=1, ensure_ascii=False) + "\n"


def to_markdown(figures: Sequence[Figure], machine: dict[str, str]) -> str:
    """Return the machine as a list and the figures as one table."""
    lines = [f"- {name}: {value}" for name, value in machine.items()]
    lines += ["", "| what | value | compared with | ratio | goal |", "| --- | --- | --- | --- | --- |"]
    for figure in figures:
        compared = "" if figure.baseline is None else f"{_show(figure.baseline)} {figure.unit}: {figure.compared_with}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        lines.append(f"| {figure.name} | {_show(figure.value)} {figure.unit} | {compared} | {ratio} | {figure.goal} |")
    return "\n".join(lines) + "\n"


def write_between_marks(document: Path, mark: str, text: str) -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- /mark -->`` in a document.

    Raises: ValueError when the document lacks the marks.
    """
    opening, closing = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    old = document.read_text(encoding="utf-8")
    head, found, rest = old.partition(opening)
    _, found_end, tail = rest.partition(closing)
    if not (found and found_end):
        raise ValueError(f"{document} lacks the marks {opening} and {closing}")
    document.write_text(f"{head}{opening}\n{text}{closing}{tail}", encoding="utf-8")


def _show(value: float) -> str:
    """Three significant digits, no exponent."""
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
