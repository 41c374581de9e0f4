"""The command as a whole: help, speed of the start, models, doctor."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from tests.cli.conftest import Run

COMMANDS = ("up", "demo", "animate", "models", "doctor", "keys")
HEAVY = ("numpy", "onnxruntime", "cv2", "PIL", "fastapi", "celery", "sqlalchemy", "httpx", "obstore", "torch")


def test_help_names_every_command(animato: Run) -> None:
    ran = animato("--help")
    assert ran.returncode == 0
    for command in COMMANDS:
        assert command in ran.stdout
        shown = animato(command, "--help")
        assert shown.returncode == 0
        assert len(shown.stdout) > 300, f"{command} explains itself"
    assert "Exit codes" in ran.stdout


def test_start_imports_nothing_heavy(environment: dict[str, str]) -> None:
    code = f"import sys, cli.app; print([name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_unknown_command_is_2(animato: Run) -> None:
    ran = animato("fly")
    assert ran.returncode == 2
    assert "fly" in ran.stderr


def test_version(animato: Run) -> None:
    ran = animato("--version")
    assert ran.returncode == 0
    assert ran.stdout.startswith("animato 0.")


def test_models_lists_and_verifies(animato: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    ran = animato("models")
    assert ran.returncode == 0
    assert "tiny" in ran.stdout
    listed = json.loads(animato("models", "--json", "--verify").stdout)
    assert listed[0]["id"] == "tiny"
    assert listed[0]["resolution"] == 64
    assert listed[0]["fault"] is None

    shutil.copytree(tiny_bundle, tmp_path / "bundles" / "tiny")
    weights = tmp_path / "bundles" / "tiny" / "synthesis.onnx"
    damaged = bytearray(weights.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    weights.write_bytes(damaged)
    ran = animato("models", "--verify", "--bundles", tmp_path / "bundles")
    assert ran.returncode == 1
    assert "synthesis.onnx is damaged" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_models_names_what_it_leaves_out(animato: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("tiny", "broken"):
        shutil.copytree(tiny_bundle, tmp_path / name)
    (tmp_path / "broken" / "manifest.json").write_text("{")
    ran = animato("models", "--bundles", tmp_path)
    assert ran.returncode == 0
    assert "tiny" in ran.stdout
    assert "broken is left out" in ran.stderr
    assert animato("models", "--verify", "--bundles", tmp_path).returncode == 1


def test_help_tells_defaults(animato: Run) -> None:
    """Square brackets would be taken for markup, and be gone."""
    assert "random" in animato("animate", "--help").stdout
    assert "ANIMATO_BUNDLES_DIR" in animato("models", "--help").stdout


def test_models_without_any_is_1(animato: Run, tmp_path: Path) -> None:
    ran = animato("models", "--bundles", tmp_path)
    assert ran.returncode == 1
    assert "ANIMATO_BUNDLES_DIR" in ran.stderr


def test_doctor_finds_a_healthy_machine_healthy(animato: Run) -> None:
    ran = animato("doctor", "--json")
    findings = {finding["name"]: finding for finding in json.loads(ran.stdout)}
    assert ran.returncode == 0, ran.stdout
    for name in ("python", "packages", "onnxruntime", "ffmpeg", "queue server", "bundles", "data folder"):
        assert findings[name]["state"] == "ok", findings[name]
    for finding in findings.values():
        assert finding["found"]
        assert finding["state"] == "ok" or finding["remedy"], "what is absent comes with a remedy"
    assert "Ready" in animato("doctor").stdout


def test_doctor_tells_what_is_missing(animato: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ran = animato(
            "doctor",
            ANIMATO_BUNDLES_DIR=str(tmp_path / "none"),
            ANIMATO_REDIS_URL="redis://127.0.0.1:1/0",
            ANIMATO_PORT=str(listener.getsockname()[1]),
        )
    assert ran.returncode == 1
    lines = {line[9:26].strip(): line[:8].strip() for line in ran.stdout.splitlines()}
    assert lines["bundles"] == "missing"
    assert lines["queue server"] == "missing"
    assert lines["port"] == "optional"
    assert "Not ready: queue server, bundles" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr


def test_doctor_refuses_a_damaged_bundle(animato: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "bundles" / "tiny")
    (tmp_path / "bundles" / "tiny" / "motion.onnx").write_bytes(b"short")
    ran = animato("doctor", "--json", ANIMATO_BUNDLES_DIR=str(tmp_path / "bundles"))
    assert ran.returncode == 1
    finding = next(finding for finding in json.loads(ran.stdout) if finding["name"] == "bundles")
    assert finding["state"] == "missing"
    assert "motion.onnx" in finding["found"]


def test_demo_without_a_service_or_a_face_is_1(animato: Run, face: Path, tmp_path: Path) -> None:
    ran = animato("demo", "--url", "http://127.0.0.1:1", "--image", face)
    assert ran.returncode == 1
    assert "does not answer" in ran.stderr
    ran = animato("demo", ANIMATO_SAMPLES_DIR=str(tmp_path / "none"))
    assert ran.returncode == 1
    assert "--image" in ran.stderr


def test_demo_sends_the_key_of_the_service(animato: Run, face: Path) -> None:
    seen: list[str | None] = []

    class Doorman(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["Authorization"])
            self.send_response(401)
            self.end_headers()
            self.wfile.write(b'{"detail": "This API key was revoked.", "hint": "Get another."}')

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Doorman) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = ("demo", "--url", f"http://127.0.0.1:{server.server_port}", "--image", face)
        runs = [animato(*words, "--api-key", "ank_1"), animato(*words, ANIMATO_API_KEY="ank_2"), animato(*words)]
        server.shutdown()
    assert seen == ["Bearer ank_1", "Bearer ank_2", None]
    assert all("was revoked" in ran.stderr for ran in runs)


def test_demo_repeats_the_service_s_own_words(animato: Run, face: Path, tmp_path: Path) -> None:
    """A server that is no animato, and one that refuses with a problem document."""

    class Refusal(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(
                {"code": "image-too-small", "detail": "The picture is tiny.", "hint": "Send a larger one."}
            )
            self.send_response(422)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ran = animato("demo", "--url", f"http://127.0.0.1:{server.server_port}", "--image", face)
        server.shutdown()
    assert ran.returncode == 1
    assert "The picture is tiny." in ran.stderr
    assert "Send a larger one." in ran.stderr
    assert not (tmp_path / "out").exists()
