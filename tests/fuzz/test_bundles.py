"""Bundles whose hashes fit and whose files are hostile: opened, or refused in a sentence; never a crash, never a hang.

Whoever can write a manifest can make its hashes fit, so SHA-256 is no defence here: the readers themselves are tried.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.bundle.manifest import MANIFEST_NAME, Manifest
from model.bundle.reader import read_bundle, read_manifest
from model.bundle.writer import write_bundle
from model.errors import BundleError
from tests.fuzz.graph_mutants import make_graph_mutants
from tests.fuzz.mutants import Mutant, blamed, how_many, make_mutants
from tests.house.tree import ROOT

# Longer than any graph of the tiny bundle takes on a machine that does other things too.
HANGING_S = 120.0
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_subnormal=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


class Opener:
    """``tests.fuzz.bundle_opener``, started again when a bundle ended it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def open(self, directory: Path) -> dict[str, str]:
        """Return what it answers; a death or a hang is an outcome too."""
        process = self._process or subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.bundle_opener"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        watch = threading.Timer(HANGING_S, process.kill)
        watch.start()
        try:
            process.stdin.write(f"{directory}\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            hung = watch.finished.is_set()
            watch.cancel()
        if answer:
            outcome: dict[str, str] = json.loads(answer)
            return outcome
        self._process = None
        return {"outcome": "hung" if hung else "died", "said": f"exit status {process.wait()}"}

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process.wait(60)


@pytest.fixture(scope="module")
def opener() -> Iterator[Opener]:
    started = Opener()
    yield started
    started.close()


@pytest.fixture(scope="module")
def fields(tiny_bundle: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((tiny_bundle / MANIFEST_NAME).read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="module")
def files(tiny_bundle: Path, fields: dict[str, Any]) -> dict[str, bytes]:
    return {name: (tiny_bundle / name).read_bytes() for name in fields["files"]}


def rewrite(tmp_path: Path, fields: dict[str, Any], files: dict[str, bytes]) -> Path:
    """Write a bundle whose manifest vouches for these files, whatever they are."""
    return write_bundle(tmp_path / "bundle", {n: v for n, v in fields.items() if n != "files"}, files)


def expect_words(answer: dict[str, str]) -> None:
    assert answer["outcome"] not in {"died", "hung", "escaped"}, answer["said"]
    if answer["outcome"] != "opened":
        assert answer["said"].rstrip().endswith((".", "?", "!")), answer["said"]
        # "internal" is told of a graph that opens and then computes nonsense.
        assert answer["kind"] == "BundleError" or answer["outcome"] == "internal", answer


def try_all(
    mutants: Iterator[Mutant], opener: Opener, tmp_path: Path, fields: dict[str, Any], files: dict[str, bytes]
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    for mutant in mutants:
        name = mutant.label.partition(",")[0]
        with blamed(mutant):
            answer = opener.open(rewrite(tmp_path, fields, {**files, name: mutant.data}))
            expect_words(answer)
        outcomes[answer["outcome"]] += 1
    return outcomes


def test_damaged_files_are_told_in_a_sentence(
    opener: Opener, tmp_path: Path, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    corpus = {name: data for name, data in files.items() if name != "README.md"}
    outcomes = try_all(make_mutants(corpus, how_many(24)), opener, tmp_path, fields, files)
    assert outcomes["opened"] > 0, "no mutant is harmless: are they mutants of the files at all?"
    assert outcomes["bundle-invalid"] > 0


def test_changed_graphs_are_told_in_a_sentence(
    opener: Opener, tmp_path: Path, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    graphs = {name: data for name, data in files.items() if name.endswith(".onnx")}
    outcomes = try_all(make_graph_mutants(graphs, how_many(24)), opener, tmp_path, fields, files)
    assert len(outcomes) >= 2, outcomes


def test_a_graph_reads_no_file_beside_it(
    opener: Opener, tmp_path: Path, fields: dict[str, Any], files: dict[str, bytes]
) -> None:
    model = onnx.load_from_string(files["mapping.onnx"])
    tensor = next(tensor for tensor in model.graph.initializer if tensor.raw_data)
    secret = tmp_path / "secret.bin"
    secret.write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for place in (str(secret), "secret.bin", f"../{secret.name}"):
        del tensor.external_data[:]
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", place
        directory = rewrite(tmp_path, fields, {**files, "mapping.onnx": model.SerializeToString()})
        (directory / "secret.bin").write_bytes(secret.read_bytes())
        answer = opener.open(directory)
        assert answer["outcome"] == "bundle-invalid", (place, answer)


def test_damaged_manifests_are_read_or_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    path = tmp_path / MANIFEST_NAME
    read = refused = 0
    for mutant in make_mutants({MANIFEST_NAME: (tiny_bundle / MANIFEST_NAME).read_bytes()}, how_many(400)):
        path.write_bytes(mutant.data)
        with blamed(mutant):
            try:
                read_manifest(tmp_path)
                read += 1
            except BundleError:
                refused += 1
    assert read
    assert refused


@settings(max_examples=how_many(80), derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_fields_of_any_kind_are_read_or_refused(data: st.DataObject, fields: dict[str, Any]) -> None:
    names = data.draw(st.lists(st.sampled_from(sorted(fields)), min_size=1, max_size=3, unique=True))
    changed = {**fields, **{name: data.draw(VALUES) for name in names}}
    digest = hashlib.sha256(b"").hexdigest()
    try:
        manifest = Manifest.from_dict(changed, sha256=digest)
    except BundleError as error:
        assert error.hint  # noqa: PT017 - one of two good ends
    else:
        assert Manifest.from_dict(manifest.to_dict(), sha256=digest) == manifest


@settings(max_examples=how_many(100), derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=st.text(max_size=40) | st.from_regex(r"(\.\./|/|\\|[a-z.]|\x00){1,12}", fullmatch=True))
def test_no_file_name_leads_out_of_the_bundle(name: str, fields: dict[str, Any], tiny_bundle: Path) -> None:
    changed = json.loads(json.dumps(fields))
    changed["files"][name] = changed["files"].pop("README.md")
    changed["card"] = name
    try:
        manifest = Manifest.from_dict(changed, sha256="0" * 64)
    except BundleError:
        return
    place = (tiny_bundle / name).resolve()
    assert name in manifest.files
    assert place.parent == tiny_bundle.resolve()


def test_a_bundle_that_only_lies_about_its_hashes_is_refused(tmp_path: Path, tiny_bundle: Path) -> None:
    directory = tmp_path / "copy"
    directory.mkdir()
    for path in tiny_bundle.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    for mutant in make_mutants({"synthesis.onnx": (tiny_bundle / "synthesis.onnx").read_bytes()}, how_many(20)):
        if mutant.data == (tiny_bundle / "synthesis.onnx").read_bytes():
            continue
        (directory / "synthesis.onnx").write_bytes(mutant.data)
        with blamed(mutant), pytest.raises(BundleError) as refusal:
            read_bundle(directory)
        assert refusal.value.code == "bundle-damaged"
