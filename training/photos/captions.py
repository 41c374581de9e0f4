"""What a picture set says about its pictures, for the image tower: captions.json, or folders named by expression.

captions.json: {"a.png": "She smiles.", "b.png": ["He winks.", "winking"], …}. Folders: smiling/a.png, winking/b.png; a
name that the project's grammar knows brings its many phrasings, any other name is put into a sentence. No torch here.
"""

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.adversarial.pictures import FilePictures
from training.errors import DataError
from training.faces.captions import EXPRESSION_CLASSES, GATE_NAMES, NEUTRAL, sample_caption

CAPTIONS = "captions.json"
TEMPLATE = "The person is {}."
PHRASINGS = 64


@dataclass(frozen=True)
class Captions:
    """Sentences of every label, and each picture's label."""

    texts: tuple[tuple[str, ...], ...]  # [labels]
    labels: npt.NDArray[np.int64]  # [N]; the label of every picture

    def __len__(self) -> int:
        return len(self.labels)


def phrase(name: str) -> tuple[str, ...]:
    """Give sentences for a folder's name."""
    words = name.replace("_", " ").replace("-", " ").strip().lower()
    known = {name.replace("_", " "): name for name in EXPRESSION_CLASSES} | GATE_NAMES
    found = known.get(words, NEUTRAL if words in ("neutral", "calm") else None)
    if found is None:
        return (TEMPLATE.format(words), words)
    rng = np.random.default_rng(len(words))
    return tuple(dict.fromkeys(sample_caption(rng, found).text for _ in range(PHRASINGS)))


def read_captions(pictures: FilePictures) -> Captions | None:
    """Read what is known of the pictures; None where nothing is.

    Raises: DataError where captions.json is broken or leaves pictures out, or says the same of all.
    """
    try:
        data = pictures.source.load(CAPTIONS)
    except (KeyError, FileNotFoundError):
        named = [name.split("/")[-2] if "/" in name else "" for name in pictures.names]
        if len(set(named)) < 2 or "" in named:
            return None
        names = sorted(set(named))
        return Captions(tuple(map(phrase, names)), np.array([names.index(name) for name in named], np.int64))
    try:
        given = {str(name): _as_texts(value) for name, value in json.loads(data).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(
            f"{pictures.name}: {CAPTIONS} is not of the form {{'a.png': 'a sentence', …}}: {error}"
        ) from error
    missing = [name for name in pictures.names if name not in given]
    if missing:
        raise DataError(f"{pictures.name}: {CAPTIONS} says nothing of {missing[0]} ({len(missing)} are missing)")
    texts = sorted({given[name] for name in pictures.names})
    if len(texts) < 2:
        raise DataError(f"{pictures.name}: {CAPTIONS} says the same of every picture; no expression can be told by it")
    return Captions(tuple(texts), np.array([texts.index(given[name]) for name in pictures.names], np.int64))


def _as_texts(value: object) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise TypeError(f"{value!r} is no sentence and no list of sentences")
    return tuple(texts)
