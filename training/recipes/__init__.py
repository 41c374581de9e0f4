"""Named recipes: every number of a training run in one place. Plain dataclasses; a run's options.json is one of these.

A module for each kind of run; what is named here are the recipes of rendered domains.
"""

from training.recipes.rendered import (
    RECIPES,
    SMOKE,
    EmbeddingRecipe,
    EncoderRecipe,
    GeneratorPhase,
    GeneratorRecipe,
    InversionRecipe,
    MotionRecipe,
    Recipe,
    RendersRecipe,
)

__all__ = [
    "RECIPES",
    "SMOKE",
    "EmbeddingRecipe",
    "EncoderRecipe",
    "GeneratorPhase",
    "GeneratorRecipe",
    "InversionRecipe",
    "MotionRecipe",
    "Recipe",
    "RendersRecipe",
]
