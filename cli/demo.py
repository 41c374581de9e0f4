"""``animato demo``: the whole service, once, over real HTTP: post a sample face, watch the job, fetch the film.

Without ``--url`` it starts the embedded service on a free port with a data folder of its own and leaves nothing running
and nothing behind but the results.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import err, make_progress, out, quiet_logs
from services.errors import PermanentError, RequestError
from services.jobs.contract import JobState, Stage

if TYPE_CHECKING:
    import httpx

POLL_S = 0.1
PATIENCE_S = 600.0
PICTURE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
SAYING = {
    Stage.FETCH: "Opening the picture",
    Stage.ALIGN: "Finding the face",
    Stage.INVERT: "Learning the face",
    Stage.MOVE: "Planning the motion",
    Stage.RENDER: "Drawing",
    Stage.ENCODE: "Making the film",
    Stage.STORE: "Putting it away",
}


def demo(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="What the face does.")] = "smiling",
    image: Annotated[
        Path | None, typer.Option(help="A face (default: the first of samples/).", exists=True, dir_okay=False)
    ] = None,
    url: Annotated[str | None, typer.Option(help="A running service; without it one is started and stopped.")] = None,
    api_key: Annotated[
        str | None, typer.Option(help="Where that service asks for one.", envvar="ANIMATO_API_KEY", show_envvar=True)
    ] = None,
    out_dir: Annotated[Path, typer.Option(help="Where the film and its strip go.", file_okay=False)] = Path("out"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same seed gives the same film.")] = 7,
) -> None:
    """Animate a sample face through the whole service: API, queue, worker, model, video."""
    from services.settings import load_settings

    quiet_logs()
    began = time.perf_counter()
    picture = image or find_sample(load_settings().samples_dir)
    name = re.sub(r"\W+", "-", prompt.lower()).strip("-")[:40] or "demo"
    video, strip = out_dir / f"{name}.mp4", out_dir / f"{name}-strip.png"
    with _running_service(url) as base_url:
        posted = time.perf_counter()
        job = run_job(base_url, picture, {"prompt": prompt, "seed": str(seed)}, video, api_key)
        fetched = time.perf_counter()
        from worker.strip import write_strip

        write_strip(video, strip)
    facts = job["output"]
    err().print(
        f"{facts['frames']} frames of {facts['width']} × {facts['height']} px: "
        f"{fetched - posted:.1f} s from POST to film, {time.perf_counter() - began:.1f} s in all",
        style="dim",
    )
    for path in (video, strip):
        out().print(str(path))


def find_sample(folder: Path) -> Path:
    """Return the first sample face. Raises: PermanentError not-found."""
    faces = sorted(
        path for path in folder.glob("*") if path.suffix.lower() in PICTURE_SUFFIXES and "strip" not in path.stem
    )
    if not faces:
        raise PermanentError("not-found", f"There is no sample face in {folder}.", "Name a picture with --image.")
    return faces[0]


@contextmanager
def _running_service(url: str | None) -> Iterator[str]:
    """Yield the base URL of the given service, or of one that lives as long as the block."""
    if url is not None:
        yield url.rstrip("/")
        return
    from services.launcher import embedded_service
    from services.settings import load_settings

    with tempfile.TemporaryDirectory(prefix="animato-demo-") as folder, ExitStack() as stack:
        own = {
            "auth": "off",
            "data_dir": Path(folder),
            "host": "127.0.0.1",
            "port": 0,
            "database_url": "",
            "storage_url": "",
        }
        settings = load_settings().model_copy(update=own)
        settings.model_fields_set.discard("redis_url")  # a queue server of its own, whatever the environment names
        with err().status("Starting the service: queue, API, worker"):
            base_url = stack.enter_context(embedded_service(settings))
        yield base_url


def run_job(
    base_url: str, picture: Path, fields: dict[str, str], video: Path, api_key: str | None = None
) -> dict[str, Any]:
    """Post a face, show the job's progress until it ends, fetch the film; return the finished job.

    Raises: RequestError, PermanentError with the service's own words.
    """
    import httpx

    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    try:
        with httpx.Client(base_url=base_url, timeout=30.0, follow_redirects=True, headers=headers) as client:
            with picture.open("rb") as file:
                job = _read(client.post("/v1/animations", data=fields, files={"image": (picture.name, file)}))
            job = _watch(client, job)
            if job["status"] != JobState.SUCCEEDED:
                error = job["error"] or {
                    "code": job["status"],
                    "message": f"The job ended as {job['status']}.",
                    "hint": "",
                }
                raise PermanentError(error["code"], error["message"], error["hint"])
            _download(client, job["output"]["url"], video)
            return job
    except httpx.TransportError as error:
        raise PermanentError(
            "not-ready", f"The service at {base_url} does not answer.", "Is it running? `animato up` starts one."
        ) from error


def _watch(client: httpx.Client, job: dict[str, Any]) -> dict[str, Any]:
    gives_up = time.monotonic() + PATIENCE_S
    stage = ""
    with make_progress() as progress:
        task = progress.add_task("Waiting", total=job["frames_total"], frames="", left="")
        while job["status"] in {JobState.QUEUED, JobState.RUNNING}:
            if time.monotonic() > gives_up:
                raise PermanentError(
                    "deadline-exceeded",
                    f"The job {job['id']} did not end within {PATIENCE_S:.0f} s.",
                    "Is a worker running?",
                )
            time.sleep(POLL_S)
            job = _read(client.get(job["urls"]["self"]))
            words = SAYING[Stage(job["stage"])] if job["stage"] else "Waiting for its turn"
            if words != stage and progress.disable:
                err().print(words, style="dim")  # no terminal: one line a stage instead of a moving bar
            stage = words
            left = f"{job['eta_s']:.0f} s left" if job["eta_s"] else ""
            done, total = job["frames_done"], job["frames_total"]
            progress.update(task, description=words, completed=done, frames=f"{done}/{total}", left=left)
        if job["status"] == JobState.SUCCEEDED:
            progress.update(task, description="Done", completed=job["frames_total"], left="")
    return job


def _read(response: httpx.Response) -> dict[str, Any]:
    """Return the JSON of a success. Raises: RequestError with the words of the problem document."""
    try:
        body = response.json()
    except ValueError:
        body = {}
    if response.is_success and isinstance(body, dict) and body:
        return body
    detail = body.get("detail") or f"The service answered {response.status_code}; is it an animato?"
    raise RequestError(body.get("code", "internal"), detail, body.get("hint", ""))


def _download(client: httpx.Client, url: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with client.stream("GET", url) as response:
        if not response.is_success:
            response.read()
            _read(response)
        with path.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)
