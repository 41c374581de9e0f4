"""Documentation is checked like code: commands, paths, links, routes and settings that it names exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from services.settings import PREFIX, Settings
from tests.house.tree import PACKAGES, ROOT, list_documents, list_files, read_text

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Not preceded by a slash or a dot: `../shared/model/…` and URLs are no paths of this tree.
TREE_PATH = re.compile(
    r"`((?:services|worker|model|training|deploy|docs|tests|bench|cli|samples|bundles|\.ci)/[^\s`]*)`"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROUTE = re.compile(r"(?<![\w.])(/v1/[\w/{}<>:$.-]+|/livez|/readyz|/metrics)")
SETTING = re.compile(rf"(?<![\w]){PREFIX}[A-Z0-9_]+")
# Read by the compose file for the tag of its images and by `animato demo`, not by the service.
NO_SETTINGS = {"ANIMATO_TAG", "ANIMATO_API_KEY"}


def documents() -> list[Path]:
    return list_documents()


def read(path: Path) -> str:
    text = read_text(path)
    assert text is not None
    return text


def commands() -> Iterator[tuple[Path, list[str]]]:
    """Yield every command line of the documents' shell blocks, and of inline code, as words."""
    for path in documents():
        text = read(path)
        blocks = [body for language, body in FENCE.findall(text) if language in {"sh", "bash", "console", "shell"}]
        inline = re.findall(r"`((?:make|animato|python -m|docker compose) [^`]+)`", FENCE.sub("", text))
        for line in [*"\n".join(blocks).replace("\\\n", " ").splitlines(), *inline]:
            words = line.strip().removeprefix("$ ").split("#")[0].split()
            if words:
                yield path, words


def test_there_is_documentation() -> None:
    names = {path.name for path in documents()}
    assert {"README.md", "architecture.md", "bundle.md", "benchmarks.md", "settings.md"} <= names
    assert any(words[:2] == ["make", "demo"] for path, words in commands() if path.name == "README.md")
    assert any(words[:2] == ["make", "test"] for path, words in commands() if path.name == "README.md")


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([\w.-]+):(?!=)", read(Path("Makefile")), re.MULTILINE))
    missing = {
        (str(path), word)
        for path, words in commands()
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word and not word.startswith("-") and word not in targets
    }
    assert not missing


def test_animato_commands_exist() -> None:
    import typer.main

    from cli.app import app

    known = set(typer.main.get_group(app).commands)
    named = {
        (str(path), words[1])
        for path, words in commands()
        if words[0].rsplit("/", 1)[-1] == "animato" and len(words) > 1 and not words[1].startswith("--")
    }
    assert {"up", "animate", "models", "doctor"} <= known
    assert not [(path, command) for path, command in named if command not in known]


def test_python_modules_that_documents_run_exist() -> None:
    named = {
        (str(path), words[words.index("-m") + 1])
        for path, words in commands()
        if "-m" in words[:-1] and words[0].rsplit("/", 1)[-1].startswith("python")
    }
    roots = {*PACKAGES, "bench", "pip", "venv", "pytest"}
    assert not [(path, name) for path, name in named if name.split(".")[0] in roots and find_spec(name) is None]


def test_paths_that_documents_name_exist() -> None:
    missing = []
    for path in documents():
        for named in TREE_PATH.findall(read(path)):
            plain = re.sub(r"::.*$|[#:]L?\d+$", "", named).rstrip("/.,")
            # Placeholders stand for any name: <id>, {name}, NNNN, and shell patterns.
            pattern = re.sub(r"<[^>]*>|\{[^}]*\}|NNNN|…", "*", plain)
            if not any(ROOT.glob(pattern)):
                missing.append((str(path), named))
    assert not missing


def test_relative_links_lead_somewhere() -> None:
    missing = []
    for path in documents():
        for link in LINK.findall(read(path)):
            if re.match(r"[a-z]+:|#", link):
                continue
            if not (ROOT / path.parent / link.split("#")[0]).exists():
                missing.append((str(path), link))
    assert not missing


def test_routes_that_documents_name_exist() -> None:
    described = yaml.safe_load(read(Path("openapi.yaml")))["paths"]
    known = [re.compile(re.sub(r"\{[^}]+\}", "[^/]+", route) + "$") for route in [*described, "/metrics"]]
    unknown = {
        (str(path), route)
        for path in documents()
        for named in ROUTE.findall(read(path))
        if (route := named.rstrip(".:")) and not any(pattern.match(route) for pattern in known)
    }
    assert not unknown


def environment_names() -> dict[str, str]:
    return {PREFIX + name.upper(): name for name in Settings.model_fields}


def test_every_setting_is_documented() -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", read(Path("docs/settings.md")), re.MULTILINE))
    assert set(table) == set(environment_names())


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_documented_defaults_are_the_real_ones(name: str) -> None:
    table = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", read(Path("docs/settings.md")), re.MULTILINE))
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    if hasattr(default, "get_secret_value"):
        default = default.get_secret_value()
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
    assert table[PREFIX + name.upper()] == (f"`{shown}`" if shown else "empty")


def test_every_setting_that_the_tree_names_exists() -> None:
    known = {*environment_names(), *NO_SETTINGS}
    unknown = {
        (str(path), name)
        for path in list_files()
        if path.suffix in {".md", ".yml", ".yaml", ".Dockerfile", ".html", ".js"} or path.name in {"Makefile", "run"}
        for name in SETTING.findall(read_text(path) or "")
        if name not in known and not name.endswith("_")
    }
    assert not unknown


def test_decisions_are_well_formed() -> None:
    decisions = sorted(p for p in documents() if p.parent == Path("docs/decisions") and p.name != "README.md")
    assert decisions
    assert [p.name[:4] for p in decisions] == [f"{n:04d}" for n in range(1, len(decisions) + 1)]
    for path in decisions:
        text = read(path)
        assert re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", path.name), path
        assert re.match(r"# \S", text), f"{path}: no title"
        assert re.search(r"refused|alternatives", text, re.IGNORECASE), f"{path}: names no alternative that was refused"
