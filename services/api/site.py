"""The page at ``/`` and the sample faces: static files, no logic. The page uses nothing but the public API."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from services.api.schemas import SampleList

PAGE_DIR = Path(__file__).parent / "page"
_SAMPLE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})


class _Fresh(StaticFiles):
    """Static files that a browser asks for again each time (304 mostly), so that an update is seen at once."""

    def file_response(
        self, full_path: str | os.PathLike[str], stat_result: os.stat_result, scope: Any, status_code: int = 200
    ) -> Response:
        response = super().file_response(full_path, stat_result, scope, status_code)
        response.headers["Cache-Control"] = "no-cache"
        return response


def install_site(app: FastAPI, samples_dir: Path, media_origin: str = "") -> None:
    """Add the page and the samples to the app.

    Args:
        app: the application.
        samples_dir: the folder of sample faces; files that are no pictures, and strips, are not shown.
        media_origin: URL of the store that results are redirected to; empty when they are streamed from here.
    """
    policy = make_policy(media_origin)
    router = APIRouter()

    @router.head("/", include_in_schema=False)
    @router.get("/", include_in_schema=False)
    async def get_page() -> Response:
        headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
        return FileResponse(PAGE_DIR / "index.html", media_type="text/html; charset=utf-8", headers=headers)

    @router.get("/samples", response_model=SampleList, tags=["samples"], summary="List sample faces")
    def list_samples() -> Response:
        """List the faces that ship with the service."""
        return JSONResponse(
            {"object": "list", "data": find_samples(samples_dir)}, headers={"Cache-Control": "no-cache"}
        )

    app.include_router(router)
    app.mount("/page", _Fresh(directory=PAGE_DIR, check_dir=False), name="page")
    app.mount("/samples", _Fresh(directory=samples_dir, check_dir=False), name="samples")


def make_policy(media_origin: str) -> str:
    """Return the page's Content-Security-Policy; media may also come from the store that results redirect to."""
    parts = urlsplit(media_origin)
    store = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return (
        f"default-src 'self'; img-src 'self' blob: data:{store}; media-src 'self' blob:{store};"
        " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


def find_samples(samples_dir: Path) -> list[dict[str, str | None]]:
    """Return the sample faces by file name: those of the folder itself, then those of its folders, each for a model."""
    if not samples_dir.is_dir():
        return []
    folders = sorted(path for path in samples_dir.iterdir() if path.is_dir() and not path.name.startswith("."))
    return [*_find_in(samples_dir, None), *(sample for folder in folders for sample in _find_in(folder, folder.name))]


def _find_in(folder: Path, model: str | None) -> list[dict[str, str | None]]:
    files = sorted(path.name for path in folder.iterdir() if path.is_file())
    place = "/samples" if model is None else f"/samples/{model}"
    return [
        {
            "name": Path(name).stem.replace("-", " ").replace("_", " ").title(),
            "url": f"{place}/{name}",
            "model": model,
        }
        for name in files
        if Path(name).suffix.lower() in _SAMPLE_SUFFIXES and "strip" not in name and not name.startswith(".")
    ]
