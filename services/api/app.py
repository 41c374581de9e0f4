"""Composition root of the API: ``uvicorn --factory services.api.app:create_app``.

Reads the settings, opens the rooms below in the lifespan, and hands them to the routes. Nothing is opened before that,
so that the API's description can be made anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import structlog
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from services.api import animations, events, faces, health, results, webhooks
from services.api.auth import make_authenticator
from services.api.bodies import BodyCap, BodyRoom
from services.api.boundary import Boundary
from services.api.desk import make_desk
from services.api.disk_room import DiskRoom
from services.api.ear import EndListener
from services.api.forms import install_description
from services.api.limits import PostLimiter
from services.api.looks import Looks
from services.api.metrics import ApiMetrics
from services.api.models import Catalogue
from services.api.origins import Origins
from services.api.problems import install_problems
from services.api.resources import Resources
from services.api.schemas import describe_job
from services.api.site import install_site
from services.api.sources import SourceFetcher
from services.errors import TemporaryError
from services.faces import FaceFinder
from services.jobs.dispatch import Dispatcher
from services.jobs.store import JobStore
from services.logs import configure_logging
from services.outbound.client import Outbound
from services.pictures.cleaner import PictureCleaner
from services.queue import HintQueue
from services.settings import Settings, load_settings
from services.storage import ObjectStore
from services.tracing import start_tracing, stop_tracing
from services.webhooks.courier import Courier

START_PATIENCE_S = 30.0
# How many bodies of the largest size may be in memory at once, of all clients and with one key.
BODIES_AT_ONCE = 8
BODIES_OF_ONE = 4

_log = structlog.get_logger(__name__)

_DESCRIPTION = """One still face and one sentence in, a short video out in which the face does what the sentence says.

Post a job, then poll it, follow its events, or wait with `Prefer: wait=N`; fetch the video when it has succeeded.
Every error is an RFC 9457 problem document with a stable `code` and a `hint` that says what to do."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application; without ``settings`` they are read from the environment.

    Raises:
        PermanentError: settings-invalid.
    """
    if settings is None:
        settings = load_settings()
        configure_logging(service="api", log_format=settings.log_format, level=settings.log_level)
        # The access log is ours: uvicorn's would carry paths and queries.
        logging.getLogger("uvicorn.access").disabled = True
        start_tracing("api")
    chosen = settings
    metrics = ApiMetrics()
    outbound = Outbound.from_settings(chosen)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        store, storage = JobStore.from_settings(chosen), ObjectStore.from_settings(chosen)
        dispatcher = Dispatcher(HintQueue(chosen))
        pictures = PictureCleaner.from_settings(chosen, on_death=metrics.count_picture_death)
        # The rest of the connections is for short requests; no key may hold more than a quarter.
        looks = Looks(store.revisions, chosen.max_connections * 3 // 4, chosen.max_connections // 4)
        catalogue, authenticator = Catalogue(chosen.bundles_dir), make_authenticator(chosen, store)
        app.state.resources = Resources(
            settings=chosen,
            store=store,
            storage=storage,
            dispatcher=dispatcher,
            desk=make_desk(chosen, store, catalogue, dispatcher),
            catalogue=catalogue,
            faces=FaceFinder(chosen.bundles_dir),
            pictures=pictures,
            authenticator=authenticator,
            posts=PostLimiter.from_settings(chosen),
            decoders=anyio.CapacityLimiter(max(2, os.cpu_count() or 2)),
            outbound=outbound,
            looks=looks,
            bodies=BodyRoom(BODIES_AT_ONCE * chosen.max_body_bytes, BODIES_OF_ONE * chosen.max_body_bytes),
            sources=SourceFetcher(outbound, max_bytes=chosen.max_body_bytes, timeout_s=chosen.fetch_timeout_s),
            room=DiskRoom(chosen),
        )
        await run_in_threadpool(_prepare, store, storage)
        courier = Courier.from_settings(
            chosen, store, outbound, describe=describe_job, on_try=metrics.count_webhook_try
        )
        courier.start()
        _log.info("started", keys_asked_for=chosen.keys_needed, host=chosen.host)
        if chosen.keys_needed and not await run_in_threadpool(store.has_live_keys):
            _log.warning("nobody_can_call", reason="there is no live API key", remedy="animato keys create")
        ear = asyncio.create_task(EndListener(chosen.redis_url, looks.wake, looks.set_told).listen())
        try:
            yield
        finally:
            ear.cancel()
            await run_in_threadpool(courier.close)
            await run_in_threadpool(authenticator.close)
            await run_in_threadpool(dispatcher.close)
            await run_in_threadpool(pictures.close)
            await run_in_threadpool(store.close)
            await run_in_threadpool(stop_tracing)

    app = FastAPI(
        title="animato",
        version="1",
        summary="Language-guided face animation",
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        lifespan=lifespan,
        webhooks=webhooks.events,
        # The interactive documentation would load its scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # A browser's form may end in a slash or not: an unknown path is a 404 and no redirect.
        redirect_slashes=False,
        middleware=[
            Middleware(Boundary, metrics=metrics),
            Middleware(Origins, settings=chosen),
            Middleware(BodyCap, max_bytes=chosen.max_body_bytes),
        ],
    )
    app.state.metrics = metrics
    install_problems(app)
    for router in (animations.router, faces.router, events.router, results.router, webhooks.router, health.router):
        app.include_router(router)
    install_description(app)
    install_site(app, chosen.samples_dir, chosen.s3_public_endpoint)
    return app


def _prepare(store: JobStore, storage: ObjectStore) -> None:
    """Bring the database's schema up to date; waits for a database that is still starting.

    Raises:
        TemporaryError: not-ready when it does not answer in half a minute.
    """
    deadline_s = time.monotonic() + START_PATIENCE_S
    while True:
        try:
            store.migrate()
            break
        except TemporaryError:
            if time.monotonic() > deadline_s:
                raise
            _log.warning("database_awaited")
            time.sleep(1.0)
    try:
        storage.ensure_bucket()
    except TemporaryError as error:
        # Jobs without a picture can be accepted all the same, and /readyz tells of it.
        _log.warning("storage_awaited", code=error.code)
