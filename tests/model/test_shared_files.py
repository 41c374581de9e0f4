"""Files that several bundles share, and graphs that share a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.compose import add_prefix

from model.bundle.manifest import MANIFEST_NAME, SHARED_FOLDER
from model.bundle.reader import list_bundles, read_bundle
from model.bundle.writer import write_bundle
from model.errors import BundleError
from model.sessions import open_sessions

SHARED = ("text.onnx", "tokenizer.json")


def fields_of(bundle: Path, **changed: object) -> dict[str, object]:
    fields = json.loads((bundle / MANIFEST_NAME).read_text())
    del fields["files"]
    return fields | changed


def write_sharing(tiny_bundle: Path, target: Path, **changed: object) -> Path:
    names = [path.name for path in tiny_bundle.iterdir() if path.name != MANIFEST_NAME]
    return write_bundle(
        target,
        fields_of(tiny_bundle, **changed),
        {name: tiny_bundle / name for name in names if name not in SHARED},
        shared={name: tiny_bundle / name for name in SHARED},
    )


@pytest.fixture
def bundles(tiny_bundle: Path, tmp_path: Path) -> Path:
    for name in ("one", "two"):
        write_sharing(tiny_bundle, tmp_path / name, id=name)
    return tmp_path


def test_two_bundles_share_one_text_tower(bundles: Path, tiny_bundle: Path) -> None:
    assert {path.name for path in (bundles / SHARED_FOLDER).iterdir()} == set(SHARED)
    assert [manifest.id for manifest in list_bundles(bundles)] == ["one", "two"]
    for name in ("one", "two"):
        assert not (bundles / name / "text.onnx").exists()
        bundle = read_bundle(bundles / name)
        assert bundle.manifest.files["text.onnx"].shared
        assert bundle.read_graph("text") == (tiny_bundle / "text.onnx").read_bytes()


def test_a_shared_file_is_found_from_within_the_bundle(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bundles / "one")
    assert read_bundle(Path()).read("tokenizer.json")


def test_a_damaged_shared_file_is_refused(bundles: Path) -> None:
    path = bundles / SHARED_FOLDER / "text.onnx"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError) as caught:
        read_bundle(bundles / "two")
    assert caught.value.code == "bundle-damaged"


def test_a_bundle_copied_without_its_shared_files_says_where_they_should_be(bundles: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(bundles / "one", tmp_path / "elsewhere" / "one")
    with pytest.raises(BundleError, match="shared/") as caught:
        read_bundle(alone)
    assert caught.value.code == "bundle-missing"


def test_a_shared_link_that_leads_out_is_refused(bundles: Path, tiny_bundle: Path) -> None:
    path = bundles / SHARED_FOLDER / "text.onnx"
    path.unlink()
    path.symlink_to(tiny_bundle / "text.onnx")
    with pytest.raises(BundleError) as caught:
        read_bundle(bundles / "one")
    assert caught.value.code == "bundle-invalid"


def test_a_shared_file_is_never_overwritten_by_another(bundles: Path, tiny_bundle: Path) -> None:
    before = (bundles / SHARED_FOLDER / "tokenizer.json").read_bytes()
    with pytest.raises(BundleError, match="differs"):
        write_bundle(
            bundles / "three",
            fields_of(tiny_bundle, id="three"),
            {path.name: path for path in tiny_bundle.iterdir() if path.name not in (MANIFEST_NAME, *SHARED)},
            shared={"text.onnx": tiny_bundle / "text.onnx", "tokenizer.json": b"another"},
        )
    assert (bundles / SHARED_FOLDER / "tokenizer.json").read_bytes() == before
    assert not (bundles / "three").exists()


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_shared_is_true_or_false(bundles: Path, value: object) -> None:
    path = bundles / "one" / MANIFEST_NAME
    data = json.loads(path.read_text())
    data["files"]["text.onnx"]["shared"] = value
    path.write_text(json.dumps(data))
    with pytest.raises(BundleError) as caught:
        read_bundle(bundles / "one")
    assert caught.value.code == "bundle-invalid"


def join(first: onnx.ModelProto, second: onnx.ModelProto) -> onnx.ModelProto:
    """Put two graphs with the same input into one file."""
    first, second = (
        add_prefix(model, prefix, rename_inputs=False, rename_outputs=False)
        for model, prefix in ((first, "first_"), (second, "second_"))
    )
    first.graph.node.extend(second.graph.node)
    first.graph.initializer.extend(second.graph.initializer)
    first.graph.output.extend(second.graph.output)
    return first


def test_graphs_of_one_file_are_opened_once_and_give_their_own_outputs(tiny_bundle: Path, tmp_path: Path) -> None:
    encoder, image = (onnx.load(tiny_bundle / f"{name}.onnx") for name in ("encoder", "image"))
    joined = join(encoder, image)
    fields = fields_of(tiny_bundle)
    fields["graphs"] = {**fields["graphs"], "encoder": "pictures.onnx", "image": "pictures.onnx"}  # type: ignore[dict-item]
    files = {path.name: path for path in tiny_bundle.iterdir() if path.name != MANIFEST_NAME}
    target = write_bundle(tmp_path / "joined", fields, {**files, "pictures.onnx": joined.SerializeToString()})
    apart, together = (
        open_sessions(read_bundle(tiny_bundle), ("cpu",), 1),
        open_sessions(read_bundle(target), ("cpu",), 1),
    )
    size = json.loads((tiny_bundle / MANIFEST_NAME).read_text())["input_resolution"]
    picture = np.random.default_rng(0).uniform(-1, 1, (2, 3, size, size)).astype(np.float32)
    for graph, output in (("encoder", "ws"), ("image", "image_embed")):
        assert set(together[graph].run(image=picture)) == {output}
        np.testing.assert_allclose(
            together[graph].run(image=picture)[output], apart[graph].run(image=picture)[output], atol=1e-6
        )
    assert together["encoder"]._engine is together["image"]._engine  # type: ignore[attr-defined]
