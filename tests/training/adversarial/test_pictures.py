import json
import re
import zipfile

import numpy as np
import pytest
from PIL import Image

from training.adversarial.order import Order, Reader, share_rows
from training.adversarial.pictures import PoolPictures, describe_set, open_pictures, require_enough
from training.errors import DataError


def draw(size=(16, 16), mode="RGB", seed=0):
    height, width = size[1], size[0]
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "faces"
    (path / "more").mkdir(parents=True)
    for number in range(5):
        draw(seed=number).save(path / ("more" if number > 2 else ".") / f"{number}.png")
    return path


def test_a_folder_and_a_zip_give_the_same_pictures_in_the_order_of_names(folder, tmp_path):
    (folder / "notes.txt").write_text("not a picture")
    with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png"), reverse=True):
            archive.write(path, path.relative_to(folder))
    here, zipped = open_pictures(folder), open_pictures(tmp_path / "faces.zip", 16)
    assert len(here) == len(zipped) == 5
    assert here.resolution == zipped.resolution == 16
    for index in range(5):
        assert np.array_equal(here.read(index), zipped.read(index))
        assert np.array_equal(here.read(index), np.asarray(draw(seed=index)))
    assert "5 pictures of 16 px, and as many mirrored" in describe_set(here, mirrored=True)


def refuse(folder, *parts, resolution=None):
    with pytest.raises(DataError) as caught:
        open_pictures(folder, resolution)
    for part in parts:
        assert re.search(part, str(caught.value)), str(caught.value)


def test_what_cannot_be_learnt_from_is_refused_by_name(folder, tmp_path):
    bad = folder / "zz.png"
    bad.write_bytes(b"not a picture at all")
    refuse(folder, r"zz\.png can't be read as a picture", "repair or remove")
    whole = folder / "0.png"
    bad.write_bytes(whole.read_bytes()[:-300])  # the header is fine, the pixels break off
    refuse(folder, r"zz\.png can't be read as a picture")
    draw((32, 32)).save(bad)
    refuse(folder, r"mixes sizes: 0\.png is 16×16 px and zz\.png 32×32")
    draw((16, 20)).save(bad)
    refuse(folder, r"zz\.png is 16×20 px, not square")
    bad.unlink()
    refuse(folder, "are 16×16 px and the recipe draws 64×64", resolution=64)
    refuse(tmp_path / "nowhere", "does not exist")
    refuse(whole, "neither a folder nor a zip")
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04 broken")
    refuse(tmp_path / "broken.zip", r"broken\.zip is no readable zip")
    (tmp_path / "empty").mkdir()
    refuse(tmp_path / "empty", "holds no pictures")
    odd = tmp_path / "odd"
    odd.mkdir()
    draw((24, 24)).save(odd / "a.png")
    refuse(odd, "24 px wide, which is no power of two")


def test_colours_are_converted_or_refused(folder):
    first = folder / "0.png"
    for mode in ("L", "P", "LA", "RGBA", "1"):
        draw(mode=mode).save(first)
        assert open_pictures(folder).read(0).shape == (16, 16, 3)
    grey = draw(mode="L")
    grey.save(first)
    assert np.array_equal(open_pictures(folder).read(0), np.repeat(np.asarray(grey)[:, :, None], 3, 2))
    clear = draw(mode="RGBA")
    clear.putalpha(Image.fromarray(np.full((16, 16), 254, np.uint8)))
    clear.save(first)
    refuse(folder, r"0\.png has transparent pixels")
    Image.fromarray(np.full((16, 16), 40_000, np.uint16)).save(first)
    refuse(folder, r"0\.png is a I;16 picture .*8-bit")
    first.unlink()
    draw(mode="CMYK").save(folder / "c.jpg")
    refuse(folder, r"c\.jpg is a CMYK picture .*profile")


def test_pictures_of_any_size_are_cut_to_size_where_that_is_asked(folder):
    wide = np.zeros((40, 90, 3), np.uint8)
    wide[:, 25:65] = 200  # the middle square
    Image.fromarray(wide).save(folder / "0.png")
    with pytest.raises(DataError, match=r"1\.png is 16×16 px, too small for 32"):
        open_pictures(folder, 32, fit="crop")
    cut = open_pictures(folder, 16, fit="crop")
    assert (cut.read(0) == 200).all()
    assert np.array_equal(cut.read(1), np.asarray(draw(seed=1)))


def test_labels_come_from_dataset_json(folder):
    names = ["0.png", "1.png", "2.png", "more/3.png", "more/4.png"]
    note = folder / "dataset.json"
    note.write_text(json.dumps({"labels": [[name, i % 3] for i, name in enumerate(names)]}))
    pictures = open_pictures(folder)
    assert pictures.label_dim == 3
    assert pictures.label(4).tolist() == [0, 1, 0]
    assert open_pictures(folder, labels=False).label_dim == 0
    note.write_text(json.dumps({"labels": [[name, [0.5, i]] for i, name in enumerate(names)]}))
    assert open_pictures(folder).label(3).tolist() == [0.5, 3]
    note.write_text(json.dumps({"labels": None}))
    assert open_pictures(folder).label_dim == 0
    note.write_text(json.dumps({"labels": [[name, 1] for name in names[:-1]]}))
    refuse(folder, r"dataset\.json has no label for more/4\.png \(1 are missing\)")
    note.write_text(json.dumps({"labels": [[name, 0.5] for name in names]}))
    refuse(folder, "classes that are not 0, 1, 2")
    note.write_text("[]")
    refuse(folder, r"dataset\.json is not of the form")


def test_a_pool_is_a_set_and_shrinks_by_averages():
    pool = PoolPictures(np.arange(2 * 8 * 8 * 3, dtype=np.uint8).reshape(2, 8, 8, 3), resolution=4)
    assert pool.read(1).shape == (4, 4, 3)
    assert pool.read(0)[0, 0].tolist() == np.arange(192).reshape(8, 8, 3)[:2, :2].mean((0, 1)).round().tolist()
    with pytest.raises(DataError, match="can't be averaged to 3 px"):
        PoolPictures(pool.pictures, resolution=3)
    with pytest.raises(DataError, match="holds 2 pictures, fewer than one batch of 4"):
        require_enough(pool, 4)


def test_every_epoch_shows_every_picture_once_in_another_order():
    order = Order(5, seed=3, mirrored=True)
    first = [order.at(place) for place in range(10)]
    second = [order.at(place) for place in range(10, 20)]
    both = {(index, mirrored) for index in range(5) for mirrored in (False, True)}
    assert set(first) == set(second) == both
    assert first != second
    assert [Order(5, 3, True).at(place) for place in range(10)] == first
    assert [Order(5, 4, True).at(place) for place in range(10)] != first


@pytest.mark.parametrize(("world", "micro"), [(1, 16), (1, 8), (2, 8), (2, 4), (4, 4)])
def test_shares_cover_the_batch_and_keep_groups_whole(world, micro):
    shares = [share_rows(16, 4, world, rank, micro) for rank in range(world)]
    assert sorted(int(row) for share in shares for part in share for row in part) == list(range(16))
    for share in shares:
        for part in share:
            assert len(part) == micro
            # minibatch std sees members that stand micro/4 apart in a micro-batch, batch/4 apart in the whole
            for group in part.reshape(4, -1).T:
                assert np.diff(group).tolist() == [4, 4, 4]


def test_batches_that_cannot_be_cut_are_refused():
    with pytest.raises(ValueError, match="multiple of the group"):
        share_rows(16, 4, 1, 0, 2)
    with pytest.raises(ValueError, match="must divide the batch"):
        share_rows(16, 4, 3, 0, 4)


@pytest.mark.parametrize("threads", [0, 2])
def test_the_step_alone_says_which_pictures_come(threads):
    pictures = PoolPictures(np.random.default_rng(1).integers(0, 255, (7, 8, 8, 3), dtype=np.uint8))
    order, rows = Order(7, 0, mirrored=True), share_rows(4, 2, 1, 0, 2)
    reader = Reader(pictures, order, 4, rows, threads)
    for step in (0, 1, 2, 9, 3):  # also after a jump
        for micro, part in enumerate(rows):
            got, labels = reader.read(step, micro)
            for row, picture in zip(part, got, strict=True):
                index, mirrored = order.at(step * 4 + int(row))
                wanted = pictures.read(index)
                assert np.array_equal(picture, wanted[:, ::-1] if mirrored else wanted)
            assert labels.shape == (2, 0)
    reader.close()
