"""From sentences to ``delta_ws``: when each frame happens, how sequences join, what the seed decides.

The recurrence itself is the bundle's motion graph. This room lays the frames on its time axis and joins the parts of
a sequence. No onnxruntime, no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import ModelError
from model.noise import draw_normal
from model.sessions import Session, as_float32

Easing = Literal["smooth", "linear"]

_NOISE_STREAM = 1  # stream 0 of a seed belongs to sampled faces
_SIDE = 0  # the number of the noise whose sign is the side that the head sways to first; 0: it keeps still
_START_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Motion:
    """What a face does over a video. A few hundred kB even for long videos: frames are drawn from it in batches.

    Shapes: delta_ws [T,num_ws,w_dim], motion_codes [T,embed_dim].
    ``peak_frame`` is the frame in which the face is farthest from where it began, whatever its head does meanwhile
    (what a poster should show).
    """

    delta_ws: NDArray[np.float32]
    motion_codes: NDArray[np.float32]
    peak_frame: int

    @property
    def frames(self) -> int:
        """T, the number of frames."""
        return len(self.delta_ws)


class MotionGenerator:
    """Runs the bundle's motion graph over the frames of a video."""

    def __init__(self, session: Session, h_dim: int, steps: int = 16) -> None:
        self._session = session
        self._h_dim = h_dim
        self._steps = steps

    def generate(
        self,
        text_embeds: Sequence[NDArray[np.float32]],
        image_embed: NDArray[np.float32],
        *,
        frames: int,
        seed: int,
        intensity: float = 1.0,
        easing: Easing = "smooth",
        sway: bool = True,
    ) -> Motion:
        """Return the motion of one face through one sentence after another.

        The sentences share the frames evenly. While the face moves into sentence i it leaves the rest of sentence
        i − 1 at the same pace, so ``delta_ws`` is continuous where two sentences meet. Frame 0 is the still face.

        Shapes: text_embeds each [embed_dim], image_embed [embed_dim].
        Range: intensity in [0, 2]; 0 is a still face. ``sway`` False keeps the head still.

        Raises:
            ModelError: validation-failed for arguments out of range; internal where the graph breaks its contract.
        """
        _check_arguments(text_embeds, frames, seed, intensity, easing)
        delta_ws, motion_codes = self._follow(text_embeds, image_embed, frames, seed, intensity, easing, sway)
        # In W+ a turn of the head may be a longer way than a smile: the face alone says which frame shows most of it.
        face_ws = delta_ws
        if sway:
            face_ws, _ = self._follow(text_embeds, image_embed, frames, seed, intensity, easing, sway=False)
        return Motion(delta_ws, motion_codes, find_peak(face_ws))

    def _follow(
        self,
        text_embeds: Sequence[NDArray[np.float32]],
        image_embed: NDArray[np.float32],
        frames: int,
        seed: int,
        intensity: float,
        easing: Easing,
        sway: bool,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return delta_ws and motion_codes of all frames, one sentence after another."""
        segment, phase = lay_frames(frames, len(text_embeds))
        weight = phase if easing == "linear" else smoothstep(phase)
        progress = bend_linear(phase) if easing == "linear" else phase
        delta_ws: NDArray[np.float32] | None = None
        motion_codes: NDArray[np.float32] | None = None
        rest: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        for index, text_embed in enumerate(text_embeds):
            mine = segment == index
            # The end of the motion is asked for too: it is what the next sentence starts from.
            grid = np.append(progress[mine], 1.0)
            noise = draw_normal(seed, _NOISE_STREAM + index, self._h_dim)
            if not sway:
                noise[_SIDE] = 0.0
            deltas, codes = self._run(text_embed, image_embed, grid, noise, intensity)
            if delta_ws is None or motion_codes is None:
                delta_ws = np.zeros((frames, *deltas.shape[1:]), np.float32)
                motion_codes = np.zeros((frames, *codes.shape[1:]), np.float32)
            delta_ws[mine], motion_codes[mine] = deltas[:-1], codes[:-1]
            if rest is not None:
                leaving = (1.0 - weight[mine]).astype(np.float32)
                delta_ws[mine] += leaving[:, None, None] * rest[0]
                motion_codes[mine] += leaving[:, None] * rest[1]
            rest = deltas[-1], codes[-1]
        assert delta_ws is not None
        assert motion_codes is not None
        return delta_ws, motion_codes

    def _run(
        self,
        text_embed: NDArray[np.float32],
        image_embed: NDArray[np.float32],
        wanted: NDArray[np.float64],
        noise: NDArray[np.float32],
        intensity: float,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return delta_ws and motion_codes at the wanted progresses, read off a spline through the graph's steps.

        The recurrence sums up its steps, so it ends elsewhere after 480 small ones than after the few that it was
        trained with (measured on the human bundle: 7 % less motion, and winks that do not quite come back). It takes
        the trained number of steps here whatever T is, and the same sentence is the same motion at every length.
        """
        outputs = self._session.run(
            text_embed=as_float32(text_embed[None]),
            image_embed=as_float32(image_embed[None]),
            noise=noise[None],
            intensity=np.array([intensity], np.float32),
            progress=np.linspace(0.0, 1.0, self._steps + 1).astype(np.float32),
        )
        deltas, codes = as_float32(outputs["delta_ws"]), as_float32(outputs["motion_codes"])
        if not np.isfinite(deltas).all() or np.abs(deltas[0]).max(initial=0.0) > _START_TOLERANCE:
            raise ModelError(
                "internal",
                "The motion graph gave numbers that no face can follow.",
                "Try another sentence; if it happens again, the bundle is at fault: report its id and version.",
            )
        deltas[0] = 0.0
        if intensity == 0.0:  # a still face is promised exactly, and a trained graph keeps it only nearly
            deltas[:] = 0.0
            codes[:] = 0.0
        weights = weigh_knots(self._steps, wanted)
        return _blend(weights, deltas), _blend(weights, codes)


def lay_frames(frames: int, segments: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return for every frame in which segment it lies and how far through it.

    Shapes: segment [frames], phase [frames]. Range: phase in [0, 1]; frame 0 is (0, 0), the last frame the very end.
    """
    time = np.linspace(0.0, segments, frames) if frames > 1 else np.zeros(1)
    segment = np.minimum(time.astype(np.int64), segments - 1)
    return segment, np.clip(time - segment, 0.0, 1.0)


def weigh_knots(steps: int, wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how much each of the evenly spread knots counts at the wanted points: a cubic spline as a matrix.

    Twice continuously differentiable, and at rest at both ends, as every trained motion is.

    Shapes: wanted [n] in [0, 1] → [n,steps + 1]; a point on a knot is that knot exactly.
    """
    count = steps + 1
    # Slopes m at the knots (in units of one step): m₀ = mₙ = 0, and m₋ + 4m + m₊ = 3(y₊ − y₋) between them.
    left, right = np.eye(count), np.zeros((count, count))
    for k in range(1, steps):
        left[k, k - 1 : k + 2] = 1.0, 4.0, 1.0
        right[k, k - 1], right[k, k + 1] = -3.0, 3.0
    slopes = np.linalg.solve(left, right)
    place = np.clip(wanted, 0.0, 1.0) * steps
    knot = np.minimum(place.astype(np.int64), steps - 1)
    t = (place - knot)[:, None]
    values = np.eye(count)
    rise: NDArray[np.float64] = t * t * (3.0 - 2.0 * t)
    weights: NDArray[np.float64] = (
        values[knot] * (1.0 - rise)
        + values[knot + 1] * rise
        + slopes[knot] * (t * (1.0 - t) ** 2)
        - slopes[knot + 1] * (t * t * (1.0 - t))
    )
    return weights


def _blend(weights: NDArray[np.float64], knots: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = weights @ knots.reshape(len(knots), -1).astype(np.float64)
    return flat.astype(np.float32).reshape(len(weights), *knots.shape[1:])


def smoothstep(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 3x² − 2x³: from 0 to 1 with no speed at both ends."""
    return x * x * (3.0 - 2.0 * x)


def bend_linear(phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the progress at which a smooth motion has come as far as a linear one has at ``phase``.

    The motion was trained with smoothstep in time: a uniform progress already starts and ends softly. A linear motion
    therefore runs through it along the inverse of smoothstep, ½ − sin(asin(1 − 2y)/3).
    """
    bent = 0.5 - np.sin(np.arcsin(1.0 - 2.0 * phase) / 3.0)
    bent[phase == 0.0], bent[phase == 1.0] = 0.0, 1.0  # exactly: frame 0 is the still face, not nearly so
    return bent


def find_peak(delta_ws: NDArray[np.float32]) -> int:
    """Return the first frame whose ``delta_ws`` is the largest. Shapes: [T,num_ws,w_dim]."""
    return int(np.argmax(np.linalg.norm(delta_ws.reshape(len(delta_ws), -1), axis=1)))


def _check_arguments(
    text_embeds: Sequence[NDArray[np.float32]], frames: int, seed: int, intensity: float, easing: str
) -> None:
    assert text_embeds, "at least one sentence"
    for wrong, sentence in (
        (frames < 1, "frames must be at least 1."),
        (not 0 <= seed < 2**64, "seed must be between 0 and 2^64 − 1."),
        (not 0.0 <= intensity <= 2.0, "intensity must be between 0 and 2."),
        (easing not in {"smooth", "linear"}, "easing must be smooth or linear."),
    ):
        if wrong:
            raise ModelError("validation-failed", sentence, "Correct the value and try again.")
