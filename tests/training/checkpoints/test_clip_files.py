"""CLIP from OpenAI's files: the towers compute what the original computes, and nothing in a file is run."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import CLIPModel

from model.bpe import ClipTokenizer
from model.sessions import open_graph
from tests.training.checkpoints.openai_files import VOCAB_SIZE, make_clip, publish, write_archive, write_merges
from tests.training.golden import GOLDEN
from training.checkpoints.clip_files import read_clip
from training.checkpoints.openai_clip import build_openai_clip
from training.checkpoints.spec import read_spec, rebuild
from training.errors import CheckpointMismatchError, DataError
from training.export.graphs import export_module
from training.networks.clip_resnet import ClipResNet

SENTENCES = ["she smiles", "A man isn't winking at all!", "no"]
TOKENIZER = Tokenizer(BPE())
"""Where sentences are given as token ids."""


@pytest.fixture(scope="module")
def original() -> CLIPModel:
    return make_clip()


@pytest.fixture
def state(original):
    return publish(original)


@pytest.fixture
def folder(tmp_path):
    write_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    return tmp_path


def features(found) -> torch.Tensor:
    found = found if isinstance(found, torch.Tensor) else found.pooler_output
    return F.normalize(found.detach(), dim=-1)


def assert_same_towers(towers, original: CLIPModel, tolerance: float) -> None:
    ids, mask = towers.encode(SENTENCES)
    wanted = features(original.get_text_features(input_ids=ids, attention_mask=mask))
    embeds = towers.embed_texts(SENTENCES)
    assert (embeds - wanted).abs().max() < tolerance
    assert (embeds[0] - embeds[1]).abs().max() > 0.05
    pictures = torch.rand(2, 3, 42, 42, generator=torch.Generator().manual_seed(4)) * 2 - 1
    pixels = ((pictures + 1) / 2 - towers.images.mean) / towers.images.std
    assert (towers.embed_images(pictures) - features(original.get_image_features(pixels))).abs().max() < tolerance


@pytest.mark.parametrize("case", ["openai-clip-vit", "openai-clip-resnet"])
def test_both_kinds_of_towers_compute_what_openais_code_does(case):
    state = rebuild(read_spec(GOLDEN / case))
    wanted = np.load(GOLDEN / case / "case.npz")
    towers = build_openai_clip(state, TOKENIZER, Path(case))
    image = towers.images.vision(torch.from_numpy(wanted["pixels"])).numpy()
    assert np.abs(image - wanted["image_features"]).max() <= 2e-6 * np.abs(wanted["image_features"]).max()
    ids = torch.from_numpy(wanted["input_ids"])
    mask = (torch.arange(16) <= ids.argmax(1, keepdim=True)).long()
    text = F.normalize(torch.from_numpy(wanted["text_features"]), dim=1)
    assert (towers.texts(ids, mask) - text).abs().max() <= 1e-5


def test_a_state_dict_is_read_as_transformers_computes_it(original, state, folder):
    torch.save(state, folder / "ViT.pt")
    towers = read_clip(folder / "ViT.pt")
    assert towers.embed_dim == 20
    assert towers.images.size_px == 42
    assert not any(parameter.requires_grad for parameter in towers.parameters())
    assert_same_towers(towers, original, 1e-5)


def test_training_runs_wrap_the_state_dict(original, state, folder):
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in state.items()}}
    torch.save(wrapped, folder / "tuned.pt")
    assert_same_towers(read_clip(folder / "tuned.pt"), original, 1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_the_published_archive_is_read_without_running_it(original, state, folder, monkeypatch):
    whole = write_archive(state, folder / "whole.pt")

    def refuse(*_, **__):
        raise AssertionError("TorchScript was run")

    monkeypatch.setattr(torch.jit, "load", refuse)
    monkeypatch.setattr(torch._C, "import_ir_module", refuse)
    spoilt = folder / "spoilt.pt"
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(spoilt, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"this is no program" if "/code/" in name else source.read(name))
    # half-precision weights, as OpenAI's are
    assert_same_towers(read_clip(spoilt), original, 5e-3)
    assert torch.equal(read_clip(spoilt).embed_texts(SENTENCES), read_clip(whole).embed_texts(SENTENCES))


def test_serving_splits_sentences_alike(state, folder):
    torch.save(state, folder / "ViT.pt")
    towers = read_clip(folder / "ViT.pt")
    served = ClipTokenizer(json.loads(towers.tokenizer.to_str()))
    for sentence in (*SENTENCES, "It's ünïcode, 2nd smiles"):
        assert served.encode(sentence, 24) == towers.encode([sentence])[0][0].tolist()
    assert served.encode("she smiles", 24)[1:-1] == [518, 517]


def test_the_residual_tower_exports():
    state = rebuild(read_spec(GOLDEN / "openai-clip-resnet"))
    towers = build_openai_clip(state, TOKENIZER, Path("RN.pt"))
    image = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(1)) * 2 - 1
    graph = export_module(towers.images, (image,), ["image"], ["image_embed"])
    given = open_graph(graph.SerializeToString()).run(image=image[:1].numpy())["image_embed"]
    assert np.abs(given - towers.embed_images(image[:1]).numpy()).max() < 1e-5


@pytest.mark.parametrize(("units", "edge", "embed_dim", "width"), [((1, 1, 2, 1), 2, 12, 4), ((2, 1, 1, 1), 3, 8, 6)])
def test_the_residual_towers_sizes_are_read_off_the_tensors(units, edge, embed_dim, width, state, original):
    state = {name: value for name, value in state.items() if not name.startswith("visual.")}
    state["text_projection"] = state["text_projection"][:, :embed_dim]
    tower = ClipResNet(width, units, edge, embed_dim)
    state |= {f"visual.{_publish_residual(name)}": value for name, value in tower.state_dict().items()}
    towers = build_openai_clip(state, TOKENIZER, Path("RN.pt"))
    assert towers.images.size_px == 32 * edge
    assert towers.embed_images(torch.zeros(1, 3, 50, 50)).shape == (1, embed_dim)
    pixels = torch.rand(2, 3, 32 * edge, 32 * edge)
    assert torch.equal(towers.images.vision(pixels), tower.eval()(pixels))


def _publish_residual(name: str) -> str:
    """Give OpenAI's name of a tensor of our residual tower."""
    pool = {"positions": "positional_embedding", "q": "q_proj", "k": "k_proj", "v": "v_proj", "out": "c_proj"}
    if name.startswith("pool."):
        part, _, kind = name.removeprefix("pool.").partition(".")
        return f"attnpool.{pool[part]}{kind and '.'}{kind}"
    for stage in range(4):
        name = name.replace(f"stages.{stage}.", f"layer{stage + 1}.")
    return name.replace("stem.", "").replace("norm", "bn").replace("shortcut", "downsample")


def test_what_does_not_fit_is_named(state, folder):
    path = folder / "ViT.pt"

    def refusal(changed: dict) -> str:
        torch.save(changed, path)
        with pytest.raises((CheckpointMismatchError, DataError)) as caught:
            read_clip(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    def without(name: str) -> dict:
        return {key: value for key, value in state.items() if key != name}

    assert "visual_projection.weight" in refusal(without("visual.proj"))
    assert "layers.2.self_attn.k_proj.bias" in refusal(without("visual.transformer.resblocks.2.attn.in_proj_bias"))
    assert "visual.ln_post.bias gives [7]" in refusal(state | {"visual.ln_post.bias": torch.zeros(7)})
    assert "no square" in refusal(state | {"visual.positional_embedding": torch.zeros(9, 128)})
    assert "tensor visual.proj gives [2, 2, 2]" in refusal(state | {"visual.proj": torch.zeros(2, 2, 2)})
    assert "in_proj_bias gives" in refusal(
        state | {"visual.transformer.resblocks.0.attn.in_proj_bias": torch.zeros(())}
    )
    assert "ls_1.gamma" in refusal(state | {"visual.transformer.resblocks.0.ls_1.gamma": torch.zeros(128)})
    assert "resblocks.0.mlp.c_fc.weight" in refusal(
        {name: value for name, value in state.items() if not name.startswith("transformer.")}
    )


def test_other_files_are_told_apart(folder):
    path = folder / "motion.pt"
    torch.save({"state_dict": {"module.rnn.fc1.weight": torch.zeros(3, 3)}}, path)
    with pytest.raises(DataError, match=r"not a CLIP.*--motion"):
        read_clip(path)
    make_clip().save_pretrained(folder / "hf")
    with pytest.raises(DataError, match="give its folder"):
        read_clip(folder / "hf" / "model.safetensors")
    with pytest.raises(DataError, match="does not exist"):
        read_clip(folder / "nothing.pt")


def test_the_package_that_is_missing_is_told(original, state, folder, monkeypatch):
    torch.save(state, folder / "ViT.pt")
    original.save_pretrained(folder / "hf")
    monkeypatch.setitem(sys.modules, "transformers", None)
    for path in (folder / "ViT.pt", folder / "hf"):
        with pytest.raises(DataError, match=r"pip install 'animato\[clip\]'"):
            read_clip(path)


def test_a_vocabulary_of_another_size_is_told(state, folder):
    state["token_embedding.weight"] = torch.zeros(VOCAB_SIZE + 40, 64)
    torch.save(state, folder / "ViT.pt")
    with pytest.raises(DataError, match="holds no 57 merges"):
        read_clip(folder / "ViT.pt")
