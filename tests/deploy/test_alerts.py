"""The alerts mean what they say: Prometheus itself tries them, every series exists, and every one has its section.

``promtool`` comes with Prometheus; where it is missing these tests say so aloud, and ``.ci/run alerts`` gets one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from services.api.app import create_app
from services.settings import Settings
from tests.house.tree import ROOT
from tests.services.api.conftest import write_model
from worker.metrics import WorkerMetrics

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
STORIES = ROOT / "tests" / "deploy" / "alerts.test.yml"
OPERATIONS = ROOT / "docs" / "operations.md"
DASHBOARD = ROOT / "deploy" / "grafana" / "animato.json"
# Words of the query language in which the names of series stand.
_SERIES = re.compile(r"\b((?:animation|http|process)_[a-z_]+)")
# What a series of a histogram or counter adds to the name of its family.
_SUFFIXES = ("_bucket", "_sum", "_count", "_total")


def read_alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


ALERTS = read_alerts()


def read_sections() -> dict[str, str]:
    """What docs/operations.md says to do, by alert."""
    _, _, advice = OPERATIONS.read_text(encoding="utf-8").partition("## What to do when")
    return {text.partition("\n")[0].strip(): text for text in re.split(r"^### ", advice, flags=re.MULTILINE)[1:]}


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool") or shutil.which("promtool", path=str(ROOT / ".venv" / "bin"))
    if found is None:
        pytest.skip("THE ALERTS WERE NOT TRIED: promtool is missing; `.ci/run alerts` gets it from Debian's prometheus")
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", str(RULES)),
        ("check", "config", str(RULES.with_name("prometheus.yml"))),
        ("test", "rules", str(STORIES)),
    ],
    ids=["rules", "config", "stories"],
)
def test_promtool_is_content(promtool: str, arguments: tuple[str, ...]) -> None:
    done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    quiet, loud = set(), set()
    for story in yaml.safe_load(STORIES.read_text(encoding="utf-8"))["tests"]:
        for case in story["alert_rule_test"]:
            (loud if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert quiet == set(ALERTS), "alerts.test.yml says of each alert when it must be quiet"
    assert loud == set(ALERTS), "and when it must not"


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_how_bad_it_is_and_what_to_do(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{name.lower()}"
    assert rule["annotations"]["action"]
    assert len(read_sections().get(name, "").split()) > 40, f"docs/operations.md has no section {name} that helps"


def test_every_section_is_about_an_alert_that_exists() -> None:
    assert set(read_sections()) == set(ALERTS)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all families that a real API and a worker export."""
    folder = tmp_path_factory.mktemp("api")
    write_model(folder / "bundles")
    app = create_app(Settings(data_dir=folder / "data", bundles_dir=folder / "bundles", auth="off"))
    with TestClient(app) as client:
        texts = (client.get("/metrics").text, generate_latest(WorkerMetrics().registry).decode())
    return {family.name for text in texts for family in text_string_to_metric_families(text)}


def test_series_that_are_asked_for_exist(exported: set[str]) -> None:
    asked = {path: set(_SERIES.findall(text)) for path, text in _queries().items()}
    assert all(asked.values())
    for path, names in asked.items():
        missing = {name for name in names if not {name, *_stems(name)} & exported}
        assert not missing, path


def test_the_contract_of_metrics_is_kept(exported: set[str]) -> None:
    promised = {
        *("animation_jobs", "animation_queue_depth", "animation_jobs_in_progress", "animation_queue_wait_seconds"),
        *("animation_stage_duration_seconds", "animation_frames", "animation_model_info"),
        *("animation_worker_last_heartbeat_timestamp_seconds", "http_request_duration_seconds"),
    }
    assert promised <= exported


def _queries() -> dict[Path, str]:
    rules = "\n".join(str(rule["expr"]) for rule in ALERTS.values())
    return {RULES: rules, DASHBOARD: DASHBOARD.read_text(encoding="utf-8")}


def _stems(name: str) -> set[str]:
    return {name.removesuffix(suffix) for suffix in _SUFFIXES}
