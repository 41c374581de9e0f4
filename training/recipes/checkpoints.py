"""Recipes on networks that were trained elsewhere: an encoder for a foreign StyleGAN2, a motion on both and a CLIP."""

from dataclasses import dataclass, field, replace

from training.recipes.inversion import TINY, EncoderTraining
from training.recipes.paper import PAPER, PAPER_SMOKE, PaperRecipe


@dataclass(frozen=True)
class CheckpointRecipe:
    """The stages that may be left where everything else is there."""

    name: str
    about: str
    motion: PaperRecipe
    inversion: EncoderTraining = field(default_factory=EncoderTraining)  # where no encoder is given
    held_out: int = 128  # pictures that the motion is measured on; at most a tenth of the set
    log_every: int = 50
    evaluate_every: int = 500


CHECKPOINT_RECIPES = {
    recipe.name: recipe
    for recipe in (
        CheckpointRecipe(
            name="checkpoints",
            about="the paper's motion on your own --generator, --encoder and --clip, or the encoder; hours on a GPU",
            motion=replace(PAPER, name="paper-checkpoints", batch=4),
        ),
        CheckpointRecipe(
            name="checkpoints-smoke",
            about="the same for a few steps, to see that the files fit together; its motion is none",
            inversion=TINY,
            motion=replace(PAPER_SMOKE, name="paper-checkpoints-smoke", steps=3),
            held_out=2,
            log_every=1,
            evaluate_every=3,
        ),
    )
}
