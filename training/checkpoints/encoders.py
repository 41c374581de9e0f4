"""Reads e4e and pSp encoders, `{"state_dict": {"encoder.…", "decoder.…"}, "latent_avg", "opts"}`.

Their pyramids have the same tensors and differ in what rows mean: e4e's are deltas from the first, pSp's stand alone.
The options in the file tell which of them it is. pSp's two others, which read the last map alone, are known by their
tensors. What such files call codes, latent_avg, style_count and n_styles are ws, w_avg and num_ws here.
Must not import: services, worker, model.
Source: the networks and checkpoints published with Tov et al. 2021 (arXiv 2102.02766) and Richardson et al. 2021
(arXiv 2008.00951).
"""

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, cast

import torch
from torch import Tensor

from training.checkpoints.formats import PSP_ENCODERS, Contents, expect, find_state, open_contents
from training.checkpoints.irse import load_published, measure, measure_body, need
from training.errors import CheckpointMismatchError, DataError
from training.networks.irse import FlatEncoder, Four, PictureEncoder, PyramidEncoder, SingleEncoder

Family = Literal["e4e", "psp"]
E4E: Family = "e4e"
PSP: Family = "psp"
FAMILIES = {"Encoder4Editing": E4E, **dict.fromkeys(PSP_ENCODERS, PSP)}
"""Published class names, as `opts["encoder_type"]` gives them."""
FLAT = "output_layer_2.3.weight"
"""What only pSp's encoder has that reads all rows off the last map: it brings the map to w_dim numbers."""
LAST_MAP_PX = 256
"""What the published code scales pictures to; an encoder of the last map has no tensor that tells."""
POSSIBLE_ROWS = range(2, 40)
"""Of a generator of 4 px to far beyond any; another count is none."""
E4E_DELTAS = 18
"""Rows behind the first that e4e reads off a picture: all up to 1024 px; above, the last rows equal the first."""
UNSAID = "the file does not say whether it is e4e or pSp, whose tensors are alike: it was taken as e4e"
NO_AVERAGE = "the file has no latent_avg, around which its ws are told: the generator's w_avg must be put in its place"


@dataclass(frozen=True)
class EncoderCheckpoint:
    """An encoder with what its file says beside the weights."""

    encoder: PictureEncoder
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


def read_encoder(path: Path, family: Family | None = None, num_ws: int | None = None) -> EncoderCheckpoint:
    """Read an e4e or pSp encoder.

    Args: `family` is for files that don't say which of the two they are; `num_ws`, the rows of the generator that is
    given beside it, for those of one w that don't say for how many rows.
    Raises: DataError for another kind of file, with what it is; CheckpointMismatchError, DamagedCheckpointError.
    """
    contents = open_contents(path)
    checkpoint = find_state(contents.value, "state_dict")
    state = take_below(checkpoint, "encoder.") if contents.format in FAMILIES.values() else take_alone(checkpoint)
    if not state:
        refuse_format(contents)
    refuse_relatives(state, path)
    options = read_options(contents.value)
    generator_state = take_below(checkpoint, "decoder.") or None
    average = contents.value.get("latent_avg", checkpoint.get("latent_avg"))
    centred = bool(options.get("start_from_latent_avg", True))
    told = FAMILIES.get(str(options.get("encoder_type"))) if is_pyramid(state) else "psp"
    form = family or told or "e4e"
    rows = count_told_rows(options, average, generator_state) or num_ws
    encoder, ours = shape_encoder(state, form, rows, path)
    w_avg = shape_average(average, encoder.num_ws, encoder.w_dim, path)
    ours["w_avg"] = w_avg if centred and w_avg is not None else torch.zeros(encoder.num_ws, encoder.w_dim)
    load_published(encoder, state, path, ours)
    encoder.eval().requires_grad_(False)
    remarks = [UNSAID] if family is None and told is None else []
    remarks += [NO_AVERAGE] if centred and w_avg is None else []
    return EncoderCheckpoint(encoder, form, w_avg, centred, generator_state, options, tuple(remarks))


def is_pyramid(state: Mapping[str, Tensor]) -> bool:
    """Say whether rows are read by style blocks of their own."""
    return any(name.startswith("styles.") for name in state)


def shape_encoder(
    state: Mapping[str, Tensor], form: Family, num_ws: int | None, path: Path
) -> tuple[PictureEncoder, dict[str, Tensor]]:
    """Give the encoder that a state dict has the sizes of, without weights, and those tensors that no file has.

    Args: `num_ws` is how many rows its generator has, where somebody says so.
    Raises: DataError, CheckpointMismatchError.
    """
    widths = measure_body(state, path)
    with torch.device("meta"):  # hundreds of millions of weights need no start values
        if FLAT in state:
            return shape_flat(state, widths, path), {}
        if not is_pyramid(state):
            return shape_single(state, num_ws, widths, path), {}
        encoder = shape_pyramid(state, form, widths, path)
    unlocked = encoder.num_ws - 1 if form == "psp" else min(E4E_DELTAS, encoder.num_ws - 1)
    return encoder, {"unlocked_rows": torch.tensor(unlocked)}


def shape_pyramid(state: Mapping[str, Tensor], form: Family, widths: Four, path: Path) -> PyramidEncoder:
    """Give e4e's and pSp's pyramid.

    Raises: CheckpointMismatchError.
    """
    num_ws = count(r"styles\.\d+\.linear\.weight", state)
    w_dim = measure(state, "styles.0.linear.weight", 2, path)[0]
    need(state, "styles.0.convs.0.weight", path)
    # each halves the map at 1/16 once, down to one place
    convolutions = count(r"styles\.0\.convs\.\d+\.weight", state)
    return PyramidEncoder(num_ws, w_dim, 16 * 2**convolutions, widths, deltas=form == "e4e")


def shape_flat(state: Mapping[str, Tensor], widths: Four, path: Path) -> FlatEncoder:
    """Give pSp's encoder that reads all rows off the last map at once.

    Raises: CheckpointMismatchError.
    """
    w_dim, inputs = measure(state, FLAT, 2, path)
    outputs = measure(state, "linear.weight", 2, path)[0]
    bins = math.isqrt(inputs // widths[3])
    if outputs % w_dim or bins * bins * widths[3] != inputs or not bins:
        raise CheckpointMismatchError(
            f"{path}: tensors {FLAT} and linear.weight make {outputs} numbers of {inputs} by way of {w_dim}: "
            f"no rows of {w_dim} from a square map of {widths[3]} channels"
        )
    return FlatEncoder(outputs // w_dim, w_dim, LAST_MAP_PX, widths, bins=bins)


def shape_single(state: Mapping[str, Tensor], num_ws: int | None, widths: Four, path: Path) -> SingleEncoder:
    """Give pSp's encoder that reads one w off the last map.

    Raises: DataError where nobody said for how many rows, CheckpointMismatchError.
    """
    w_dim = measure(state, "linear.weight", 2, path)[0]
    if num_ws is None:
        raise DataError(
            f"{path} is an encoder of one w for all rows, and does not say how many rows its generator has: "
            "give that as --generator beside it"
        )
    return SingleEncoder(num_ws, w_dim, LAST_MAP_PX, widths)


def count_told_rows(
    options: Mapping[str, Any], average: object, generator_state: Mapping[str, Tensor] | None
) -> int | None:
    """Give how many rows a file says that its generator has, by what it holds before what it was told; None: nothing.

    Source: pSp counts 2·log2(output_size) − 2 and keeps that as n_styles; rosinality's generator has two rows more than
    layers behind the first.
    """
    layers = count(r"convs\.\d+\.conv\.weight", generator_state or {})
    rows = average.shape[:-1].numel() if isinstance(average, Tensor) else 0
    sizes = [size for name in ("output_size", "stylegan_size") if isinstance(size := options.get(name), int)]
    told = [layers + 2 if layers else 0, rows, options.get("n_styles"), *(2 * size.bit_length() - 4 for size in sizes)]
    return next((rows for rows in told if rows in POSSIBLE_ROWS), None)


def count(pattern: str, state: Mapping[str, Tensor]) -> int:
    """Count the tensors whose names have a form."""
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def shape_average(average: object, num_ws: int, w_dim: int, path: Path) -> Tensor | None:
    """Bring latent_avg, one w or one for each row, to [num_ws,w_dim].

    Raises: CheckpointMismatchError for another size.
    """
    if average is None:
        return None
    try:
        found = torch.as_tensor(average, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointMismatchError(f"{path}: latent_avg is a {type(average).__name__}, and no tensor") from error
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
    if "input_layer.0.weight" not in state or not {"styles.0.linear.weight", "linear.weight"} & state.keys():
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
    """Tell encoders of the same house that can't be read.

    Raises: DataError.
    """
    if is_pyramid(state) and "latlayer1.weight" not in state:
        raise DataError(
            f"{path} is an encoder with a style block for each row that all read its last map, as ReStyle's do, which "
            "draw a picture again and again; an Encoder4Editing or an encoder of pSp is wanted"
        )
    if not is_pyramid(state) and "linear.weight" not in state:
        raise DataError(
            f"{path} is an encoder's body without what reads ws off it, style blocks or a linear layer; an "
            "Encoder4Editing or an encoder of pSp is wanted"
        )


def read_options(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Give `opts`, a dictionary or a namespace; empty where there are none."""
    options = checkpoint.get("opts")
    if isinstance(options, argparse.Namespace):
        return dict(vars(options))
    return dict(cast("Mapping[str, Any]", options)) if isinstance(options, Mapping) else {}
