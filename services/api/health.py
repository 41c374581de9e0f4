"""``/livez``, ``/readyz``, ``/metrics`` and the models: what operators and clients ask of the service itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import cast

import anyio
from anyio import to_thread
from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from starlette.responses import JSONResponse, Response

from services.api.conditional import matches
from services.api.metrics import ApiMetrics, ServiceMetrics
from services.api.models import describe_model, is_warm
from services.api.problems import describe_responses
from services.api.resources import METRICS_READER, MODELS_READER, Resources, Rooms
from services.api.schemas import Liveness, ModelList, Readiness
from services.errors import AnimatoError
from services.queue import check_broker

CHECK_TIMEOUT_S = 3.0

router = APIRouter()


@router.head("/livez", include_in_schema=False)
@router.get("/livez", response_model=Liveness, tags=["health"], summary="Is the process alive?")
async def get_liveness() -> Response:
    """Answer at once, whatever the rooms below do."""
    return JSONResponse({"status": "alive"}, headers={"Cache-Control": "no-store"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_model=Readiness,
    tags=["health"],
    summary="Would a job run now?",
    responses={503: {"model": Readiness, "description": "Something that is required is missing."}},
)
async def get_readiness(rooms: Rooms) -> Response:
    """Check the database, the object store and the workers; the queue server is told but not required.

    A dead queue server only delays jobs: workers look into the database by themselves.
    """
    checks: dict[str, dict[str, object]] = {}

    async def run(name: str, required: bool, check: Callable[[Resources], str]) -> None:
        ok, detail = False, f"No answer within {CHECK_TIMEOUT_S:g} s."
        with anyio.move_on_after(CHECK_TIMEOUT_S):
            ok, detail = await to_thread.run_sync(_try_check, check, rooms, abandon_on_cancel=True)
        checks[name] = {"ok": ok, "required": required, "detail": detail}

    async with anyio.create_task_group() as group:
        group.start_soon(run, "database", True, _check_database)
        group.start_soon(run, "storage", True, _check_storage)
        group.start_soon(run, "worker", True, _check_worker)
        group.start_soon(run, "broker", False, _check_broker)
    ready = all(check["ok"] for check in checks.values() if check["required"])
    headers = {"Cache-Control": "no-store"} | ({} if ready else {"Retry-After": "5"})
    status = "ready" if ready else "not-ready"
    return JSONResponse({"status": status, "checks": dict(sorted(checks.items()))}, 200 if ready else 503, headers)


@router.get(
    "/metrics",
    tags=["health"],
    summary="Prometheus metrics",
    response_class=Response,
    dependencies=[METRICS_READER],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Text format."}},
)
def get_metrics(request: Request, rooms: Rooms) -> Response:
    """Return the metrics of this process and of all jobs."""
    own = cast(ApiMetrics, request.app.state.metrics)
    body = generate_latest(_Joined(own.registry, ServiceMetrics(rooms)))
    return Response(body, headers={"Cache-Control": "no-store", "Content-Type": CONTENT_TYPE_LATEST})


@router.head("/v1/models", include_in_schema=False, dependencies=[MODELS_READER])
@router.get(
    "/v1/models",
    response_model=ModelList,
    tags=["models"],
    summary="List models",
    dependencies=[MODELS_READER],
    responses={304: {"description": "Nothing has changed."}, **describe_responses("not-ready")},
)
def list_models(request: Request, rooms: Rooms) -> Response:
    """List the models with what they were trained to show and what they run on; the first is the default."""
    workers = [worker.facts for worker in rooms.store.live_workers(worker_max_age_s(rooms))]
    data = [describe_model(manifest, workers) for manifest in rooms.catalogue.list_models()]
    response = JSONResponse({"object": "list", "data": data}, headers={"Cache-Control": "no-cache"})
    etag = make_content_etag(bytes(response.body))
    response.headers["ETag"] = etag
    if matches(request.headers.get("If-None-Match"), etag):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": "no-cache"})
    return response


def worker_max_age_s(rooms: Resources) -> float:
    """Return how long ago a worker may have been heard and still count as alive: three of its heartbeats."""
    return max(15.0, 3 * rooms.settings.heartbeat_s)


def make_content_etag(body: bytes) -> str:
    """Return a weak ETag of a body."""
    return f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'


class _Joined(Collector):
    """Several collectors as one, for the text format."""

    def __init__(self, *parts: Collector) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        for part in self._parts:
            yield from part.collect()


def _try_check(check: Callable[[Resources], str], rooms: Resources) -> tuple[bool, str]:
    try:
        return True, check(rooms)
    except AnimatoError as error:
        return False, error.message


def _check_database(rooms: Resources) -> str:
    rooms.store.ping()
    return "The job database answers."


def _check_storage(rooms: Resources) -> str:
    rooms.storage.ping()
    return "The object store answers."


def _check_broker(rooms: Resources) -> str:
    check_broker(rooms.settings.redis_url)
    return "The queue server answers."


def _check_worker(rooms: Resources) -> str:
    workers = rooms.store.live_workers(worker_max_age_s(rooms))
    warm = sum(is_warm(worker.facts) for worker in workers)
    if warm == 0:
        raise AnimatoError(
            "not-ready", "No worker is alive." if not workers else "The workers are still loading their model."
        )
    return f"{warm} of {len(workers)} workers are warm."
