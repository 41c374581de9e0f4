"""Light losses of our motion on drawn frames, beside the teacher's: language direction, identity, stillness off the
face.

A small image tower alone is easily fooled (red faces, white eyes), so these stay light: at most a tenth of the teacher.
All parts are frozen. Source of the directional loss: Gal et al. 2022, "StyleGAN-NADA", with the face's own still frame
as the origin.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.devices import autocast
from training.losses import directional_loss, face_weights
from training.networks.encoder import ImageTower
from training.networks.stylegan2 import Generator
from training.paper.towers import TOWER_RESOLUTION, resize
from training.recipes import MotionRecipe

NEUTRAL_SENTENCES = ("a person", "a calm person", "a neutral face", "the person shows no expression")
MOST_DIRECTION = 0.1


def off_face(resolution: int) -> Tensor:
    """Weigh what lies off eyes and mouth: 1 far from them, 0 on them.

    Shapes: [1,1,R,R].
    """
    return (2 - face_weights(resolution, gain=1.0) * 1.25).clamp(0, 1)


class PictureLosses:
    """Draws a face still and moved, and compares the two pictures."""

    def __init__(
        self,
        recipe: MotionRecipe,
        generator: Generator,
        tower: ImageTower,
        identity: Callable[[Tensor], Tensor],  # pictures [N,3,S,S] → [N,k] unit norm
        neutral: Tensor,  # [embed_dim] τ of sentences that ask for nothing
    ) -> None:
        if recipe.direction_weight > MOST_DIRECTION:
            raise ValueError(f"direction_weight is {recipe.direction_weight}; above {MOST_DIRECTION} towers get fooled")
        self.recipe, self.generator, self.tower, self.identity, self.neutral = (
            recipe, generator, tower, identity, neutral,
        )  # fmt: skip
        for part in (generator, tower, identity):
            if isinstance(part, nn.Module):
                part.eval().requires_grad_(False)
        self.outside = off_face(generator.synthesis.resolution).to(neutral.device)

    def __call__(self, factors: Tensor, delta_ws: Tensor, text_embed: Tensor) -> dict[str, Tensor]:
        """Give the losses that count, by name, weighted.

        Shapes: factors [N,Z_DIM] of the still faces, delta_ws [N,num_ws,w_dim] of one frame of each, text_embed
        [N,embed_dim].
        """
        recipe = self.recipe
        with torch.no_grad():
            ws = self.generator.broadcast(self.generator.mapping(factors))
            still = self._draw(ws)
        moved = self._draw(ws + delta_ws)
        small, small_still = resize(moved, TOWER_RESOLUTION), resize(still, TOWER_RESOLUTION)
        found: dict[str, Tensor] = {}
        if recipe.direction_weight:
            change = self.tower(small) - self.tower(small_still)
            found["direction"] = recipe.direction_weight * directional_loss(change, text_embed - self.neutral)
        if recipe.identity_weight:
            kept = (self.identity(small) * self.identity(small_still)).sum(1)
            found["identity"] = recipe.identity_weight * (1 - kept).mean()
        if recipe.off_face_weight:
            found["off_face"] = recipe.off_face_weight * ((moved - still).abs() * self.outside).mean()
        return found

    def _draw(self, ws: Tensor) -> Tensor:
        with autocast(ws.device):
            picture: Tensor = self.generator.synthesis(ws)
        return picture.float()


def wants_pictures(recipe: MotionRecipe) -> bool:
    """Say whether a recipe asks for any of these losses."""
    return bool(recipe.direction_weight or recipe.identity_weight or recipe.off_face_weight)
