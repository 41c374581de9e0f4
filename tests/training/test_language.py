"""The language stage: learns in seconds without a teacher, saves what it computes, and exports it unchanged."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from model.tokenizer import WordPieceTokenizer
from training.export.text import export_text_tower
from training.faces.captions import Caption, sample_caption
from training.faces.parameters import EXPRESSION_FACTORS
from training.faces.wording import heldout_phrases
from training.language import contrast, draw_window, embed_texts, judge_heldout, load_text_tower, run, save_text_tower
from training.lessons import (
    LABELS,
    MOVED_FACTORS,
    SMOKE,
    factor_change,
    label,
    strengths,
)
from training.networks.text import MAX_TOKENS, TextTower, quantise_rows, recall
from training.vocabulary import EMOJI, SAME_FACE, build_tokenizer, encode_rows, select_tokens

pytestmark = pytest.mark.timeout(600)  # seconds on an idle core, minutes where others want it too


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("text"), SMOKE, report=lambda _: None)


def test_smoke_training_learns_plain_words(trained: Path) -> None:
    dev = json.loads((trained / "stats.json").read_text(encoding="utf-8"))["dev"]
    assert dev["top1"] > 0.25  # chance is 0.05; a good tower takes minutes and the teacher
    tower, tokenizer = load_text_tower(trained)
    embed = embed_texts(tower, tokenizer, ["laughing", "she laughs loudly", "look to the right"])
    assert torch.allclose(embed.norm(dim=1), torch.ones(3), atol=1e-5)
    assert embed[0] @ embed[1] > embed[0] @ embed[2] + 0.05


def test_a_finished_run_is_not_done_again(trained: Path) -> None:
    before = (trained / "tower.safetensors").stat().st_mtime_ns
    said: list[str] = []
    run(trained, SMOKE, report=said.append)
    assert (trained / "tower.safetensors").stat().st_mtime_ns == before
    assert said == [f"language: finished before in {trained}"]


def test_the_heldout_list_is_judged_apart(trained: Path) -> None:
    assert "heldout" not in json.loads((trained / "stats.json").read_text(encoding="utf-8"))
    result = judge_heldout(trained)
    assert json.loads((trained / "stats.json").read_text(encoding="utf-8"))["heldout"]["top1"] == result.top1
    assert set(result.by_class) == set(heldout_phrases())
    assert result.top1 > 0.15


def test_the_same_seed_gives_the_same_tower(tmp_path: Path) -> None:
    brief = replace(SMOKE, steps=4, captions=300)
    towers = [load_text_tower(run(tmp_path / name, brief, report=lambda _: None))[0] for name in ("a", "b")]
    for one, other in zip(towers[0].parameters(), towers[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_missing_tower_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run the language stage first"):
        load_text_tower(tmp_path)


def test_export_computes_what_torch_computes(trained: Path, tmp_path: Path) -> None:
    tower, _ = load_text_tower(trained)
    assert export_text_tower(tower, tmp_path / "text.onnx") < 1e-5
    shape = [tower.dims["vocabulary_size"], tower.dims["table_dim"]]
    tables = [t for t in onnx.load(str(tmp_path / "text.onnx")).graph.initializer if list(t.dims) == shape]
    assert [t.data_type for t in tables] == [onnx.TensorProto.INT8]


def test_padding_does_not_change_the_embedding(trained: Path) -> None:
    tower, tokenizer = load_text_tower(trained)
    alone = embed_texts(tower, tokenizer, ["smiling"])
    beside = embed_texts(tower, tokenizer, ["smiling", "an old man who has been waiting for a very long time, smiling"])
    assert torch.allclose(alone[0], beside[0], atol=1e-5)


def test_word_order_can_matter() -> None:
    torch.manual_seed(0)
    tower = TextTower(40, table_dim=8, width=16, layers=1, heads=2, inner=16, embed_dim=8).eval()
    one, other = torch.tensor([[2, 10, 11, 12, 3]]), torch.tensor([[2, 12, 11, 10, 3]])
    mask = torch.ones_like(one)
    assert (tower(one, mask) - tower(other, mask)).abs().max() > 1e-4


def test_quantised_rows_are_near_and_stay() -> None:
    table = torch.randn(50, 16) * torch.logspace(-3, 2, 50)[:, None]
    small, scale = quantise_rows(table)
    assert small.dtype == torch.int8
    assert ((small * scale - table).abs() <= 0.5001 * scale).all()
    again, _ = quantise_rows(small * scale)
    assert torch.equal(again, small)


def test_snapping_the_table_makes_torch_and_int8_agree() -> None:
    tower = TextTower(40, table_dim=8, width=16, layers=1, heads=2, inner=16, embed_dim=8)
    tower.snap_table()
    small, scale = quantise_rows(tower.table.weight.detach())
    assert torch.allclose(small * scale, tower.table.weight, atol=1e-7)


def test_a_remembered_sentence_stays_and_a_stranger_comes_nearer() -> None:
    generator = torch.Generator().manual_seed(3)
    memory = torch.nn.functional.normalize(torch.randn(20, 32, generator=generator), dim=1)
    assert torch.allclose(recall(memory, memory), memory, atol=1e-3)
    stranger = torch.nn.functional.normalize(memory[:1] + 0.8 * memory[1:2], dim=1)
    before, after = (x @ memory[0] for x in (stranger, recall(stranger, memory)))
    assert float(after) > float(before) + 0.05


def test_a_tower_with_a_memory_is_kept_and_exported(trained: Path, tmp_path: Path) -> None:
    tower, tokenizer = load_text_tower(trained)
    assert tower.dims["memory_rows"] == 200
    save_text_tower(tower, tokenizer, tmp_path)
    again, _ = load_text_tower(tmp_path)
    texts = ["smiling", "a livid man"]
    assert torch.equal(embed_texts(again, tokenizer, texts), embed_texts(tower, tokenizer, texts))


def test_meaning_of_captions() -> None:
    wink = Caption("x", (("wink_l", 1.0),))
    change = dict(zip([f.name for f in MOVED_FACTORS], factor_change(wink), strict=True))
    eye = next(f for f in EXPRESSION_FACTORS if f.name == "eye_l")
    assert change["eye_l"] == pytest.approx(-eye.mean / (0.5 * (eye.high - eye.low)))
    assert change["eye_r"] == 0
    assert not factor_change(Caption("a red car", ())).any()
    assert label(Caption("a red car", ())) == len(LABELS) - 1
    assert label(Caption("x", (("smile", 1.0), ("wink_l", 1.0)))) == -1
    assert strengths(wink).sum() == 1


def test_contrast_prefers_clusters() -> None:
    labels = torch.tensor([0, 0, 1, 1, -1])
    apart = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [-1, 0], [-1, 0.1], [0, 1]]), dim=1)
    mixed = apart[[0, 2, 1, 3, 4]]
    assert contrast(apart, labels) < contrast(mixed, labels) - 1


def test_windows_stay_in_the_list_and_reach_both_ends() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([draw_window(500, 8, generator, reach=4) for _ in range(400)])
    assert int(drawn.min()) == 0
    assert int(drawn.max()) == 499
    assert len(draw_window(3, 8, generator)) == 8


HARD = [
    "She isn’t smiling!", "haha😂😂", "crème brûlée", "  tabs\tand\nlines ", "笑って please", "ﬁne — a “quote”…",
    "☹️ so sad", "e\u0301lated", "zero\u200bwidth", "x" * 130, "", "!!!", "100% sure, isn't it?", "ΑΣ σας", "wink;)wink",
    "\x00bell\x07",
]  # fmt: skip


def test_plain_python_tokenizer_agrees(trained: Path) -> None:
    _, reference = load_text_tower(trained)
    plain = WordPieceTokenizer.from_bytes((trained / "tokenizer.json").read_bytes())
    rng = np.random.default_rng(3)
    texts = [*HARD, *(sample_caption(rng).text for _ in range(500))]
    for text, wanted in zip(texts, encode_rows(reference, texts, MAX_TOKENS), strict=True):
        assert plain.encode(text, MAX_TOKENS) == wanted, text


def test_selected_tokens_drop_foreign_scripts_and_gain_emoji() -> None:
    tokens = select_tokens(["[PAD]", "[unused3]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "smile", "##d", "の", "’", "!"])
    assert tokens[:8] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "smile", "##d", "’", "!"]
    assert len(tokens) == 8 + 2 * len(EMOJI)
    tokenizer = build_tokenizer(tokens)
    assert tokenizer.encode("smile😂😂").tokens == ["[CLS]", "smile", "##😂", "##😂", "[SEP]"]


def test_emoji_that_say_the_same_share_a_row() -> None:
    assert not set(SAME_FACE) & set(SAME_FACE.values()), "no chains"
    rows = build_tokenizer(select_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "smile"])).get_vocab()
    for sign, face in SAME_FACE.items():
        assert rows[sign] == rows[face]
        assert rows[f"##{sign}"] == rows[f"##{face}"]
