"""The four checkpoints of a conversion as their makers save them, with random weights, of any size.

`python -m tests.training.convert.foreign FOLDER` writes full ones: StyleGAN2 config-f at 1024 px, e4e on IR-SE 50, a
CLIP of ViT-B/32's size, a motion for its embeddings. docs/checkpoints.md says what converting them takes.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tests.training.checkpoints.published_irse import GENUINE, NARROW, draw, list_encoder, list_ir_se50

State = dict[str, Tensor]
KERNEL = torch.tensor([1.0, 3.0, 3.0, 1.0])


@dataclass(frozen=True)
class Sizes:
    """Of all four files."""

    resolution: int
    channels: tuple[int, ...]  # at 4, 8, … px
    w_dim: int
    embed_dim: int
    widths: tuple[int, ...]  # of the encoder's body
    input_px: int  # what the encoder looks at
    hidden: int  # of the motion's mapper
    h_dim: int

    @property
    def num_ws(self) -> int:
        return 2 * len(self.channels)


SMALL = Sizes(64, (12, 10, 8, 6, 6), 16, 16, NARROW, 32, 12, 8)
FULL = Sizes(1024, (512, 512, 512, 512, 512, 256, 128, 64, 32), 512, 512, GENUINE, 256, 1024, 384)


def write_generator(path: Path, sizes: Sizes, seed: int = 0) -> Path:
    """Save what rosinality/stylegan2-pytorch saves: g_ema by its Generator's names, and latent_avg."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(shape, generator=random)

    w_dim, channels = sizes.w_dim, sizes.channels
    state: State = {}
    for layer in range(1, 9):
        state |= {f"style.{layer}.weight": normal(w_dim, w_dim, scale=100), f"style.{layer}.bias": normal(w_dim)}
    state["input.input"] = normal(1, channels[0], 4, 4)

    def styled(name: str, before: int, after: int, up: bool) -> State:
        layer = {
            f"{name}.conv.weight": normal(1, after, before, 3, 3),
            f"{name}.conv.modulation.weight": normal(before, w_dim),
            f"{name}.conv.modulation.bias": 1 + normal(before, scale=0.1),
            f"{name}.noise.weight": normal(1, scale=0.1),
            f"{name}.activate.bias": normal(after, scale=0.1),
        }
        return layer | ({f"{name}.conv.blur.kernel": torch.outer(KERNEL, KERNEL) / 16} if up else {})

    def to_rgb(name: str, width: int, up: bool) -> State:
        layer = {
            f"{name}.bias": normal(1, 3, 1, 1, scale=0.1),
            f"{name}.conv.weight": normal(1, 3, width, 1, 1, scale=0.2),
            f"{name}.conv.modulation.weight": normal(width, w_dim),
            f"{name}.conv.modulation.bias": 1 + normal(width, scale=0.1),
        }
        return layer | ({f"{name}.upsample.kernel": torch.outer(KERNEL, KERNEL) / 16} if up else {})

    state |= styled("conv1", channels[0], channels[0], False) | to_rgb("to_rgb1", channels[0], False)
    for i in range(1, len(channels)):
        before, after = channels[i - 1], channels[i]
        state |= styled(f"convs.{2 * i - 2}", before, after, True) | styled(f"convs.{2 * i - 1}", after, after, False)
        state |= to_rgb(f"to_rgbs.{i - 1}", after, True)
    state["noises.noise_0"] = normal(1, 1, 4, 4)
    for i in range(1, len(channels)):
        edge = 4 * 2**i
        state |= {f"noises.noise_{2 * i - k}": normal(1, 1, edge, edge) for k in (1, 0)}
    torch.save({"g_ema": state, "latent_avg": normal(w_dim, scale=0.3)}, path)
    return path


def write_encoder(path: Path, sizes: Sizes, decoder: Path | None = None) -> Path:
    """Save what e4e saves; with `decoder`, a generator's file, its generator along."""
    state = {f"encoder.{k}": v for k, v in draw(list_encoder(
        sizes.resolution, sizes.widths, sizes.w_dim, sizes.input_px)).items()}  # fmt: skip
    average = torch.zeros(sizes.num_ws, sizes.w_dim)
    if decoder is not None:
        held = torch.load(decoder, weights_only=True)
        state |= {f"decoder.{name}": value for name, value in held["g_ema"].items()}
        average += held["latent_avg"]
    opts = {"encoder_type": "Encoder4Editing", "start_from_latent_avg": True, "stylegan_size": sizes.resolution}
    torch.save({"state_dict": state, "latent_avg": average, "opts": opts}, path)
    return path


def write_identity(path: Path) -> Path:
    """Save a narrow ir_se50."""
    torch.save(draw(list_ir_se50(NARROW, 8)), path)
    return path


def write_motion(path: Path, sizes: Sizes, clip_state: State | None = None, seed: int = 1) -> Path:
    """Save what the published code saves."""
    random = torch.Generator().manual_seed(seed)
    embed, h_dim, hidden = sizes.embed_dim, sizes.h_dim, sizes.hidden
    plain = {"fc1": (embed, h_dim), "fc2": (2 * h_dim, embed), "fc3": (2 * h_dim, h_dim)}
    state: State = {}
    for name, (before, after) in plain.items():
        state[f"module.rnn.{name}.weight"] = torch.randn(after, before, generator=random) / math.sqrt(before)
        state[f"module.rnn.{name}.bias"] = 0.1 * torch.randn(after, generator=random)
    for mapper in ("v_mapper", "t_mapper"):
        for i, (before, after) in enumerate(
            [(embed, hidden), (hidden, hidden), (hidden, sizes.num_ws * sizes.w_dim)], start=1
        ):
            state[f"module.mapper.{mapper}.{i}.weight"] = torch.randn(after, before, generator=random)
            state[f"module.mapper.{mapper}.{i}.bias"] = 0.05 * torch.randn(after, generator=random)
    state |= {f"module.encoder.{name}": value for name, value in (clip_state or {}).items()}
    torch.save({"iter": 5000, "arch": "RN50", "state_dict": state, "optimizer": {}}, path)
    return path


def write_clip(folder: Path, base: Path) -> Path:
    """Save a CLIP of ViT-B/32's size as Hugging Face does, with the tokenizer of another folder."""
    import shutil

    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    config = CLIPConfig.from_pretrained(base)
    config.text_config.update({
        "hidden_size": 512, "intermediate_size": 2048, "num_attention_heads": 8, "num_hidden_layers": 12,
        "max_position_embeddings": 77, "projection_dim": 512,
    })  # fmt: skip
    config.vision_config.update({
        "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12,
        "image_size": 224, "patch_size": 32, "projection_dim": 512,
    })  # fmt: skip
    config.projection_dim = 512
    CLIPModel(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"):
        if (base / file).exists():
            shutil.copy(base / file, folder / file)
    return folder


if __name__ == "__main__":
    from tests.training.checkpoints.test_clip import _save

    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    write_generator(target / "stylegan2-1024.pt", FULL)
    write_encoder(target / "e4e.pt", FULL)
    write_motion(target / "motion.pt", FULL)
    write_clip(target / "clip", _save(target / "tiny-clip"))
