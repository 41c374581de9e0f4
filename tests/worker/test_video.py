"""Every format is written by the real ffmpeg and decoded again."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.errors import JobCanceled, PermanentError
from services.jobs.contract import VideoFormat
from worker.playback import probe, read_frames
from worker.strip import pick_indices, write_strip
from worker.video import Loop, VideoWriter, ffmpeg_binary, missing_encoders

FORMATS = list(VideoFormat)


def draw_clip(frames: int, edge_px: int = 64) -> NDArray[np.uint8]:
    """A white bar that walks from left to right on a colour gradient: order and colours can be told from any frame."""
    rows, columns = np.mgrid[0:edge_px, 0:edge_px]
    ground = np.stack([rows * 255 // edge_px, columns * 255 // edge_px, np.full_like(rows, 90)], axis=-1).astype(
        np.uint8
    )
    clip = np.repeat(ground[None], frames, axis=0)
    for index in range(frames):
        left = index * (edge_px - 8) // max(1, frames - 1)
        clip[index, :, left : left + 8] = 255
    return clip


def bar_position(frame: NDArray[np.uint8]) -> int:
    return int(frame.astype(int).sum(axis=(0, 2)).argmax())


def write(path: Path, clip: NDArray[np.uint8], **options: object) -> object:
    video_format = VideoFormat(path.suffix[1:])
    with VideoWriter(path, video_format, width_px=clip.shape[2], height_px=clip.shape[1], **options) as writer:  # type: ignore[arg-type]
        for start in range(0, len(clip), 5):
            writer.write(clip[start : start + 5])
        return writer.finish()


def test_this_ffmpeg_has_every_encoder():
    assert missing_encoders() == []


@pytest.mark.parametrize("video_format", FORMATS)
def test_written_file_decodes_to_the_same_clip(tmp_path: Path, video_format: VideoFormat):
    clip = draw_clip(24)
    facts = write(tmp_path / f"clip.{video_format}", clip, fps=24)
    assert (facts.width, facts.height, facts.fps, facts.frames) == (64, 64, 24, 24)  # type: ignore[attr-defined]
    seen = probe(tmp_path / f"clip.{video_format}")
    assert (seen.width, seen.height, seen.frames) == (64, 64, 24)
    assert seen.fps == pytest.approx(24, rel=0.03)
    decoded = list(read_frames(tmp_path / f"clip.{video_format}"))
    for drawn, shown in zip(clip, decoded, strict=True):
        assert abs(bar_position(drawn) - bar_position(shown)) <= 8
        error = np.abs(drawn.astype(int) - shown.astype(int)).mean()
        assert error < (0.01 if video_format is VideoFormat.APNG else 12), "colours must survive"
    assert sorted(item.name for item in tmp_path.iterdir()) == [f"clip.{video_format}"], "no spool or palette is left"


@pytest.mark.parametrize("video_format", FORMATS)
def test_pingpong_returns_without_repeating_the_turning_points(tmp_path: Path, video_format: VideoFormat):
    path = tmp_path / f"clip.{video_format}"
    facts = write(path, draw_clip(12), fps=12, loop="pingpong")
    assert facts.frames == 22  # type: ignore[attr-defined]
    positions = [bar_position(frame) for frame in read_frames(path)]
    assert len(positions) == 22
    for index in range(1, 11):
        assert abs(positions[index] - positions[22 - index]) <= 8
    assert positions[11] == max(positions)


@pytest.mark.parametrize("loop", ["none", "pingpong"])
@pytest.mark.parametrize("video_format", FORMATS)
def test_file_that_may_end_early_is_the_same(tmp_path: Path, video_format: VideoFormat, loop: Loop):
    early, late = (tmp_path / f"{name}.{video_format}" for name in ("early", "late"))
    write(late, draw_clip(12), fps=12, loop=loop)
    with VideoWriter(early, video_format, width_px=64, height_px=64, fps=12, loop=loop) as writer:
        writer.write(draw_clip(12))
        writer.end_frames()
        writer.finish()
    assert early.read_bytes() == late.read_bytes()


def test_ended_frames_become_a_file_without_further_ado(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, VideoFormat.MP4, width_px=64, height_px=64, fps=12) as writer:
        writer.write(draw_clip(12))
        writer.end_frames()
        os.waitid(os.P_PID, writer._encoder.pid, os.WEXITED | os.WNOWAIT)
        assert probe(path).frames == 12
        writer.finish()


@pytest.mark.parametrize("video_format", FORMATS)
def test_size_is_scaled_and_even(tmp_path: Path, video_format: VideoFormat):
    path = tmp_path / f"clip.{video_format}"
    facts = write(path, draw_clip(3), fps=24, size_px=129)
    assert (facts.width, facts.height) == (130, 130)  # type: ignore[attr-defined]
    seen = probe(path)
    assert (seen.width, seen.height, seen.frames) == (130, 130, 3)


@pytest.mark.parametrize("video_format", FORMATS)
def test_a_single_frame_is_a_video(tmp_path: Path, video_format: VideoFormat):
    path = tmp_path / f"clip.{video_format}"
    assert write(path, draw_clip(1), fps=24, loop="pingpong").frames == 1  # type: ignore[attr-defined]
    assert probe(path).frames == 1


def test_mp4_starts_fast_and_is_tagged(tmp_path: Path):
    path = tmp_path / "clip.mp4"
    write(path, draw_clip(24), fps=24)
    data = path.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    words = probe(path).words
    assert "h264" in words
    assert "yuv420p(tv, bt709" in words


def test_quality_buys_bytes_and_is_deterministic(tmp_path: Path):
    clip = draw_clip(24)
    sizes = [write(tmp_path / f"{quality}.mp4", clip, fps=24, quality=quality).bytes for quality in (5, 50, 100)]  # type: ignore[attr-defined]
    assert sizes[0] < sizes[1] < sizes[2]
    write(tmp_path / "again.mp4", clip, fps=24, quality=50)
    assert (tmp_path / "again.mp4").read_bytes() == (tmp_path / "50.mp4").read_bytes()


@pytest.mark.parametrize("video_format", [VideoFormat.GIF, VideoFormat.WEBP, VideoFormat.APNG])
def test_animated_pictures_loop_for_ever(tmp_path: Path, video_format: VideoFormat):
    path = tmp_path / f"clip.{video_format}"
    write(path, draw_clip(4), fps=24)
    assert probe(path).words.endswith("loop=0")


def test_a_fast_gif_loses_frames_instead_of_slowing_down(tmp_path: Path):
    path = tmp_path / "clip.gif"
    facts = write(path, draw_clip(60), fps=60)
    assert (facts.fps, facts.frames) == (50, 50)  # type: ignore[attr-defined]
    assert probe(path).frames == 50
    assert probe(path).fps == pytest.approx(50, rel=0.01)


def test_a_failing_encoder_is_told_in_words(tmp_path: Path):
    path = tmp_path / "clip.mp4"

    def write_to_a_dead_encoder() -> None:
        with VideoWriter(path, VideoFormat.MP4, width_px=64, height_px=64, fps=24) as writer:
            writer._encoder._process.kill()
            for _ in range(500):
                writer.write(draw_clip(8))

    with pytest.raises(PermanentError) as caught:
        write_to_a_dead_encoder()
    assert caught.value.code == "encode-failed"
    assert str(tmp_path) not in caught.value.message
    assert not path.exists()


def test_leaving_early_ends_ffmpeg_and_removes_the_file(tmp_path: Path):
    pids: list[int] = []

    def leave_early() -> None:
        with VideoWriter(tmp_path / "clip.gif", VideoFormat.GIF, width_px=64, height_px=64, fps=24) as writer:
            writer.write(draw_clip(8))
            pids.append(writer._encoder.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        leave_early()
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
    assert list(tmp_path.iterdir()) == []


def test_the_last_stretch_shows_life_and_can_be_stopped(tmp_path: Path):
    def finish(tick: Callable[[], None]) -> None:
        with VideoWriter(
            tmp_path / "clip.gif", VideoFormat.GIF, width_px=64, height_px=64, fps=24, loop="pingpong"
        ) as writer:
            writer.write(draw_clip(20))
            writer.finish(tick)

    ticks: list[int] = []
    finish(lambda: ticks.append(1))
    assert len(ticks) >= 20 + 18, "the second pass and the way back"

    def stop() -> None:
        raise JobCanceled

    with pytest.raises(JobCanceled):
        finish(stop)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_clip(tmp_path: Path):
    peaks = []
    for batches in (16, 56):  # both are longer than what waits for ffmpeg
        batch = draw_clip(8, 128)
        tracemalloc.start()
        with VideoWriter(
            tmp_path / "clip.mp4", VideoFormat.MP4, width_px=128, height_px=128, fps=24, loop="pingpong"
        ) as writer:
            for _ in range(batches):
                writer.write(batch)
            writer.finish()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The longer clip has 15 MB more; what other threads of the test run allocate meanwhile is far less than a tenth.
    assert peaks[1] < peaks[0] + 1_500_000


def test_the_command_holds_no_client_string_and_opens_pipes_and_files_only(tmp_path: Path):
    with VideoWriter(tmp_path / "clip.mp4", VideoFormat.MP4, width_px=64, height_px=64, fps=24) as writer:
        command = writer._video_command()
        writer.write(draw_clip(1))
        writer.finish()
    assert command[0] == ffmpeg_binary()
    assert "-nostdin" in command
    assert command[command.index("-protocol_whitelist") + 1] == "pipe,file"


def test_strip_shows_first_and_last_frame(tmp_path: Path):
    clip = draw_clip(20)
    write(tmp_path / "clip.apng", clip, fps=24)
    from PIL import Image

    strip = np.asarray(Image.open(write_strip(tmp_path / "clip.apng", tmp_path / "out" / "strip.png", count=5)))
    assert strip.shape == (64, 5 * 64 + 4 * 4, 3)
    assert (strip[:, :64] == clip[0]).all()
    assert (strip[:, -64:] == clip[-1]).all()
    assert pick_indices(3, 8) == [0, 1, 2]
    assert pick_indices(100, 1) == [0]
