"""How ``openapi.yaml`` describes the two forms of a request; the rules themselves are ``AnimationOptions``."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from services.api.problems import Problem, describe_responses
from services.jobs.contract import AnimationOptions
from services.outbound.urls import MAX_CHARACTERS

_IMAGE_BASE64 = {
    "type": "string",
    "contentEncoding": "base64",
    "description": "The picture, JPEG, PNG or WebP; a `data:` prefix is accepted.",
}
_IMAGE_FILE = {
    "type": "string",
    "contentMediaType": "application/octet-stream",
    "description": "The picture as a file, JPEG, PNG or WebP.",
}
_IMAGE_URL = {
    "type": "string",
    "format": "uri",
    "maxLength": MAX_CHARACTERS,
    "description": "Where the picture is fetched from instead: https, a public address, at most 3 redirects.",
}
_UNLESS_SAMPLED = " Required unless `source` is `sampled` or `image_url` is given."
_OPTIONS = "#/components/schemas/AnimationOptions"


def make_form_schemas() -> dict[str, Any]:
    """Return the components ``AnimationOptions``, ``AnimationJson``, ``AnimationForm`` and what they refer to."""
    options = AnimationOptions.model_json_schema(ref_template="#/components/schemas/{model}")
    components: dict[str, Any] = options.pop("$defs", {})
    properties = {name: dict(schema) for name, schema in options["properties"].items()}
    json_form = {
        "type": "object",
        "title": "AnimationJson",
        "description": "A request as JSON.",
        "additionalProperties": False,
        "required": ["prompt"],
        "properties": {
            **properties,
            "image_base64": _IMAGE_BASE64 | {"description": _IMAGE_BASE64["description"] + _UNLESS_SAMPLED},
            "image_url": _IMAGE_URL,
        },
    }
    multipart_form = {
        "type": "object",
        "title": "AnimationForm",
        "description": "A request as a form. Each field may stand by itself or in `options`, not in both.",
        "additionalProperties": False,
        "anyOf": [{"required": ["prompt"]}, {"required": ["options"]}],
        "properties": {
            **_without_null(properties),
            "image": _IMAGE_FILE | {"description": _IMAGE_FILE["description"] + _UNLESS_SAMPLED},
            "image_url": _IMAGE_URL,
            "options": {"$ref": _OPTIONS, "description": "Any of the other fields, as one JSON object."},
        },
    }
    # In a form nothing but the presence of the prompt can be asked for: it may stand in `options`.
    partial = {**options, "properties": properties, "description": "The fields of a request but the picture."}
    partial.pop("required", None)
    return {**components, "AnimationOptions": partial, "AnimationJson": json_form, "AnimationForm": multipart_form}


REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {"$ref": "#/components/schemas/AnimationForm"},
            "encoding": {
                "options": {"contentType": "application/json"},
                "output": {"contentType": "application/json"},
                "face": {"contentType": "application/json"},
                "metadata": {"contentType": "application/json"},
                "webhook": {"contentType": "application/json"},
                "image": {"contentType": "image/jpeg, image/png, image/webp"},
            },
        },
        "application/json": {
            "schema": {"$ref": "#/components/schemas/AnimationJson"},
            "examples": {
                "sampled": {
                    "summary": "A face sampled from the model",
                    "value": {"prompt": "smiling, then winking", "source": "sampled", "seed": 7},
                },
                "picture": {
                    "summary": "A picture",
                    "value": {
                        "prompt": "smiling",
                        "image_base64": "iVBORw0KGgo…",
                        "duration_s": 2,
                        "output": {"format": "mp4"},
                    },
                },
                "url": {
                    "summary": "A picture on the web",
                    "value": {"prompt": "smiling", "image_url": "https://example.com/face.jpg"},
                },
            },
        },
    },
}


def make_detect_body(query: type[BaseModel]) -> dict[str, Any]:
    """Return how ``faces:detect`` is asked: the same two forms, with the fields of ``query`` beside the picture."""
    properties = query.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]

    def describe_form(fields: dict[str, Any], image: dict[str, Any], name: str) -> dict[str, Any]:
        return {
            "schema": {
                "type": "object",
                "additionalProperties": False,
                "oneOf": [{"required": [name]}, {"required": ["image_url"]}],
                "properties": {**fields, name: image, "image_url": _IMAGE_URL},
            }
        }

    form = describe_form(_without_null(properties), _IMAGE_FILE, "image")
    form["encoding"] = {
        "face": {"contentType": "application/json"},
        "image": {"contentType": "image/jpeg, image/png, image/webp"},
    }
    return {
        "required": True,
        "content": {
            "multipart/form-data": form,
            "application/json": describe_form(properties, _IMAGE_BASE64, "image_base64"),
        },
    }


def _drop_default_problems(document: dict[str, Any]) -> None:
    """Remove FastAPI's own 422 answers: parameters in paths are texts, and what is wrong with them is a 404 here."""
    for operations in [*document["paths"].values(), *document.get("webhooks", {}).values()]:
        for operation in operations.values():
            content = operation["responses"].get("422", {}).get("content", {})
            if "application/json" in content:
                del operation["responses"]["422"]
    for name in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(name, None)


def _describe_parameters(document: dict[str, Any]) -> None:
    """Say of optional parameters what can be written in a URL or a header: they are left out, never null."""
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                schema = parameter["schema"] = _without_null({"it": parameter["schema"]})["it"]
                if parameter["in"] == "header" and schema.get("type") == "array":  # lines of one header are one text
                    del schema["items"]
                    schema["type"] = "string"


def _without_null(properties: dict[str, Any]) -> dict[str, Any]:
    """Return descriptions of fields where null can't be said: what is not given is left out."""
    described = {}
    for name, schema in properties.items():
        kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
        rest = {key: value for key, value in schema.items() if key != "anyOf"}
        if rest.get("default", ...) is None:
            del rest["default"]
        # A copy: what one form says the other must be free to say otherwise.
        described[name] = deepcopy(rest | kinds[0] if len(kinds) == 1 else schema)
    return described


_RATE_HEADERS = {
    "RateLimit-Policy": {
        "description": '`"posts";q=600;w=60`: posts that are let through, and the seconds that they are counted over.',
        "schema": {"type": "string"},
    },
    "RateLimit": {
        "description": '`"posts";r=599;t=42`: how many are left, and the seconds until they are counted anew.',
        "schema": {"type": "string"},
    },
}
_CHALLENGE = {"WWW-Authenticate": {"description": "RFC 6750.", "schema": {"type": "string"}}}


def _describe_access(document: dict[str, Any]) -> None:
    """Say of every route that asks for a key how it refuses; and that a service may ask for none (`ANIMATO_AUTH`)."""
    for operations in document["paths"].values():
        for method, operation in operations.items():
            answers = operation["responses"]
            if "security" in operation:
                operation["security"].append({})
                refusals = describe_responses("unauthorized", "forbidden")
                for status, answer in refusals.items():
                    answers[str(status)] = answer | {"headers": deepcopy(_CHALLENGE)}
            if method == "post" and "429" in answers:
                for status in ("200", "201", "202", "429"):
                    if status in answers:
                        answers[status]["headers"] = answers[status].get("headers", {}) | deepcopy(_RATE_HEADERS)
            operation["responses"] = dict(sorted(answers.items()))


def install_description(app: FastAPI) -> None:
    """Make the app describe what FastAPI can't see: the forms that are read by hand, and the problem documents."""

    def describe() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                summary=app.summary,
                description=app.description,
                license_info=app.license_info,
                routes=app.routes,
                webhooks=app.webhooks.routes,
            )
            _drop_default_problems(document)
            _describe_parameters(document)
            _describe_access(document)
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= problem.pop("$defs", {}) | {"Problem": problem} | make_form_schemas()
            document["components"]["schemas"] = dict(sorted(schemas.items()))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = describe  # type: ignore[method-assign]
