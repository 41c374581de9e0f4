"""Films of faces in photographs: what is cut out, what comes back, and that the rest of the photograph keeps still."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from model.align import centred_region, crop_square, cut_region, face_region
from model.animator import Animator
from services.api.app import create_app
from services.jobs.contract import AnimationOptions
from tests.photographs import POINTS, read_photograph, scale, to_png
from tests.worker.workplace import Workplace
from worker.animation import make_video
from worker.composition import View
from worker.events import Done, Event, FramesDrawn, Order, Preview
from worker.playback import probe, read_frames

pytestmark = pytest.mark.timeout(2000)


@pytest.fixture(scope="module")
def animator(tiny_bundle: Path) -> Animator:
    return Animator.from_bundle(tiny_bundle, threads=1)


@pytest.fixture
def film(animator: Animator, tmp_path: Path) -> Callable[..., tuple[Done, list[Event]]]:
    def make(
        picture: np.ndarray, landmarks: tuple[tuple[float, float], ...] | None = None, **options: object
    ) -> tuple[Done, list[Event]]:
        path = tmp_path / "picture"
        path.write_bytes(to_png(picture))
        asked = AnimationOptions.model_validate(
            {"prompt": "smiling", "frames": 4, "compose": "paste_back", "output": {"format": "apng"}, **options}
        )
        events: list[Event] = []
        order = Order("anm_1", Path("tiny"), path, asked, 7, tmp_path, landmarks)
        return make_video(animator, order, events.append, lambda: None), events

    return make


def far_from(region_of: tuple[tuple[float, float], ...], shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixels lie well outside of a face's square."""
    corners = np.array(face_region(region_of).corners)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return (x < left - 2) | (x > right + 2) | (y < top - 2) | (y > bottom + 2)


def test_a_whole_photograph_comes_back_with_its_face_drawn(film: Callable[..., tuple[Done, list[Event]]]) -> None:
    photo = read_photograph()
    done, events = film(photo, POINTS)
    assert (done.video.width, done.video.height, done.video.frames) == (512, 512, 4)
    frames = list(read_frames(done.video.path))
    away = far_from(POINTS, photo.shape)
    for frame in frames:
        assert np.array_equal(frame[away], photo[away])
    x, y = POINTS[2]
    assert (
        np.abs(frames[0][y - 20 : y + 20, x - 20 : x + 20].astype(int) - photo[y - 20 : y + 20, x - 20 : x + 20]).max()
        > 20
    )
    assert not np.array_equal(frames[0], frames[-1]), "it moves"
    assert done.poster is not None
    with Image.open(done.poster) as poster:
        assert poster.size == (512, 512)
        assert np.abs(np.asarray(poster)[away].astype(int) - photo[away]).mean() < 4
    assert [event.done for event in events if isinstance(event, FramesDrawn)][-1] == 4
    assert any(isinstance(event, Preview) for event in events)
    assert done.metrics["paste_s"] > 0


def test_a_film_of_the_face_alone_shows_the_models_frames(film: Callable[..., tuple[Done, list[Event]]]) -> None:
    done, _ = film(read_photograph(), POINTS, compose="crop")
    assert (done.video.width, done.video.height) == (64, 64)
    assert done.poster is not None
    with Image.open(done.poster) as poster:
        assert poster.size == (64, 64)


@pytest.mark.parametrize("video_format", ["mp4", "webm", "gif", "webp", "apng"])
def test_odd_photographs_lose_a_line_in_every_format(
    film: Callable[..., tuple[Done, list[Event]]], video_format: str
) -> None:
    photo = np.ascontiguousarray(read_photograph()[:301, :411])
    done, _ = film(photo, POINTS, output={"format": video_format}, loop="pingpong")
    assert (done.video.width, done.video.height) == (410, 300)
    seen = probe(done.video.path)
    assert (seen.width, seen.height, seen.frames) == (410, 300, 6)
    first = next(read_frames(done.video.path)).astype(int)
    away = far_from(POINTS, photo.shape)[:300, :410]
    assert np.abs(first[away] - photo[:300, :410][away]).mean() < 12


def test_size_is_the_longer_edge_and_keeps_the_shape(film: Callable[..., tuple[Done, list[Event]]]) -> None:
    photo = np.ascontiguousarray(read_photograph()[:384])
    done, _ = film(photo, POINTS, output={"size": 256, "format": "apng"})
    assert (done.video.width, done.video.height) == (256, 192)
    frame = next(read_frames(done.video.path))
    small = scale(photo, 0.5)
    away = far_from(tuple((x / 2, y / 2) for x, y in POINTS), small.shape)
    assert np.abs(frame[away].astype(int) - small[away]).mean() < 3


def test_without_a_face_the_centred_square_is_drawn_in_its_place(
    film: Callable[..., tuple[Done, list[Event]]],
) -> None:
    photo = np.ascontiguousarray(read_photograph()[:200])
    done, _ = film(photo)
    frame = next(read_frames(done.video.path))
    assert frame.shape == (200, 512, 3)
    assert np.array_equal(frame[:, :156], photo[:, :156])
    assert np.array_equal(frame[:, 356:], photo[:, 356:])
    assert not np.array_equal(frame[:, 180:330], photo[:, 180:330])


def test_what_the_encoder_reads() -> None:
    photo = np.ascontiguousarray(read_photograph()[:300])
    assert np.array_equal(View(photo).cut(64), crop_square(photo, 64))
    assert np.array_equal(View(photo, POINTS).cut(64), cut_region(photo, face_region(POINTS), 64))
    assert centred_region(512, 300).edge_px == 300


def test_a_posted_photograph_comes_back_whole(make_workplace: Callable[..., Workplace]) -> None:
    """From the socket to the film: posted to the API, aligned and drawn by a worker process, fetched again."""
    place = make_workplace()
    place.start_worker()
    photo = read_photograph()
    with TestClient(create_app(place.settings)) as client:
        answer = client.post(
            "/v1/animations",
            data={"prompt": "smiling", "frames": "6", "compose": "paste_back", "output": '{"format": "apng"}'},
            files={"image": ("photo.png", to_png(photo), "image/png")},
        )
        assert answer.status_code == 202, answer.text
        job = answer.json()
        (face,) = job["faces"]
        place.wait(job["id"])
        job = client.get(f"/v1/animations/{job['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        assert (job["output"]["width"], job["output"]["height"]) == (512, 512)
        assert job["faces"] == [face]
        video = client.get(job["output"]["url"]).content
    path = place.folder / "film.apng"
    path.write_bytes(video)
    points = tuple((x, y) for x, y in face["landmarks"])
    away = far_from(points, photo.shape)
    for frame in read_frames(path):
        assert np.array_equal(frame[away], photo[away])
        assert not np.array_equal(frame, photo)
