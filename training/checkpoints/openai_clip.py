"""CLIP under OpenAI's names: sizes off the tensors' shapes, weights into transformers' modules or our residual tower.

Every published size is known: ViT-B/32, B/16, L/14, L/14 at 336 px; RN50, RN101, RN50x4, x16, x64. The activation is
OpenAI's quick GELU, which no tensor tells: OpenCLIP's own trainings have these names and the common GELU, so they want
Hugging Face's form, whose config.json says so.
Must not import: services, worker, model.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.checkpoints.clip import ClipImages, ClipTexts, ClipTowers, VisionTransformer, need_transformers
from training.errors import CheckpointMismatchError
from training.networks.clip_resnet import HEAD_DIM, ClipResNet

PARTS = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.proj": "visual_projection.weight",
}
LAYER_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
POOL_PARTS = {"positional_embedding": "positions", "q_proj": "q", "k_proj": "k", "v_proj": "v", "c_proj": "out"}
TRANSPOSED = {"text_projection", "visual.proj"}
UNUSED = {"logit_scale", "input_resolution", "context_length", "vocab_size"}
"""What files hold beside the towers."""
COUNTER = "num_batches_tracked"
"""Of batch norms; nothing in a forward pass reads it."""


def build_openai_clip(
    state: Mapping[str, Tensor], tokenizer: Tokenizer, path: Path, extras: bool = False
) -> ClipTowers:
    """Build the towers, as float32, frozen and in evaluation mode.

    `path` is for messages. `extras`: tensors of other names are left out instead of refused.

    Raises: CheckpointMismatchError that names the tensor which is missing, of another shape, or not known; DataError
    where `transformers` is not installed.
    """
    need_transformers()
    from transformers import CLIPTextModelWithProjection

    sizes = _Sizes(state, path)
    named = {
        ours: (theirs, part)
        for theirs, value in state.items()
        if theirs not in UNUSED and not theirs.endswith(COUNTER)
        for ours, part in translate(theirs, value, sizes.residual)
    }
    with torch.random.fork_rng(devices=[]):  # the networks are made with random weights, which nothing else shall feel
        text: Any = CLIPTextModelWithProjection(sizes.text_config())
        vision, images = _build_vision(sizes)
    if not extras:
        _refuse_others(named, {*text.state_dict(), *vision.state_dict()}, path)
    for module in (text, vision):
        _load(module, named, path)
    towers = ClipTowers(images, ClipTexts(text), tokenizer)
    return towers.eval().requires_grad_(False)


def count_tokens(state: Mapping[str, Tensor], path: Path) -> int:
    """Say how many tokens a CLIP's tokenizer must have.

    Raises: CheckpointMismatchError.
    """
    return _Sizes(state, path).shape("token_embedding.weight", 2)[0]


def translate(name: str, value: Tensor, residual: bool) -> Iterator[tuple[str, Tensor]]:
    """Give our names of a tensor with its values, more than one where a file keeps several in one.

    Names that are not known come back as they are.
    """
    if match := re.fullmatch(r"(visual\.)?transformer\.resblocks\.(\d+)\.(.+)\.(\w+)", name.replace("in_proj_", "in.")):
        layers = f"{'vision_model' if match[1] else 'text_model'}.encoder.layers.{match[2]}"
        if match[3] == "attn.in":
            for letter, part in zip("qkv", torch.atleast_1d(value).tensor_split(3), strict=True):
                yield f"{layers}.self_attn.{letter}_proj.{match[4]}", part
        else:
            yield f"{layers}.{LAYER_PARTS.get(match[3], match[3])}.{match[4]}", value
    elif residual and name.startswith("visual."):
        yield _name_residual(name.removeprefix("visual.")), value
    else:
        module, _, kind = name.rpartition(".")
        ours = PARTS.get(name) or (f"{PARTS[module]}.{kind}" if module in PARTS else name)
        yield ours, value.t() if name in TRANSPOSED and value.ndim == 2 else value


def _name_residual(name: str) -> str:
    """Give our name of a tensor of the residual tower."""
    if match := re.fullmatch(r"attnpool\.(\w+)(.*)", name):
        return f"pool.{POOL_PARTS.get(match[1], match[1])}{match[2]}"
    name = name.replace("downsample.", "shortcut.")
    name = re.sub(r"\bbn(\d)\.", r"norm\1.", name)
    if match := re.fullmatch(r"layer([1-4])\.(.+)", name):
        return f"stages.{int(match[1]) - 1}.{match[2]}"
    return f"stem.{name}"


class _Sizes:
    """A CLIP's sizes, as the shapes in a file tell them."""

    def __init__(self, state: Mapping[str, Tensor], path: Path) -> None:
        self.state, self.path = state, path
        self.residual = "visual.attnpool.positional_embedding" in state

    def shape(self, name: str, axes: int) -> tuple[int, ...]:
        """Give a tensor's shape.

        Raises: CheckpointMismatchError where it is missing or has another number of axes.
        """
        if name not in self.state:
            raise CheckpointMismatchError(f"{self.path} lacks the tensor {name}, which every such CLIP of OpenAI's has")
        shape = tuple(self.state[name].shape)
        if len(shape) != axes or 0 in shape:
            raise CheckpointMismatchError(f"{self.path}: tensor {name} is {list(shape)}; {axes} axes are wanted")
        return shape

    def count(self, pattern: str) -> int:
        """Count the layers whose tensors' names begin so, a number taking the place of the group."""
        return len({match[1] for name in self.state if (match := re.match(pattern, name))})

    def heads(self, width: int) -> int:
        """Give the number of heads.

        Raises: CheckpointMismatchError.
        """
        if width % HEAD_DIM:
            raise CheckpointMismatchError(
                f"{self.path}: a tower is {width} wide, which heads of {HEAD_DIM}, as OpenAI's all are, do not divide"
            )
        return width // HEAD_DIM

    def edge(self, name: str) -> int:
        """Give how many places a side of the picture has, of its positional embedding: one for each, and one more.

        Raises: CheckpointMismatchError.
        """
        places = self.shape(name, 2)[0] - 1
        if places != math.isqrt(places) ** 2:
            raise CheckpointMismatchError(f"{self.path}: tensor {name} is for {places} places, which are no square")
        return math.isqrt(places)

    def text_config(self) -> Any:
        """Give the text tower's sizes."""
        from transformers import CLIPTextConfig

        vocab_size, width = self.shape("token_embedding.weight", 2)
        return CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=self.shape("transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            num_hidden_layers=self.count(r"transformer\.resblocks\.(\d+)\."),
            num_attention_heads=self.heads(width),
            max_position_embeddings=self.shape("positional_embedding", 2)[0],
            projection_dim=self.embed_dim,
            hidden_act="quick_gelu",
        )

    def vision_config(self) -> Any:
        """Give the vision transformer's sizes."""
        from transformers import CLIPVisionConfig

        width, _, patch, _ = self.shape("visual.conv1.weight", 4)
        return CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=self.shape("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)[0],
            num_hidden_layers=self.count(r"visual\.transformer\.resblocks\.(\d+)\."),
            num_attention_heads=self.heads(width),
            image_size=patch * self.edge("visual.positional_embedding"),
            patch_size=patch,
            projection_dim=self.embed_dim,
            hidden_act="quick_gelu",
        )

    def build_residual(self) -> ClipResNet:
        """Build the residual tower."""
        a, b, c, d = (self.count(rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
        width = self.shape("visual.layer1.0.conv1.weight", 4)[0]
        self.heads(self.shape("visual.attnpool.c_proj.weight", 2)[1])
        return ClipResNet(width, (a, b, c, d), self.edge("visual.attnpool.positional_embedding"), self.embed_dim)

    @property
    def embed_dim(self) -> int:
        """Length of the embeddings."""
        return self.shape("text_projection", 2)[1]


def _build_vision(sizes: _Sizes) -> tuple[nn.Module, ClipImages]:
    """Give the module that the file's names are for, and the tower that stands on it."""
    if sizes.residual:
        residual = sizes.build_residual()
        return residual, ClipImages(residual, residual.size_px)
    from transformers import CLIPVisionModelWithProjection

    config = sizes.vision_config()
    vision: Any = CLIPVisionModelWithProjection(config)
    return vision, ClipImages(VisionTransformer(vision), config.image_size)


def _load(module: nn.Module, named: Mapping[str, tuple[str, Tensor]], path: Path) -> None:
    """Put weights by our names into a module.

    Raises: CheckpointMismatchError.
    """
    loaded = {}
    for name, wanted in module.state_dict().items():
        if name.endswith(COUNTER):
            loaded[name] = wanted
            continue
        if name not in named:
            raise CheckpointMismatchError(f"{path} is no whole CLIP: it holds nothing for {name}")
        theirs, value = named[name]
        if value.shape != wanted.shape:
            raise CheckpointMismatchError(
                f"{path}: tensor {theirs} gives {list(value.shape)}; {list(wanted.shape)} is what the others ask for"
            )
        loaded[name] = value.float().contiguous()
    module.load_state_dict(loaded, assign=True)


def _refuse_others(named: Mapping[str, tuple[str, Tensor]], known: Collection[str], path: Path) -> None:
    for ours, (theirs, value) in named.items():
        if ours not in known:
            raise CheckpointMismatchError(
                f"{path} holds a tensor {theirs} {list(value.shape)} that OpenAI's CLIPs have no place for: "
                "another kind of CLIP wants Hugging Face's form, a folder with config.json"
            )
