"""Videos of a rendered domain for discriminators: the teacher's trajectories, drawn by the domain's own generator.

The generator stands in for the renderer, which draws the same faces, so that a discriminator must look at motion and
not at how crisp a picture is. A user's own videos come in as `VideoClips` too.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.faces.captions import sample_caption
from training.faces.parameters import encode, sample_parameters
from training.motion import move_factors, tabulate_targets
from training.paper.parts import FrozenParts


@dataclass(frozen=True)
class VideoClips:
    """Videos in memory, and their sentences' embeddings."""

    pixels: Tensor  # [V,T,3,S,S] uint8
    text_embeds: Tensor  # [V,embed_dim]

    def pick(self, rng: np.random.Generator, count: int, frames: int) -> tuple[Tensor, Tensor]:
        """Cut clips of some frames out of videos, anywhere in time.

        Shapes: → [count,frames,3,S,S] in [-1,1], text_embed [count,embed_dim].
        """
        length = self.pixels.shape[1]
        if frames > length:
            raise ValueError(f"clips of {frames} frames can't be cut out of videos of {length}")
        rows = rng.integers(len(self.pixels), size=count)
        starts = rng.integers(length - frames + 1, size=count)
        clips = torch.stack([self.pixels[row, at : at + frames] for row, at in zip(rows, starts, strict=True)])
        return clips.float() / 127.5 - 1, self.text_embeds[torch.from_numpy(rows).to(self.text_embeds.device)]


@torch.no_grad()
def draw_teacher_videos(
    parts: FrozenParts,
    count: int,
    frames: int,
    size_px: int,
    seed: int,
    draw_px: int | None = None,
) -> VideoClips:
    """Draw videos of sampled faces doing what sampled captions say. Rendered domains only: they know their factors."""
    rng = np.random.default_rng([seed, 40])
    captions = [sample_caption(rng) for _ in range(count)]
    factors = torch.from_numpy(np.stack([encode(sample_parameters(rng)) for _ in range(count)]))
    progress = torch.linspace(0, 1, frames)[None].expand(count, -1)
    moved = move_factors(factors, tabulate_targets(captions), torch.ones(count), progress).to(parts.device)
    videos = []
    for video in moved:
        w = parts.generator.mapping(video)
        drawn = parts.draw(w[:, None].expand(-1, parts.num_ws, -1), draw_px)
        pixels = (shrink(drawn, size_px).clamp(-1, 1) + 1) * 127.5
        videos.append(pixels.round().to(torch.uint8))
    return VideoClips(torch.stack(videos), parts.towers.embed_texts([caption.text for caption in captions]))


def shrink(pictures: Tensor, size_px: int) -> Tensor:
    """Average pictures down to a size that divides theirs.

    Shapes: [N,3,R,R] → [N,3,size_px,size_px].
    """
    factor = pictures.shape[-1] // size_px
    return F.avg_pool2d(pictures, factor) if factor > 1 else pictures
