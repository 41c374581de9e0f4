"""CLIP from whatever a user has: a folder in Hugging Face's format, or OpenAI's `.pt`, as published or as a state dict.

Nothing in a file is run, the program inside OpenAI's archives least of all.
Must not import: services, worker, model.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from training.checkpoints.clip import ClipTowers, load_clip
from training.checkpoints.clip_vocabulary import find_tokenizer
from training.checkpoints.formats import expect, find_state, open_contents
from training.checkpoints.openai_clip import build_openai_clip, count_tokens
from training.checkpoints.torchscript import read_torchscript
from training.errors import DataError


def read_clip(path: Path) -> ClipTowers:
    """Read a CLIP, frozen and in evaluation mode.

    Raises: DataError where it is none, with what it is instead; CheckpointMismatchError, DamagedCheckpointError.
    """
    if path.is_dir():
        return load_clip(path)
    contents = open_contents(path)
    if contents.format == "clip-huggingface":
        raise DataError(f"{path} is one file of a CLIP in Hugging Face's format: give its folder, {path.parent}")
    expect(contents, {"clip-openai"}, "a CLIP")
    if contents.value is None:
        # an archive holds its modules' mere attributes, too, such as attention masks
        return build_clip(read_torchscript(path), path, path, extras=True)
    return build_clip(find_state(contents.value, "state_dict"), path, path)


def build_clip(state: Mapping[str, Tensor], path: Path, tokenizer: Path, extras: bool = False) -> ClipTowers:
    """Build a CLIP of tensors under OpenAI's names, such as a motion checkpoint's own.

    `path` is where they are from, for messages; `tokenizer` the file or folder beside which CLIP's is looked for.

    Raises: as `read_clip`.
    """
    return build_openai_clip(state, find_tokenizer(tokenizer, count_tokens(state, path)), path, extras)
