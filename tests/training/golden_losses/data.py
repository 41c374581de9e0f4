"""What the golden loops learn from: pictures, features, sentences and videos that no renderer and no grammar decides.

Everything is a fixed function of a seed, so that a curve moves with its loop and with nothing else.
"""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor

from training.baselines.videos import VideoClips
from training.embedding import Features
from training.faces.captions import EXPRESSION_CLASSES
from training.faces.parameters import NUM_CONTINUOUS, Z_DIM
from training.lessons import LABELS, MOVED_FACTORS, Lessons
from training.recipes import EncoderRecipe, GeneratorPhase, GeneratorRecipe
from training.renders import Pool

STEPS = 200
ENCODER = EncoderRecipe(widths=(4, 4, 6, 6, 8), feature_dim=16, steps=STEPS, batch=4, lr=3e-4)
WORDS = 60
TEACHER_DIM = 384


def make_pool(count: int, size_px: int) -> Pool:
    """Pictures that are a fixed function of their factors: a few patches, weighted."""
    rng = np.random.default_rng(5)
    factors = rng.standard_normal((count, Z_DIM)).astype(np.float32)
    factors[:, NUM_CONTINUOUS:] = (factors[:, NUM_CONTINUOUS:] > 0.5).astype(np.float32)
    factors[1::2, NUM_CONTINUOUS // 2 :] = factors[::2, NUM_CONTINUOUS // 2 :]  # pairs share what is no expression
    patches = rng.standard_normal((Z_DIM, 4, 4, 3)) / Z_DIM**0.5
    coarse = np.clip(np.einsum("nf,fhwc->nhwc", factors, patches) * 60 + 128, 0, 255).astype(np.uint8)
    return Pool(coarse.repeat(size_px // 4, 1).repeat(size_px // 4, 2), factors)


def make_features(count: int, dim: int = 16) -> Features:
    """Features that tell the factors."""
    pool = make_pool(count, 4)
    rng = np.random.default_rng(6)
    mixed = pool.factors @ rng.standard_normal((Z_DIM, dim)).astype(np.float32) / Z_DIM**0.5
    return Features(torch.from_numpy(mixed), torch.from_numpy(pool.factors))


def embed_by_place(texts: Any, dim: int = 8) -> Tensor:
    """Fixed unit vectors, whatever the sentences are: the grammar may change, the loop may not."""
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(len(texts), dim, generator=generator), dim=1)


def tell_colours(pictures: Tensor) -> Tensor:
    """Stand for an identity network, livelier than an untrained one: coarse colours, unit norm."""
    colours = torch.nn.functional.adaptive_avg_pool2d(pictures, 4).flatten(1)
    return torch.nn.functional.normalize(colours, dim=1)


class ColourTowers:
    """Stand for towers that see: coarse colours, mixed; sentences by their place."""

    def __init__(self, embed_dim: int) -> None:
        self.embed_dim = embed_dim
        self.mix = torch.randn(48, embed_dim, generator=torch.Generator().manual_seed(3))

    def embed_texts(self, texts: Any) -> Tensor:
        """Shapes: N sentences → [N,embed_dim], unit norm."""
        return embed_by_place(texts, self.embed_dim)

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Shapes: [N,3,R,R] → [N,embed_dim], unit norm."""
        return torch.nn.functional.normalize(tell_colours(pictures) @ self.mix, dim=1)


def make_lessons(count: int = 120) -> Lessons:
    """Rows of word numbers that mean something: the first word says which expression, the second how strongly."""
    rng = np.random.default_rng(7)
    names = {"[UNK]": 0} | {f"w{i}": i for i in range(1, WORDS)}
    labels = rng.integers(len(LABELS), size=count)
    strengths = np.zeros((count, len(EXPRESSION_CLASSES)), np.float32)
    rows = []
    for i, label in enumerate(labels):
        strong = int(rng.integers(2))
        if label < len(EXPRESSION_CLASSES):
            strengths[i, label] = (0.6, 1.0)[strong]
        fillers = rng.integers(40, WORDS, size=int(rng.integers(1, 6)))
        rows.append([4 + int(label), 30 + strong, *map(int, fillers)])
    meaning = rng.standard_normal((len(EXPRESSION_CLASSES), len(MOVED_FACTORS))).astype(np.float32)
    taught = rng.standard_normal((WORDS, TEACHER_DIM)).astype(np.float32)
    return Lessons(
        Tokenizer(WordLevel(names, unk_token="[UNK]")),
        None,
        rows,
        torch.from_numpy(strengths),
        torch.from_numpy(strengths @ meaning),
        torch.from_numpy(labels),
        [[word, int(rng.integers(40, WORDS))] for word in range(WORDS)],
        torch.nn.functional.normalize(torch.from_numpy(taught), dim=1),
    )


def make_clips(count: int, frames: int, size_px: int, embed_dim: int) -> VideoClips:
    """Videos that fade from one picture of a pool to the next."""
    pictures = make_pool(2 * count, size_px).pictures.astype(np.float32)
    share = np.linspace(0, 1, frames, dtype=np.float32)[None, :, None, None, None]
    faded = pictures[::2, None] * (1 - share) + pictures[1::2, None] * share
    pixels = torch.from_numpy(faded.round().astype(np.uint8)).permute(0, 1, 4, 2, 3).contiguous()
    embeds = torch.randn(count, embed_dim, generator=torch.Generator().manual_seed(2))
    return VideoClips(pixels, torch.nn.functional.normalize(embeds, dim=1))


def small_generator(resolution: int) -> GeneratorRecipe:
    """A generator recipe of one phase."""
    channels = (8, 8, 8, 6, 4, 4)[: resolution.bit_length() - 2]
    return GeneratorRecipe(channels, 8, (GeneratorPhase(resolution, STEPS, batch=4, lr=4e-3, crop=0.0),))
