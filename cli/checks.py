"""The examinations of ``animato doctor``: one function a thing, each tells what it found and how to mend it.

Each looks for the real part in the way the service does. None changes anything but a scratch file in the data folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version

from cli.console import INSTALL_HINT, describe
from services.settings import Settings

LOWEST_PYTHON = (3, 11)
ENOUGH_DISK_BYTES = 1 << 30
PROBE_TIMEOUT_S = 10.0
SERVING_MODULES = {
    "api": ("fastapi", "uvicorn", "python_multipart", "prometheus_client"),
    "service": ("celery", "redis", "sqlalchemy", "alembic", "obstore"),
    "worker": ("numpy", "cv2", "PIL", "ffmpeg", "imageio_ffmpeg"),
    "cli": ("typer", "rich", "httpx"),
}
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class State(StrEnum):
    """``MISSING`` keeps the service from serving; ``OPTIONAL`` is absent and needed only for what its line says."""

    OK = "ok"
    MISSING = "missing"
    OPTIONAL = "optional"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    name: str
    state: State
    found: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the finding for JSON."""
        return {"name": self.name, "state": self.state.value, "found": self.found, "remedy": self.remedy}


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings, what serving needs first. An examination that breaks is itself a finding."""
    for check in CHECKS:
        try:
            yield check(settings)
        except Exception as error:  # noqa: BLE001 - a broken part may fail in any way; the other lines must still be told
            message, hint = describe(error) or (f"the check failed: {type(error).__name__}: {error}", "")
            name = check.__name__.removeprefix("_check_").replace("_", " ")
            yield Finding(name, State.MISSING, message, hint or INSTALL_HINT)


def _check_python(_: Settings) -> Finding:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < LOWEST_PYTHON:
        return Finding("python", State.MISSING, found, "Install Python 3.11 or newer: apt install python3")
    return Finding("python", State.OK, found)


def _check_environment(_: Settings) -> Finding:
    if sys.prefix != sys.base_prefix:
        return Finding("environment", State.OK, f"virtual environment {sys.prefix}")
    if importlib.util.find_spec("ensurepip") is None:
        return Finding(
            "environment",
            State.OPTIONAL,
            "no virtual environment, and ensurepip is missing",
            "apt install python3-venv",
        )
    return Finding("environment", State.OPTIONAL, "no virtual environment is active", "`make demo` makes one in .venv")


def _check_packages(_: Settings) -> Finding:
    absent = [
        f"{module} ({extra})"
        for extra, modules in SERVING_MODULES.items()
        for module in modules
        if importlib.util.find_spec(module) is None
    ]
    if absent:
        return Finding("packages", State.MISSING, f"not installed: {', '.join(absent)}", INSTALL_HINT)
    return Finding("packages", State.OK, f"all of the extras {', '.join(SERVING_MODULES)}")


def _check_onnxruntime(settings: Settings) -> Finding:
    if importlib.util.find_spec("onnxruntime") is None:
        return Finding(
            "onnxruntime", State.MISSING, "not installed", "pip install -e '.[cpu]', or '.[gpu]' beside an NVIDIA GPU"
        )
    from model.sessions import list_providers

    there = list_providers()
    usable = [name for name in settings.providers if name in there]
    found = f"{_version_of('onnxruntime', 'onnxruntime-gpu')}, providers: {', '.join(there)}"
    if "openvino" in there:
        found += f" (OpenVINO {_version_of('openvino')})"
    if "ncnn" in there:
        found += f" (ncnn {_version_of('ncnn')})"
    if not usable:
        wanted = ", ".join(settings.providers)
        return Finding("onnxruntime", State.MISSING, found, f"ANIMATO_PROVIDERS asks for {wanted}; add cpu to it")
    return Finding("onnxruntime", State.OK, found)


def _check_ffmpeg(_: Settings) -> Finding:
    from worker.video import ffmpeg_binary, missing_encoders

    binary = ffmpeg_binary()
    missing = missing_encoders()
    if missing:
        return Finding(
            "ffmpeg",
            State.MISSING,
            f"{binary} can't write {', '.join(missing)}",
            "Unset IMAGEIO_FFMPEG_EXE or update it",
        )
    return Finding("ffmpeg", State.OK, f"{binary} writes mp4, webm, gif, webp, apng")


def _check_queue_server(settings: Settings) -> Finding:
    if os.environ.get("ANIMATO_REDIS_URL"):
        from urllib.parse import urlsplit

        place = urlsplit(settings.redis_url)
        where = f"{place.hostname}:{place.port or 6379}"
        if _answers(place.hostname or "127.0.0.1", place.port or 6379):
            return Finding("queue server", State.OK, f"ANIMATO_REDIS_URL, {where} answers")
        return Finding(
            "queue server", State.MISSING, f"nothing answers at {where}", "Start it, or unset ANIMATO_REDIS_URL"
        )
    from services.launcher import find_queue_server

    return Finding("queue server", State.OK, f"{find_queue_server()} (embedded)")


def _check_bundles(settings: Settings) -> Finding:
    from model.bundle.reader import find_bundle, list_bundles, read_bundle

    folder = settings.bundles_dir
    found = list_bundles(folder)
    if not found:
        return Finding("bundles", State.MISSING, f"none in {folder}", "Set ANIMATO_BUNDLES_DIR to where they are")
    for manifest in found:
        read_bundle(find_bundle(folder, manifest.id))
    names = ", ".join(f"{manifest.id} {manifest.version}" for manifest in found)
    return Finding("bundles", State.OK, f"{names}: every file verified")


def _check_port(settings: Settings) -> Finding:
    if not _answers(settings.host, settings.port):
        return Finding("port", State.OK, f"{settings.host}:{settings.port} is free")
    return Finding(
        "port",
        State.OPTIONAL,
        f"{settings.host}:{settings.port} is taken, by a running animato perhaps",
        "Only `animato up` needs it: choose another with --port or ANIMATO_PORT",
    )


def _check_data_folder(settings: Settings) -> Finding:
    folder = settings.data_dir
    standing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    with tempfile.TemporaryFile(dir=standing):
        free_bytes = shutil.disk_usage(standing).free
    found = f"{folder}, {free_bytes / 1e9:.1f} GB free"
    if free_bytes < ENOUGH_DISK_BYTES:
        return Finding("data folder", State.MISSING, found, "Free some space, or set ANIMATO_DATA_DIR to another disk")
    return Finding("data folder", State.OK, found)


def _check_gpu(_: Settings) -> Finding:
    remedy = "For faster drawing: an NVIDIA driver, and the gpu extra in place of cpu"
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("gpu", State.OPTIONAL, "no NVIDIA driver; the CPU does the work", remedy)
    words = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    shown = subprocess.run(words, capture_output=True, text=True, check=False, timeout=PROBE_TIMEOUT_S)
    if shown.returncode != 0 or not shown.stdout.strip():
        return Finding("gpu", State.OPTIONAL, "the NVIDIA driver finds no GPU; the CPU does the work", remedy)
    return Finding("gpu", State.OK, shown.stdout.strip().replace("\n", "; "))


def _check_training(_: Settings) -> Finding:
    absent = [name for name in ("torch", "skia", "onnx", "safetensors") if importlib.util.find_spec(name) is None]
    if absent:
        found = f"not installed: {', '.join(absent)}"
        return Finding("training", State.OPTIONAL, found, "Only for training bundles and its tests: make setup")
    return Finding("training", State.OK, f"torch {_version_of('torch')}, skia {_version_of('skia-python')}")


def _check_face_renderer(_: Settings) -> Finding:
    absent = [f"lib{name}" for name in ("EGL", "GL") if find_library(name) is None]
    if absent:
        return Finding(
            "libEGL, libGL",
            State.OPTIONAL,
            f"not found: {', '.join(absent)}",
            "Only for rendering training faces and its tests: apt install libegl1 libgl1",
        )
    return Finding("libEGL, libGL", State.OK, "found; the renderer of training faces can run")


def _check_browser(_: Settings) -> Finding:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return Finding("chromium", State.OPTIONAL, "not found", "Only for the tests of the page: apt install chromium")
    if importlib.util.find_spec("playwright") is None:
        return Finding("chromium", State.OPTIONAL, f"{browser}, but playwright is not installed", "make setup")
    return Finding("chromium", State.OK, browser)


def _check_docker(_: Settings) -> Finding:
    tool = shutil.which("docker")
    if tool is None:
        return Finding("docker", State.OPTIONAL, "not found", "Only for docker-compose.yml: see docs.docker.com/engine")
    return Finding("docker", State.OK, tool)


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False


def _version_of(*distributions: str) -> str:
    for name in distributions:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "of unknown version"


CHECKS: tuple[Callable[[Settings], Finding], ...] = (
    _check_python,
    _check_environment,
    _check_packages,
    _check_onnxruntime,
    _check_ffmpeg,
    _check_queue_server,
    _check_bundles,
    _check_port,
    _check_data_folder,
    _check_gpu,
    _check_training,
    _check_face_renderer,
    _check_browser,
    _check_docker,
)
