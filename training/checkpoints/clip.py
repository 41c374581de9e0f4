"""CLIP as towers for the losses, and the same towers as graphs for a bundle; and CLIP from Hugging Face's folders.

For: training with real checkpoints, and imports. The folder is the user's own; nothing is ever downloaded, and weights
are read from safetensors alone; OpenAI's own files are read by `openai_clip`. Needs the optional extra `clip` (the
`transformers` package), which nothing else needs. The graphs are written out in plain operators over transformers' own
modules, since its mask building can't be exported; a test compares both with `get_text_features` and
`get_image_features`.
Must not import: services, worker, model.
"""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from training.errors import DataError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of OpenAI's preprocessing, where the folder has no preprocessor_config.json."""


def resizing_matrix(source: int, target: int) -> Tensor:
    """The bicubic, antialiased resizing of one axis as a matrix, so that it differentiates and exports everywhere.

    Shapes: [target, source].
    """
    if source == target:
        return torch.eye(source)
    identity = torch.eye(source, dtype=torch.float64)[None, None]
    return F.interpolate(identity, (target, source), mode="bicubic", antialias=True, align_corners=False)[0, 0].float()


class ClipImages(nn.Module):
    """Pictures → CLIP's embedding: resizing, normalisation and the vision tower, all differentiable.

    `vision`: pixel values [N,3,size_px,size_px] as CLIP was trained on → embeddings [N,embed_dim] of any length.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, vision: nn.Module, size_px: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD
    ) -> None:
        super().__init__()
        self.vision, self.size_px = vision, size_px
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std)[None, :, None, None], persistent=False)
        self._matrices: dict[int, Tensor] = {}

    def prepare(self, pictures: Tensor) -> Tensor:
        """Shapes: pictures [N,3,R,R] in [-1,1] → pixel values [N,3,size_px,size_px] as CLIP was trained on."""
        edge = pictures.shape[-1]
        if edge not in self._matrices:
            self._matrices[edge] = resizing_matrix(edge, self.size_px)
        matrix = self._matrices[edge].to(pictures)
        resized = matrix @ ((pictures + 1) / 2) @ matrix.t()
        return (resized.clamp(0, 1) - self.mean) / self.std

    def forward(self, image: Tensor) -> Tensor:
        """Shapes: image [N,3,R,R] in [-1,1] → image_embed [N,embed_dim], unit norm."""
        return F.normalize(self.vision(self.prepare(image)), dim=-1)


class VisionTransformer(nn.Module):
    """CLIP's vision transformer with its projection."""

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.layers, self.projection = cast(Any, clip).vision_model, cast(Any, clip).visual_projection
        self.heads: int = self.layers.config.num_attention_heads

    def forward(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels [N,3,size_px,size_px] → [N,embed_dim]."""
        x = self.layers.pre_layrnorm(self.layers.embeddings(pixels))
        for layer in self.layers.encoder.layers:
            x = run_layer(layer, x, self.heads, None)
        embed: Tensor = self.projection(self.layers.post_layernorm(x[:, 0]))
        return embed


class ClipTexts(nn.Module):
    """Token ids → CLIP's embedding of the sentence."""

    causal: Tensor

    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        text = cast(Any, clip).text_model
        self.text, self.projection = text, cast(nn.Linear, cast(Any, clip).text_projection)
        self.heads: int = text.config.num_attention_heads
        self.max_tokens: int = text.config.max_position_embeddings
        hidden = torch.ones(self.max_tokens, self.max_tokens).triu(1) * -1e4
        self.register_buffer("causal", hidden, persistent=False)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Shapes: input_ids, attention_mask int64 [N,L], padded at the end → text_embed [N,embed_dim], unit norm.

        A sentence's last token is the end token, whose state stands for the sentence.
        """
        length = input_ids.shape[1]
        embeddings = self.text.embeddings
        x = embeddings.token_embedding(input_ids) + embeddings.position_embedding.weight[:length]
        bias = self.causal[:length, :length] + (attention_mask.to(x.dtype) - 1)[:, None, None, :] * 1e4
        for layer in self.text.encoder.layers:
            x = run_layer(layer, x, self.heads, bias)
        places = torch.arange(length, device=input_ids.device)
        last = (places == attention_mask.sum(1, keepdim=True) - 1).to(x.dtype)
        pooled = (self.text.final_layer_norm(x) * last[..., None]).sum(1)
        return F.normalize(self.projection(pooled), dim=-1)


def run_layer(layer: nn.Module, x: Tensor, heads: int, bias: Tensor | None) -> Tensor:
    """One layer of either tower, with transformers' own weights.

    Shapes: x [N,L,width], bias broadcast over [N,heads,L,L] and added to the logits → [N,L,width].
    """
    parts = cast(Any, layer)
    n, length, width = x.shape
    attention, normed = parts.self_attn, parts.layer_norm1(x)
    q, k, v = (
        project(normed).reshape(n, length, heads, width // heads).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    logits = q @ k.transpose(2, 3) * (width // heads) ** -0.5
    weights = torch.softmax(logits if bias is None else logits + bias, dim=-1)
    x = x + attention.out_proj((weights @ v).transpose(1, 2).reshape(n, length, width))
    return cast(Tensor, x + parts.mlp(parts.layer_norm2(x)))


class ClipTowers(nn.Module):
    """Both towers of a CLIP with its tokenizer, as the losses want them (`training.paper.towers.Towers`).

    `images` and `texts` are modules of tensors alone: give them to `training.export.graphs.export_module` or
    `torch.onnx.export`. `tokenizer.save(path)` writes the bundle's tokenizer.json (byte-level BPE).
    """

    def __init__(self, images: ClipImages, texts: ClipTexts, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.images, self.texts, self.tokenizer = images, texts, tokenizer
        self.embed_dim: int = texts.projection.out_features

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask of sentences; a cut one still ends in the end token.

        Shapes: int64 [N,L] twice.
        """
        limit = self.texts.max_tokens
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        rows = [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
        length, device = max(map(len, rows)), self.texts.causal.device
        input_ids = torch.tensor([[*row, *[row[-1]] * (length - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=device)
        return input_ids, mask

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Shapes: N sentences → [N,embed_dim], unit norm."""
        embed: Tensor = self.texts(*self.encode(texts))
        return embed

    def embed_images(self, pictures: Tensor) -> Tensor:
        """Shapes: [N,3,R,R] in [-1,1], any R → [N,embed_dim], unit norm, differentiable."""
        embed: Tensor = self.images(pictures)
        return embed


def load_clip(folder: Path, device: torch.device | str = "cpu") -> ClipTowers:
    """Load a CLIP folder, frozen and in evaluation mode: config.json, model.safetensors and a tokenizer.

    Raises: DataError with the folder and what is wrong with it, also where `transformers` is not installed.
    """
    if not (folder / "config.json").is_file():
        raise DataError(f"{folder} is no CLIP folder: it has no config.json (a local path is wanted, not a name)")
    kind = _read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise DataError(f"{folder} holds a model of the type {kind!r}, not 'clip'")
    if not any(folder.glob("*.safetensors")):
        raise DataError(f"{folder} holds no .safetensors weights; pickled ones are never read")
    need_transformers()
    from transformers import CLIPModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # commands say one sentence where something is wrong, and no more
    try:
        clip, told = cast(Any, CLIPModel).from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except Exception as error:  # transformers raises whatever its many readers raise
        raise DataError(f"{folder} can't be read as a CLIP: {_first_line(error)}") from error
    if told["missing_keys"] or told["mismatched_keys"]:
        lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))[0]
        raise DataError(f"the weights in {folder} do not fit its config.json: {lacking}")
    preprocessing = folder / "preprocessor_config.json"
    settings = _read_json(preprocessing) if preprocessing.is_file() else {}
    mean, std = settings.get("image_mean", MEAN), settings.get("image_std", STD)
    images = ClipImages(VisionTransformer(clip), clip.config.vision_config.image_size, mean, std)
    towers = ClipTowers(images, ClipTexts(clip), load_tokenizer(folder))
    return towers.eval().requires_grad_(False).to(device)


def need_transformers() -> None:
    """Make sure of the optional package that CLIP's modules and its tokenizer's rules come from.

    Raises: DataError.
    """
    if find_spec("transformers") is None:
        raise DataError("CLIP needs the package transformers: pip install 'animato[clip]'")


def load_tokenizer(folder: Path) -> Tokenizer:
    """The folder's tokenizer, without padding and truncation: from tokenizer.json, or from vocab.json and merges.txt.

    Raises: DataError.
    """
    try:
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            from transformers import CLIPTokenizer

            read = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
            tokenizer = Tokenizer.from_str(read.backend_tokenizer.to_str())
    except Exception as error:  # both readers raise bare exceptions
        raise DataError(f"the tokenizer in {folder} can't be read: {_first_line(error)}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read as JSON ({_first_line(error)})") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is not a JSON object")
    return found


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
