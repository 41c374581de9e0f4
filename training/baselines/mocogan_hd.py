"""MoCoGAN-HD: an LSTM walks in the PCA space of W from a start latent, trained against video discriminators.

In the form for pictures and videos of different domains: the video discriminator sees real videos and generated ones
(relativistic average least squares, gradient penalty); the image discriminator sees the generator's own frame 0 and a
later frame of it (hinge), with contrasted and matched features; mutual information keeps the noise in the motion.
Language is no input of it. `conditioned` recipes tell the LSTM and the video discriminator τ, which is our addition.
Where we differ otherwise: the walk moves all rows of ws alike from any inversion, not only from a mapped z.
Source: Tian et al. 2021 (arXiv 2104.15069).
"""

import copy
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.baselines.video_networks import (
    ImageJudge,
    Memory,
    MotionWalker,
    VideoJudge,
    follow,
    penalise_gradients,
    relativistic_loss,
)
from training.baselines.videos import VideoClips, shrink
from training.loop import load_ema
from training.paper.parts import FrozenParts, draw_frames, freeze, read_picture
from training.recipes.baselines import MocoganHdRecipe, read_mocogan_hd_recipe
from training.stages import take_part

PCA_SAMPLES = 10_000
CUTOUT = 0.25
SHIFT, ZOOM = 0.1, 0.05


@torch.no_grad()
def find_components(parts: FrozenParts, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Find W's principal components from sampled faces.

    Shapes: → components [n,w_dim], their standard deviations [n], w_avg [w_dim]; n = min(count, w_dim).
    """
    z = torch.from_numpy(np.random.default_rng([seed, 41]).standard_normal((PCA_SAMPLES, parts.z_dim), np.float32))
    w = torch.cat([parts.sample_ws(part.to(parts.device)).mean(1) for part in z.split(1000)])
    w_avg = w.mean(0)
    _, sizes, components = torch.linalg.svd(w - w_avg, full_matrices=False)
    return components[:count], sizes[:count] / math.sqrt(len(w) - 1), w_avg


def warp(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Change each picture a little: a hole near its rim, then a mirror, a tint, or a turn.

    Shapes: [N,3,S,S] → the same. Source: the published code's augmentations.
    """
    size, found = pictures.shape[-1], []
    for picture in pictures:
        edge = int(size * rng.uniform(CUTOUT / 2, CUTOUT))
        near = int(rng.uniform(0, size * CUTOUT - edge + 1))
        top, left = near if rng.random() < 0.5 else size - edge - near, int(rng.uniform(0, size - edge))
        if rng.random() < 0.5:
            top, left = left, top
        kept = torch.ones_like(picture)
        kept[:, top : top + edge, left : left + edge] = 0
        x = picture * kept
        match int(rng.integers(3)):
            case 0:
                x = x.flip(-1) if rng.random() < 0.5 else x
            case 1:
                tint = torch.zeros(3, 1, 1, device=x.device)
                tint[slice(None) if rng.random() < 0.25 else int(rng.integers(3))] = float(rng.uniform(-0.5, 0.5))
                x = x + tint
            case _:
                angle, zoom = rng.uniform(-math.pi, math.pi), rng.uniform(1 - ZOOM, 1 + ZOOM)
                cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
                matrix = [[cos, -sin, rng.uniform(-SHIFT, SHIFT)], [sin, cos, rng.uniform(-SHIFT, SHIFT)]]
                theta = torch.tensor([matrix], dtype=x.dtype, device=x.device)
                grid = F.affine_grid(theta, [1, *x.shape], align_corners=False)
                x = F.grid_sample(x[None], grid, padding_mode="reflection", align_corners=False)[0]
        found.append(x)
    return torch.stack(found)


class MocoganHdStage:
    """Trains the walker against its discriminators."""

    name = "mocogan-hd"
    ema_decay = 0.0

    def __init__(self, recipe: MocoganHdRecipe, parts: FrozenParts, clips: VideoClips) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.parts, self.clips, self.steps = recipe, parts, clips, recipe.steps
        embed_dim = parts.towers.embed_dim
        self.walker = build_walker(recipe, parts, *find_components(parts, recipe.n_pca, recipe.seed))
        self.video, self.image = VideoJudge(recipe, embed_dim).to(parts.device), ImageJudge(recipe).to(parts.device)
        self.slow = copy.deepcopy(self.image).requires_grad_(False)
        self.memory = Memory(recipe.queue, recipe.projection).to(parts.device)
        self.modules = nn.ModuleDict(
            {"walker": self.walker, "video": self.video, "image": self.image, "slow": self.slow, "memory": self.memory}
        )
        self.averaged = nn.ModuleDict({"walker": self.walker})
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.Adam(self.walker.parameters(), recipe.lr_motion, recipe.motion_betas),
            torch.optim.Adam(self.video.parameters(), recipe.lr, recipe.video_betas),
            torch.optim.Adam(self.image.parameters(), recipe.lr, recipe.image_betas, 1e-6),
        ]

    def ema_warmup(self, step: int) -> int:
        """Nothing is averaged."""
        return step

    def ema_decay_at(self, step: int) -> float:
        """Nothing is averaged: what is kept is the walker as it is."""
        del step
        return 0.0

    def advance(self, step: int) -> dict[str, float]:
        """Move the walker some steps, then its discriminators one."""
        rng = np.random.default_rng([self.recipe.seed, 42, step])
        figures: dict[str, float] = {}
        for _ in range(self.recipe.motion_steps):
            figures |= self._train_walker(rng)
        figures |= self._train_judges(rng, penalised=step % self.recipe.penalty_every == 0)
        follow(self.slow, self.image, self.recipe.momentum)
        return {"loss": figures.pop("walker"), **figures}

    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure how far the walker goes in as many frames as it is trained on, and how unevenly."""
        del ema
        rng = np.random.default_rng(43)
        with torch.no_grad():
            w = self._sample_starts(rng, 32).mean(1)
            offsets = self.walker(w, self._draw_noise(rng, 32), self._pick_texts(rng, 32)).offsets
        steps = offsets.diff(dim=1)
        return {
            "size": float(offsets[:, -1].square().mean().sqrt()),
            "step": float(steps.square().mean().sqrt()),
            "unevenness": float(steps.diff(dim=1).square().mean().sqrt()),
        }

    def _train_walker(self, rng: np.random.Generator) -> dict[str, float]:
        recipe = self.recipe
        real, real_texts = self._pick_clips(rng)
        fake, texts, mutual = self._draw_clips(rng)
        self._set_judges(trained=False)
        at = int(rng.integers(1, recipe.frames))
        later, first = warp(fake[:, at], rng), warp(fake[:, 0], rng)
        with torch.no_grad():
            self.memory.push(self.slow(first)[1], self.slow(later)[1])
        logit, later_features = self.image(later)
        _, first_features = self.image(first)
        match = -F.cosine_similarity(later_features, first_features).mean()
        judged, against = self.video(_to_video(fake), texts), self.video(_to_video(real), real_texts)
        video = (relativistic_loss(judged, against, 1.0) + relativistic_loss(against, judged, 0.0)) / 2
        image = -logit.mean()
        loss = video + image + recipe.match * match + recipe.mutual * mutual
        self.optimizers[0].zero_grad(set_to_none=True)
        loss.backward()
        self.optimizers[0].step()
        named = {"walker": loss, "video": video, "image": image, "match": match, "mutual": mutual}
        return {name: float(value.detach()) for name, value in named.items()}

    def _train_judges(self, rng: np.random.Generator, *, penalised: bool) -> dict[str, float]:
        recipe = self.recipe
        real, real_texts = self._pick_clips(rng)
        with torch.no_grad():
            fake, texts, _ = self._draw_clips(rng)
        self._set_judges(trained=True)
        true, false = self.video(_to_video(real), real_texts), self.video(_to_video(fake), texts)
        telling = (relativistic_loss(true, false, 1.0) + relativistic_loss(false, true, 0.0)) / 2
        share = torch.from_numpy(rng.random(recipe.batch, np.float32)).to(real.device)
        penalty = telling.new_zeros(())
        if penalised:
            penalty = penalise_gradients(self.video, _to_video(real), _to_video(fake), real_texts, share)
        loss_video = telling + recipe.gradient_penalty * recipe.penalty_every * penalty
        at = int(rng.integers(1, recipe.frames))
        first, first_again, later, later_again = (
            self.image(warp(picture, rng)) for picture in (fake[:, 0], fake[:, 0], fake[:, at], fake[:, at])
        )
        hinge = F.relu(1 - first[0]).mean() + F.relu(1 + later[0]).mean()
        contrast = self.memory.contrast(0, first[1], first_again[1], recipe.temperature)
        contrast = contrast + self.memory.contrast(1, later[1], later_again[1], recipe.temperature)
        for optimizer in self.optimizers[1:]:
            optimizer.zero_grad(set_to_none=True)
        (loss_video + hinge + recipe.contrast * contrast).backward()
        for optimizer in self.optimizers[1:]:
            optimizer.step()
        named = {"telling": telling, "penalty": penalty, "hinge": hinge, "contrast": contrast}
        return {name: float(value.detach()) for name, value in named.items()}

    def _draw_clips(self, rng: np.random.Generator) -> tuple[Tensor, Tensor | None, Tensor]:
        """Draw generated clips [N,T,3,S,S], with the sentences they were told and the mutual-information loss."""
        recipe, count = self.recipe, self.recipe.batch
        ws, texts = self._sample_starts(rng, count), self._pick_texts(rng, count)
        walk = self.walker(ws.mean(1), self._draw_noise(rng, count), texts)
        moved = ws[:, None] + walk.offsets[:, :, None]
        drawn = shrink(self.parts.draw(moved.flatten(0, 1), recipe.draw_px), recipe.size_px)
        mutual = -F.cosine_similarity(walk.guess, walk.noise, dim=2).mean()
        return drawn.unflatten(0, (count, recipe.frames)), texts, mutual

    def _pick_clips(self, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        real, texts = self.clips.pick(rng, self.recipe.batch, self.recipe.frames)
        return real.to(self.parts.device), texts if self.recipe.conditioned else None

    def _pick_texts(self, rng: np.random.Generator, count: int) -> Tensor | None:
        if not self.recipe.conditioned:
            return None
        rows = torch.from_numpy(rng.integers(len(self.clips.text_embeds), size=count))
        return self.clips.text_embeds[rows.to(self.parts.device)]

    @torch.no_grad()
    def _sample_starts(self, rng: np.random.Generator, count: int) -> Tensor:
        z = torch.from_numpy(rng.standard_normal((count, self.parts.z_dim), np.float32))
        return self.parts.sample_ws(z.to(self.parts.device))

    def _draw_noise(self, rng: np.random.Generator, count: int) -> Tensor:
        shape = (count, self.recipe.frames - 1, self.parts.w_dim)
        return torch.from_numpy(rng.standard_normal(shape, np.float32)).to(self.parts.device)

    def _set_judges(self, *, trained: bool) -> None:
        for judge in (self.video, self.image):
            judge.requires_grad_(trained)


def build_walker(
    recipe: MocoganHdRecipe, parts: FrozenParts, components: Tensor, stdevs: Tensor, w_avg: Tensor
) -> MotionWalker:
    """Build an untrained walker for some parts."""
    return MotionWalker(recipe, components, stdevs, w_avg, parts.towers.embed_dim).to(parts.device)


def _to_video(clips: Tensor) -> Tensor:
    """Shapes: [N,T,3,S,S] → [N,3,T,S,S]."""
    return clips.transpose(1, 2)


@dataclass(frozen=True)
class MocoganHd:
    """A trained walker."""

    walker: MotionWalker
    recipe: MocoganHdRecipe


def load(folder: Path, parts: FrozenParts) -> MocoganHd:
    """Load a trained walker.

    Raises: FileNotFoundError when there is none; RuntimeError when it was trained for parts of other sizes.
    """
    recipe = read_mocogan_hd_recipe(json.loads((folder / "options.json").read_text()))
    weights = take_part(load_ema(folder), "walker")
    count, w_dim = weights["steps"].shape
    blank = torch.zeros(count, w_dim), torch.zeros(count), torch.zeros(w_dim)
    walker = build_walker(recipe, parts, *blank)
    walker.load_state_dict(weights)
    freeze(walker)
    return MocoganHd(walker, recipe)


@torch.no_grad()
def move(
    model: MocoganHd,
    parts: FrozenParts,
    picture: npt.NDArray[np.uint8],
    sentence: str,
    frames: int,
    seed: int,
    intensity: float = 1.0,
) -> npt.NDArray[np.float32]:
    """Give the walk's delta_ws, the same for every row of ws. The seed decides the noise; the sentence plays no part
    unless the recipe is conditioned.

    Shapes: picture [S,S,3] uint8 RGB → [frames,num_ws,w_dim], row 0 exactly 0.
    """
    ws = parts.encode(read_picture(picture, parts))
    noise = np.random.default_rng(seed).standard_normal((1, frames - 1, parts.w_dim), np.float32)
    told = parts.towers.embed_texts([sentence]).to(parts.device) if model.recipe.conditioned else None
    walk = model.walker(ws.mean(1), torch.from_numpy(noise).to(parts.device), told)
    moved = intensity * walk.offsets[0][:, None].expand(-1, parts.num_ws, -1)
    offsets: npt.NDArray[np.float32] = moved.cpu().numpy().copy()
    return offsets


def animate(
    model: MocoganHd,
    parts: FrozenParts,
    picture: npt.NDArray[np.uint8],
    sentence: str,
    frames: int,
    seed: int,
    intensity: float = 1.0,
) -> npt.NDArray[np.uint8]:
    """Draw the frames of `move`.

    Shapes: picture [S,S,3] uint8 RGB → [frames,R,R,3] uint8 RGB.
    """
    return draw_frames(parts, picture, move(model, parts, picture, sentence, frames, seed, intensity))
