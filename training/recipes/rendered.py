"""Recipes of rendered domains, whose factors are known: one bundle from renders to motion."""

from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class RendersRecipe:
    """How many pictures are rendered, from which seed.

    The varied pool has the generator's resolution, the expressed one the encoder's.
    """

    count: int = 30_000
    held_out: int = 512
    expressed: int = 16_000
    features: int = 14_000  # pictures of the pool whose features are stored for the embedding and motion stages
    seed: int = 128
    expressed_seed: int = 129
    held_out_seed: int = 990


@dataclass(frozen=True)
class GeneratorPhase:
    """One stretch of generator training at one resolution, with its own learning-rate schedule."""

    resolution: int
    steps: int
    batch: int
    lr: float
    crop: float  # share of batches drawn on a window around the face above 16 px
    flat: float = 0.5  # share of the steps before the rate falls
    half_size: float = 0.0  # share of the steps first done at half the resolution
    face_gain: float = 6.0  # how much more than the rest eyes and mouth count
    late_face_gain: float = 2.5  # the same in the last 40% of the steps
    squared: float = 0.0  # weight of squared errors beside absolute ones
    singles: int = 0  # how many of the batch are single pictures instead of pairs: more identities a step
    rare: int = 1  # how often at most a pair with a rare option (glasses, a moustache) comes in an epoch


@dataclass(frozen=True)
class GeneratorRecipe:
    """The renderer-supervised generator."""

    channels: tuple[int, ...]
    w_dim: int
    phases: tuple[GeneratorPhase, ...]
    ema_decay: float = 0.998
    seed: int = 1


@dataclass(frozen=True)
class EncoderRecipe:
    """Trunk and factor head."""

    widths: tuple[int, ...] = (24, 48, 80, 112, 128)
    feature_dim: int = 256
    steps: int = 4000
    batch: int = 24
    lr: float = 1.5e-3
    ema_decay: float = 0.998
    seed: int = 2


@dataclass(frozen=True)
class InversionRecipe:
    """W+ residual: steps towards the true w, then through the generator."""

    steps: int = 2000
    w_steps: int = 800
    batch: int = 8
    w_batch: int = 24
    lr: float = 5e-4
    factor_weight: float = 0.3
    w_weight: float = 0.2
    ema_decay: float = 0.995
    seed: int = 3


@dataclass(frozen=True)
class EmbeddingRecipe:
    """The image tower's head, beside a locked text tower."""

    steps: int = 3000
    batch: int = 128
    captions: int = 400  # an expression
    temperature: float = 0.07
    factor_weight: float = 10.0
    lr: float = 2e-3
    ema_decay: float = 0.995
    seed: int = 4


@dataclass(frozen=True)
class MotionRecipe:
    """The recurrent motion generator and its mapper."""

    h_dim: int = 256
    hidden: int = 384
    steps: int = 5000
    batch: int = 64
    captions: int = 24_000
    frames: tuple[int, int] = (8, 20)  # fewest, most + 1
    text_noise: float = 0.7
    face_noise: float = 0.1
    floor: float = 0.15  # of the mean teacher's size, under the divisor of the loss
    read_weight: float = 2.0
    # how far the head sways to either side while the face moves, in half-ranges of the factor; 0: it keeps still
    sway_yaw: float = 0.0
    sway_roll: float = 0.0
    # light losses on drawn frames (training/motion_pictures.py); all 0: nothing is drawn
    direction_weight: float = 0.0  # language direction, at most 0.1
    identity_weight: float = 0.0
    off_face_weight: float = 0.0
    picture_batch: int = 4  # faces drawn, still and moved
    picture_every: int = 4  # steps
    lr: float = 5e-3
    ema_decay: float = 0.997
    seed: int = 5


@dataclass(frozen=True)
class Recipe:
    """Everything that one domain's bundle is made from."""

    name: str
    domain: str
    resolution: int
    generator: GeneratorRecipe
    renders: RendersRecipe = field(default_factory=RendersRecipe)
    encoder: EncoderRecipe = field(default_factory=EncoderRecipe)
    inversion: InversionRecipe = field(default_factory=InversionRecipe)
    embedding: EmbeddingRecipe = field(default_factory=EmbeddingRecipe)
    motion: MotionRecipe = field(default_factory=MotionRecipe)
    language: str = "full"  # settings of the language stage: full or smoke
    encoder_resolution: int = 128  # what the encoder and the image tower look at; larger pictures are shrunk to it
    embed_dim: int = 128
    starts_from: str = ""  # the shipped bundle that generator and encoder start from; none: from nothing
    version: str = "2026.11.0"
    log_every: int = 50
    evaluate_every: int = 500


TO_128_PX = (
    GeneratorPhase(resolution=64, steps=3600, batch=12, lr=1e-2, crop=0.5, half_size=0.12),
    GeneratorPhase(resolution=128, steps=15_000, batch=8, lr=6e-3, crop=0.4, flat=0.55),
    # whole pictures: outlines, clothes, glasses
    GeneratorPhase(
        resolution=128, steps=3000, batch=8, lr=3e-3, crop=0.0, flat=0.25, face_gain=2.5, late_face_gain=2.0
    ),
    # more identities a step, and squares: noses, glasses, clothes
    GeneratorPhase(
        resolution=128,
        steps=2000,
        batch=8,
        lr=8e-3,
        crop=0.0,
        flat=0.5,
        face_gain=2.0,
        late_face_gain=2.0,
        squared=10.0,
        singles=4,
    ),
)
"""From nothing to a finished 128-px generator."""

TO_256_PX = GeneratorPhase(
    resolution=256,
    steps=6000,
    batch=6,
    lr=5e-3,
    crop=0.3,
    flat=0.4,
    face_gain=2.5,
    late_face_gain=2.0,
    squared=10.0,
    singles=2,
)
"""One more block on top."""

FROM_ANOTHER_DOMAIN = (
    GeneratorPhase(resolution=64, steps=800, batch=12, lr=1e-2, crop=0.3, flat=0.7),
    GeneratorPhase(
        resolution=128, steps=3000, batch=8, lr=8e-3, crop=0.25, flat=0.6, face_gain=4.0, squared=5.0, singles=2
    ),
    GeneratorPhase(
        resolution=256,
        steps=3300,
        batch=6,
        lr=6e-3,
        crop=0.25,
        flat=0.4,
        face_gain=2.5,
        late_face_gain=2.0,
        squared=10.0,
        singles=2,
    ),
)
"""256 px in a quarter of the steps, from a finished generator of another domain: outlines, hair and folds are known."""


def finer(steps: int, rare: int = 1) -> GeneratorPhase:
    """Give a last stretch at 256 px, for what is still soft: strands of hair, glasses, fur."""
    return GeneratorPhase(
        resolution=256,
        steps=steps,
        batch=6,
        lr=6e-3,
        crop=0.2,
        flat=0.45,
        face_gain=2.5,
        late_face_gain=2.0,
        squared=10.0,
        singles=2,
        rare=rare,
    )


HUMAN_128 = Recipe(
    name="human-128",
    domain="human",
    resolution=128,
    generator=GeneratorRecipe(channels=(128, 128, 128, 96, 48, 24), w_dim=128, phases=TO_128_PX),
    motion=MotionRecipe(sway_yaw=0.1, sway_roll=0.25),
)

HUMAN_256 = Recipe(
    name="human-256",
    domain="human",
    resolution=256,
    renders=RendersRecipe(count=20_000),
    generator=GeneratorRecipe(
        channels=(128, 128, 128, 96, 48, 24, 16), w_dim=128, phases=(*TO_128_PX, TO_256_PX, finer(2200, rare=8))
    ),
    motion=MotionRecipe(sway_yaw=0.1, sway_roll=0.25),
)

ANIME_256 = Recipe(
    name="anime-256",
    domain="anime",
    resolution=256,
    starts_from="human",
    encoder=EncoderRecipe(steps=10_500),
    renders=RendersRecipe(count=16_000, seed=228, expressed_seed=229, held_out_seed=991),
    generator=GeneratorRecipe(
        # wider than a human's: ink lines have their place to a fraction of a pixel; hardly slower, as 24 counts as 32
        channels=(128, 128, 128, 128, 64, 32, 16),
        w_dim=128,
        phases=(
            *FROM_ANOTHER_DOMAIN,
            finer(6000),
            finer(5000, rare=8),
            # squares before amounts, many people a step, the whole picture: lines half a pixel beside their place
            replace(finer(13_500, rare=8), crop=0.1, squared=60.0, singles=4, late_face_gain=1.0),
        ),
    ),
    motion=MotionRecipe(sway_yaw=0.06, sway_roll=0.12),
)

DOG_256 = Recipe(
    name="dog-256",
    domain="dog",
    resolution=256,
    starts_from="human",
    encoder=EncoderRecipe(steps=2500),
    renders=RendersRecipe(count=16_000, seed=328, expressed_seed=329, held_out_seed=992),
    generator=GeneratorRecipe(
        channels=(128, 128, 128, 96, 48, 24, 16), w_dim=128, phases=(*FROM_ANOTHER_DOMAIN, finer(2500))
    ),
    motion=MotionRecipe(sway_yaw=0.05, sway_roll=0.3),
)

SMOKE = Recipe(
    name="smoke",
    domain="human",
    resolution=128,
    renders=RendersRecipe(count=96, held_out=96, expressed=440, features=96),
    generator=GeneratorRecipe(
        channels=(16, 16, 16, 12, 8, 6),
        w_dim=16,
        phases=(
            GeneratorPhase(resolution=64, steps=4, batch=4, lr=1e-2, crop=0.5, half_size=0.5),
            GeneratorPhase(resolution=128, steps=3, batch=2, lr=6e-3, crop=0.5),
        ),
    ),
    encoder=EncoderRecipe(widths=(6, 8, 8, 8, 8), feature_dim=32, steps=6, batch=8),
    language="smoke",
    embedding=EmbeddingRecipe(steps=6, batch=16, captions=4),
    inversion=InversionRecipe(steps=4, w_steps=2, batch=2, w_batch=4),
    motion=MotionRecipe(h_dim=16, hidden=24, steps=6, batch=8, captions=600, sway_yaw=0.1, sway_roll=0.2),
    log_every=2,
    evaluate_every=3,
)
"""Seconds: every stage for a few steps, to test the whole way from renders to a bundle. Its faces are fog."""

RECIPES = {recipe.name: recipe for recipe in (HUMAN_128, HUMAN_256, ANIME_256, DOG_256, SMOKE)}
