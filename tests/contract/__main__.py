"""Tries what openapi.yaml promises on a running service: ``python -m tests.contract [--cases 1000] [--seed 0]``.

The service is the real one: API, queue server and worker as ``animato up`` starts them, SQLite and a folder, keys asked
for. schemathesis makes up requests from the committed openapi.yaml, single ones and chains of them (a job is posted,
read, canceled, deleted …), good and bad. Ends in one JSON line; the exit status is 1 when a promise was broken, or when
fewer cases were tried than asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

from services.jobs.keys import Scope
from services.jobs.store import JobStore
from services.launcher import embedded_service
from services.logs import configure_logging
from services.settings import Settings
from tests.house.tree import ROOT
from tests.model.tiny_bundle import build_tiny_bundle
from tests.services.api.pictures import encode, make_photo

FOLDER = Path(__file__).parent
OPENAPI = ROOT / "openapi.yaml"


class Outside(BaseHTTPRequestHandler):
    """The rest of the world: serves a picture under every path, and takes every call of a webhook."""

    picture: ClassVar[bytes] = b""
    taken: ClassVar[Counter[str]] = Counter()

    def do_GET(self) -> None:
        self._answer("image/png", self.picture)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer("text/plain", b"taken")

    def _answer(self, media_type: str, body: bytes) -> None:
        self.taken[self.command] += 1
        self.send_response(200)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def outside(picture: bytes) -> Iterator[str]:
    """Yield the address (host:port) of a server of pictures and receiver of webhooks."""
    Outside.picture = picture
    with ThreadingHTTPServer(("127.0.0.1", 0), Outside) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def make_settings(folder: Path, receiver: str) -> Settings:
    """Return the settings of a service that asks for keys and limits nobody: limits have tests of their own."""
    return Settings(
        data_dir=folder / "data",
        bundles_dir=build_tiny_bundle(folder / "bundles" / "tiny").parent,
        samples_dir=folder / "samples",
        host="127.0.0.1",
        port=0,
        auth="on",
        key_rate_limit=0,
        address_rate_limit=0,
        owner_queue_limit=0,
        outbound_allow=(receiver,),
        log_level="warning",
    )


def make_key(settings: Settings) -> str:
    """Return a key that opens everything."""
    store = JobStore.from_settings(settings)
    try:
        store.migrate()
        return store.create_key("contract", "schemathesis", tuple(Scope), None)[0]
    finally:
        store.close()


def run_schemathesis(url: str, report: Path, options: argparse.Namespace, **told: str) -> int:
    """Run it once, output passed on; returns its exit status."""
    command: list[str | Path] = [Path(sys.executable).with_name("schemathesis")]
    command += ["--config-file", FOLDER / "schemathesis.toml", "run", OPENAPI, "--url", url, "--no-color"]
    command += ["--seed", str(options.seed), "--max-examples", str(options.examples), "--no-shrink"]
    command += options.rest
    command += ["--report", "json", "--report-json-path", report]
    environment = {**os.environ, **{f"CONTRACT_{name.upper()}": text for name, text in told.items()}}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    """Start the service, try it, say what came of it."""
    parser = argparse.ArgumentParser(description="Try what openapi.yaml promises on a running service.")
    parser.add_argument("--cases", type=int, default=1_000, help="try at least so many")
    parser.add_argument("--examples", type=int, default=20, help="per operation and phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("rest", nargs="*", help="after --: options of `schemathesis run`")
    options = parser.parse_args()
    configure_logging(service="contract", log_format="console", level="error")
    with tempfile.TemporaryDirectory(prefix="animato-contract-") as name:
        folder, picture = Path(name), Path(name) / "face.png"
        picture.write_bytes(encode(make_photo(64, 64)))
        begun_s = time.monotonic()
        with outside(picture.read_bytes()) as receiver:
            settings = make_settings(folder, receiver)
            told = {"key": make_key(settings), "picture": str(picture), "outside": f"http://{receiver}/face.png"}
            with embedded_service(settings) as url:
                failed = run_schemathesis(url, folder / "report.json", options, **told)
        figures = read_report(folder / "report.json")
    figures |= {"pictures_fetched": Outside.taken["GET"], "webhooks_taken": Outside.taken["POST"]}
    figures |= {"seed": options.seed, "seconds": round(time.monotonic() - begun_s)}
    enough = figures["cases"] >= options.cases
    if not enough:
        sys.stderr.write(f"only {figures['cases']} of {options.cases} cases were tried: raise --examples\n")
    print(json.dumps(figures))
    return 1 if failed or not enough else 0


def read_report(path: Path) -> dict[str, Any]:
    """Return the figures of schemathesis' own report; none of them where it did not come so far."""
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    cases = report.get("test_cases", {})
    return {
        "operations": report.get("operations", {}).get("tested", 0),
        "cases": cases.get("generated", 0),
        "failures": cases.get("unique_failures", 0),
        "complete": report.get("complete", False),
    }


if __name__ == "__main__":
    raise SystemExit(main())
