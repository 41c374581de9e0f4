"""The habits of the house that a machine can check: sizes, names, docstrings, nothing left lying about."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.house.tree import ROOT, list_files, list_python, read_text

USUAL_LIMIT_LINES = 400
HARD_LIMIT_LINES = 500
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers"}
# Written in pieces, so that this file does not contain what it looks for.
MARKS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
HOME_PATHS = re.compile(r"(?<![\w.~$}*-])/(?:wo" + r"rk|work" + r"space|home/\w+|Users/\w+|ro" + r"ot)/[\w.]")
# The builder's own cache folder inside an image is no path of anybody's machine.
ALLOWED_HOME_PATHS = ("/ro" + "ot/.cache/pip",)
INDEX_OPTIONS = re.compile(r"(?:--(?:extra-)?index-url|--find-links|(?:extra-)?index-url\s*=)[ =]*[\"']?(\S+)")
PUBLIC_INDEXES = ("https://pypi.org/simple", "https://download.pytorch.org/whl/")


def test_python_files_are_short() -> None:
    lines = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in list_python()}
    assert {path: n for path, n in lines.items() if n > HARD_LIMIT_LINES} == {}
    long = {path: n for path, n in lines.items() if n > USUAL_LIMIT_LINES}
    assert len(long) <= 0.05 * len(lines), f"too many files of more than {USUAL_LIMIT_LINES} lines: {long}"


def test_every_module_says_what_it_is_for() -> None:
    silent = []
    for path in list_python():
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        if path.parts[0] != "tests" and not ast.get_docstring(tree):  # a test module's name and tests say it
            silent.append(str(path))
    assert not silent


def test_no_vague_module_names() -> None:
    vague = [str(path) for path in list_python() if VAGUE_NAMES & {path.stem, *path.parts[:-1]}]
    assert not vague


def scan(pattern: re.Pattern[str]) -> list[tuple[Path, int, str]]:
    """Return every line of the tree that matches, with its place."""
    hits = []
    for path in list_files():
        if path.suffix in {".svg", ".onnx", ".lock"} or "heldout" in path.name:
            continue
        text = read_text(path)
        for number, line in enumerate((text or "").splitlines(), start=1):
            if pattern.search(line):
                hits.append((path, number, line.strip()[:200]))
    return hits


def test_no_unfinished_marks() -> None:
    assert not scan(MARKS)


def test_no_paths_of_one_machine() -> None:
    hits = [hit for hit in scan(HOME_PATHS) if not any(allowed in hit[2] for allowed in ALLOWED_HOME_PATHS)]
    assert not hits


def test_package_indexes_are_public() -> None:
    hosts = [
        (path, found)
        for path, _, line in scan(INDEX_OPTIONS)
        for found in INDEX_OPTIONS.findall(line)
        if not found.startswith((*PUBLIC_INDEXES, "$(")) and path.parts[:2] != ("tests", "house")
    ]
    assert not hosts


def test_the_scans_can_find_something() -> None:
    assert MARKS.search("# TO" + "DO: later")
    assert HOME_PATHS.search('path = "/ro' + 'ot/project/x"')
    assert HOME_PATHS.search("cd /wo" + "rk/main")
    assert not HOME_PATHS.search("https://host/wo" + "rk/x")
    assert INDEX_OPTIONS.findall("pip install --index-url https://mirror.example/simple x") == [
        "https://mirror.example/simple"
    ]


def test_job_status_is_never_read_from_celery() -> None:
    readers = []
    for path in list_python():
        if path.parts[0] not in {"services", "worker", "cli"}:
            continue
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else None
            if name in {"AsyncResult", "EagerResult", "ResultSet", "result_backend"}:
                readers.append(f"{path}:{node.lineno}")
    assert not readers
