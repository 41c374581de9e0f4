"""The routes of ``/v1/webhooks``: the delivery log, telling again, and the secrets that sign. Thin: the store decides.

Also what a request for a webhook is checked for before its job is accepted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from services.api.jobs import find_job
from services.api.paging import LINK_HEADER, link_next
from services.api.problems import describe_responses, make_pointer
from services.api.resources import Resources, Rooms, WebhookManager
from services.api.schemas import PREFIX as ANIMATIONS
from services.api.schemas import Animation
from services.errors import RequestError
from services.jobs.contract import WebhookEvent, WebhookOptions
from services.jobs.deliveries import Delivery
from services.jobs.webhook_secrets import WebhookSecret
from services.webhooks.signing import make_secret

PREFIX = "/v1/webhooks"
DEFAULT_OVERLAP_S = 86_400
MAX_OVERLAP_S = 30 * 86_400

router = APIRouter(tags=["webhooks"])
events = APIRouter(tags=["webhooks"])  # not routes of ours: what receivers are called with

DeliveryState = Literal["pending", "delivered", "failed"]
_PRIVATE = {"Cache-Control": "private, no-cache"}
_SECRET = {"Cache-Control": "no-store"}


class WebhookTry(BaseModel):
    """One try to tell an event: the receiver's status, or why there was none."""

    number: int
    at: datetime
    status: int | None = Field(description="Of the receiver's answer; null when it gave none.")
    reason: str | None = Field(description="Why this try was no delivery; null when it was one.")
    duration_s: float


class WebhookDelivery(BaseModel):
    """One event on its way to a receiver."""

    id: str = Field(description="What the receiver finds in `webhook-id`, the same in every try.")
    object: Literal["webhook_delivery"] = "webhook_delivery"
    job_id: str
    event: WebhookEvent
    url: str
    state: DeliveryState
    created_at: datetime
    next_at: datetime | None = Field(description="When it is tried next; null when it is not.")
    delivered_at: datetime | None
    tries: list[WebhookTry] = Field(description="The latest 50, the first of them first.")


class WebhookDeliveryList(BaseModel):
    """One page of deliveries, newest first."""

    object: Literal["list"] = "list"
    data: list[WebhookDelivery]
    next_cursor: str | None


class WebhookMessage(BaseModel):
    """What a receiver is told."""

    type: WebhookEvent
    timestamp: datetime = Field(description="When the job ended.")
    data: Animation


class SigningSecret(BaseModel):
    """A secret that signs now."""

    id: str
    object: Literal["webhook_secret"] = "webhook_secret"
    secret: str = Field(description="`whsec_` and base64, as Standard Webhooks has it.")
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: it signs until it is replaced.")


class WebhookSecretList(BaseModel):
    """The secrets that sign now, newest first: at most two."""

    object: Literal["list"] = "list"
    data: list[SigningSecret]


def _read_whole(given: Any) -> Any:
    """Read ``3600.0`` as the integer that it is in JSON."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


WholeNumber = Annotated[int, BeforeValidator(_read_whole)]


class Rotation(BaseModel):
    """How a new secret takes over from the one before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    overlap_s: WholeNumber = Field(
        DEFAULT_OVERLAP_S, ge=0, le=MAX_OVERLAP_S, description="So long the secret before signs along; 0: it ends now."
    )


class DeliveryQuery(BaseModel):
    """Which deliveries to list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the page before.")
    job_id: str | None = Field(None, max_length=64, description="Of this animation alone.")
    state: DeliveryState | None = None


@router.get(
    PREFIX + "/deliveries",
    response_model=WebhookDeliveryList,
    summary="List webhook deliveries",
    responses={
        200: {"headers": LINK_HEADER},
        **describe_responses("validation-failed", "not-ready"),
    },
)
def list_deliveries(rooms: Rooms, owner: WebhookManager, query: Annotated[DeliveryQuery, Query()]) -> Response:
    """List what was told or is to be told of your jobs, with every try; kept as long as the job is."""
    deliveries, next_cursor = rooms.store.list_deliveries(
        owner, query.limit, query.cursor, job_id=query.job_id, state=query.state
    )
    headers = _PRIVATE | link_next(PREFIX + "/deliveries", query, next_cursor)
    return _answer_list(deliveries, next_cursor, headers)


@router.get(
    ANIMATIONS + "/{job_id}/deliveries",
    response_model=WebhookDeliveryList,
    summary="List an animation's webhook deliveries",
    responses=describe_responses("not-found", "not-ready"),
)
def list_deliveries_of_animation(job_id: str, rooms: Rooms, owner: WebhookManager) -> Response:
    """Return what was told or is to be told of this job; nothing before its end, or where no webhook was asked for."""
    record = find_job(rooms.store, job_id, owner)
    deliveries, _ = rooms.store.list_deliveries(owner, job_id=record.id)
    return _answer_list(deliveries, None, _PRIVATE)


@router.get(
    PREFIX + "/deliveries/{delivery_id}",
    response_model=WebhookDelivery,
    summary="Look at a webhook delivery",
    responses=describe_responses("not-found", "not-ready"),
)
def get_delivery(delivery_id: str, rooms: Rooms, owner: WebhookManager) -> Response:
    """Return one delivery with every try."""
    delivery = rooms.store.get_delivery(delivery_id, owner)
    if delivery is None:
        raise RequestError(
            "not-found",
            "There is no delivery with this id.",
            "Check the id; deliveries are removed with their animation.",
        )
    return JSONResponse(_describe(delivery).model_dump(mode="json"), headers=_PRIVATE)


@router.post(
    PREFIX + "/deliveries/{delivery_id}/redeliver",
    status_code=202,
    response_model=WebhookDelivery,
    summary="Tell an event again",
    responses=describe_responses("not-found", "not-ready"),
)
def redeliver(delivery_id: str, rooms: Rooms, owner: WebhookManager) -> Response:
    """Tell the event again, at once and with all its tries before it, whatever became of it; its id stays the same."""
    delivery = rooms.store.redeliver(delivery_id, owner)
    return JSONResponse(_describe(delivery).model_dump(mode="json"), 202, headers=_PRIVATE)


@router.get(
    PREFIX + "/secrets",
    response_model=WebhookSecretList,
    summary="List webhook secrets",
    responses=describe_responses("not-ready"),
)
def list_secrets(rooms: Rooms, owner: WebhookManager) -> Response:
    """Return the secrets that sign your webhooks now. The first one is made with your first job that has a webhook."""
    data = [_describe_secret(made) for made in rooms.store.list_webhook_secrets(owner)]
    return JSONResponse({"object": "list", "data": data}, headers=_SECRET)


@router.post(
    PREFIX + "/secrets",
    status_code=201,
    response_model=SigningSecret,
    summary="Make or rotate the webhook secret",
    responses=describe_responses("bad-request", "validation-failed", "payload-too-large", "not-ready"),
)
def create_secret(rooms: Rooms, owner: WebhookManager, rotation: Annotated[Rotation | None, Body()] = None) -> Response:
    """Make a secret that signs from now on; the one before signs along for a while, any older one ends."""
    rotation = rotation or Rotation()
    made = rooms.store.add_webhook_secret(owner, make_secret(), rotation.overlap_s)
    return JSONResponse(_describe_secret(made), 201, headers=_SECRET)


@router.delete(
    PREFIX + "/secrets/{secret_id}",
    status_code=204,
    response_class=Response,
    summary="End a webhook secret",
    responses={204: {"description": "It signs nothing any more."}, **describe_responses("not-found", "not-ready")},
)
def delete_secret(secret_id: str, rooms: Rooms, owner: WebhookManager) -> Response:
    """End a secret at once, e.g. one that leaked. Without any, what is due waits for the next one."""
    if not rooms.store.delete_webhook_secret(owner, secret_id):
        raise RequestError(
            "not-found", "There is no webhook secret with this id.", "GET /v1/webhooks/secrets lists those that sign."
        )
    return Response(status_code=204)


@events.post(
    "animation.ended",
    status_code=204,
    summary="A job has ended",
    responses={
        204: {"description": "Taken; so is any 2xx."},
        410: {"description": "Never call this address again for this event."},
    },
)
def tell_end(
    body: WebhookMessage,
    webhook_id: Annotated[str, Header(description="The event: the same in every try and redelivery.")],
    webhook_timestamp: Annotated[int, Header(description="Of this try, in seconds since 1970.")],
    webhook_signature: Annotated[str, Header(description="`v1,` and base64, one for each live secret.")],
) -> None:
    """Tell a receiver that a job has ended, signed as Standard Webhooks has it; see docs/webhooks.md."""


def prepare_webhook(rooms: Resources, owner: str, webhook: WebhookOptions) -> None:
    """Refuse a webhook that may not be called, as far as that can be told without a look-up; see to its signature.

    Raises:
        RequestError: validation-failed with a pointer to the URL.
    """
    try:
        rooms.outbound.check_url(webhook.url)
    except RequestError as error:
        problem = {"pointer": make_pointer(("webhook", "url")), "detail": error.message}
        raise RequestError("validation-failed", error.message, error.hint, errors=[problem]) from error
    rooms.store.ensure_webhook_secret(owner, make_secret)


def _answer_list(deliveries: list[Delivery], next_cursor: str | None, headers: dict[str, str]) -> Response:
    data = [_describe(delivery).model_dump(mode="json") for delivery in deliveries]
    return JSONResponse({"object": "list", "data": data, "next_cursor": next_cursor}, headers=headers)


def _describe(delivery: Delivery) -> WebhookDelivery:
    return WebhookDelivery(
        id=delivery.id,
        job_id=delivery.job_id,
        event=WebhookEvent(delivery.event),
        url=delivery.url,
        state=delivery.state,
        created_at=delivery.created_at,
        next_at=delivery.next_at if delivery.state == "pending" else None,
        delivered_at=delivery.delivered_at,
        tries=[
            WebhookTry(
                number=line.number, at=line.at, status=line.status, reason=line.reason, duration_s=line.duration_s
            )
            for line in delivery.log
        ],
    )


def _describe_secret(made: WebhookSecret) -> dict[str, Any]:
    shown = SigningSecret(id=made.id, secret=made.secret, created_at=made.created_at, expires_at=made.expires_at)
    return shown.model_dump(mode="json")
