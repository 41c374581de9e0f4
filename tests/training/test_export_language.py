"""The bundle's scale of understanding, measured on a tower, and the tokenizer with its aliases."""

import json
import re
import zlib

import pytest
import torch
import torch.nn.functional as F

from model.language import LanguageScale
from model.tokenizer import WordPieceTokenizer
from training.export import language
from training.export.language import SHOWN_NAMES, describe_language
from training.faces.captions import EXPRESSION_CLASSES
from training.faces.wording import common_phrases, normalise, reserved_phrases, short_phrases
from training.lessons import LABELS
from training.vocabulary import (
    build_tokenizer,
    count_rows,
    find_aliases,
    mistyped,
    select_tokens,
    write_tokenizer,
)

DIMS = 2048


def embed(texts: list[str]) -> torch.Tensor:
    """A tower that only counts words: enough to tell many sentences apart."""
    counts = torch.full((len(texts), DIMS), 1e-3)
    for row, text in enumerate(texts):
        for word in re.findall("[a-z]+", text.lower()):
            counts[row, zlib.crc32(word.encode()) % DIMS] += 1
    return F.normalize(counts, dim=1)


def test_the_bounds_are_what_unrelated_and_plain_sentences_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = torch.eye(len(LABELS))
    monkeypatch.setattr(language, "class_prototypes", lambda _: axes)
    monkeypatch.setattr(language, "weak_prototypes", lambda _: F.normalize(axes[:-1] + 3 * axes[-1], dim=1) * 1e-3)
    asked = {c.text: EXPRESSION_CLASSES.index(c.targets[0][0]) for c in language.plain_captions(220, 91)}

    def knowing(texts: list[str]) -> torch.Tensor:
        """Plain captions lie 0.8 from their expression, all others 0.3 from smiling and else with the neutral one."""
        rows = []
        for text in texts:
            cosine, place = (0.8, asked[text]) if text in asked else (0.3, 0)
            rows.append(cosine * axes[place] + (1 - cosine**2) ** 0.5 * axes[-1])
        return torch.stack(rows)

    found = json.loads(describe_language(knowing, count=220))
    assert (found["floor"], found["ceiling"]) == (pytest.approx(0.3), pytest.approx(0.8))
    scale = LanguageScale.from_bytes(json.dumps(found).encode(), len(LABELS))
    assert scale.judge([axes[0].numpy()]).understood_as == "smiling"
    assert scale.judge([(0.55 * axes[0] + 0.7 * axes[-1]).numpy()]).similarity == pytest.approx(0.5)


def test_a_tower_that_tells_nothing_apart_still_has_bounds_in_order() -> None:
    found = json.loads(describe_language(embed, count=110))
    assert found["floor"] < found["ceiling"]
    assert len(found["prototypes"]) == len(found["names"]) == len(LABELS) + len(EXPRESSION_CLASSES)
    assert found["paired"] == len(EXPRESSION_CLASSES)


def test_every_shown_name_is_of_a_label() -> None:
    assert set(SHOWN_NAMES) <= set(EXPRESSION_CLASSES)
    assert SHOWN_NAMES["wink_l"] == SHOWN_NAMES["wink_r"]


def test_slips_of_the_hand() -> None:
    assert {"suprised", "surprissed", "surpirsed"} <= set(mistyped("surprised"))
    assert "urprised" not in mistyped("surprised")


def test_aliases_are_no_words_and_mean_one_word() -> None:
    found = find_aliases(["smiling", "smirking", "winking", "winding"], {"smiling", "smirking", "winking", "winding"})
    assert found["smilling"] == "smiling"
    assert "wining" not in found, "one slip away from both winking and winding"
    assert not set(found) & {"smiling", "winking", "winding"}
    assert "sad" not in find_aliases(["sadd"], set())


def test_aliases_share_a_row_and_survive_the_file() -> None:
    tokens = select_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz"], (), ["smiling", "wink"])
    tokenizer = build_tokenizer(tokens, {"smilling": "smiling", "a": "wink", "nowhere": "missing"})
    assert count_rows(tokenizer) == len(tokens)
    data = write_tokenizer(tokenizer)
    plain = WordPieceTokenizer.from_bytes(data)
    right = plain.encode("smiling", 8)
    assert plain.encode("smilling", 8) == right == tokenizer.encode("smilling").ids
    assert plain.encode("a", 8) != plain.encode("wink", 8), "a token's own spelling is never an alias"
    again = type(tokenizer).from_str(data.decode())
    assert write_tokenizer(again) == data


def test_no_caption_of_the_scale_is_reserved() -> None:
    asked: list[str] = []

    def listening(texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return embed(texts)

    describe_language(listening, count=44)
    assert len(asked) > len(LABELS) * 90
    assert not {normalise(text) for text in asked} & reserved_phrases() - {""}


@pytest.mark.parametrize("name", EXPRESSION_CLASSES)
def test_captions_of_every_class_have_common_and_short_wordings(name: str) -> None:
    assert len(common_phrases(name)) >= 10
    assert len(short_phrases(name)) >= 3
