"""The word pieces of the text tower: BERT's uncased vocabulary without foreign scripts, with emoji added.

For: `training.language`. The result is a tokenizer.json in the format of Hugging Face `tokenizers`, which `model.text`
reads in plain Python. An emoji stands alone or joined to a word ("haha😂"), hence its two entries.
Must not import: torch.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
PAD_ID, UNK_ID, CLS_ID, SEP_ID = range(4)
SIGNS = "‘’“”«»…–—→←×÷°€£§©®•¿¡½¼¾²³′″"
EMOJI = (
    "😀😁😂🤣😃😄😅😆😉😊😋😎😍😘🥰😗😙😚🙂🤗🤩🤔🤨😐😑😶🙄😏😣😥😮🤐😯😪😫😴😌😛😜😝🤤😒😓😔😕🙃🤑😲🙁😖😞😟😤😢😭😦😧😨😩🤯😬😰😱🥵🥶😳🤪😵😡😠🤬😷🤢🤮🤧😇🤡🥱🤫"
    "🤭🧐🥺🥳👀👋👍👎👈👉👆👇💋❤💔🔥🎉👄👅👁☺☹"
)


def _is_plain(token: str) -> bool:
    piece = token.removeprefix("##")
    return (bool(re.fullmatch(r"[\x21-\x7e]+", piece)) and not token.startswith("[unused")) or piece in SIGNS


def select_tokens(vocabulary: Iterable[str], emoji: Sequence[str] = tuple(EMOJI)) -> list[str]:
    """The tokens that stay, in order: special ones, plain ones of the vocabulary, emoji alone and joined."""
    plain = [t for t in vocabulary if _is_plain(t) and t not in SPECIAL and t != "[MASK]"]
    added = [prefix + sign for sign in emoji for prefix in ("", "##")]
    return list(dict.fromkeys((*SPECIAL, *plain, *added)))


def collect_tokens(texts: Iterable[str]) -> list[str]:
    """A vocabulary from sentences alone: whole words seen twice, and every letter alone and joined."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(re.findall(r"[a-z0-9]+|[^\sa-z0-9]", text.lower()))
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = [prefix + c for c in letters for prefix in ("", "##")]
    return [*pieces, *sorted(word for word, count in counts.items() if count > 1 and word not in letters)]


def build_tokenizer(tokens: Sequence[str]) -> Tokenizer:
    """A BERT tokenizer over these tokens: lower case, accents stripped, longest pieces first, [CLS] … [SEP]."""
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
            "vocab": {token: i for i, token in enumerate(tokens)},
        },
    }  # fmt: skip
    return Tokenizer.from_str(json.dumps(layout))


def encode_rows(tokenizer: Tokenizer, texts: Sequence[str], limit: int = 64) -> list[list[int]]:
    """Token ids of each sentence, at most `limit` of them; a cut sentence still ends in [SEP]."""
    rows = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    return [row if len(row) <= limit else [*row[: limit - 1], row[-1]] for row in rows]
