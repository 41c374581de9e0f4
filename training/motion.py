"""The motion stage: sentence and face → delta_ws, taught by trajectories that the renderer's factors spell out.

The teacher moves a face's factors towards the sentence's targets, smoothly in time, and lets the head sway a little
meanwhile: a face whose head is screwed to the wall is not alive. The network is held to these
changes of factors, |δ − δ*| ÷ |δ*|; its mapper turns them into Δ = mapping(factors + δ) − mapping(factors).
No picture is drawn. The generator and both towers are frozen.
"""

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from training.embedding import EmbedTexts, Features
from training.encoder import factor_bounds
from training.faces.captions import Caption, sample_caption
from training.faces.expressions import CYCLIC, EXPRESSIONS
from training.faces.parameters import EXPRESSION_FACTORS, FACTOR_MEANS, HALF_RANGES, NUM_EXPRESSION, Z_DIM
from training.losses import relative_motion_loss
from training.motion_pictures import PictureLosses, wants_pictures
from training.networks.encoder import ImageTower
from training.networks.motion import MotionNetwork, envelopes, sway, toss
from training.networks.stylegan2 import FactorMapping
from training.optimizers import schedule
from training.recipes import MotionRecipe

MAX_TARGETS = 3
LEAST_INTENSITY = 0.5
"""Below it a drawn change is too small to have a direction."""


class Targets(NamedTuple):
    """What captions ask for, as tensors over up to MAX_TARGETS expressions."""

    goals: Tensor  # [N,MAX_TARGETS,NUM_EXPRESSION] in half-ranges from the mean
    moved: Tensor  # [N,MAX_TARGETS,NUM_EXPRESSION] 1 where the expression names the factor
    strengths: Tensor  # [N,MAX_TARGETS]
    cyclic: Tensor  # [N,MAX_TARGETS] 1 for winks and blinks

    def take(self, rows: Tensor) -> "Targets":
        """Pick rows."""
        return Targets(*(part[rows] for part in self))


def tabulate_targets(captions: Sequence[Caption]) -> Targets:
    """Turn captions' targets into tensors."""
    names = [factor.name for factor in EXPRESSION_FACTORS]
    goals = np.zeros((len(captions), MAX_TARGETS, NUM_EXPRESSION), np.float32)
    moved = np.zeros_like(goals)
    strengths = np.zeros((len(captions), MAX_TARGETS), np.float32)
    cyclic = np.zeros_like(strengths)
    for i, caption in enumerate(captions):
        for j, (expression, strength) in enumerate(caption.targets[:MAX_TARGETS]):
            strengths[i, j], cyclic[i, j] = strength, expression in CYCLIC
            for name, target in EXPRESSIONS[expression].items():
                where = names.index(name)
                goals[i, j, where] = (target - FACTOR_MEANS[where]) / HALF_RANGES[where]
                moved[i, j, where] = 1
    return Targets(*(torch.from_numpy(part) for part in (goals, moved, strengths, cyclic)))


def tabulate_sways(recipe: MotionRecipe) -> Tensor:
    """Give how far every factor sways.

    Shapes: → [NUM_EXPRESSION] in half-ranges, zero but for the pose that the recipe names.
    """
    sizes = {"yaw": recipe.sway_yaw, "roll": recipe.sway_roll}
    return torch.tensor([sizes.get(factor.name, 0.0) for factor in EXPRESSION_FACTORS])


def amplitude(progress: Tensor, cyclic: Tensor) -> Tensor:
    """Give how far a motion has come: a smoothstep, or up, a moment at the top, and back for cyclic ones.

    Shapes: progress [N,T], cyclic [N,K] → [N,T,K].
    """
    rise, bump = (envelope[:, :, None] for envelope in envelopes(progress))
    return rise + (bump - rise) * cyclic[:, None]


def move_factors(
    factors: Tensor, targets: Targets, intensity: Tensor, progress: Tensor, sways: Tensor | None = None
) -> Tensor:
    """Give the teacher's factors at every frame.

    `sways`: how far each factor goes to one side and to the other while the face moves; it is back at the end, and
    while a wink is at its top. None: nothing sways. A sentence that asks for nothing sways nothing.

    Shapes: factors [N,Z_DIM], intensity [N], progress [N,T], sways [N,NUM_EXPRESSION] in half-ranges → [N,T,Z_DIM];
    only expression factors move, clipped to their ranges.
    """
    lows, highs = (bound[:NUM_EXPRESSION] for bound in factor_bounds())
    reach = amplitude(progress, targets.cyclic) * (targets.strengths * intensity[:, None])[:, None]  # [N,T,K]
    frames = factors[:, None].expand(-1, progress.shape[1], -1).clone()
    state = frames[..., :NUM_EXPRESSION]
    for k in range(MAX_TARGETS):
        step = (targets.goals[:, None, k] - state) * targets.moved[:, None, k] * reach[:, :, k, None]
        state = torch.maximum(torch.minimum(state + step, highs), lows)
    if sways is not None:
        asked = (targets.strengths.amax(1) * intensity).clamp(0, 1)
        passing = envelopes(progress)[1] * (targets.cyclic * targets.strengths).amax(1).clamp(0, 1)[:, None]
        state = state + (sway(progress) * (1 - passing) * asked[:, None])[:, :, None] * sways[:, None]
        state = torch.maximum(torch.minimum(state, highs), lows)
    frames[..., :NUM_EXPRESSION] = state
    return frames


def teach(
    factors: Tensor, targets: Targets, intensity: Tensor, progress: Tensor, sways: Tensor | None = None
) -> Tensor:
    """Give the teacher's change of the factors that may move, δ*.

    Shapes: as `move_factors` → [N,T,NUM_EXPRESSION].
    """
    frames = move_factors(factors, targets, intensity, progress, sways)
    return frames[..., :NUM_EXPRESSION] - factors[:, None, :NUM_EXPRESSION]


def build_motion_network(recipe: MotionRecipe, mapping: FactorMapping, embed_dim: int, num_ws: int) -> MotionNetwork:
    """Build an untrained motion network that speaks through a trained mapping."""
    lows, highs = (bound[:NUM_EXPRESSION] for bound in factor_bounds())
    frozen = mapping.eval().requires_grad_(False)
    return MotionNetwork(frozen, lows, highs, Z_DIM, embed_dim, num_ws, recipe.h_dim, recipe.hidden)


class MotionStage:
    """Trains the motion network against the teacher."""

    name = "motion"

    def __init__(
        self,
        recipe: MotionRecipe,
        mapping: FactorMapping,
        tower: ImageTower,
        embed_texts: EmbedTexts,
        faces: Sequence[Features],
        num_ws: int,
        pictures: PictureLosses | None = None,
    ) -> None:
        """`faces`: stored features of the pictures that are to be moved; the first 200 of each are held out.

        `pictures`: losses on drawn frames, where the recipe asks for them.
        """
        if wants_pictures(recipe) and pictures is None:
            raise ValueError("the recipe asks for losses on drawn frames: give PictureLosses")
        self.pictures = pictures if wants_pictures(recipe) else None
        torch.manual_seed(recipe.seed)
        self.recipe, self.steps, self.ema_decay = recipe, recipe.steps, recipe.ema_decay
        self.network = build_motion_network(recipe, mapping, tower.out.out_features, num_ws)
        self.modules = nn.ModuleDict({"motion": self.network})
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(parameters, recipe.lr, (0.9, 0.99))]
        rng = np.random.default_rng([recipe.seed, 5])
        captions = [sample_caption(rng) for _ in range(recipe.captions)]
        self.texts = embed_texts([caption.text for caption in captions])
        self.targets = tabulate_targets(captions)
        self.sways = tabulate_sways(recipe)
        with torch.no_grad():
            self.faces = torch.cat([tower.project(part.features[200:]) for part in faces])
            self.factors = torch.cat([part.factors[200:] for part in faces])
            self.held_faces = torch.cat([tower.project(part.features[:200]) for part in faces])
            self.held_factors = torch.cat([part.factors[:200] for part in faces])
            sample = self._teach_sample()
        self.floor = float(sample.square().sum(2).mean()) * recipe.floor

    def learning_rate(self, step: int) -> float:
        """Give the learning rate at a step."""
        return self.recipe.lr * schedule(step, self.steps, 0.4)

    def ema_warmup(self, step: int) -> int:
        """Average from the first step on."""
        return step

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """Follow the teacher on one batch of faces and sentences, at random frames and intensities."""
        rng = np.random.default_rng([self.recipe.seed, 6, step])
        batch = self.recipe.batch
        chosen = torch.from_numpy(rng.choice(len(self.texts), batch))
        rows = torch.from_numpy(rng.choice(len(self.faces), batch))
        texts, faces = self.texts[chosen], self.faces[rows]
        # near sentences and near faces mean about the same
        texts = self._shake(texts, rng, self.recipe.text_noise)
        faces = self._shake(faces, rng, self.recipe.face_noise)
        intensity = torch.from_numpy(rng.uniform(0, 2, batch).astype(np.float32))
        intensity = torch.where(torch.from_numpy(rng.random(batch) < 0.4), torch.ones(batch), intensity)
        progress = self._draw_progress(rng, batch)
        noise = torch.from_numpy(rng.standard_normal((batch, self.recipe.h_dim), dtype=np.float32))
        side = toss(noise)
        teacher = teach(self.factors[rows], self.targets.take(chosen), intensity, progress, side[:, None] * self.sways)
        network = self.network
        read = network.read(faces)
        codes = network.recur(texts, faces, noise, intensity, progress)
        change = network.change(codes, faces, read.detach(), intensity, progress, side)
        follow = relative_motion_loss(change[:, :, None], teacher[:, :, None], self.floor)
        kept = (read - self.factors[rows]).square()
        kept = kept[:, :NUM_EXPRESSION].mean() + 0.3 * kept[:, NUM_EXPRESSION:].mean()
        loss = follow + self.recipe.read_weight * kept
        figures = {"follow": float(follow.detach()), "kept": float(kept.detach())}
        if self.pictures is not None and step % self.recipe.picture_every == 0:
            drawn = self._look(self.pictures, read.detach(), change, chosen, rows, intensity, progress)
            loss = loss + sum(drawn.values())
            figures |= {name: float(value.detach()) for name, value in drawn.items()}
        return loss, figures

    def _look(
        self,
        pictures: PictureLosses,
        read: Tensor,
        change: Tensor,
        chosen: Tensor,
        rows: Tensor,
        intensity: Tensor,
        progress: Tensor,
    ) -> dict[str, Tensor]:
        """Give the losses on drawn frames of a few faces that are asked to move: the last frame, or a wink's top.

        Shapes: read [N,Z_DIM], change [N,T,moved], chosen [N] of the captions, rows [N] of the faces, intensity [N],
        progress [N,T].
        """
        targets = self.targets.take(chosen)
        moving = (targets.strengths.sum(1) > 0) & (intensity > LEAST_INTENSITY)
        some = moving.nonzero()[: self.recipe.picture_batch, 0]
        if not len(some):
            return {}
        passing = (targets.cyclic * targets.strengths).sum(1)[some] > 0
        top = (progress[some] - 0.5).abs().argmin(1)
        frame = torch.where(passing, top, torch.full_like(top, progress.shape[1] - 1))
        still = torch.zeros_like(change[some, :1])
        reached = torch.cat([still, change[some, frame][:, None]], 1)
        delta_ws = self.network.map(read[some], reached)[:, 1]
        return pictures(self.factors[rows][some], delta_ws, self.texts[chosen][some])

    @torch.no_grad()
    def evaluate(self, ema: nn.ModuleDict) -> dict[str, float]:
        """Measure the relative error at full strength on held-out faces, of sentences that move and of those that do
        not."""
        rng = np.random.default_rng(8)
        count = len(self.held_faces)
        rows = torch.from_numpy(rng.choice(len(self.texts), count, replace=False))
        progress = torch.linspace(0, 1, 17)[None].expand(count, -1)
        intensity = torch.ones(count)
        targets = self.targets.take(rows)
        side = torch.where(torch.arange(count) % 2 == 0, 1.0, -1.0)
        teacher = teach(self.held_factors, targets, intensity, progress, side[:, None] * self.sways)
        network, faces = cast("MotionNetwork", ema["motion"]), self.held_faces
        noise = torch.zeros(count, self.recipe.h_dim)
        codes = network.recur(self.texts[rows], faces, noise, intensity, progress)
        change = network.change(codes, faces, network.read(faces), intensity, progress, side)
        error = (change - teacher).square().sum(2).mean(1)
        size = teacher.square().sum(2).mean(1)
        moving = targets.strengths.sum(1) > 0
        return {
            "error_moving": float(error[moving].sum() / size[moving].sum()),
            "error_still": float(error[~moving].mean() / size[moving].mean()),
        }

    def _teach_sample(self) -> Tensor:
        count = 512
        progress = torch.linspace(0, 1, 9)[None].expand(count, -1)
        rows = torch.arange(count)
        factors = self.factors[torch.linspace(0, len(self.factors) - 1, count).long()]
        return teach(factors, self.targets.take(rows), torch.ones(count), progress)

    def _draw_progress(self, rng: np.random.Generator, batch: int) -> Tensor:
        """Draw rising times from 0 to 1: even or uneven steps, one grid for the whole batch."""
        count = int(rng.integers(*self.recipe.frames))
        gaps = rng.uniform(0.4, 1.6, count - 1) if rng.random() < 0.6 else np.ones(count - 1)
        times = np.concatenate([[0.0], np.cumsum(gaps) / gaps.sum()]).astype(np.float32)
        times[-1] = 1.0
        return torch.from_numpy(times)[None].expand(batch, -1)

    @staticmethod
    def _shake(embed: Tensor, rng: np.random.Generator, size: float) -> Tensor:
        noise = torch.from_numpy(rng.standard_normal(embed.shape, dtype=np.float32)) / embed.shape[1] ** 0.5
        scale = torch.from_numpy(rng.uniform(0, size, (len(embed), 1)).astype(np.float32))
        return nn.functional.normalize(embed + noise * scale, dim=1)
