"""Recipes of adversarial training: StyleGAN2 from any pictures, from a smoke test to the paper's own runs.

Source of the numbers of `stylegan2-*`: Karras et al. 2020 (arXiv 1912.04958) and the configurations "paper256",
"paper512" and "paper1024" of the code published with Karras et al. 2020a (arXiv 2006.06676).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class AdversarialRecipe:
    """Every number of one adversarial run."""

    name: str
    resolution: int
    kimg: float  # thousand real pictures shown to the discriminator until the end
    batch: int = 32  # of all processes together
    micro_batch: int = 32  # at once on one process: less memory, the same result
    # networks
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    channels: tuple[int, ...] | None = None  # widths at 4, 8 …; None: config-f times the multiplier
    channel_multiplier: float = 1.0
    generator_architecture: str = "skip"
    discriminator_architecture: str = "resnet"
    noise: bool = True
    group_size: int = 4  # pictures that minibatch std compares
    clamp: float | None = 256.0  # bound of activations; keeps half precision from overflowing
    # optimisers
    lr_generator: float = 0.002
    lr_discriminator: float = 0.002
    # regularisation
    r1_gamma: float = 10.0
    r1_interval: int = 16
    path_weight: float = 2.0  # 0: none
    path_interval: int = 4
    path_shrink: int = 2  # the penalty sees batch / shrink pictures
    path_decay: float = 0.01
    mixing: float = 0.9  # share of pictures with styles of two z
    # average of the generator's weights
    ema_kimg: float = 10.0  # half-life
    ema_rampup: float | None = None  # half-life early on, as a share of what was seen
    # adaptive augmentation
    augment: str = "none"  # none; all (the paper's "bgc"); faces (nothing upside down or green)
    augment_target: float = 0.6  # of the mean sign of D(real)
    augment_p: float = 0.0  # at the start; fixed where the target is 0
    augment_interval: int = 4
    augment_kimg: float = 500.0
    # the rest
    precision: str = "bfloat16"  # float32, bfloat16 or float16
    mirrored: bool = False  # every picture also mirrored
    labels: bool = False  # learn classes of dataset.json
    snapshot_kimg: float = 200.0
    grid: int = 32  # pictures of a snapshot
    truncation_psi: float = 1.0  # of the snapshots' pictures
    measured: int = 2000  # pictures that FID and KID are measured on; 0: neither
    seed: int = 0

    @property
    def steps(self) -> int:
        """Give the number of steps."""
        return max(1, round(self.kimg * 1000 / self.batch))

    @property
    def steps_per_snapshot(self) -> int:
        """Give the number of steps between snapshots."""
        return max(1, round(self.snapshot_kimg * 1000 / self.batch))


STYLEGAN2_256 = AdversarialRecipe(
    name="stylegan2-256",
    resolution=256,
    kimg=25_000,
    batch=64,
    micro_batch=8,
    group_size=8,
    channel_multiplier=0.5,
    lr_generator=0.0025,
    lr_discriminator=0.0025,
    r1_gamma=1.0,
    ema_kimg=20.0,
    mirrored=True,
    measured=50_000,
)
"""Eight GPUs in the paper; micro_batch is what one takes at once, and fewer GPUs take more rounds."""

STYLEGAN2_512 = AdversarialRecipe(
    name="stylegan2-512",
    resolution=512,
    kimg=25_000,
    batch=64,
    micro_batch=8,
    group_size=8,
    lr_generator=0.0025,
    lr_discriminator=0.0025,
    r1_gamma=0.5,
    ema_kimg=20.0,
    mirrored=True,
    measured=50_000,
)

STYLEGAN2_1024 = AdversarialRecipe(
    name="stylegan2-1024",
    resolution=1024,
    kimg=25_000,
    batch=32,
    micro_batch=4,
    r1_gamma=2.0,
    mirrored=True,
    measured=50_000,
)

OWN_FACES_256 = AdversarialRecipe(
    name="own-faces-256",
    resolution=256,
    kimg=1_000,
    batch=32,
    micro_batch=16,
    channel_multiplier=0.5,
    lr_generator=0.0025,
    lr_discriminator=0.0025,
    r1_gamma=0.4,
    ema_rampup=0.05,
    augment="faces",
    mirrored=True,
    snapshot_kimg=40.0,
    mapping_layers=2,
    measured=5000,
)
"""Some hundreds to thousands of pictures, one GPU, an afternoon."""

OWN_FACES_64 = AdversarialRecipe(
    name="own-faces-64",
    resolution=64,
    kimg=240,
    batch=16,
    micro_batch=16,
    z_dim=128,
    w_dim=128,
    mapping_layers=2,
    channels=(128, 128, 96, 64, 32),
    lr_generator=0.0025,
    lr_discriminator=0.0025,
    r1_gamma=0.05,
    path_weight=0.0,
    ema_kimg=5.0,
    ema_rampup=0.05,
    augment="faces",
    mirrored=True,
    snapshot_kimg=8.0,
    measured=1000,
)
"""Small faces on a CPU or one modest GPU: to see whether one's pictures are any good before a long run. A step takes
about 1.2 s on one CPU core: five hours in all."""

GAN_SMOKE = AdversarialRecipe(
    name="gan-smoke",
    resolution=32,
    kimg=0.064,
    batch=8,
    micro_batch=4,
    z_dim=16,
    w_dim=16,
    mapping_layers=2,
    channels=(16, 16, 12, 8),
    r1_gamma=0.1,
    r1_interval=4,
    path_interval=2,
    ema_kimg=0.05,
    augment="all",
    augment_kimg=0.5,
    snapshot_kimg=0.032,
    grid=8,
    measured=32,
)
"""Seconds: every part for eight steps. Its faces are fog."""

ADVERSARIAL_RECIPES = {
    recipe.name: recipe
    for recipe in (STYLEGAN2_256, STYLEGAN2_512, STYLEGAN2_1024, OWN_FACES_256, OWN_FACES_64, GAN_SMOKE)
}
