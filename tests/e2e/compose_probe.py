"""Probe of a running compose project: the main job, where its parts end up, how the containers are fenced,
a killed worker.

A program, not a pytest module: ``compose-up.sh . python tests/e2e/compose_probe.py`` (or after ``docker compose up
--build --wait``). Standard library only, besides imageio-ffmpeg's binary where no ffmpeg is on the PATH.
Exit status 0: every check held.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

API = f"http://127.0.0.1:{os.environ.get('API_PORT', '8000')}"
PROMETHEUS = f"http://127.0.0.1:{os.environ.get('PROMETHEUS_PORT', '9090')}"
TERMINAL = {"succeeded", "failed", "canceled", "expired"}
OWN_IMAGES = ("api", "worker")
SERVICES = ("api", "worker", "redis", "postgres", "seaweedfs", "prometheus")
# Long enough to be killed in the middle, short enough for a machine that does other things too.
KILLED_FRAMES = "960"
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class ProbeError(AssertionError):
    """A check did not hold."""


def require(holds: bool, sentence: str) -> None:
    """Raise with the sentence unless the condition holds (unlike assert, also under -O)."""
    if not holds:
        raise ProbeError(sentence)


@contextmanager
def step(title: str) -> Iterator[None]:
    """Print a check with its time."""
    begun = time.monotonic()
    print(f"probe: {title} ...", flush=True)
    yield
    print(f"probe: {title}: ok, {time.monotonic() - begun:.1f} s", flush=True)


def call(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """Send one request; an HTTP error is an answer too."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, {k.lower(): v for k, v in error.headers.items()}, error.read())


def wait_until(check: Callable[[], Any], timeout_s: float, what: str, pause_s: float = 0.5) -> Any:
    """Return the first true value of ``check``; connection errors count as not yet."""
    deadline = time.monotonic() + timeout_s
    last: Any = None
    while time.monotonic() < deadline:
        try:
            last = check()
        except OSError as error:
            last = error
        else:
            if last:
                return last
        time.sleep(pause_s)
    raise ProbeError(f"{what}: not within {timeout_s:.0f} s, last seen: {last!r}")


def compose(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run ``docker compose`` in the project's folder."""
    done = subprocess.run(
        ["docker", "compose", *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if check:
        require(done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.returncode}: {done.stderr[-800:]}")
    return done


def execute(service: str, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a command in a service's container."""
    return compose("exec", "-T", service, *command, check=check)


def multipart(fields: dict[str, str], image: Path) -> tuple[bytes, str]:
    """Return the body and content type of a multipart form with one picture."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    media_type = "image/png" if image.suffix == ".png" else "image/jpeg"
    parts.append(
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{image.name}"\r\n'
        f"Content-Type: {media_type}\r\n\r\n".encode()
        + image.read_bytes()
        + b"\r\n"
    )
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def post(fields: dict[str, str], image: Path) -> dict[str, Any]:
    """Post a job and return it as accepted."""
    body, content_type = multipart(fields, image)
    answer = call("POST", f"{API}/v1/animations", body, {"Content-Type": content_type})
    require(answer.status == 202, f"POST answered {answer.status}: {answer.body[:500]!r}")
    job = answer.json()
    require(answer.headers.get("location", "").endswith(f"/v1/animations/{job['id']}"), "no Location of the job")
    return dict(job)


def read_job(job_id: str) -> dict[str, Any]:
    answer = call("GET", f"{API}/v1/animations/{job_id}")
    require(answer.status == 200, f"GET answered {answer.status}: {answer.body[:500]!r}")
    return dict(answer.json())


def finish(job_id: str, timeout_s: float) -> dict[str, Any]:
    """Poll until the job ends, and require that it succeeded."""

    def ended() -> dict[str, Any] | None:
        job = read_job(job_id)
        return job if job["status"] in TERMINAL else None

    job = dict(wait_until(ended, timeout_s, f"job {job_id}"))
    require(job["status"] == "succeeded", f"job ended as {job['status']}: {job['error']}")
    return job


def find_ffmpeg() -> str:
    found = shutil.which("ffmpeg")
    if found is None:
        import imageio_ffmpeg

        found = imageio_ffmpeg.get_ffmpeg_exe()
    return str(found)


def decode(video: bytes, width: int, height: int) -> list[bytes]:
    """Return the frames of a video as raw RGB, decoded by a real ffmpeg."""
    source = ROOT / "out" / "probe.mp4"
    source.parent.mkdir(exist_ok=True)
    source.write_bytes(video)
    done = subprocess.run(
        [find_ffmpeg(), "-nostdin", "-v", "error", "-i", str(source), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
        capture_output=True,
        timeout=300,
        check=False,
    )
    require(done.returncode == 0, f"ffmpeg can't decode the video: {done.stderr[-300:]!r}")
    size = width * height * 3
    require(len(done.stdout) % size == 0, "decoded bytes are no whole number of frames")
    return [done.stdout[i : i + size] for i in range(0, len(done.stdout), size)]


def block_change(one: bytes, other: bytes, width: int, block_px: int = 16) -> float:
    """Return the mean absolute difference of two pictures in the block that changed most, in steps of 0..255.

    A mouth is a small part of a picture: over the whole of it, even a broad smile drowns.
    """
    sums: dict[tuple[int, int], int] = {}
    counts: dict[tuple[int, int], int] = {}
    stride = width * 3
    for index, (a, b) in enumerate(zip(one, other, strict=True)):
        block = (index // stride // block_px, index % stride // 3 // block_px)
        sums[block] = sums.get(block, 0) + abs(a - b)
        counts[block] = counts.get(block, 0) + 1
    return max(sums[block] / counts[block] for block in sums)


def check_main_job(sample: Path) -> str:
    with step("the main job: a face, 'smiling', a video"):
        job = post({"prompt": "smiling", "frames": "24", "fps": "24", "seed": "7"}, sample)
        job = finish(job["id"], 600)
        output = job["output"]
        video = call("GET", urllib.parse.urljoin(API, output["url"]))
        require(video.status == 200, f"GET video answered {video.status}")
        require(hashlib.sha256(video.body).hexdigest() == output["sha256"], "the video is not the one of the record")
        require(len(video.body) == output["bytes"], "the video's length is not the one of the record")
        frames = decode(video.body, output["width"], output["height"])
        require(len(frames) == 24, f"{len(frames)} frames instead of 24")
        require(len(set(frames[0])) > 32, "the first frame is flat")
        moved, jumped = (block_change(frames[0], frame, output["width"]) for frame in (frames[-1], frames[1]))
        require(moved > 4.0, f"the face did not move (largest change of a block {moved:.2f})")
        require(jumped < moved / 2, f"the face jumped at frame 1 ({jumped:.2f} against {moved:.2f} in all)")
        poster = call("GET", urllib.parse.urljoin(API, output["poster_url"]))
        require(poster.status == 200 and poster.body[:2] == b"\xff\xd8", "no JPEG poster")
    return str(job["id"])


def check_refusals(sample: Path) -> None:
    with step("a bad picture is a problem document, and no job"):
        broken = ROOT / "out" / "broken.png"
        broken.write_bytes(sample.read_bytes()[:200])
        body, content_type = multipart({"prompt": "smiling"}, broken)
        answer = call("POST", f"{API}/v1/animations", body, {"Content-Type": content_type})
        require(answer.status == 422, f"a truncated picture got {answer.status}")
        require(answer.headers["content-type"].startswith("application/problem+json"), "not a problem document")
        require(answer.json()["code"] == "image-corrupt", f"code {answer.json()['code']}")


def check_truth(job_id: str) -> None:
    with step("the record lies in PostgreSQL, the video in S3, and neither is open"):
        query = f"select state || ' ' || (output->>'key') from jobs where id = '{job_id}'"
        row = execute("postgres", "psql", "-h", "127.0.0.1", "-U", "animato", "-d", "animato", "-qtAc", query).stdout
        state, _, key = row.strip().partition(" ")
        require(state == "succeeded" and bool(key), f"PostgreSQL says {row!r}")
        shell = f"echo 'fs.ls /buckets/animato/{key}' | weed shell -master=seaweedfs:9333"
        listed = execute("seaweedfs", "sh", "-c", shell).stdout
        require(Path(key).name in listed, f"the store lists {listed!r} for {key}")
        anonymous = (
            "import sys, urllib.request, urllib.error\n"
            "try: print(urllib.request.urlopen(sys.argv[1], timeout=60).status)\n"
            "except urllib.error.HTTPError as error: print(error.code)"
        )
        status = execute("api", "python", "-c", anonymous, f"http://seaweedfs:8333/animato/{key}").stdout.strip()
        require(status == "403", f"the store gave a stranger {status} for a result")


def check_redis() -> None:
    with step("the queue server keeps what it is given"):
        for option, wanted in (("appendonly", "yes"), ("maxmemory-policy", "noeviction")):
            said = execute("redis", "redis-cli", "config", "get", option).stdout.split()
            require(said == [option, wanted], f"redis says {said}")
        unknown = execute("redis", "sh", "-c", "env -u REDISCLI_AUTH redis-cli ping", check=False).stdout
        require("NOAUTH" in unknown, f"redis answers without a password: {unknown!r}")


def check_fences() -> None:
    with step("containers: not root, read-only, no capabilities, limits, loopback ports"):
        for service in OWN_IMAGES:
            uid = execute(service, "id", "-u").stdout.strip()
            require(uid not in {"", "0"}, f"{service} runs as {uid}")
            for place in ("/", "/app", "/opt/venv", "/var/tmp"):
                refused = execute(service, "touch", f"{place}/probe", check=False)
                require(refused.returncode != 0, f"{service} could write to {place}")
            said = execute(service, "sh", "-c", "touch /app/probe 2>&1 || true").stdout
            require("Read-only" in said, f"{service}: /app is guarded by {said!r}")
            status = execute(service, "cat", "/proc/1/status").stdout
            facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
            require(int(facts["CapEff"], 16) == 0, f"{service} has capabilities {facts['CapEff']}")
            require(facts["NoNewPrivs"].strip() == "1", f"{service} may gain privileges")
        for service in SERVICES:
            container = compose("ps", "-q", service).stdout.split()[0]
            raw = subprocess.run(["docker", "inspect", container], capture_output=True, check=True, timeout=300).stdout
            facts = json.loads(raw)[0]
            host = facts["HostConfig"]
            require(host["ReadonlyRootfs"], f"{service}: root file system is writable")
            require(host["Memory"] > 0 and (host["PidsLimit"] or 0) > 0, f"{service}: no memory or process limit")
            require("ALL" in (host["CapDrop"] or []), f"{service}: capabilities kept")
            bindings = [b for ports in (facts["NetworkSettings"]["Ports"] or {}).values() for b in ports or []]
            require(all(b["HostIp"] == "127.0.0.1" for b in bindings), f"{service} is published on {bindings}")
            require(bool(bindings) == (service in {"api", "prometheus"}), f"{service} publishes {bindings}")


def check_contents() -> None:
    with step("images: no torch, no inference runtime or weights in the API"):
        for service, module in (("api", "torch"), ("worker", "torch"), ("api", "onnxruntime"), ("worker", "fastapi")):
            code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is not None)"
            require(execute(service, "python", "-c", code, check=False).returncode == 0, f"{service} carries {module}")
        weights = execute("api", "find", "/app", "-name", "*.onnx").stdout.strip()
        require(weights == "", f"the API carries weights: {weights}")


def query_prometheus(expression: str) -> list[dict[str, Any]]:
    url = f"{PROMETHEUS}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    answer = call("GET", url)
    require(answer.status == 200, f"prometheus answered {answer.status}: {answer.body[:300]!r}")
    return list(answer.json()["data"]["result"])


def check_metrics() -> None:
    with step("prometheus: targets up, the job counted, alert rules loaded"):
        metrics = call("GET", f"{API}/metrics").body.decode()
        require("animation_queue_depth" in metrics, "the API's metrics lack animation_queue_depth")

        def all_up() -> bool:
            up = {r["metric"]["job"]: r["value"][1] for r in query_prometheus('up{job=~"api|worker"}')}
            return up == {"api": "1", "worker": "1"}

        def counted() -> bool:
            found = query_prometheus('sum(animation_jobs_total{job="api",status="succeeded"})')
            return bool(found) and float(found[0]["value"][1]) >= 1

        wait_until(all_up, 300, "targets api and worker up")
        wait_until(counted, 300, "the finished job in animation_jobs_total")
        groups = call("GET", f"{PROMETHEUS}/api/v1/rules").json()["data"]["groups"]
        rules = {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}
        require({"ApiDown", "NoWorker", "JobsFail"} <= set(rules), f"rules {rules}")
        require("err" not in rules.values(), f"rules {rules}")


def check_kill(sample: Path) -> None:
    with step("a worker killed in mid-job: another finishes it"):
        job_id = post({"prompt": "surprised", "frames": KILLED_FRAMES, "seed": "3"}, sample)["id"]

        def rendering() -> bool:
            job = read_job(job_id)
            require(job["status"] not in TERMINAL, f"the job ended as {job['status']} before the kill: too short a job")
            return bool(job["status"] == "running" and job["frames_done"] > 0)

        wait_until(rendering, 300, "the job to draw frames", pause_s=0.05)
        compose("kill", "-s", "KILL", "worker")
        require(read_job(job_id)["status"] in {"running", "queued"}, "the job had ended before the kill")
        compose("up", "-d", "--no-deps", "worker")
        job = finish(job_id, 1200)
        require(job["attempt"] == 2, f"attempt {job['attempt']} instead of 2")
        require(job["output"]["frames"] == int(KILLED_FRAMES), f"{job['output']['frames']} frames")


def check_queue_loss(sample: Path) -> None:
    with step("the queue server gone: POST still answers 202, the job runs after its return"):
        compose("kill", "-s", "KILL", "redis")
        job_id = post({"prompt": "winking", "frames": "8", "seed": "5"}, sample)["id"]
        compose("up", "-d", "--no-deps", "redis")
        finish(job_id, 600)


def main() -> int:
    """Run every check in order; the first that fails ends the probe."""
    samples = sorted(p for p in (ROOT / "samples").glob("*") if p.suffix in {".png", ".jpg"})
    require(bool(samples), "samples/ holds no picture")
    sample = samples[0]
    try:
        with step("readiness"):
            wait_until(lambda: call("GET", f"{API}/readyz").status == 200, 600, "/readyz")
        job_id = check_main_job(sample)
        check_refusals(sample)
        check_truth(job_id)
        check_redis()
        check_fences()
        check_contents()
        check_metrics()
        check_kill(sample)
        check_queue_loss(sample)
    except ProbeError as error:
        print(f"probe: FAILED: {error}", file=sys.stderr, flush=True)
        return 1
    print("probe: every check held", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
