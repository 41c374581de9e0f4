"""``animato animate`` with a real bundle, a real runtime and a real ffmpeg."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Run, unboxed
from tests.pace import FFMPEG_VARIABLE, pace_ffmpeg
from tests.photographs import PATH as PHOTOGRAPH
from tests.photographs import read_photograph
from worker.playback import probe, read_frames


def test_picture_to_video_and_strip(animato: Run, face: Path, tmp_path: Path) -> None:
    ran = animato(
        "animate", face, "--prompt", "smiling", "--frames", 6, "--fps", 12, "--out", "new/film.mp4", "--strip", "s.png"
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["new/film.mp4", "s.png"], "only the results are on standard output"
    facts = probe(tmp_path / "new/film.mp4")
    assert (facts.frames, facts.width, facts.height, round(facts.fps)) == (6, 64, 64, 12)
    strip = Image.open(tmp_path / "s.png")
    assert strip.width > 5 * strip.height
    assert "on cpu" in ran.stderr


@pytest.mark.parametrize("ending", ["gif", "webm", "webp", "apng"])
def test_ending_names_the_format(animato: Run, tmp_path: Path, ending: str) -> None:
    ran = animato("animate", "--sampled", "-p", "smiling", "--frames", 3, "-o", f"film.{ending}")
    assert ran.returncode == 0, ran.stderr
    head = (tmp_path / f"film.{ending}").read_bytes()[:16]
    assert {"gif": b"GIF8", "webm": b"\x1aE\xdf\xa3", "webp": b"RIFF", "apng": b"\x89PNG"}[ending] == head[:4]


def test_format_wins_over_the_ending(animato: Run, tmp_path: Path) -> None:
    ran = animato("animate", "--sampled", "-p", "smiling", "--frames", 2, "--format", "gif", "-o", "film.bin")
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "film.bin").read_bytes().startswith(b"GIF8")


def test_seed_decides_the_film(animato: Run, face: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        ran = animato("animate", face, "-p", "winks, then laughs", "--frames", 5, "--seed", seed, "-o", f"{name}.apng")
        assert ran.returncode == 0, ran.stderr
    films = {name: (tmp_path / f"{name}.apng").read_bytes() for name in "abc"}
    assert films["a"] == films["b"]
    assert films["a"] != films["c"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-p", "smiling", "-o", "x.mp4"], "--sampled"),
        (["FACE", "--sampled", "-p", "smiling", "-o", "x.mp4"], "not both"),
        (["FACE", "-o", "x.mp4"], "--prompt"),
        (["FACE", "-p", "smiling"], "--out"),
        (["FACE", "-p", "  ", "-o", "x.mp4"], "characters"),
        (["FACE", "-p", "x" * 301, "-o", "x.mp4"], "300"),
        (["FACE", "-p", "smiling", "--intensity", "2.5", "-o", "x.mp4"], "--intensity"),
        (["FACE", "-p", "smiling", "--frames", "0", "-o", "x.mp4"], "--frames"),
        (["FACE", "-p", "smiling", "--format", "avi", "-o", "x.mp4"], "webm"),
        (["no-such.png", "-p", "smiling", "-o", "x.mp4"], "no-such.png"),
    ],
)
def test_wrong_use_is_2(animato: Run, face: Path, words: list[str], said: str, tmp_path: Path) -> None:
    ran = animato("animate", *[str(face) if word == "FACE" else word for word in words])
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert said in unboxed(ran.stderr)
    assert not (tmp_path / "x.mp4").exists()


def test_failures_are_sentences(animato: Run, environment: dict[str, str], face: Path, tmp_path: Path) -> None:
    letter = tmp_path / "letter.png"
    letter.write_text("not a picture")
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = {
        "could not be decoded": animato("animate", letter, "-p", "smiling", "-o", "x.mp4"),
        "no model 'dog'": animato("animate", face, "-p", "smiling", "--model", "dog", "-o", "x.mp4"),
        "no model bundle": animato("animate", face, "-p", "smiling", "-o", "x.mp4", ANIMATO_BUNDLES_DIR=str(empty)),
        "ANIMATO_PORT": animato("animate", face, "-p", "smiling", "-o", "x.mp4", ANIMATO_PORT="many"),
        "letter.png": animato("animate", face, "-p", "smiling", "-o", "letter.png/x.mp4"),
    }
    for said, ran in cases.items():
        assert ran.returncode == 1, ran.stderr
        assert said in ran.stderr
        assert "Traceback" not in ran.stderr
        assert len(ran.stderr.strip().splitlines()) == 2, f"what happened and what to do: {ran.stderr}"
        assert ran.stdout == ""


def test_interrupted_film_is_not_left_behind(environment: dict[str, str], tmp_path: Path) -> None:
    # Written at viewing speed it lasts 40 s on any machine, and drawing with it.
    environment |= {FFMPEG_VARIABLE: str(pace_ffmpeg(tmp_path))}
    command = [sys.executable, "-m", "cli", "animate", "--sampled", "-p", "smiling", "--frames", "960"]
    process = subprocess.Popen(
        [*command, "-o", "film.mp4"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    gives_up = time.monotonic() + 300
    while not list(tmp_path.glob(".film.mp4.part*")) and process.poll() is None and time.monotonic() < gives_up:
        time.sleep(0.02)
    time.sleep(0.2)  # the file is there before the first frame is
    assert process.poll() is None, "it must still be drawing when it is stopped"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir() if "film" in path.name] == []


def test_a_photograph_comes_back_whole(animato: Run, tmp_path: Path) -> None:
    ran = animato("animate", PHOTOGRAPH, "-p", "smiling", "--frames", 3, "--compose", "paste_back", "-o", "whole.apng")
    assert ran.returncode == 0, ran.stderr
    facts = probe(tmp_path / "whole.apng")
    assert (facts.width, facts.height, facts.frames) == (512, 512, 3)
    frame = next(read_frames(tmp_path / "whole.apng"))
    assert np.array_equal(frame[250:], read_photograph()[250:])
    assert not np.array_equal(frame[:200], read_photograph()[:200])


def test_a_face_that_is_not_there_is_refused_in_words(animato: Run, face: Path) -> None:
    ran = animato("animate", face, "-p", "smiling", "--face", 3, "-o", "film.mp4")
    assert ran.returncode == 1
    assert "face" in ran.stderr
    assert "Traceback" not in ran.stderr
    for words in (("--sampled", "--face", 0), (face, "--face", 0, "--align", "none")):
        assert animato("animate", *words, "-p", "smiling", "-o", "film.mp4").returncode == 2
