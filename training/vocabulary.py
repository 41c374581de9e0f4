"""The word pieces of the text tower: BERT's uncased vocabulary without foreign scripts, with words and emoji added.

For: `training.language`. The result is a tokenizer.json in the format of Hugging Face `tokenizers`, which `model.text`
reads in plain Python. An emoji stands alone or joined to a word ("haha😂"), hence its two entries. A word that is often
mistyped has aliases: spellings with the same id ("suprised"), which cost no row of the table; so have emoji that say
what another one says.
Must not import: torch.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID = range(4)
SIGNS = "‘’“”«»…–—→←×÷°€£§©®•¿¡½¼¾²³′″"
EMOJI = (
    "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩🤔🤨😐😑😶🙄😏😣😥😮🤐😯😪😫😴😌😛😜😝🤤😒😓😔😕🙃🤑😲🙁😖😞😟😤😢😭😦😧😨😩🤯😬😰😱🥵🥶😳🤪😵😡😠🤬😷🤢🤮🤧😇🤡🥱🤫"
    "🤭🧐🥺🥳👀👋👍👎👈👉👆👇💋❤💔🔥🎉👄👅👁☺☹"
)

SAME_FACE: Mapping[str, str] = {
    sign: face
    for face, signs in {
        "😠": "😡🤬👿💢😾",
        "😀": "😋🤑😺",
        "🙂": "🙃🫠",
        "😊": "😌",
        "😄": "😸",
        "😍": "🤩😻",
        "😂": "😹",
        "😆": "🤭",
        "😢": "😔🥲😿",
        "😮": "😯😦",
        "😲": "🙀🫢",
        "😨": "😧",
        "😱": "🫣",
        "😛": "😝",
        "😜": "🤪",
        "😘": "😽",
        "😪": "🥱",
        "😴": "💤",
        "😏": "😼",
        "😶": "🤐🤫👋🔥🫥🗿",
        "👈": "⬅",
        "👉": "➡",
        "👆": "⬆",
        "👇": "⬇",
    }.items()
    for sign in signs
}
"""Emoji → the one whose row it shares. A caption seldom has one of these, so a row of its own learns little: on its own
😡 was read as a pout, as its name in Unicode says."""


def _is_plain(token: str) -> bool:
    piece = token.removeprefix("##")
    return (bool(re.fullmatch(r"[\x21-\x7e]+", piece)) and not token.startswith("[unused")) or piece in SIGNS


def select_tokens(
    vocabulary: Iterable[str], emoji: Sequence[str] = tuple(EMOJI), words: Iterable[str] = ()
) -> list[str]:
    """The tokens that stay, in order: special ones, plain ones of the vocabulary, emoji alone and joined, words."""
    plain = [t for t in vocabulary if _is_plain(t) and t not in SPECIAL and t != "[MASK]"]
    added = [prefix + sign for sign in emoji for prefix in ("", "##")]
    return list(dict.fromkeys((*SPECIAL, *plain, *added, *(w for w in words if re.fullmatch("[a-z]{3,}", w)))))


def mistyped(word: str) -> list[str]:
    """Spellings one slip away: a letter left out, doubled, or changed places with the next; the first letter stays."""
    found = []
    for i in range(1, len(word)):
        found += [word[:i] + word[i + 1 :], word[:i] + word[i] + word[i:]]
        if i + 1 < len(word):
            found.append(word[:i] + word[i + 1] + word[i] + word[i + 2 :])
    return [w for w in dict.fromkeys(found) if w != word]


def find_aliases(words: Iterable[str], real_words: Collection[str]) -> dict[str, str]:
    """Wrong spellings of words of five letters and more: spelling → word. Real words and spellings of two are left."""
    found: dict[str, str] = {}
    shared: set[str] = set()
    for word in dict.fromkeys(words):
        for spelling in mistyped(word) if len(word) >= 5 else ():
            if spelling in real_words or len(spelling) < 4:
                continue
            if spelling in found:
                shared.add(spelling)
            found[spelling] = word
    return {spelling: word for spelling, word in found.items() if spelling not in shared}


def collect_tokens(texts: Iterable[str]) -> list[str]:
    """A vocabulary from sentences alone: whole words seen twice, and every letter alone and joined."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [prefix + c for c in letters for prefix in ("", "##")]
    return [*pieces, *sorted(word for word, count in counts.items() if count > 1 and word not in letters)]


def count_rows(tokenizer: Tokenizer) -> int:
    """Rows that the table needs; aliases share the row of their word."""
    return 1 + max(tokenizer.get_vocab().values())


def write_tokenizer(tokenizer: Tokenizer) -> bytes:
    """Give `tokenizer.json` with its aliases, which the tokenizer's own writer leaves out."""
    definition = json.loads(tokenizer.to_str())
    vocabulary = tokenizer.get_vocab()
    definition["model"]["vocab"] = {t: vocabulary[t] for t in sorted(vocabulary, key=lambda t: (vocabulary[t], t))}
    return json.dumps(definition, ensure_ascii=False, separators=(",", ":")).encode()


def build_tokenizer(tokens: Sequence[str], aliases: Mapping[str, str] | None = None) -> Tokenizer:
    """A BERT tokenizer over these tokens: lower case, accents stripped, longest pieces first, [CLS] … [SEP].

    Aliases: other spelling → token; those that are tokens themselves are left out. `SAME_FACE` goes before tokens.
    """
    ids = {token: i for i, token in enumerate(tokens)}
    same = {p + sign: ids[p + face] for sign, face in SAME_FACE.items() for p in ("", "##") if p + face in ids}
    others = {spelling: ids[token] for spelling, token in (aliases or {}).items() if token in ids}
    special = [
        {
            "id": i,
            "content": t,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, t in enumerate(SPECIAL)
    ]
    ends = {t: {"id": t, "ids": [i], "tokens": [t]} for i, t in ((CLS_ID, "[CLS]"), (SEP_ID, "[SEP]"))}
    single: list[object] = [
        {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
    ]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}]
    layout = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": ends},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": others | ids | same,
        },
    }  # fmt: skip
    return Tokenizer.from_str(json.dumps(layout))


def encode_rows(tokenizer: Tokenizer, texts: Sequence[str], limit: int = 64) -> list[list[int]]:
    """Token ids of each sentence, at most `limit` of them; a cut sentence still ends in [SEP]."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
