"""Each of pSp's encoders of the last map becomes the encoder of a bundle, and the graph gives what it gave."""

import dataclasses

import numpy as np
import pytest
import torch

from model.sessions import open_graph
from tests.training.checkpoints.published_last_map import FLAT, SINGLE, IntoW, IntoWPlus, fill, to_file
from tests.training.convert.conftest import name_options
from tests.training.convert.foreign import SMALL
from tests.training.photos.conftest import run_command
from training.convert.sources import read_sources
from training.errors import DataError


@pytest.mark.parametrize(
    ("name", "network", "told"),
    [
        (SINGLE, IntoW(SMALL.w_dim), "pSp encoder of one w for all 10 rows at 256 px"),
        (FLAT, IntoWPlus(SMALL.num_ws, SMALL.w_dim), "pSp encoder of 10 rows at 256 px"),
    ],
)
def test_the_graph_gives_the_published_ws(files, tmp_path, name, network, told):
    fill(network)
    average = torch.randn(SMALL.w_dim)
    opts = {"encoder_type": name, "start_from_latent_avg": True}
    torch.save({"state_dict": to_file(network), "latent_avg": average, "opts": opts}, tmp_path / "psp.pt")
    given = dataclasses.replace(files, encoder=tmp_path / "psp.pt")
    result = run_command("convert", *name_options(given), "--out", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    assert told in result.stdout
    image = torch.rand(3, 3, 256, 256, generator=torch.Generator().manual_seed(2)) * 2 - 1
    theirs = network(image.double()).view(3, -1, SMALL.w_dim).expand(3, SMALL.num_ws, -1) + average
    ws = open_graph((tmp_path / "bundle" / "encoder.onnx").read_bytes()).run(image=image.numpy())["ws"]
    assert ws.shape == theirs.shape
    assert ws.dtype == np.float32
    assert np.abs(ws - theirs.numpy()).max() <= 1e-5 * theirs.abs().max()


def test_one_w_takes_rows_and_average_from_the_generator(files, tmp_path):
    torch.save({"state_dict": to_file(fill(IntoW(SMALL.w_dim)))}, tmp_path / "psp.pt")
    given = dataclasses.replace(files, encoder=tmp_path / "psp.pt")
    found = read_sources(given)
    assert found.encoder.num_ws == found.generator.synthesis.num_ws == SMALL.num_ws
    torch.testing.assert_close(found.encoder.w_avg, found.generator.mapping.w_avg.expand(SMALL.num_ws, -1))
    with pytest.raises(DataError, match="give that as --generator"):
        read_sources(dataclasses.replace(given, generator=None))
