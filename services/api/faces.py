"""``POST /v1/faces:detect``, and the look for faces that every posted picture gets. Rules are in ``services.faces``."""

from __future__ import annotations

import io

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Request
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from model.align import face_region
from services.api.bodies import read_whole
from services.api.forms import make_detect_body
from services.api.problems import describe_responses
from services.api.resources import Poster, Resources, Rooms
from services.api.schemas import FaceDetection, FaceRefusal
from services.api.uploads import Body, Submission, check_fields, read_body
from services.errors import RequestError
from services.faces import Search, choose_face, plan_search
from services.jobs.contract import FaceChoice, FaceFacts
from services.pictures.cleaning import Picture

router = APIRouter(prefix="/v1", tags=["faces"])


class FaceQuery(BaseModel):
    """The fields of `POST /v1/faces:detect` but the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = Field(None, max_length=64, description="A model id of GET /v1/models; default: the first one.")
    face: FaceChoice | None = Field(None, description="As a job would choose; default: the largest.")


def look_for_faces(rooms: Resources, submission: Submission) -> list[FaceFacts]:
    """Return the faces that a submission is about; empty where none is looked for. Takes some 100 ms of CPU.

    Raises:
        RequestError: model-unknown, no-face, multiple-faces, face-too-small, face-unusable.
        TemporaryError: not-ready.
    """
    manifest = rooms.catalogue.choose(submission.options.model)
    if submission.picture is None or plan_search(submission.options, manifest) is Search.NONE:
        return []  # the picture need not be decoded
    return rooms.faces.look(_read_pixels(submission.picture), manifest, submission.options)


@router.post(
    "/faces:detect",
    response_model=FaceDetection,
    summary="Find the faces of a picture",
    openapi_extra={"requestBody": make_detect_body(FaceQuery)},
    responses=describe_responses(
        "bad-request",
        "payload-too-large",
        "unsupported-media-type",
        "validation-failed",
        "model-unknown",
        "image-corrupt",
        "image-too-small",
        "image-too-large",
        "source-forbidden-address",
        "source-unreachable",
        "rate-limited",
        "not-ready",
    ),
)
async def detect_faces(request: Request, rooms: Rooms, client: Poster) -> Response:
    """Tell which faces are found, which one a job would animate, and why it would be refused. Stores nothing."""
    with rooms.bodies.hold(client.owner) as share:
        body = await read_whole(request, share)
        content_type = request.headers.get("Content-Type", "")
        query, parts = await to_thread.run_sync(_read_query, body, content_type, limiter=rooms.decoders)
        image = parts.image or b""
        if parts.image_url is not None:
            image = await rooms.sources.fetch(client.owner, parts.image_url)
        found = await to_thread.run_sync(_detect, rooms, query, image, limiter=rooms.decoders)
    return JSONResponse(found.model_dump(mode="json"), headers={"Cache-Control": "no-store"})


def _read_query(body: bytes, content_type: str) -> tuple[FaceQuery, Body]:
    parts = read_body(body, content_type)
    query = check_fields(FaceQuery, parts.fields)
    if parts.image is None and parts.image_url is None:
        detail = "The request has no picture."
        raise RequestError(
            "validation-failed",
            detail,
            "Send the picture of a face.",
            errors=[{"pointer": f"#/{parts.image_field}", "detail": detail}],
        )
    return query, parts


def _detect(rooms: Resources, query: FaceQuery, image: bytes) -> FaceDetection:
    manifest = rooms.catalogue.choose(query.model)
    picture = rooms.pictures.clean(image)
    faces, problem = rooms.faces.find(_read_pixels(picture), manifest), None
    try:
        faces = choose_face(faces, query.face)
    except RequestError as error:
        problem = FaceRefusal(code=error.code, detail=error.message, hint=error.hint)
    chosen = next((face for face in faces if face.selected), None)
    return FaceDetection(
        model=manifest.id,
        width=picture.width,
        height=picture.height,
        faces=faces,
        region=None if chosen is None else _list_corners(chosen),
        problem=problem,
    )


def _list_corners(face: FaceFacts) -> list[list[float]]:
    return [[round(x, 2), round(y, 2)] for x, y in face_region(face.points).corners]


def _read_pixels(picture: Picture) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(picture.png), formats=["PNG"]) as opened:
        return np.asarray(opened.convert("RGB"))
