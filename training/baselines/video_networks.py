"""MoCoGAN-HD's networks: the LSTM that walks in the PCA space of W, and what judges its videos. Torch only.

Source: Tian et al. 2021 (arXiv 2104.15069), section 3; widths by recipe. The image discriminator is a plain
spectrally normalised stack where the published one is BigGAN's.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.recipes.baselines import MocoganHdRecipe

MEAN_SLOPE = 0.2


class Walk(NamedTuple):
    """A batch of walks."""

    offsets: Tensor  # [N,T,w_dim] from the start latent; frame 0 is 0
    noise: Tensor  # [N,T−1,w_dim] that drove the LSTM
    guess: Tensor  # [N,T−1,w_dim] what the LSTM's state tells of that noise


class MotionWalker(nn.Module):
    """An LSTM that begins at a start latent and takes a step along W's principal components a frame."""

    steps: Tensor
    w_avg: Tensor

    def __init__(self, recipe: MocoganHdRecipe, components: Tensor, stdevs: Tensor, w_avg: Tensor, embed_dim: int):
        """`components` [n,w_dim], `stdevs` [n]: principal components of W, the largest first."""
        super().__init__()
        count, w_dim, h_dim = min(recipe.n_pca, len(stdevs)), components.shape[1], recipe.h_dim
        self.residual, self.w_dim, self.h_dim = recipe.residual, w_dim, h_dim
        self.register_buffer("steps", components[:count] * stdevs[:count, None])
        self.register_buffer("w_avg", w_avg)
        self.start, self.cell = nn.LSTMCell(w_dim, h_dim), nn.LSTMCell(w_dim, h_dim)
        self.out = nn.Linear(h_dim, count)
        self.guess = nn.Sequential(nn.Linear(2 * h_dim, w_dim), nn.ReLU(), nn.Linear(w_dim, w_dim))
        for cell in (self.start, self.cell):
            for name, weight in cell.named_parameters():
                if "bias" in name:
                    nn.init.zeros_(weight)
                else:
                    for gate in weight.detach().chunk(4):
                        nn.init.orthogonal_(gate)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.zeros_(self.out.bias)
        self.told = nn.Linear(embed_dim, w_dim, bias=False) if recipe.conditioned else None

    def forward(self, w: Tensor, noise: Tensor, text_embed: Tensor | None = None) -> Walk:
        """Walk.

        Shapes: w [N,w_dim] where it starts, noise [N,T−1,w_dim] standard normal, text_embed [N,embed_dim] for a
        conditioned walker → offsets [N,T,w_dim].
        """
        told = 0.0
        if self.told is not None:
            assert text_embed is not None, "a conditioned walker must be told a sentence"
            told = self.told(text_embed * text_embed.shape[1] ** 0.5)
        h, c = self.start(w - self.w_avg)
        offsets, guesses = [torch.zeros_like(w)], []
        for k in range(noise.shape[1]):
            h, c = self.cell(noise[:, k] + told, (h, c))
            step = torch.tanh(self.out(h)) @ self.steps
            offsets.append(offsets[-1] + self.residual * step)
            guesses.append(self.guess(torch.cat([h, c], 1)))
        return Walk(torch.stack(offsets, 1), noise, torch.stack(guesses, 1))


class PatchJudge(nn.Module):
    """One scale's video discriminator: 3-D convolutions to a logit for every patch of the video."""

    def __init__(self, width: int, embed_dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv3d(3, width, 4, 2, 2),
            nn.LeakyReLU(MEAN_SLOPE),
            nn.Conv3d(width, 2 * width, 4, 2, 2),
            nn.InstanceNorm3d(2 * width),
            nn.LeakyReLU(MEAN_SLOPE),
            nn.Conv3d(2 * width, 4 * width, 4, 2, 2),
            nn.InstanceNorm3d(4 * width),
            nn.LeakyReLU(MEAN_SLOPE),
            nn.Conv3d(4 * width, 8 * width, 4, 1, 2),
            nn.InstanceNorm3d(8 * width),
            nn.LeakyReLU(MEAN_SLOPE),
        )
        self.out = nn.Conv3d(8 * width, 1, 4, 1, 2)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.normal_(layer.weight, std=0.02)
        self.told = nn.Linear(embed_dim, 8 * width, bias=False) if embed_dim else None

    def forward(self, video: Tensor, text_embed: Tensor | None) -> Tensor:
        """Shapes: video [N,3,T,S,S] → logits [N,1,T',S',S']."""
        x = self.layers(video)
        logits: Tensor = self.out(x)
        if self.told is not None and text_embed is not None:
            told = self.told(text_embed * text_embed.shape[1] ** 0.5)
            logits = logits + (x.mean((2, 3, 4)) * told).mean(1)[:, None, None, None, None]
        return logits


class VideoJudge(nn.Module):
    """Video discriminators at several sizes."""

    def __init__(self, recipe: MocoganHdRecipe, embed_dim: int) -> None:
        super().__init__()
        told = embed_dim if recipe.conditioned else 0
        self.scales = nn.ModuleList(PatchJudge(recipe.video_width, told) for _ in range(recipe.scales))

    def forward(self, video: Tensor, text_embed: Tensor | None = None) -> list[Tensor]:
        """Shapes: video [N,3,T,S,S] → logits of each scale."""
        found = []
        for i, scale in enumerate(self.scales):
            if i:
                video = F.avg_pool3d(video, 3, (1, 2, 2), 1, count_include_pad=False)
            found.append(scale(video, text_embed))
        return found


class ImageJudge(nn.Module):
    """The image discriminator: a logit, and features that are contrasted."""

    def __init__(self, recipe: MocoganHdRecipe) -> None:
        super().__init__()
        width, size = recipe.image_width, recipe.size_px
        layers: list[nn.Module] = []
        before = 3
        while size > 4:
            layers += [spectral_norm(nn.Conv2d(before, width, 4, 2, 1)), nn.LeakyReLU(MEAN_SLOPE)]
            before, width, size = width, min(2 * width, 16 * recipe.image_width), size // 2
        self.layers = nn.Sequential(*layers)
        self.out = spectral_norm(nn.Linear(before, 1))
        self.project = nn.Sequential(nn.Linear(before, before), nn.ReLU(), nn.Linear(before, recipe.projection))

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes: picture [N,3,S,S] → logit [N,1], features [N,projection]."""
        x = F.relu(self.layers(picture)).mean((2, 3))
        return self.out(x), self.project(x)


class Memory(nn.Module):
    """Queues of features of earlier pictures, of frame 0 and of later frames."""

    queues: Tensor
    place: Tensor

    def __init__(self, length: int, projection: int) -> None:
        super().__init__()
        self.register_buffer("queues", F.normalize(torch.randn(2, length, projection), dim=2))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, first: Tensor, later: Tensor) -> None:
        """Take in features [N,projection] of both kinds."""
        length = self.queues.shape[1]
        rows = (self.place + torch.arange(len(first), device=first.device)) % length
        self.queues[0, rows], self.queues[1, rows] = F.normalize(first, dim=1), F.normalize(later, dim=1)
        self.place.copy_((self.place + len(first)) % length)

    def contrast(self, kind: int, one: Tensor, other: Tensor, temperature: float) -> Tensor:
        """Bring two views of each picture together, away from all others of their kind.

        Shapes: one, other [N,projection] → scalar.
        """
        views = F.normalize(torch.cat([one, other]), dim=1)
        logits = views @ torch.cat([views, self.queues[kind]]).t() / temperature
        count = len(views)
        logits = logits.masked_fill(torch.eye(count, logits.shape[1], dtype=torch.bool, device=logits.device), -1e4)
        partners = torch.arange(count, device=logits.device).roll(count // 2)
        return F.cross_entropy(logits, partners)


@torch.no_grad()
def follow(average: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move a module's slow copy towards it."""
    for slow, fast in zip(average.parameters(), module.parameters(), strict=True):
        slow.lerp_(fast, 1 - momentum)


def relativistic_loss(judged: list[Tensor], against: list[Tensor], target: float) -> Tensor:
    """Give the relativistic average least-squares loss, summed over the scales.

    Shapes: logits of each scale.
    """
    losses = [(a - b.mean() - target).square().mean() for a, b in zip(judged, against, strict=True)]
    return torch.stack(losses).sum()


def penalise_gradients(
    judge: VideoJudge, real: Tensor, fake: Tensor, text_embed: Tensor | None, share: Tensor
) -> Tensor:
    """Give the gradient penalty of a video discriminator between real and fake videos.

    The norm is that of a pixel's three channels, as in the published code.

    Shapes: real, fake [N,3,T,S,S], share [N] in [0,1] → scalar, the mean over the scales.
    """
    between = share[:, None, None, None, None]
    mixed = (between * real + (1 - between) * fake).detach().requires_grad_(True)
    penalties = []
    for logits in judge(mixed, text_embed):
        (gradient,) = torch.autograd.grad(logits.sum(), mixed, create_graph=True)
        norm = (gradient.square().sum(1) + 1e-12).sqrt()
        penalties.append((norm - 1).square().mean())
    return torch.stack(penalties).mean()
