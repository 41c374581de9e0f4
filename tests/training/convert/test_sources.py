"""What the files of a conversion bring along, what is refused, and what is said of parts that are missing."""

import dataclasses
import pickle

import pytest
import torch

from tests.training.checkpoints.openai_files import make_clip, publish, write_merges
from tests.training.checkpoints.published_stylegan2 import Generator, as_snapshot, nvidia_modules
from tests.training.convert.conftest import name_options
from tests.training.convert.foreign import SMALL, write_encoder, write_generator, write_motion
from tests.training.photos.conftest import run_command
from training.convert.fitting import require_fit, require_whole
from training.convert.sources import PARTS, read_sources
from training.errors import DataError

__all__ = ["nvidia_modules"]


def test_all_four_fit_together(files):
    found = read_sources(files)
    require_fit(found)
    require_whole(found)
    assert found.remarks == []
    assert "64 px with 10 rows of 16" in found.told["generator"]


@pytest.mark.parametrize(
    ("part", "remedy"),
    [
        ("generator", "animato-train all"),
        ("encoder", "trained for this generator"),
        ("clip", "Hugging Face"),
        ("motion", "animato-train motion --recipe checkpoints"),
    ],
)
def test_a_missing_part_is_named_with_what_can_be_done(files, tmp_path, part, remedy):
    given = dataclasses.replace(files, **{part: None})
    result = run_command("convert", *name_options(given), "--out", tmp_path / "bundle")
    assert result.exit_code == 1
    sentence = result.stderr.strip().splitlines()[-1]
    assert sentence.startswith(f"animato-train: no bundle was written. {part} is missing: ")
    assert remedy in sentence
    assert sentence.count("is missing") == 1
    assert not (tmp_path / "bundle").exists()
    for other in set(PARTS) - {part}:
        assert f"{other}: " in result.stdout, "what was found is said, too"


def test_an_encoder_may_bring_its_generator(files, tmp_path):
    encoder = write_encoder(tmp_path / "e4e-with-decoder.pt", SMALL, decoder=files.generator)
    found = read_sources(dataclasses.replace(files, generator=None, encoder=encoder))
    require_whole(found)
    assert any("brings its generator along" in remark for remark in found.remarks)
    alone = read_sources(files).generator.state_dict()
    for name, value in found.generator.state_dict().items():
        torch.testing.assert_close(value, alone[name])


def test_an_encoder_without_an_average_takes_the_generators(files, tmp_path):
    held = torch.load(files.encoder, weights_only=True)
    torch.save({name: value for name, value in held.items() if name != "latent_avg"}, tmp_path / "e4e.pt")
    found = read_sources(dataclasses.replace(files, encoder=tmp_path / "e4e.pt"))
    w_avg = found.generator.mapping.w_avg
    assert w_avg.abs().max() > 0.1
    torch.testing.assert_close(found.encoder.w_avg, w_avg.expand(SMALL.num_ws, -1))
    assert found.remarks == ["the encoder's missing average is the generator's w_avg"]


def test_a_motion_may_bring_the_clip_that_it_was_trained_with(files, tmp_path):
    write_merges(tmp_path / "bpe_simple_vocab_16e6.txt.gz")
    clip = make_clip(embed_dim=SMALL.embed_dim)
    motion = write_motion(tmp_path / "motion.pt", SMALL, publish(clip))
    found = read_sources(dataclasses.replace(files, clip=None, motion=motion))
    require_fit(found)
    require_whole(found)
    projection = clip.state_dict()["text_projection.weight"]
    torch.testing.assert_close(found.animation.towers.texts.projection.weight, projection)
    # a CLIP that is given beside it lends its tokenizer, and must have as many tokens
    with pytest.raises(DataError, match="tokens"):
        read_sources(dataclasses.replace(files, motion=motion))


@pytest.mark.usefixtures("nvidia_modules")
def test_a_conditional_generator_draws_the_label_that_was_chosen(files, tmp_path):
    torch.manual_seed(0)
    network = Generator(SMALL.channels, z_dim=8, c_dim=3, w_dim=SMALL.w_dim)
    (tmp_path / "g.pkl").write_bytes(pickle.dumps(as_snapshot(network)))
    given = dataclasses.replace(files, generator=tmp_path / "g.pkl")
    z, drawn = torch.randn(2, 8), []
    for label in (0, 2):
        found = read_sources(dataclasses.replace(given, label=label))
        require_fit(found)
        drawn.append(found.generator.mapping(z))
    assert found.origins["generator"]["format"] == "nvidia-stylegan2"
    assert found.origins["generator"]["label"] == 2
    assert (drawn[0] - drawn[1]).abs().max() > 0.01
    with pytest.raises(DataError, match="--label"):
        read_sources(given)


def refusal(sources) -> str:
    with pytest.raises(DataError) as caught:
        require_fit(read_sources(sources))
    return str(caught.value)


def test_parts_of_other_sizes_are_refused(files, tmp_path):
    larger = dataclasses.replace(SMALL, resolution=128, channels=(*SMALL.channels, 4))
    generator = write_generator(tmp_path / "128.pt", larger)
    told = refusal(dataclasses.replace(files, generator=generator, motion=None))
    assert "encoder and generator don't belong together" in told
    assert "rows of ws: 10 and 12" in told
    told = refusal(dataclasses.replace(files, generator=generator, encoder=None))
    assert "motion and generator don't belong together" in told
    motion = write_motion(tmp_path / "motion.pt", dataclasses.replace(SMALL, embed_dim=24))
    told = refusal(dataclasses.replace(files, motion=motion))
    assert "motion and clip don't belong together" in told
    assert "length of embeddings: 24 and 16" in told


def test_a_file_given_as_another_part_says_where_it_belongs(files, tmp_path):
    swapped = dataclasses.replace(files, generator=files.encoder, encoder=files.generator)
    result = run_command("convert", *name_options(swapped), "--out", tmp_path / "bundle")
    assert result.exit_code == 1
    assert "e4e.pt is an e4e encoder" in result.stderr
    assert "give it as --encoder" in result.stderr
    result = run_command("convert", "--encoder", files.generator, "--out", tmp_path / "bundle")
    assert "generator.pt is a StyleGAN2 generator" in result.stderr
    assert "give it as --generator" in result.stderr


def test_a_label_is_for_conditional_generators(files, tmp_path):
    result = run_command("convert", *name_options(files), "--label", 3, "--out", tmp_path / "bundle")
    assert result.exit_code == 1
    assert "label 3" in result.stderr
    with pytest.raises(DataError, match="--label 3 is a class of a conditional --generator"):
        read_sources(dataclasses.replace(files, generator=None, label=3))


def test_odd_commands_are_refused(files, tmp_path):
    assert run_command("convert", *name_options(files)).exit_code == 2
    result = run_command("convert", *name_options(files), "--precision", "int8", "--out", tmp_path / "b")
    assert result.exit_code == 2
    assert "neither fp32 nor fp16" in result.output
    result = run_command("convert", "--out", tmp_path / "b")
    assert result.exit_code == 1
    assert "nothing to convert" in result.stderr
    result = run_command("convert", "--generator", tmp_path / "gone.pt", "--out", tmp_path / "b")
    assert result.exit_code == 1
    assert f"{tmp_path / 'gone.pt'} does not exist" in result.stderr


def test_something_else_at_its_place_is_kept(files, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("…")
    result = run_command("convert", *name_options(files), "--out", tmp_path / "letters")
    assert result.exit_code == 1
    assert "exists and is no bundle" in result.stderr
    assert result.stdout == "", "that is said before anything is read"
    assert (tmp_path / "letters" / "dear.txt").exists()
