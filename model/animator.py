"""The whole model behind five verbs: invert, sample_face, move, draw, animate. Composes the other rooms.

numpy in, numpy out. Knows no files but the bundle, no jobs and no video formats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.align import crop_square
from model.bundle.manifest import Manifest
from model.bundle.reader import Bundle, read_bundle
from model.encoder import ImageEncoder, to_graph_range
from model.language import LanguageScale, Understanding
from model.motion import Easing, Motion, MotionGenerator
from model.noise import draw_normal
from model.sessions import DEFAULT_PROVIDERS, GPU_PROVIDERS, Fallback, Session, Tuning, as_float32, open_sessions
from model.synthesis import Synthesizer
from model.text import TextEncoder, split_prompt
from model.tokenizer import read_tokenizer

DEFAULT_BATCH_SIZE = 8
# One batch should take a moment only, even on a processor: a job can be canceled between batches. 8 frames up to 256 px
# there, 1 at 1024 px; a GPU draws more of them in that moment, and needs them to be busy.
_PIXELS_ON_CPU, _MOST_ON_CPU = 8 * 256 * 256, DEFAULT_BATCH_SIZE
_PIXELS_ON_GPU, _MOST_ON_GPU = 16 * 512 * 512, 16
_FACE_STREAM = 0


@dataclass(frozen=True)
class Face:
    """A face as the model knows it.

    Shapes: ws [num_ws,w_dim], image_embed [embed_dim], crop [S,S,3] uint8 RGB (what the encoder saw, or for a sampled
    face what the synthesis drew).
    """

    ws: NDArray[np.float32]
    image_embed: NDArray[np.float32]
    crop: NDArray[np.uint8]


class Animator:
    """A bundle, opened and ready. Safe to use from several threads; one is usually enough, the runtime has its own."""

    def __init__(self, bundle: Bundle, sessions: Mapping[str, Session]) -> None:
        self.manifest: Manifest = bundle.manifest
        self._sessions = dict(sessions)
        tokenizer = read_tokenizer(bundle.read(self.manifest.tokenizer))
        self._text = TextEncoder(sessions["text"], tokenizer, self.manifest.max_tokens)
        self._encoder = ImageEncoder(sessions["encoder"], sessions["image"])
        self._motion = MotionGenerator(sessions["motion"], self.manifest.h_dim, self.manifest.motion_steps)
        self._synthesis = Synthesizer(sessions["synthesis"])
        told = self.manifest.language
        self._language = None if told is None else LanguageScale.from_bytes(bundle.read(told), self.manifest.embed_dim)

    @classmethod
    def from_bundle(
        cls,
        path: Path | str | Bundle,
        providers: Sequence[str] = DEFAULT_PROVIDERS,
        threads: int | None = None,
        tuning: Tuning | None = None,
    ) -> Animator:
        """Verify and open a bundle.

        Args:
            path: the bundle's directory, or what ``read_bundle`` returned.
            providers: tensorrt, cuda, openvino, ncnn, cpu, best first; falls back aloud.
            threads: threads of one graph; None or 0: what the container's quota allows.
            tuning: precision and caches; None: full precision, nothing kept.

        Raises:
            BundleError: the bundle is missing, damaged, newer or not what its manifest says.
            ModelError: provider-unknown, provider-unavailable, runtime-missing.
        """
        bundle = path if isinstance(path, Bundle) else read_bundle(path)
        return cls(bundle, open_sessions(bundle, providers, threads, tuning))

    @property
    def providers_in_use(self) -> dict[str, str]:
        """Graph → the provider that really runs it."""
        return {graph: session.provider for graph, session in self._sessions.items()}

    @property
    def fallbacks(self) -> tuple[Fallback, ...]:
        """The providers that gave up on a graph, while it was opened or run; graphs of one file count once."""
        told = [fallback for session in self._sessions.values() for fallback in session.fallbacks]
        return tuple(dict.fromkeys(told))

    @property
    def batch_size(self) -> int:
        """How many frames to draw at once with what runs the synthesis now."""
        on_gpu = self._sessions["synthesis"].provider in GPU_PROVIDERS
        pixels, most = (_PIXELS_ON_GPU, _MOST_ON_GPU) if on_gpu else (_PIXELS_ON_CPU, _MOST_ON_CPU)
        return max(1, min(most, pixels // self.manifest.resolution**2))

    def warm_up(self, batch_size: int | None = None) -> None:
        """Run every graph once, so that the first job does not pay for what a runtime prepares lazily."""
        batch_size = batch_size or self.batch_size
        face = self.invert(self.sample_face(0).crop)
        for _ in self.draw(face, self.move(face, "smiling", frames=batch_size, seed=0), batch_size):
            pass
        self.measure_identity(face.crop, face.crop)

    def invert(self, image: NDArray[Any]) -> Face:
        """Return the face of a picture of any size.

        Shapes: [H,W], [H,W,1..4]; see ``model.align``. Range: uint8, RGB.

        Raises:
            ModelError: image-corrupt, inversion-failed.
        """
        crop = crop_square(image, self.manifest.input_resolution)
        return Face(self._encoder.invert(crop), self._encoder.embed(crop), crop)

    def sample_face(self, seed: int, truncation_psi: float = 0.7) -> Face:
        """Return a face that exists nowhere.

        Range: truncation_psi 0 is the average face, 1 the full variety.
        """
        z = draw_normal(seed, _FACE_STREAM, self.manifest.z_dim)[None]
        psi = np.array([truncation_psi], np.float32)
        ws = as_float32(self._sessions["mapping"].run(z=z, truncation_psi=psi)["ws"][0])
        crop = crop_square(self._synthesis.draw(ws[None])[0], self.manifest.input_resolution)
        return Face(ws, self._encoder.embed(crop), crop)

    def move(
        self,
        face: Face,
        prompt: str,
        frames: int,
        seed: int,
        intensity: float = 1.0,
        easing: Easing = "smooth",
        sway: bool = True,
    ) -> Motion:
        """Return how this face does what the sentence says.

        Args:
            face: whose motion; its embedding is one of the graph's inputs.
            prompt: a sentence, or a sequence ("winks, then laughs"; see ``model.text.split_prompt``).
            frames: T ≥ 1. Frame 0 is the still face; cyclic motions (wink, blink) return to it.
            seed: the same seed, bundle and input give the same frames.
            intensity: 0 (still) to 2 (exaggerated).
            easing: "smooth" starts and ends softly; "linear" goes at one speed.
            sway: False keeps the head still, where the bundle lets it sway.

        Raises:
            ModelError: prompt-empty, prompt-too-long, validation-failed.
        """
        embeds = [self._text.embed(sentence) for sentence in split_prompt(prompt)]
        return self._motion.generate(
            embeds, face.image_embed, frames=frames, seed=seed, intensity=intensity, easing=easing, sway=sway
        )

    def draw(self, face: Face, motion: Motion, batch_size: int = DEFAULT_BATCH_SIZE) -> Iterator[NDArray[np.uint8]]:
        """Yield the frames in order, in batches; memory does not grow with their number.

        Shapes: batches [n,H,W,3], n ≤ batch_size. Range: uint8 RGB.
        """
        return self._synthesis.stream(face.ws, motion.delta_ws, batch_size)

    def animate(
        self,
        image: NDArray[Any],
        prompt: str,
        frames: int,
        seed: int,
        intensity: float = 1.0,
        easing: Easing = "smooth",
        sway: bool = True,
        batch_size: int = DEFAULT_BATCH_SIZE,
    ) -> Iterator[NDArray[np.uint8]]:
        """Compose invert, move and draw; arguments and errors are theirs."""
        face = self.invert(image)
        return self.draw(face, self.move(face, prompt, frames, seed, intensity, easing, sway), batch_size)

    def measure_identity(self, before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float | None:
        """Return how much two pictures show the same person, or None where the bundle can't tell.

        Shapes: [H,W,3] each. Range: cosine in [-1, 1].
        """
        session = self._sessions.get("quality")
        if session is None:
            return None
        size = self.manifest.input_resolution
        pictures = np.concatenate([to_graph_range(crop_square(picture, size)) for picture in (before, after)])
        first, second = session.run(image=pictures)["identity"]
        return float(np.clip(np.dot(first, second), -1.0, 1.0))

    def measure_language(self, prompt: str) -> Understanding | None:
        """Return how near a prompt is to what the bundle was taught, or None where the bundle can't tell.

        Raises:
            ModelError: prompt-empty, prompt-too-long.
        """
        if self._language is None:
            return None
        return self._language.judge([self._text.embed(sentence) for sentence in split_prompt(prompt)])
