"""A bundle is exactly what its manifest says, or it is refused with a sentence that says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.bundle.manifest import SCHEMA_VERSION, Manifest
from model.bundle.reader import find_bundle, list_bundles, read_bundle, read_manifest
from model.bundle.writer import write_bundle
from model.errors import BundleError, ModelError


@pytest.fixture
def copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def edit(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def refused(directory: Path, code: str, *words: str) -> BundleError:
    with pytest.raises(BundleError) as caught:
        read_bundle(directory)
    error = caught.value
    assert error.code == code
    assert error.message.endswith(".")
    assert error.hint.endswith(".")
    for word in words:
        assert word in str(error)
    return error


def test_whole_bundle_is_read(tiny_bundle: Path) -> None:
    bundle = read_bundle(tiny_bundle)
    assert bundle.manifest.id == "tiny"
    assert bundle.manifest.num_ws == 4
    assert bundle.read("README.md").startswith(b"# Tiny")
    assert bundle.read_graph("text") == (tiny_bundle / "text.onnx").read_bytes()
    assert len(bundle.manifest.sha256) == 64


def test_manifest_survives_a_round_trip(tiny_bundle: Path) -> None:
    manifest = read_manifest(tiny_bundle)
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest


def test_fields_of_a_later_minor_version_are_kept(copy: Path) -> None:
    edit(copy, lambda m: m.update(colour_space="sRGB"))
    manifest = read_bundle(copy).manifest
    assert manifest.extra == {"colour_space": "sRGB"}
    assert manifest.to_dict()["colour_space"] == "sRGB"


def test_no_bundle_there(tmp_path: Path) -> None:
    refused(tmp_path / "nothing", "bundle-missing", "manifest.json", "ANIMATO_BUNDLES_DIR")


def test_missing_file(copy: Path) -> None:
    (copy / "encoder.onnx").unlink()
    refused(copy, "bundle-missing", "encoder.onnx", "fresh copy")


def test_one_flipped_bit(copy: Path) -> None:
    path = copy / "synthesis.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(copy, "bundle-damaged", "synthesis.onnx", "SHA-256")


def test_cut_file(copy: Path) -> None:
    path = copy / "synthesis.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    refused(copy, "bundle-damaged", "synthesis.onnx", "bytes")


def test_file_that_changes_after_verification_is_not_used(copy: Path) -> None:
    bundle = read_bundle(copy)
    path = copy / "text.onnx"
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(BundleError, match="damaged"):
        bundle.read_graph("text")


def test_newer_schema(copy: Path) -> None:
    edit(copy, lambda m: m.update(schema_version=SCHEMA_VERSION + 1, graphs="a shape nobody knows yet"))
    refused(copy, "bundle-newer", "made by a newer animato", "Update animato, or ask for an older bundle.")


@pytest.mark.parametrize("text", ["", "not json", '{"schema_version": 1', "[1]", "null", "[" * 100_000, '"\udcff"'])
def test_manifest_that_is_no_json_object(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_bytes(text.encode(errors="surrogateescape"))
    refused(copy, "bundle-invalid", "manifest.json")


def test_huge_manifest_is_not_read(copy: Path) -> None:
    (copy / "manifest.json").write_bytes(b" " * ((1 << 20) + 1))
    refused(copy, "bundle-invalid", "larger")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.pop("schema_version"), "schema_version"),
        (lambda m: m.update(schema_version=True), "schema_version"),
        (lambda m: m.update(num_ws=0), "num_ws"),
        (lambda m: m.update(w_dim="128"), "w_dim"),
        (lambda m: m.update(fps=24.5), "fps"),
        (lambda m: m.pop("resolution"), "resolution"),
        (lambda m: m.update(id="../human"), "id"),
        (lambda m: m.update(id="Human Face"), "id"),
        (lambda m: m.update(expressions="smiling"), "expressions"),
        (lambda m: m.update(presets=[1]), "presets"),
        (lambda m: m.update(files=[]), "files"),
        (lambda m: m["files"].update({"x.bin": 1}), "x.bin"),
        (lambda m: m["files"]["text.onnx"].update(sha256="AB"), "text.onnx"),
        (lambda m: m["files"]["text.onnx"].update(bytes=-1), "text.onnx"),
        (lambda m: m["files"].pop("text.onnx"), "graphs.text"),
        (lambda m: m["files"].pop("tokenizer.json"), "tokenizer"),
        (lambda m: m["graphs"].pop("motion"), "graphs.motion"),
        (lambda m: m["graphs"].update(motion=7), "graphs.motion"),
        (lambda m: m.update(card="OTHER.md"), "card"),
    ],
)
def test_manifest_fields_are_checked(copy: Path, change: Callable[[dict[str, Any]], object], word: str) -> None:
    edit(copy, change)
    refused(copy, "bundle-invalid", word)


@pytest.mark.parametrize(
    "name",
    ["../secret", "a/../../secret", "/etc/passwd", "sub/file", "..", ".", ".hidden", "a\\b", "a\nb", "", "x" * 200],
)
def test_file_names_stay_inside(copy: Path, name: str) -> None:
    (copy.parent / "secret").write_text("secret")
    edit(copy, lambda m: m["files"].update({name: {"sha256": "0" * 64, "bytes": 6}}))
    refused(copy, "bundle-invalid", "plain file name", "Do not use this bundle")


def test_link_out_of_the_bundle(copy: Path) -> None:
    outside = copy.parent / "outside.onnx"
    (copy / "text.onnx").rename(outside)
    (copy / "text.onnx").symlink_to(outside)  # the right bytes, in the wrong place
    refused(copy, "bundle-invalid", "text.onnx", "leads out of the bundle")


def test_link_inside_the_bundle_is_fine(copy: Path) -> None:
    # Kubernetes mounts its volumes as links to a hidden folder of the same directory.
    (copy / "..data").mkdir()
    (copy / "text.onnx").rename(copy / "..data" / "text.onnx")
    (copy / "text.onnx").symlink_to(Path("..data") / "text.onnx")
    assert read_bundle(copy).manifest.id == "tiny"


def test_loop_of_links_and_folder_in_place_of_a_file(copy: Path) -> None:
    (copy / "text.onnx").unlink()
    (copy / "text.onnx").symlink_to("text.onnx")
    refused(copy, "bundle-missing", "text.onnx")
    (copy / "text.onnx").unlink()
    (copy / "text.onnx").mkdir()
    refused(copy, "bundle-missing", "text.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipe_does_not_hang_the_reader(copy: Path) -> None:
    (copy / "text.onnx").unlink()
    os.mkfifo(copy / "text.onnx")
    refused(copy, "bundle-missing", "text.onnx")


def test_unlisted_files_are_ignored(copy: Path) -> None:
    (copy / ".DS_Store").write_bytes(b"\0")
    assert read_bundle(copy).manifest.id == "tiny"


def test_every_byte_is_hashed_once_and_no_file_is_held_whole(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that verification may cost: a second pass, or a copy in memory, would be felt at each start."""
    manifest = read_manifest(tiny_bundle)
    files: dict[str, Path | bytes] = {name: tiny_bundle / name for name in manifest.files}
    files["ballast.bin"] = os.urandom(10_000_000)
    big = write_bundle(tmp_path / "big", manifest.to_dict(), files)
    hashed: list[int] = []
    sha256 = hashlib.sha256

    class CountingHash:
        def __init__(self, data: bytes = b"") -> None:
            self._hash = sha256()
            self.update(data)

        def update(self, data: bytes) -> None:
            hashed.append(len(data))
            self._hash.update(data)

        def hexdigest(self) -> str:
            return self._hash.hexdigest()

    monkeypatch.setattr(hashlib, "sha256", CountingHash)
    tracemalloc.start()
    try:
        read_bundle(big)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5_000_000, "a piece at a time"
    verified = sum(hashed)
    # the manifest is hashed for the bundle's own identity
    assert verified == sum((big / name).stat().st_size for name in (*read_manifest(big).files, "manifest.json"))


def test_listing_reads_manifests_alone_and_leaves_out_bad_ones(
    tiny_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, domain in (("b-dog", "dog"), ("c-human", "human"), ("a-broken", "x")):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_bundle / "manifest.json", tmp_path / name)
        edit(tmp_path / name, lambda m, name=name, domain=domain: m.update(id=name[2:], domain=domain))
    edit(tmp_path / "a-broken", lambda m: m.pop("graphs"))
    (tmp_path / "notes.txt").write_text("no bundle")
    assert [m.id for m in list_bundles(tmp_path)] == ["human", "dog"]  # no graph is there, and none is missed
    assert "a-broken" in caplog.text
    assert find_bundle(tmp_path, "dog") == tmp_path / "b-dog"
    with pytest.raises(BundleError, match="no bundle with the id 'cat'"):
        find_bundle(tmp_path, "cat")
    assert list_bundles(tmp_path / "nowhere") == []


def test_writer_replaces_a_bundle_whole(copy: Path) -> None:
    manifest = read_manifest(copy)
    files: dict[str, Path | bytes] = {name: (copy / name).read_bytes() for name in manifest.files}
    (copy / "left-over.onnx").write_bytes(b"old")
    write_bundle(copy, manifest.to_dict() | {"version": "2"}, files)
    assert read_bundle(copy).manifest.version == "2"
    assert not (copy / "left-over.onnx").exists()
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_writer_leaves_the_old_bundle_where_the_new_one_is_wrong(copy: Path) -> None:
    fields = read_manifest(copy).to_dict()
    with pytest.raises(BundleError, match=r"graphs\.text"):
        write_bundle(copy, fields, {"README.md": b"nothing else"})
    assert read_bundle(copy).manifest.id == "tiny"
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_writer_does_not_delete_what_is_no_bundle(tmp_path: Path, tiny_bundle: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="no bundle"):
        write_bundle(tmp_path, read_manifest(tiny_bundle).to_dict(), {})
    assert (tmp_path / "thesis.txt").exists()


def test_builder_gives_the_same_bytes(tiny_bundle: Path, tmp_path: Path) -> None:
    from tests.model.tiny_bundle import build_tiny_bundle

    assert read_manifest(build_tiny_bundle(tmp_path / "again")).sha256 == read_manifest(tiny_bundle).sha256


def test_errors_cross_processes() -> None:
    error = BundleError("bundle-damaged", "It is damaged.", "Get another.")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ModelError)
    assert (again.code, again.message, again.hint) == (error.code, error.message, error.hint)


def test_reading_manifests_needs_the_standard_library_alone(tiny_bundle: Path) -> None:
    program = (
        "import sys; from model.bundle.reader import read_bundle; import model.bundle.writer, model.bundle.graphs;"
        f"read_bundle({str(tiny_bundle)!r});"
        "print(sorted({n.split('.')[0] for n in sys.modules} - set(sys.stdlib_module_names) - {'__main__', 'model'}))"
    )
    found = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert found.stdout.strip() == "[]"
