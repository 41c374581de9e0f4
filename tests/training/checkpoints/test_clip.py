"""CLIP from a folder: our towers compute what transformers computes, differentiate, and export."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_clip import CLIPImageProcessor

from model.sessions import open_graph
from training.checkpoints.clip import ClipTowers, load_clip, resizing_matrix
from training.errors import DataError
from training.export.graphs import export_module
from training.paper.towers import Towers

SENTENCES = ["she smiles", "The man isn't winking at all!", "a"]


def _save(folder: Path) -> Path:
    """A tiny CLIP with random weights, saved by transformers itself."""
    letters = "abcdefghijklmnopqrstuvwxyz'!."
    tokens = [*letters, *(c + "</w>" for c in letters), "sm", "smi", "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer({t: i for i, t in enumerate(tokens)}, [("s", "m"), ("sm", "i")])
    text = {
        "vocab_size": len(tokens), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 32, "projection_dim": 16,
        "bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1,
    }  # fmt: skip
    vision = {
        "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 3,
        "image_size": 32, "patch_size": 8, "projection_dim": 16,
    }  # fmt: skip
    torch.manual_seed(0)
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    for parameter in clip.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape)  # biases and norms count, too
    clip.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessor(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.25]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _save(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def towers(folder: Path) -> ClipTowers:
    return load_clip(folder)


@pytest.fixture(scope="module")
def original(folder: Path) -> CLIPModel:
    return CLIPModel.from_pretrained(folder).eval()


def _pooled(features: object) -> torch.Tensor:
    return features if isinstance(features, torch.Tensor) else features.pooler_output


def test_it_is_a_pair_of_towers(towers: ClipTowers) -> None:
    assert isinstance(towers, Towers)
    assert towers.embed_dim == 16
    assert not any(p.requires_grad for p in towers.parameters())


def test_sentences_are_embedded_as_transformers_does(towers: ClipTowers, original: CLIPModel, folder: Path) -> None:
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    given = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = F.normalize(_pooled(original.get_text_features(**given)), dim=-1)
    embed = towers.embed_texts(SENTENCES)
    assert torch.allclose(embed, wanted, atol=1e-5)
    assert (embed[0] - embed[1]).abs().max() > 1e-2
    assert torch.allclose(embed[2], towers.embed_texts(["a"])[0], atol=1e-5), "padding must not matter"


def test_pictures_are_embedded_as_transformers_does(towers: ClipTowers, original: CLIPModel) -> None:
    pictures = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
    pixels = ((pictures + 1) / 2 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        wanted = F.normalize(_pooled(original.get_image_features(pixel_values=pixels)), dim=-1)
    assert torch.allclose(towers.embed_images(pictures), wanted, atol=1e-5)


@pytest.mark.parametrize("edge", [20, 32, 100])
def test_resizing_is_bicubic_and_antialiased(edge: int) -> None:
    pictures = torch.rand(1, 3, edge, edge)
    matrix = resizing_matrix(edge, 32)
    wanted = F.interpolate(pictures, (32, 32), mode="bicubic", antialias=True)
    assert torch.allclose(matrix @ pictures @ matrix.t(), wanted, atol=1e-4)


def test_a_picture_can_be_moved_towards_a_sentence(towers: ClipTowers) -> None:
    torch.manual_seed(1)
    picture = (torch.rand(1, 3, 48, 48) * 2 - 1).requires_grad_()
    sentence = towers.embed_texts(["she smiles"])
    before = (towers.embed_images(picture) * sentence).sum()
    (gradient,) = torch.autograd.grad(before, picture)
    assert gradient.abs().max() > 0
    after = (towers.embed_images((picture + 0.05 * gradient.sign()).clamp(-1, 1)) * sentence).sum()
    assert after > before


def test_a_long_sentence_is_cut_and_still_ends(towers: ClipTowers, original: CLIPModel) -> None:
    input_ids, mask = towers.encode(["a" * 60, "a"])
    assert input_ids.shape == (2, 32)
    end = original.config.text_config.eos_token_id
    assert input_ids[0, -1] == end
    assert mask.sum(1).tolist() == [32, 3]


def test_both_towers_export(towers: ClipTowers) -> None:
    image = torch.rand(2, 3, 40, 40) * 2 - 1
    graph = export_module(towers.images, (image,), ["image"], ["image_embed"])
    given = open_graph(graph.SerializeToString()).run(image=image[:1].numpy())["image_embed"]
    assert torch.allclose(torch.from_numpy(given), towers.embed_images(image[:1]), atol=1e-4)
    input_ids, mask = towers.encode(SENTENCES)
    axes = {0: torch.export.Dim("N"), 1: torch.export.Dim("L", max=towers.texts.max_tokens)}
    program = torch.onnx.export(
        towers.texts, (input_ids, mask), dynamo=True, input_names=["input_ids", "attention_mask"],
        output_names=["text_embed"], dynamic_shapes=(axes, axes), verbose=False,
    )  # fmt: skip
    assert program is not None
    session = open_graph(program.model_proto.SerializeToString())
    for texts in (SENTENCES, SENTENCES[:1]):
        input_ids, mask = towers.encode(texts)
        given = session.run(input_ids=input_ids.numpy(), attention_mask=mask.numpy())["text_embed"]
        assert torch.allclose(torch.from_numpy(given), towers.embed_texts(texts), atol=1e-4)


def test_the_older_tokenizer_files_do_as_well(towers: ClipTowers, folder: Path, tmp_path: Path) -> None:
    other = _save(tmp_path / "clip")
    definition = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").unlink()
    (other / "vocab.json").write_text(json.dumps(definition["model"]["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in definition["model"]["merges"]]
    (other / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    assert load_clip(other).encode(SENTENCES)[0].tolist() == towers.encode(SENTENCES)[0].tolist()


def test_bad_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no config\.json"):
        load_clip(tmp_path / "openai" / "clip-vit-base-patch32")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(DataError, match="'bert'"):
        load_clip(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(DataError, match="pickled ones are never read"):
        load_clip(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="can't be read as a CLIP"):
        load_clip(tmp_path)


def test_weights_of_another_shape_are_told(tmp_path: Path) -> None:
    other = _save(tmp_path / "clip")
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"do not fit|can't be read"):
        load_clip(other)
