"""The compose project and its images keep their promises on paper; ``compose_probe.py`` tries a running one."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.house.tree import ROOT, list_files, read_text

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_fenced(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert service.get("privileged") is None
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    # Only the store's image starts as root, to give its folder away and step down.
    assert ("cap_add" in service) == (name == "seaweedfs")


@pytest.mark.parametrize("name", sorted(set(SERVICES) - {"bucket"}))
def test_every_lasting_service_has_a_health_check(name: str) -> None:
    assert SERVICES[name]["healthcheck"]["test"]


def test_only_the_api_and_prometheus_are_published() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"api", "prometheus"}
    assert COMPOSE["networks"]["back"]["internal"] is True
    inside = {"postgres", "redis", "seaweedfs", "bucket", "worker", "worker-gpu"}
    assert all(SERVICES[name]["networks"] == ["back"] for name in inside)


def test_keys_are_not_asked_for_where_only_this_host_can_ask() -> None:
    """The default goes with the publishing on 127.0.0.1 above; other pages' names are refused there."""
    environment = SERVICES["api"]["environment"]
    assert environment["ANIMATO_AUTH"] == "${ANIMATO_AUTH:-off}"
    assert environment["ANIMATO_TRUSTED_HOSTS"] == "${ANIMATO_TRUSTED_HOSTS:-localhost}"


def test_stores_wait_for_nothing_and_the_rest_for_healthy_stores() -> None:
    for name in ("api", "worker", "worker-gpu"):
        conditions = {store: waits["condition"] for store, waits in SERVICES[name]["depends_on"].items()}
        assert conditions == {
            "postgres": "service_healthy",
            "redis": "service_healthy",
            "seaweedfs": "service_healthy",
            "bucket": "service_completed_successfully",
        }


def test_data_lies_on_named_volumes() -> None:
    named = set(COMPOSE["volumes"])
    used = {
        mount.split(":")[0]
        for service in SERVICES.values()
        for mount in service.get("volumes", [])
        if not mount.startswith(".")
    }
    assert used == named == {"postgres-data", "redis-data", "seaweedfs-data", "prometheus-data", "worker-cache"}


def test_redis_forgets_nothing() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in command
    assert "--maxmemory-policy noeviction" in command


def test_images_are_pinned_to_a_version() -> None:
    for name, service in SERVICES.items():
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: {service['image']}"
    for dockerfile in DOCKERFILES:
        defaults = re.findall(r"^ARG BASE_IMAGE=(\S+)$", dockerfile.read_text(encoding="utf-8"), re.MULTILINE)
        assert defaults == ["python:3.11-slim-bookworm"]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_images_run_as_an_unprivileged_user(dockerfile: Path) -> None:
    text = dockerfile.read_text(encoding="utf-8")
    assert re.findall(r"^USER (\d+):(\d+)$", text, re.MULTILINE) == [("10001", "10001")]
    assert len(re.findall(r"^FROM ", text, re.MULTILINE)) >= 2, "not multi-stage"
    assert not re.search(r"^#\s*syntax\s*=", text, re.MULTILINE), "a syntax line needs a registry"
    assert "HEALTHCHECK" in text


def test_hadolint_is_content() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, *DOCKERFILES], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_speak_of_metrics_that_the_code_exports() -> None:
    groups = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert all(rule["annotations"]["action"] for rule in rules)
    spoken = {name for rule in rules for name in re.findall(r"\banimation_\w+", rule["expr"])}
    sources = [path for path in list_files() if path.suffix == ".py" and path.parts[0] in {"services", "worker"}]
    code = "\n".join(read_text(path) or "" for path in sources)
    # prometheus-client appends _total to a counter by itself.
    missing = {name for name in spoken if name not in code and name.removesuffix("_total") not in code}
    assert spoken
    assert not missing
