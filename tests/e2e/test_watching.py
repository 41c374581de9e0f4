"""The whole service as its operator sees it: one trace a job, every line names it, and nothing private in any of it.

One run serves all tests: real API, worker and child, a real receiver of webhooks and a real OTLP collector; a job that
goes well, one whose child is killed, one whose picture is damaged, and requests that go wrong in many ways. What
clients send is full of canaries, and the logs are written at their most talkative.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from services.jobs.keys import Scope
from services.jobs.store import JobStore
from services.launcher import embedded_service
from services.settings import Settings
from tests.collector import Collector, SeenSpan, running_collector
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg
from tests.servers import free_port
from tests.services.webhooks.conftest import Receiver
from tests.worker.workplace import descendants, draw_picture, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(2000)]

CLIENT_TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{CLIENT_TRACE}-{CLIENT_SPAN}-01"
STAGES = ["fetch", "align", "invert", "move", "render", "encode", "store"]
Canaries = dict[str, str]
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def make_canaries() -> Canaries:
    """One word for each kind of secret, so that a failure says what leaked and not only that something did."""
    kinds = (
        *("prompt", "metadata", "idempotency", "filename", "field", "query", "path", "webhook", "image-url"),
        *("bearer", "cookie", "user-agent", "picture"),
    )
    return {kind: f"c4n4ry{number}x{kind.replace('-', '')}" for number, kind in enumerate(kinds)}


@dataclass
class Run:
    """What is left of the run when the service has stopped."""

    collector: Collector
    receiver: Receiver
    logs: dict[str, str]
    canaries: Canaries
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Series] = field(default_factory=dict)

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The events of a log; what is no JSON object (a library that prints) is another test's affair."""
        return [json.loads(line) for line in self.logs[name].splitlines() if line.startswith("{")]

    def metric(self, process: str, name: str, **labels: str) -> float:
        return self.metrics[process][name, tuple(sorted(labels.items()))]

    def ended(self, process: str) -> dict[tuple[str, str, str], float]:
        """How many jobs ended with which status and code, of which model, as a process tells."""
        found = [
            (dict(labels), number)
            for (name, labels), number in self.metrics[process].items()
            if name == "animation_jobs_total" and number
        ]
        return {(labels["status"], labels["code"], labels["model"]): number for labels, number in found}

    def about(self, job: str) -> list[dict[str, Any]]:
        """Every line that names this job, of all processes, in the order of time."""
        job_id = self.jobs[job]["id"]
        found = [line for name in self.logs for line in self.lines(name) if line.get("job_id") == job_id]
        return sorted(found, key=lambda line: str(line["timestamp"]))


class Client:
    """Speaks HTTP with a key and with canaries wherever one can be put."""

    def __init__(self, url: str, key: str, canaries: Canaries) -> None:
        self.url = url
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": canaries["user-agent"]}
        self._headers["Cookie"] = f"session={canaries['cookie']}"

    def ask(self, path: str, body: Any = None, method: str | None = None, **headers: str) -> tuple[int, Any, Any]:
        """Return status, headers and body; a problem is an answer like any other."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {**self._headers, "Content-Type": "application/json", **headers}
        request = urllib.request.Request(f"{self.url}{path}", data=data, headers=sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as problem:
            return problem.code, problem.headers, problem.read()

    def post(self, body: dict[str, Any], **headers: str) -> tuple[dict[str, Any], Any]:
        status, answered, job = self.ask("/v1/animations", body, **headers)
        assert status in (201, 202), job
        return json.loads(job), answered

    def get(self, job: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.ask(job["urls"]["self"])[2])
        return found

    def wait(self, job: dict[str, Any]) -> dict[str, Any]:
        wait_until(lambda: self.get(job)["status"] not in ("queued", "running"), f"{job['id']} ends")
        return self.get(job)


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("watched")
    canaries = make_canaries()
    settings = Settings(
        data_dir=folder / "data",
        bundles_dir=tiny_bundle.parent,
        port=0,
        auth="on",
        log_level="debug",
        outbound_allow=("127.0.0.1",),
        webhook_delays_s=(0.2,) * 8,
        sweep_s=1.0,
        worker_metrics_port=free_port(),
    )
    answers = iter([500])
    receiver = Receiver(answer=lambda _: next(answers, 204))
    with ExitStack() as stack:
        collector = stack.enter_context(running_collector())
        server = receiver.serve()
        stack.callback(server.shutdown)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        patch.setenv(FFMPEG_VARIABLE, str(pace_ffmpeg(folder)))
        url = stack.enter_context(embedded_service(settings))
        store = JobStore.from_settings(settings)
        stack.callback(store.close)
        key, _ = store.create_key("watcher", scopes=list(Scope))
        canaries["key"] = key.split("_", 2)[2][:20]
        seen = Run(collector, receiver, {}, canaries)
        live(Client(url, key, canaries), seen, settings)
        # What the launcher ends here, it ends with SIGTERM: the last spans and lines come on the way out.
        stack.close()
        seen.logs = {path.stem: path.read_text(errors="replace") for path in (folder / "data" / "logs").glob("*.log")}
    return seen


def live(client: Client, run: Run, settings: Settings) -> None:
    """Do everything that the tests look for."""
    canaries = run.canaries
    status, _, secret = client.ask("/v1/webhooks/secrets", {}, method="POST")
    assert status in (200, 201), secret
    canaries["secret"] = json.loads(secret)["secret"].removeprefix("whsec_")[:20]
    private = {
        "prompt": f"smiling {canaries['prompt']}",
        "metadata": {"note": canaries["metadata"]},
        "webhook": {"url": f"{run.receiver.url}/{canaries['webhook']}?key={canaries['webhook']}"},
    }
    picture = base64.b64encode(draw_picture()).decode()
    canaries["image"] = picture[200:240]
    posted, run.headers = client.post(
        {**private, "image_base64": picture, "frames": 4},
        traceparent=TRACEPARENT,
        **{"Idempotency-Key": canaries["idempotency"], "X-Request-ID": "watched-1"},
    )
    run.jobs["good"] = client.wait(posted)
    kill_a_child_under_a_job(client, run, {**private, "source": "sampled", "frames": 120})
    run.jobs["damaged"] = damage_a_picture(client, settings, {**private, "image_base64": picture, "frames": 4})
    go_wrong(client, canaries)
    calls = len(run.jobs) + 1  # the first one is refused once
    wait_until(lambda: len(run.receiver.calls) >= calls, "the webhooks are told")
    wait_until(lambda: len(run.collector.named("deliver webhook")) >= calls, "the calls are traced")
    watch = Client(f"http://127.0.0.1:{settings.worker_metrics_port}", "", canaries)

    def scrape() -> bool:
        """Read both; a job is counted a moment after its end can be seen, a call a moment after its answer."""
        run.metrics["api"] = read_series(client.ask("/metrics")[2])
        run.metrics["worker"] = read_series(watch.ask("/metrics")[2])
        delivered = run.metric("api", "animation_webhook_tries_total", outcome="delivered")
        return len(run.ended("worker")) == len(run.ended("api")) == 2 and delivered == len(run.jobs)

    wait_until(scrape, "everything is counted")


def read_series(text: bytes) -> Series:
    families = text_string_to_metric_families(text.decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, tuple(sorted(sample.labels.items()))): sample.value for sample in samples}


def kill_a_child_under_a_job(client: Client, run: Run, body: dict[str, Any]) -> None:
    job, _ = client.post(body)
    wait_until(lambda: client.get(job)["frames_done"] > 0, "frames are drawn")
    for pid in descendants(os.getpid()):
        if b"worker.child" in (Path("/proc") / str(pid) / "cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    run.jobs["killed"] = client.wait(job)


def damage_a_picture(client: Client, settings: Settings, body: dict[str, Any]) -> dict[str, Any]:
    """Change the stored picture while another job keeps the worker busy."""
    before, _ = client.post({"prompt": "smiling", "source": "sampled", "frames": 72})
    job, _ = client.post(body)
    (stored,) = (settings.data_dir / "objects" / "inputs" / job["id"]).iterdir()
    stored.write_bytes(b"damaged")
    client.wait(before)
    return client.wait(job)


def go_wrong(client: Client, canaries: Canaries) -> None:
    """Send what is refused, each with a canary in the place that a careless log would quote."""
    boundary = "----watched"
    form = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{canaries["filename"]}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n{canaries['picture'] * 50}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n{canaries["prompt"]}\r\n'
        f"--{boundary}--\r\n"
    ).encode()
    wrong: list[Callable[[], tuple[int, Any, Any]]] = [
        lambda: client.ask("/v1/animations", form, **{"Content-Type": f"multipart/form-data; boundary={boundary}"}),
        lambda: client.ask("/v1/animations", f'{{"prompt": "{canaries["prompt"]}", '.encode()),
        lambda: client.ask("/v1/animations", {"prompt": canaries["prompt"], canaries["field"]: canaries["field"]}),
        lambda: client.ask("/v1/animations", {"prompt": canaries["prompt"], "frames": canaries["field"]}),
        lambda: client.ask(
            "/v1/animations",
            {"prompt": "smiling", "image_url": f"https://user:{canaries['image-url']}@127.0.0.2/{canaries['path']}"},
        ),
        lambda: client.ask(
            "/v1/animations", {"prompt": "smiling", "image_url": f"http://127.0.0.1:1/?token={canaries['image-url']}"}
        ),
        lambda: client.ask(f"/{canaries['path']}?{canaries['query']}={canaries['query']}"),
        lambda: client.ask(f"/v1/animations/{canaries['path']}?cursor={canaries['query']}"),
        lambda: client.ask(f"/v1/animations?cursor={canaries['query']}"),
        lambda: client.ask("/v1/animations", Authorization=f"Bearer {canaries['bearer']}"),
        lambda: client.ask("/v1/animations", **{"Authorization": "", "X-API-Key": f"ank_{canaries['bearer']}"}),
    ]
    for number, send in enumerate(wrong):
        status, _, answer = send()
        assert 400 <= status < 500, (number, status, answer)


# -- traces -----------------------------------------------------------------------------------------------------------


def test_one_trace_holds_the_whole_life_of_a_job(run: Run) -> None:
    assert run.jobs["good"]["status"] == "succeeded", run.jobs["good"]
    spans = run.collector.of_trace(CLIENT_TRACE)
    (request,) = [span for span in spans if span.kind == "server"]
    (attempt,) = [span for span in spans if span.kind == "consumer"]
    (wait,) = [span for span in spans if span.name == "wait"]
    calls = [span for span in spans if span.kind == "client"]
    assert (request.service, request.name, request.parent) == ("animato-api", "POST /v1/animations", CLIENT_SPAN)
    assert request.attributes["http.response.status_code"] in (201, 202)
    assert (attempt.service, attempt.parent, attempt.error) == ("animato-worker", request.id, "")
    assert attempt.attributes["animato.status"] == "succeeded"
    assert wait.parent == request.id
    stages = [span for span in spans if span.parent == attempt.id]
    assert [span.name for span in stages] == STAGES
    assert all(before.ended_ns <= after.began_ns for before, after in itertools.pairwise(stages))
    assert [(call.service, call.parent) for call in calls] == [("animato-api", request.id)] * 2
    assert [call.attributes["http.response.status_code"] for call in calls] == [500, 204]
    assert [call.error for call in calls] == ["500", ""]
    parts = [span.name for span in spans if span.parent == request.id and span.kind == "internal"]
    assert sorted(parts) == ["store picture", "wait", "write job"]
    of_the_job = [span for span in spans if span not in stages]
    assert {span.attributes["animato.job.id"] for span in of_the_job} == {run.jobs["good"]["id"]}
    assert run.headers["traceparent"] == f"00-{CLIENT_TRACE}-{request.id}-01"


def test_a_job_that_lost_its_process_shows_both_attempts(run: Run) -> None:
    job = run.jobs["killed"]
    assert (job["status"], job["attempt"]) == ("succeeded", 2), job
    attempts = attempts_at(run, job["id"])
    assert [span.error for span in attempts] == ["worker-lost", ""]
    assert len({span.trace for span in attempts}) == 1
    last = [span for span in run.collector.of_trace(attempts[0].trace) if span.parent == attempts[0].id][-1]
    # Drawing runs ahead of the encoder, so it may be over when frames still flow.
    assert (last.name in {"render", "encode"}, last.error) == (True, "ChildLost"), last


def test_a_job_that_failed_says_why_by_its_code(run: Run) -> None:
    job = run.jobs["damaged"]
    assert (job["status"], job["error"]["code"]) == ("failed", "image-corrupt"), job
    (attempt,) = attempts_at(run, job["id"])
    assert (attempt.error, attempt.attributes["animato.status"]) == ("image-corrupt", "failed")


def attempts_at(run: Run, job_id: str) -> list[SeenSpan]:
    spans = [span for span in run.collector.named("run animation") if span.attributes["animato.job.id"] == job_id]
    return sorted(spans, key=lambda span: span.began_ns)


# -- logs -------------------------------------------------------------------------------------------------------------


def test_every_line_of_a_jobs_life_names_it_and_its_trace(run: Run) -> None:
    lines = run.about("good")
    events = [line["event"] for line in lines if line["event"] in {"job_started", "job_left", "webhook_delivered"}]
    assert events == ["job_started", "job_left", "webhook_delivered"]
    accepted = next(line for line in lines if line["event"] == "request" and line["method"] == "POST")
    assert (accepted["service"], accepted["status"], accepted["request_id"]) == ("api", 202, "watched-1")
    assert {line["trace_id"] for line in lines if line["event"] in {"job_started", "job_left"}} == {CLIENT_TRACE}
    assert accepted["trace_id"] == CLIENT_TRACE
    telling = {"job_started", "job_left", "job_released", "lease_lost", "child_died", "job_failed_unexpectedly"}
    nameless = [
        line for name in run.logs for line in run.lines(name) if line["event"] in telling and "job_id" not in line
    ]
    assert not nameless
    deaths = [line["job_id"] for name in run.logs for line in run.lines(name) if line["event"] == "child_died"]
    assert deaths == [run.jobs["killed"]["id"]], "a damaged picture is no reason to end a child"


def test_no_log_and_no_span_holds_anything_private(run: Run) -> None:
    assert len(run.canaries) == 16
    # The search itself can fail: the same words did arrive, and the service did speak of the jobs.
    assert any(run.canaries["prompt"].encode() in call.body for call in run.receiver.calls)
    assert all(run.canaries["webhook"] in call.path for call in run.receiver.calls)
    assert {"api", "worker-1"} <= set(run.logs)
    assert all(run.about(job) for job in run.jobs)
    texts = {**run.logs, "spans": run.collector.raw.decode(errors="replace")}
    leaks = [(name, kind) for name, text in texts.items() for kind, canary in run.canaries.items() if canary in text]
    assert not leaks, [
        line[:500] for name, kind in leaks for line in texts[name].splitlines() if run.canaries[kind] in line
    ]


def test_health_checks_make_no_traces(run: Run) -> None:
    names = {span.name for span in run.collector.spans if span.kind == "server"}
    assert "POST /v1/animations" in names
    assert not [name for name in names if name.endswith(("/livez", "/readyz", "/metrics"))]


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_metrics_tell_what_happened(run: Run) -> None:
    for process in ("api", "worker"):
        # Three films, one of them the job that kept the worker busy.
        expected = {("succeeded", "", "tiny"): 3, ("failed", "image-corrupt", "tiny"): 1}
        assert run.ended(process) == expected, process
    assert run.metric("api", "animation_queue_depth") == 0
    assert run.metric("api", "animation_webhooks_pending") == 0
    assert run.metric("api", "animation_webhook_tries_total", outcome="retried") == 1
    assert run.metric("api", "animation_webhook_tries_total", outcome="delivered") == len(run.jobs)
    assert run.metric("worker", "animation_inference_deaths_total") == 1
    assert run.metric("worker", "animation_stage_duration_seconds_count", stage="render") == 3
    assert run.metric("worker", "animation_queue_wait_seconds_count") == 4
    assert run.metric("worker", "animation_frames_total") >= 4 + 120 + 72
