"""Tries what openapi.yaml promises on a running service: ``python -m tests.contract [--cases 1000] [--seed 0]``.

The service is the real one: API, queue server and worker as ``animato up`` starts them, SQLite and a folder, keys asked
for. schemathesis makes up requests from the committed openapi.yaml, single ones and chains of them (a job is posted,
read, canceled, deleted …), good and bad. One job has ended and told its webhook before: nobody could make up its ids,
and without them no route with an id would do more than say 404. Ends in one JSON line; the exit status is 1 when a
promise was broken, when fewer cases were tried than asked for, or when no webhook was told a second time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from services.jobs.keys import Scope
from services.jobs.store import JobStore
from services.launcher import embedded_service
from services.logs import configure_logging
from services.settings import Settings
from tests.contract.outside import Outside
from tests.house.tree import ROOT
from tests.model.tiny_bundle import build_tiny_bundle
from tests.services.api.pictures import encode, make_photo

FOLDER = Path(__file__).parent
OPENAPI = ROOT / "openapi.yaml"
# Only ever waited for by a run that fails.
PATIENCE_S = 300.0


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


def tell_first_webhook(url: str, key: str, receiver: str) -> dict[str, str]:
    """Let one job end and tell its webhook; return the ids of both. Raises: TimeoutError."""
    order = {"prompt": "smiling", "source": "sampled", "frames": 2, "webhook": {"url": receiver}}
    deadline_s = time.monotonic() + PATIENCE_S
    with httpx.Client(base_url=url, headers={"X-API-Key": key}, timeout=PATIENCE_S, trust_env=False) as client:
        job_id = client.post("/v1/animations", json=order).raise_for_status().json()["id"]
        while time.monotonic() < deadline_s:
            for delivery in client.get(f"/v1/animations/{job_id}/deliveries").raise_for_status().json()["data"]:
                if delivery["state"] == "delivered":
                    return {"job": job_id, "delivery": delivery["id"]}
            time.sleep(0.2)
    raise TimeoutError(f"{job_id} did not end, or its webhook was not told, within {PATIENCE_S:.0f} s")


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
        outside = Outside(picture.read_bytes())
        with outside.serve():
            settings = make_settings(folder, outside.address)
            address = f"http://{outside.address}/face.png"
            told = {"key": make_key(settings), "picture": str(picture), "outside": address}
            with embedded_service(settings) as url:
                told |= tell_first_webhook(url, told["key"], address)
                failed = run_schemathesis(url, folder / "report.json", options, **told)
        figures = read_report(folder / "report.json") | outside.figures()
    figures |= {"seed": options.seed, "seconds": round(time.monotonic() - begun_s)}
    complaints = []
    if figures["cases"] < options.cases:
        complaints.append(f"only {figures['cases']} of {options.cases} cases were tried: raise --examples")
    if not figures["webhooks_told_again"] and not options.rest:
        complaints.append("no webhook was told again: the routes of webhooks were not really tried")
    for complaint in complaints:
        sys.stderr.write(complaint + "\n")
    print(json.dumps(figures))
    return 1 if failed or complaints else 0


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
