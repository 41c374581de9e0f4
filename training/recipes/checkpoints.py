"""Recipes of motions on networks that were trained elsewhere: a StyleGAN2, its encoder and a CLIP in foreign files."""

from dataclasses import dataclass, replace

from training.recipes.paper import PAPER, PAPER_SMOKE, PaperRecipe


@dataclass(frozen=True)
class CheckpointRecipe:
    """The one stage that is left where everything else is there."""

    name: str
    about: str
    motion: PaperRecipe
    held_out: int = 128  # pictures that the motion is measured on; at most a tenth of the set
    log_every: int = 50
    evaluate_every: int = 500


CHECKPOINT_RECIPES = {
    recipe.name: recipe
    for recipe in (
        CheckpointRecipe(
            name="checkpoints",
            about="the paper's motion on your own --generator, --encoder and --clip; hours on a GPU",
            motion=replace(PAPER, name="paper-checkpoints", batch=4),
        ),
        CheckpointRecipe(
            name="checkpoints-smoke",
            about="the same for a few steps, to see that the files fit together; its motion is none",
            motion=replace(PAPER_SMOKE, name="paper-checkpoints-smoke", steps=3),
            held_out=2,
            log_every=1,
            evaluate_every=3,
        ),
    )
}
