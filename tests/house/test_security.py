"""The table of docs/security.md: every requirement names tests, and every test that it names is there."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.house.tree import ROOT

ROWS = [
    (cells[0].strip(), re.findall(r"`(tests/[^`]+)::(\w+)`", cells[1]))
    for line in (ROOT / "docs" / "security.md").read_text(encoding="utf-8").splitlines()
    if (cells := line.strip("| ").split(" | ")) and "`tests/" in line and len(cells) == 2
]


@cache
def list_tests(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_the_table_is_read() -> None:
    assert len(ROWS) >= 17


@pytest.mark.parametrize(("requirement", "tests"), ROWS, ids=[row[0][:40] for row in ROWS])
def test_every_requirement_has_its_tests(requirement: str, tests: list[tuple[str, str]]) -> None:
    assert tests, requirement
    missing = [f"{path}::{name}" for path, name in tests if name not in list_tests(path)]
    assert not missing, f"{requirement}: these are gone or were renamed"
