"""Frames in, one video file out: mp4, webm, gif, webp or apng, by ffmpeg. Knows nothing of jobs, stores or models.

Frames are streamed as raw RGB into ffmpeg's standard input, so memory does not grow with the length of the video. Two
things need the frames a second time: a pingpong loop (they come again in reverse) and a GIF (its palette is known
only after the last frame). For these the drawn frames are also spooled to a raw file beside the output; drawing them
again would double the dearest stage of a job, and keeping them in memory would break the flat-memory promise. The
spool holds ``frames · H · W · 3`` bytes at the *drawn* size (47 MB for 960 frames of 128 px) and is removed at the
end.

ffmpeg gets an argument list (never a shell), no string that came from a client, and may open pipes and files only.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from services.errors import PermanentError
from services.jobs.contract import VideoFormat
from worker.encoder import Encoder, full_disk_in_words
from worker.events import VideoFacts

Frames = NDArray[np.uint8]
Loop = Literal["none", "pingpong"]

# Browsers show a GIF frame of less than 2/100 s as if it lasted 10/100 s, so faster clips lose frames instead of
# slowing down.
GIF_MAX_FPS = 50
# Deterministic files: the same frames give the same bytes, so that a repeated job has the same SHA-256.
BIT_EXACT: dict[str, Any] = {"map_metadata": -1, "fflags": "+bitexact", "flags:v": "+bitexact"}
ENCODERS = {
    VideoFormat.MP4: "libx264",
    VideoFormat.WEBM: "libvpx-vp9",
    VideoFormat.GIF: "gif",
    VideoFormat.WEBP: "libwebp_anim",
    VideoFormat.APNG: "apng",
}


@cache
def ffmpeg_binary() -> str:
    """Return the path of the ffmpeg that came with imageio-ffmpeg.

    Raises:
        PermanentError: ``encode-failed`` when there is none for this platform.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise PermanentError(
            "encode-failed",
            "No ffmpeg was found on this machine.",
            "Install the imageio-ffmpeg wheel or set IMAGEIO_FFMPEG_EXE.",
        ) from error


def missing_encoders() -> list[VideoFormat]:
    """Return the formats that this machine's ffmpeg cannot write (for ``animato doctor``).

    Empty with imageio-ffmpeg's own binary.
    """
    shown = subprocess.run(
        [ffmpeg_binary(), "-hide_banner", "-encoders"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        stdin=subprocess.DEVNULL,
    )
    known = {words[1] for line in shown.stdout.splitlines() if len(words := line.split()) > 1}
    return [video_format for video_format, encoder in ENCODERS.items() if encoder not in known]


def output_edge(drawn_px: int, size_px: int | None) -> int:
    """Return the edge of the written picture.

    The asked or the drawn one, made even (yuv420p halves the colour planes).
    """
    edge = drawn_px if size_px is None else size_px
    return max(2, edge + edge % 2)


def output_fps(video_format: VideoFormat, fps: int) -> int:
    """Return the frame rate of the written file; only GIF has a lower limit than we ask for."""
    return min(fps, GIF_MAX_FPS) if video_format is VideoFormat.GIF else fps


def crf_of_quality(quality: int, worst: int, best: int) -> int:
    """Map quality 1…100 to a codec's constant rate factor, linearly between ``worst`` and ``best``."""
    return round(worst + (best - worst) * (quality - 1) / 99)


class VideoWriter:
    """Writes one video; use as a context manager, ``write`` batches of frames, then ``finish``.

    Leaving the block without ``finish`` (an error, a cancelled job) ends ffmpeg and removes what was begun.

    Shapes: frames are uint8 [n, height_px, width_px, 3], RGB.
    Raises: PermanentError ``encode-failed`` (the tail of ffmpeg's words goes to the log only), TemporaryError
    ``storage-failed`` on a full disk.
    """

    def __init__(
        self,
        path: Path,
        video_format: VideoFormat,
        *,
        width_px: int,
        height_px: int,
        fps: int,
        size_px: int | None = None,
        quality: int = 80,
        loop: Loop = "none",
    ) -> None:
        self._path = path
        self._format = video_format
        self._drawn_px = (width_px, height_px)
        self._out_px = (output_edge(width_px, size_px), output_edge(height_px, size_px))
        self._fps = fps
        self._out_fps = output_fps(video_format, fps)
        self._quality = quality
        self._loop = loop
        self._drawn = 0
        self._sent = 0
        self._offered = 0
        self._palette = path.with_name(path.name + ".palette.png")
        self._spool_path = path.with_name(path.name + ".raw")
        self._spool: IO[bytes] | None = None
        if loop == "pingpong" or video_format is VideoFormat.GIF:
            self._spool = self._spool_path.open("w+b")
        self._encoder = Encoder(self._palette_command() if video_format is VideoFormat.GIF else self._video_command())

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._encoder.abort()
        if self._spool is not None:
            self._spool.close()
        self._spool_path.unlink(missing_ok=True)
        self._palette.unlink(missing_ok=True)
        if kind is not None:
            self._path.unlink(missing_ok=True)

    @property
    def width_px(self) -> int:
        """The width of the written picture."""
        return self._out_px[0]

    def write(self, frames: Frames) -> None:
        """Append a batch of frames; blocks only while ffmpeg is more than a mebibyte behind."""
        width, height = self._drawn_px
        assert frames.dtype == np.uint8
        assert frames.shape[1:] == (height, width, 3), f"expected frames of {height}x{width}, got {frames.shape}"
        for frame in np.ascontiguousarray(frames):
            if self._spool is not None:
                with full_disk_in_words():
                    self._spool.write(frame.data)
            self._drawn += 1
            self._offer(frame.data)

    def end_frames(self) -> None:
        """Say that all frames were written: ffmpeg then ends the file while its caller does other work."""
        assert self._drawn > 0, "a video needs at least one frame"
        if self._loop != "pingpong" or self._format is VideoFormat.GIF:  # else the way back is still to come
            self._encoder.end()

    def finish(self, tick: Callable[[], None] = lambda: None) -> VideoFacts:
        """Write what is still due (the way back of a pingpong loop, the second pass of a GIF) and close the file.

        Args:
            tick: called whenever ffmpeg has got on; may raise to stop.
        """
        assert self._drawn > 0, "a video needs at least one frame"
        if self._format is VideoFormat.GIF:
            self._encoder.finish(tick)  # the palette is known now; the pixels follow
            self._encoder = Encoder(self._gif_command())
            self._sent = self._offered = 0
            self._replay(range(self._drawn), tick)
        if self._loop == "pingpong":
            # Both turning points are shown once, so that a player that repeats the file never shows a frame twice.
            self._replay(range(self._drawn - 2, 0, -1), tick)
        self._encoder.finish(tick)
        return VideoFacts(
            path=self._path,
            format=self._format,
            width=self._out_px[0],
            height=self._out_px[1],
            fps=self._out_fps,
            frames=self._sent,
            bytes=self._path.stat().st_size,
        )

    def _offer(self, frame: memoryview | bytes) -> None:
        """Send one frame, unless the output's frame rate is lower and this one falls between two of its frames."""
        index = self._offered
        self._offered += 1
        if index == 0 or index * self._out_fps // self._fps != (index - 1) * self._out_fps // self._fps:
            self._encoder.send(frame)
            self._sent += 1

    def _replay(self, order: range, tick: Callable[[], None]) -> None:
        assert self._spool is not None
        width, height = self._drawn_px
        frame_bytes = width * height * 3
        self._spool.flush()
        for index in order:
            self._spool.seek(index * frame_bytes)
            self._offer(self._spool.read(frame_bytes))
            tick()

    def _input(self) -> Any:
        width, height = self._drawn_px
        return ffmpeg.input(
            "pipe:0",
            format="rawvideo",
            pix_fmt="rgb24",
            video_size=(width, height),
            framerate=self._out_fps,
            protocol_whitelist="pipe,file",
        )

    def _scaled(self, **colours: str) -> Any:
        stream = self._input()
        if self._out_px == self._drawn_px and not colours:
            return stream
        return stream.filter("scale", *self._out_px, flags="lanczos+accurate_rnd+full_chroma_int", **colours)

    def _video_command(self) -> list[str]:
        tagged = {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
        yuv = {"out_color_matrix": "bt709", "out_range": "tv"}
        quality = self._quality
        if self._format is VideoFormat.MP4:
            preset = "medium" if max(self._out_px) <= 256 else "veryfast"
            options: dict[str, Any] = {
                "vcodec": "libx264",
                "preset": preset,
                # The preset looks 40 frames ahead: of a short film most would be encoded after the last one was drawn.
                "rc-lookahead": 10,
                "crf": crf_of_quality(quality, 42, 12),
                "pix_fmt": "yuv420p",
                "movflags": "+faststart",
                "f": "mp4",
                **tagged,
            }
            return _command(self._scaled(**yuv), self._path, **options)
        if self._format is VideoFormat.WEBM:
            options = {
                "vcodec": "libvpx-vp9",
                "crf": crf_of_quality(quality, 58, 14),
                "video_bitrate": 0,
                "deadline": "good",
                "cpu-used": 4,
                "row-mt": 1,
                "pix_fmt": "yuv420p",
                "f": "webm",
                **tagged,
            }
            return _command(self._scaled(**yuv), self._path, **options)
        if self._format is VideoFormat.WEBP:
            options = {
                "vcodec": "libwebp_anim",
                "quality": quality,
                "compression_level": 4,
                "loop": 0,
                "pix_fmt": "yuv420p",
                "f": "webp",
            }
            return _command(self._scaled(), self._path, **options)
        assert self._format is VideoFormat.APNG
        return _command(self._scaled(), self._path, vcodec="apng", plays=0, pred="mixed", pix_fmt="rgb24", f="apng")

    def _palette_command(self) -> list[str]:
        """First pass of a GIF: the clip's own palette. Quality spends colours: 64 at 1, 256 from 75 on."""
        colours = min(256, round(64 + 192 * self._quality / 75))
        stream = self._scaled().filter("palettegen", max_colors=colours, reserve_transparent=0, stats_mode="full")
        return _command(stream, self._palette, f="image2", vcodec="png", update=1)

    def _gif_command(self) -> list[str]:
        palette = ffmpeg.input(f"file:{self._palette}", protocol_whitelist="file")
        stream = ffmpeg.filter([self._scaled(), palette], "paletteuse", dither="sierra2_4a", diff_mode="rectangle")
        return _command(stream, self._path, f="gif", loop=0)


def _command(stream: Any, path: Path, **options: Any) -> list[str]:
    output = ffmpeg.output(stream, f"file:{path}", **options, **BIT_EXACT)
    words = (
        output.global_args("-nostdin", "-hide_banner", "-loglevel", "error", "-progress", "pipe:1")
        .overwrite_output()
        .compile(cmd=ffmpeg_binary())
    )
    return [str(word) for word in words]
