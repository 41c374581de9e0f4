"""What the routes work with, opened once by the composition root and handed to each request. No logic in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import anyio
from fastapi import Depends, Request, Security
from fastapi.security import SecurityScopes

from services.api.auth import BEARER, HEADER, Authenticator, Client
from services.api.bodies import BodyRoom
from services.api.desk import Desk
from services.api.disk_room import DiskRoom
from services.api.limits import RATE_HEADERS, PostLimiter, read_address
from services.api.looks import Looks
from services.api.models import Catalogue
from services.api.sources import SourceFetcher
from services.faces import FaceFinder
from services.jobs.dispatch import Dispatcher
from services.jobs.keys import Scope
from services.jobs.store import JobStore
from services.outbound.client import Outbound
from services.pictures.cleaner import PictureCleaner
from services.settings import Settings
from services.storage import ObjectStore


@dataclass(frozen=True)
class Resources:
    """The rooms below the API. ``decoders`` bounds how many pictures are decoded at once: each may take 100 MB."""

    settings: Settings
    store: JobStore
    storage: ObjectStore
    dispatcher: Dispatcher
    desk: Desk
    catalogue: Catalogue
    faces: FaceFinder
    pictures: PictureCleaner
    authenticator: Authenticator
    posts: PostLimiter
    decoders: anyio.CapacityLimiter
    outbound: Outbound
    bodies: BodyRoom
    sources: SourceFetcher
    looks: Looks
    room: DiskRoom


async def get_resources(request: Request) -> Resources:
    """Return what the lifespan of the app has opened. Async, because others cost a hop to a thread."""
    return cast(Resources, request.app.state.resources)


Rooms = Annotated[Resources, Depends(get_resources)]


# The two schemes stand in each signature for the API's description. What FastAPI resolves for a request costs more than
# what is done for it here, so the dependencies below are flat: they call each other as plain functions.
_Bearer = Annotated[object, Security(BEARER)]
_Header = Annotated[object, Security(HEADER)]


async def get_client(request: Request, scopes: SecurityScopes, _bearer: _Bearer, _header: _Header) -> Client:
    """Return the one who asks."""
    return await _identify(request, scopes)


async def get_owner(request: Request, scopes: SecurityScopes, _bearer: _Bearer, _header: _Header) -> str:
    """Return the owner of what the client may see; other owners' jobs do not exist for it."""
    return (await _identify(request, scopes)).owner


async def count_post(request: Request, scopes: SecurityScopes, _bearer: _Bearer, _header: _Header) -> Client:
    """Return the one who posts. Raises: TemporaryError("rate-limited")."""
    client = await _identify(request, scopes)
    rooms = await get_resources(request)
    headers, refusal = rooms.posts.count(client, read_address(request))
    setattr(request.state, RATE_HEADERS, headers)
    if refusal is not None:
        raise refusal
    return client


async def _identify(request: Request, scopes: SecurityScopes) -> Client:
    rooms = await get_resources(request)
    return await rooms.authenticator.identify(request, scopes.scopes)


# What a route asks for. A route that has none of these is open to everybody.
Reader = Annotated[str, Security(get_owner, scopes=[Scope.ANIMATIONS_READ])]
Writer = Annotated[str, Security(get_owner, scopes=[Scope.ANIMATIONS_WRITE])]
WebhookManager = Annotated[str, Security(get_owner, scopes=[Scope.WEBHOOKS_MANAGE])]
Poster = Annotated[Client, Security(count_post, scopes=[Scope.ANIMATIONS_WRITE])]
MODELS_READER = Security(get_client, scopes=[Scope.MODELS_READ])
METRICS_READER = Security(get_client, scopes=[Scope.METRICS_READ])
