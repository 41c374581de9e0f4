"""What the routes work with, opened once by the composition root and handed to each request. No logic in here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

import anyio
from fastapi import Depends, Request

from services.api.auth import Authenticator
from services.api.models import Catalogue
from services.faces import FaceFinder
from services.jobs.dispatch import Dispatcher
from services.jobs.store import JobStore
from services.settings import Settings
from services.storage import ObjectStore


@dataclass(frozen=True)
class Resources:
    """The rooms below the API. ``decoders`` bounds how many pictures are decoded at once: each may take 100 MB."""

    settings: Settings
    store: JobStore
    storage: ObjectStore
    dispatcher: Dispatcher
    catalogue: Catalogue
    faces: FaceFinder
    authenticate: Authenticator
    decoders: anyio.CapacityLimiter


def get_resources(request: Request) -> Resources:
    """Return what the lifespan of the app has opened."""
    return cast(Resources, request.app.state.resources)


Rooms = Annotated[Resources, Depends(get_resources)]


def get_owner(request: Request, rooms: Rooms) -> str:
    """Return the name of the one who asks; other owners' jobs do not exist for them."""
    return rooms.authenticate(request)


Owner = Annotated[str, Depends(get_owner)]
