"""Reads e4e and pSp encoders, `{"state_dict": {"encoder.…", "decoder.…"}, "latent_avg", "opts"}`, into our pyramid.

Both networks have the same tensors and differ in what rows mean: e4e's are deltas from the first, pSp's stand alone.
The options in the file tell which of them it is. What such files call codes, latent_avg and style_count are ws, w_avg
and num_ws here.
Must not import: services, worker, model.
Source: the networks and checkpoints published with Tov et al. 2021 (arXiv 2102.02766) and Richardson et al. 2021
(arXiv 2008.00951).
"""

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import torch
from torch import Tensor

from training.checkpoints.formats import Contents, expect, find_state, open_contents
from training.checkpoints.irse import load_published, measure, measure_body, need
from training.errors import CheckpointMismatchError, DataError
from training.networks.irse import PyramidEncoder

Family = Literal["e4e", "psp"]
FAMILIES: dict[str, Family] = {"Encoder4Editing": "e4e", "GradualStyleEncoder": "psp"}
"""Published class names, as `opts["encoder_type"]` gives them."""
E4E_DELTAS = 18
"""Rows behind the first that e4e reads off a picture: all up to 1024 px; above, the last rows equal the first."""
UNSAID = "the file does not say whether it is e4e or pSp, whose tensors are alike: it was taken as e4e"
NO_AVERAGE = "the file has no latent_avg, around which its ws are told: the generator's w_avg must be put in its place"


@dataclass(frozen=True)
class EncoderCheckpoint:
    """An encoder with what its file says beside the weights."""

    encoder: PyramidEncoder
    """Frozen, in evaluation mode; it adds w_avg wherever the original adds it."""
    format: Family
    w_avg: Tensor | None
    """[num_ws,w_dim], or None where the file has no average."""
    centred: bool
    """ws are told around an average; where w_avg is None too, the generator's must be copied into `encoder.w_avg`."""
    generator_state: dict[str, Tensor] | None
    """The generator inside the file, by the names of stylegan2-pytorch, or None."""
    options: dict[str, Any] = field(default_factory=dict)
    """How it was trained, by the file's own names."""
    remarks: tuple[str, ...] = ()
    """What a user should know, in sentences."""

    @property
    def num_ws(self) -> int:
        """How many rows it gives: those of a generator of 2^(num_ws/2 + 1) px."""
        return self.encoder.num_ws


def read_encoder(path: Path, family: Family | None = None) -> EncoderCheckpoint:
    """Read an e4e or pSp encoder. `family`: for files that don't say which of the two they are.

    Raises: DataError for another kind of file, with what it is; CheckpointMismatchError, DamagedCheckpointError.
    """
    contents = open_contents(path)
    checkpoint = find_state(contents.value, "state_dict")
    state = take_below(checkpoint, "encoder.") if contents.format in FAMILIES.values() else take_alone(checkpoint)
    if not state:
        refuse_format(contents)
    refuse_relatives(state, path)
    options = read_options(contents.value)
    told = FAMILIES.get(str(options.get("encoder_type")))
    form = family or told or "e4e"
    average = contents.value.get("latent_avg", checkpoint.get("latent_avg"))
    centred = bool(options.get("start_from_latent_avg", True))
    encoder, w_avg = build_encoder(state, form, average, centred, path)
    remarks = [UNSAID] if family is None and told is None else []
    remarks += [NO_AVERAGE] if centred and w_avg is None else []
    generator_state = take_below(checkpoint, "decoder.") or None
    return EncoderCheckpoint(encoder, form, w_avg, centred, generator_state, options, tuple(remarks))


def build_encoder(
    state: Mapping[str, Tensor], form: Family, average: object, centred: bool, path: Path
) -> tuple[PyramidEncoder, Tensor | None]:
    """Build the encoder that a state dict has the sizes of; give it with w_avg [num_ws,w_dim].

    Raises: DataError, CheckpointMismatchError.
    """
    widths = measure_body(state, path)
    num_ws = count(r"styles\.\d+\.linear\.weight", state)
    w_dim = measure(state, "styles.0.linear.weight", 2, path)[0]
    need(state, "styles.0.convs.0.weight", path)
    # each halves the map at 1/16 once, down to one place
    convolutions = count(r"styles\.0\.convs\.\d+\.weight", state)
    w_avg = shape_average(average, num_ws, w_dim, path)
    rows = num_ws - 1 if form == "psp" else min(E4E_DELTAS, num_ws - 1)
    ours = {
        "w_avg": w_avg if centred and w_avg is not None else torch.zeros(num_ws, w_dim),
        "unlocked_rows": torch.tensor(rows),
    }
    with torch.device("meta"):  # hundreds of millions of weights need no start values
        encoder = PyramidEncoder(num_ws, w_dim, 16 * 2**convolutions, widths, deltas=form == "e4e")
    load_published(encoder, state, path, ours)
    return encoder.eval().requires_grad_(False), w_avg


def count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """Count the tensors whose names have a form."""
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def shape_average(average: object, num_ws: int, w_dim: int, path: Path) -> Tensor | None:
    """Bring latent_avg, one w or one for each row, to [num_ws,w_dim].

    Raises: CheckpointMismatchError for another size.
    """
    if average is None:
        return None
    found = torch.as_tensor(average, dtype=torch.float32)
    if found.numel() not in (w_dim, num_ws * w_dim) or found.shape[-1] != w_dim:
        raise CheckpointMismatchError(
            f"{path}: latent_avg is {list(found.shape)}, and the encoder gives {num_ws} rows of {w_dim}"
        )
    return found.reshape(-1, w_dim).expand(num_ws, w_dim).clone()


def take_below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def take_alone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the state dict of an encoder that was saved by itself, without the generator; empty where it is none."""
    if not {"input_layer.0.weight", "styles.0.linear.weight"} <= state.keys():
        return {}
    return {name: value for name, value in state.items() if name != "latent_avg"}


def refuse_format(contents: Contents) -> NoReturn:
    """Say what a file without an encoder is.

    Raises: DataError always.
    """
    wanted = "an e4e or pSp encoder"
    if contents.format == "ir-se50":
        raise DataError(
            f"{contents.path} is ir_se50, the network that such encoders start from and that tells faces apart, not "
            f"{wanted}: it gives no ws"
        )
    expect(contents, (), wanted)
    raise AssertionError(contents.format)


def refuse_relatives(state: Mapping[str, Tensor], path: Path) -> None:
    """Tell encoders of the same house that are no pyramid.

    Raises: DataError.
    """
    if not any(name.startswith("styles.") for name in state):
        raise DataError(
            f"{path} is an encoder without style blocks, such as pSp's BackboneEncoderUsingLastLayerIntoW; an "
            "Encoder4Editing or a GradualStyleEncoder is wanted"
        )
    if "latlayer1.weight" not in state:
        raise DataError(
            f"{path} is an encoder that reads all rows off its last map, as ReStyle's do, which draw a picture again "
            "and again; an Encoder4Editing or a GradualStyleEncoder is wanted"
        )


def read_options(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Give `opts`, a dictionary or a namespace; empty where there are none."""
    options = checkpoint.get("opts")
    if isinstance(options, argparse.Namespace):
        return dict(vars(options))
    return dict(cast("Mapping[str, Any]", options)) if isinstance(options, Mapping) else {}
