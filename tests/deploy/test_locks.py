"""The locks give what pyproject.toml asks for, in one version each, every file by its hash."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.supply.lock import find_faults, requirements
from deploy.supply.pins import BUILD, BY_NAME, IMAGE, LOCKS, ROOT, Lock, image_pins, read_apart, read_pins

IDS = [lock.name for lock in LOCKS]


@pytest.mark.parametrize("lock", LOCKS, ids=IDS)
def test_a_lock_holds_what_the_project_asks_for(lock: Lock) -> None:
    assert not list(find_faults(lock))


@pytest.mark.parametrize("lock", LOCKS, ids=IDS)
def test_every_file_is_known_by_its_hash(lock: Lock) -> None:
    pins = read_pins(lock.path)
    assert len(pins) > 20
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for pin in pins for digest in pin.hashes)
    names = [pin.name for pin in image_pins(lock)]
    assert len(names) == len(set(names)), "a package is pinned twice for one system"


@pytest.mark.parametrize("lock", LOCKS, ids=IDS)
def test_a_lock_says_nothing_of_where_it_was_made(lock: Lock) -> None:
    text = lock.path.read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|--(?:index|find|extra)-", text)
    assert not [line for line in text.splitlines() if line.startswith("/")]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("lock", LOCKS, ids=IDS)
def test_a_lock_is_the_same_on_both_kinds_of_machine(lock: Lock, machine: str) -> None:
    elsewhere = {**IMAGE, "platform_machine": machine}
    here = {(pin.name, pin.version) for pin in image_pins(lock)}
    assert {(pin.name, pin.version) for pin in read_pins(lock.path) if pin.holds(elsewhere)} == here


def test_images_get_the_versions_that_the_tests_run_with() -> None:
    tested = {pin.name: pin.version for pin in image_pins(BY_NAME["development"])}
    for lock in LOCKS:
        differing = {p.name: p.version for p in image_pins(lock) if tested.get(p.name, p.version) != p.version}
        assert not differing, f"{lock.name}: {differing}"


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.name != "development"], ids=lambda lock: lock.name)
def test_nothing_that_serves_carries_torch(lock: Lock) -> None:
    names = {pin.name for pin in image_pins(lock)}
    assert not {"torch", "onnxscript", "skia-python", "transformers", "pytest"} & names
    assert ("onnx" in names) == ("ncnn" in names), "onnx reads graphs for ncnn, and for nobody else"


def test_each_image_has_its_own_runtime() -> None:
    """And no other, but that OpenVINO hands its widest layers to ncnn (docs/decisions, 0032)."""
    runtimes = {
        lock.name: {pin.name for pin in image_pins(lock) if pin.name.startswith(("onnxruntime", "openvino", "ncnn"))}
        for lock in LOCKS
        if lock.image
    }
    assert runtimes == {
        "api": set(),
        "worker-cpu": {"onnxruntime"},
        "worker-cpu-openvino": {"onnxruntime", "openvino", "openvino-telemetry", "ncnn"},
        "worker-cpu-ncnn": {"onnxruntime", "ncnn"},
        "worker-gpu": {"onnxruntime-gpu"},
    }


def test_what_builds_the_project_is_locked_too() -> None:
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    lines = [line for line in BUILD.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert set(stated) <= set(lines)
    for name in ("serving", "development"):
        pinned = {pin.name for pin in image_pins(BY_NAME[name])}
        assert {canonicalize_name(Requirement(line).name) for line in lines} <= pinned


def test_only_torch_and_tensorrt_are_apart() -> None:
    apart = [Requirement(line) for line in read_apart()]
    assert [requirement.name for requirement in apart] == ["torch", "tensorrt-cu13-libs"]
    (wanted,) = [line for line in requirements(("tensorrt",)) if line.name == "tensorrt-cu13-libs"]
    assert all(wanted.specifier.contains(part.version) for part in apart[1].specifier)


@pytest.mark.parametrize("role", ["api", "worker"])
def test_images_install_nothing_but_what_is_locked(role: str) -> None:
    text = (ROOT / f"deploy/{role}.Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip install ([^\\\n;]*)", text)
    apart = [line for line in installs if "apart-tensorrt.txt" in line]
    assert [line for line in installs if line not in apart] == [
        "--require-hashes --only-binary :all: --requirement "
        + {"api": "api.txt ", "worker": '"worker-${RUNTIME%-tensorrt}.txt" '}[role]
    ]
    assert len(apart) == (role == "worker")


def test_the_runtimes_that_compose_builds_have_a_lock() -> None:
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    runtimes = re.findall(r"^\s+RUNTIME: (\S+)$", text, re.MULTILINE)
    assert set(runtimes) == {"cpu", "gpu"}
    assert {f"worker-{runtime}" for runtime in runtimes} <= set(BY_NAME)


def test_pip_refuses_a_file_that_was_swapped(tmp_path: Path) -> None:
    # Real pip, no network: a folder is its index, and what lies there is not what was locked.
    wheel = tmp_path / "idna-3.20-py3-none-any.whl"
    wheel.write_bytes(b"something else")
    (pin,) = [pin for pin in image_pins(BY_NAME["api"]) if pin.name == "idna"]
    lines = [f"idna=={pin.version}", *(f"    --hash=sha256:{digest}" for digest in sorted(pin.hashes))]
    wheel = wheel.rename(tmp_path / f"idna-{pin.version}-py3-none-any.whl")
    (tmp_path / "lock.txt").write_text(" \\\n".join(lines) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "install",
        "--no-index",
        "-f",
        tmp_path,
        "--dry-run",
    ]
    command += ["--ignore-installed", "--require-hashes", "--requirement", tmp_path / "lock.txt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("idna>=3\n", "not pinned"),
        ("idna==3.20\n", "not pinned to one version with hashes"),
    ],
)
def test_a_lock_that_was_edited_by_hand_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "api.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_pins(path)


def test_a_lock_behind_the_project_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploy.supply.pins.FOLDER", tmp_path)
    hashed = "    --hash=sha256:" + "0" * 64
    (tmp_path / "api.txt").write_text(f"numpy==1.0 \\\n{hashed}\n", encoding="utf-8")
    told = list(find_faults(Lock("api", ())))
    assert "api.txt has numpy 1.0, pyproject.toml wants numpy>=2.0. Run `make lock`." in told
    assert any(fault.startswith("api.txt lacks pydantic,") for fault in told)
