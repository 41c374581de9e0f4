"""Writes CLIPs as OpenAI's own files hold them: names from transformers' model, TorchScript archives, merges."""

import gzip
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

MERGES = [("s", "m"), ("sm", "i"), ("l", "e"), ("h", "e</w>"), ("le", "s</w>"), ("smi", "les</w>"), ("s", "he</w>")]
MERGES += [(letter, "n</w>") for letter in "aeiou"] + [("w", letter) for letter in "aeiou"]
VOCAB_SIZE = 512 + len(MERGES) + 2
PARTS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "conv1.weight",
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
    "encoder.layers": "transformer.resblocks",
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def make_clip(seed: int = 0, embed_dim: int = 20) -> CLIPModel:
    """A small CLIP with random weights; the towers differ in every size, and heads are 64 wide as OpenAI's are."""
    text = {
        "vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
        "num_attention_heads": 1, "max_position_embeddings": 24, "hidden_act": "quick_gelu",
        "bos_token_id": VOCAB_SIZE - 2, "eos_token_id": VOCAB_SIZE - 1, "pad_token_id": VOCAB_SIZE - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 2,
        "image_size": 42, "patch_size": 14, "hidden_act": "quick_gelu",
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=embed_dim))
        for parameter in clip.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)  # biases and norms count, too
    return clip.eval()


def publish(clip: CLIPModel) -> dict[str, Tensor]:
    """Give the weights of transformers' model under OpenAI's names."""
    state = {name: value.detach().clone() for name, value in clip.state_dict().items() if "position_ids" not in name}
    published = {
        "logit_scale": state.pop("logit_scale"),
        "text_projection": state.pop("text_projection.weight").t(),
        "visual.proj": state.pop("visual_projection.weight").t(),
    }
    for tower in ("text_model", "vision_model"):
        for name in [name for name in state if re.match(rf"{tower}.*q_proj", name)]:
            parts = [state.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
            state[re.sub(r"self_attn\.q_proj\.", "attn.in_proj_", name)] = torch.cat(parts)
    for name, value in state.items():
        tower, _, rest = name.partition(".")
        for theirs, openais in PARTS.items():
            rest = rest.replace(theirs, openais)
        published[f"visual.{rest}" if tower == "vision_model" else rest] = value
    return published


def write_archive(state: Mapping[str, Tensor], path: Path) -> Path:
    """Save tensors as a TorchScript archive in half precision, with the sizes and the mask that OpenAI's hold."""
    root = nn.Module()
    for name, value in state.items():
        _place(root, name).register_parameter(
            name.rpartition(".")[2], nn.Parameter(value.half() if value.ndim > 1 else value)
        )
    for name, size in (("input_resolution", 42), ("context_length", 24), ("vocab_size", VOCAB_SIZE)):
        root.register_buffer(name, torch.tensor(size))
    _place(root, "transformer.resblocks.0.attn_mask").attn_mask = torch.ones(24, 24).triu(1)
    torch.jit.script(root).save(str(path))
    return path


def write_merges(path: Path) -> Path:
    """Write a list of merges in OpenAI's form, with more at the end than the vocabulary takes."""
    lines = ['"bpe_simple_vocab_16e6.txt#version: 0.2', *(" ".join(pair) for pair in MERGES), "q x", "x q"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return path


def _place(root: nn.Module, name: str) -> nn.Module:
    """Give the module that a dotted name lies in, made as needed."""
    for part in name.split(".")[:-1]:
        if part not in dict(root.named_children()):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    return root
