"""The shipped text tower understands what people type: measured through the files of the bundle."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.bundle.reader import read_bundle
from model.sessions import open_graph
from model.tokenizer import WordPieceTokenizer
from training.faces.wording import dev_phrases
from training.language import LABELS, LanguageReport, class_prototypes, judge_embedding
from training.teacher import pad_ids

BUNDLE = Path(__file__).parents[2] / "bundles" / "human"

pytestmark = pytest.mark.timeout(600)


def embed(texts: list[str]) -> torch.Tensor:
    bundle = read_bundle(BUNDLE)
    tokenizer = WordPieceTokenizer.from_bytes(bundle.read(bundle.manifest.tokenizer))
    session = open_graph(bundle.read_graph("text"), "text")
    parts = []
    for start in range(0, len(texts), 64):
        input_ids, mask = pad_ids([tokenizer.encode(text, 64) for text in texts[start : start + 64]])
        parts.append(session.run(input_ids=input_ids.numpy(), attention_mask=mask.numpy())["text_embed"])
    return torch.from_numpy(np.concatenate(parts))


@pytest.fixture(scope="module")
def report() -> LanguageReport:
    return judge_embedding(embed, dev_phrases())


def test_development_phrases_are_understood(report: LanguageReport) -> None:
    assert report.top1 >= 0.85
    assert report.top1_open >= 0.84


@pytest.mark.parametrize("kind", ["neutral", "negated", "unrelated", "compounds"])
def test_sentences_without_one_plain_expression(report: LanguageReport, kind: str) -> None:
    assert report.by_class[kind] >= 0.75, report.mistakes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("she smiles", "smile"), ("SMILE!!!", "smile"), ("not smiling", "neutral"), ("not smiling but sad", "sad"),
        ("winks with the right eye", "wink_r"), ("winking", "wink_l"),
        ("haha😂", "laugh"), ("a red car", "neutral"), ("blinks", "blink"), ("closing eyes", "close_eyes"),
        ("The person is angry.", "angry"), ("The person is opening mouth.", "open_mouth"), ("", "neutral"),
    ],
)  # fmt: skip
def test_plain_sentences(text: str, wanted: str) -> None:
    near = embed([text]) @ class_prototypes(embed, count=24).T
    assert LABELS[int(near.argmax())] == wanted


@pytest.mark.parametrize(
    ("signs", "wanted"),
    [
        ("😀😃😄😁😊🙂🙃😍🥰🤩😇😋🥳☺❤", "smile"), ("😂🤣😆😹🤭", "laugh"), ("😢😭😞😔🥺☹🙁💔🥲", "sad"),
        ("😡😠🤬👿😤", "angry"), ("😱😨🫣", "shocked"), ("😮😲😯", "surprised"), ("😉😜🤪", "wink_l"),
        ("😘😗💋", "pout"), ("🥱😪", "sleepy"), ("🤢🤮", "disgust"), ("👈⬅", "look_left"), ("👉➡", "look_right"),
        ("😶😐🤐👋🔥", "neutral"),
    ],
)  # fmt: skip
def test_emoji_alone(signs: str, wanted: str) -> None:
    near = embed(list(signs)) @ class_prototypes(embed, count=24).T
    found = {sign: LABELS[int(row.argmax())] for sign, row in zip(signs, near, strict=True)}
    assert found == dict.fromkeys(signs, wanted)


@pytest.mark.parametrize("text", ["smile✨", "smiling 🌸", "haha🦋 smile"])
def test_unknown_emoji_do_not_blur_a_sentence(text: str) -> None:
    near = embed([text]) @ class_prototypes(embed, count=24).T
    assert LABELS[int(near.argmax())] in {"smile", "laugh"}
