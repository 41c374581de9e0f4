"""``animato keys``: what a script reads stands on standard output, what a person reads on standard error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli.up import tell_keys
from services.jobs.keys import CLIENT_SCOPES, Scope, hash_key, read_key_id
from services.jobs.store import JobStore
from services.settings import Settings
from tests.cli.conftest import Run, unboxed


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def find(settings: Settings, key: str) -> bool:
    """Return whether the service's database knows this key."""
    store = JobStore.from_settings(settings)
    proof = store.find_key(read_key_id(key) or "")
    store.close()
    return proof is not None and proof.sha256 == hash_key(key)


def test_create_prints_the_key_alone(animato: Run, settings: Settings) -> None:
    ran = animato("keys", "create", "--owner", "ada", "--name", "ci [red]", "--expires-in", "90d")
    assert ran.returncode == 0, ran.stderr
    assert re.fullmatch(r"ank_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n", ran.stdout)
    assert "only its hash is stored" in ran.stderr
    assert find(settings, ran.stdout.strip()), "made before the service's first start"
    listed = animato("keys", "list")
    assert "ci [red]" in listed.stdout, "names are shown as they are"
    assert ran.stdout.strip() not in listed.stdout + listed.stderr


def test_json(animato: Run, settings: Settings) -> None:
    made = json.loads(animato("keys", "create", "--json").stdout)
    assert find(settings, made["key"])
    assert (made["owner"], made["state"], made["expires_at"]) == ("default", "live", None)
    assert made["scopes"] == list(CLIENT_SCOPES)
    narrow = ("--scope", "models:read,metrics:read", "--scope", "animations:read", "--expires-in", "2h")
    other = json.loads(animato("keys", "create", "--json", "--owner", "ops", *narrow).stdout)
    assert other["scopes"] == [Scope.MODELS_READ, Scope.METRICS_READ, Scope.ANIMATIONS_READ]
    listed = json.loads(animato("keys", "list", "--json").stdout)
    assert [key["id"] for key in listed] == [made["id"], other["id"]]
    assert all("key" not in key and "sha256" not in key for key in listed)
    assert [key["id"] for key in json.loads(animato("keys", "list", "--owner", "ops", "--json").stdout)] == [
        other["id"]
    ]


def test_rotate_and_revoke(animato: Run, settings: Settings) -> None:
    first = json.loads(animato("keys", "create", "--owner", "ada", "--name", "ci", "--json").stdout)
    second = json.loads(animato("keys", "rotate", first["id"], "--overlap", "12h", "--json").stdout)
    assert (second["owner"], second["name"]) == ("ada", "ci")
    assert find(settings, first["key"])
    assert find(settings, second["key"])
    assert animato("keys", "revoke", first["id"]).returncode == 0
    assert animato("keys", "revoke", first["id"]).returncode == 0, "a script may repeat it"
    states = {key["id"]: key["state"] for key in json.loads(animato("keys", "list", "--json").stdout)}
    assert states == {first["id"]: "revoked", second["id"]: "live"}
    assert json.loads(animato("keys", "revoke", second["id"], "--json").stdout)["state"] == "revoked"


def test_another_data_folder(animato: Run, tmp_path: Path) -> None:
    ran = animato("keys", "create", "--data-dir", tmp_path / "other")
    assert find(Settings(data_dir=tmp_path / "other"), ran.stdout.strip())
    assert "There are no keys" in animato("keys", "list").stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("create", "--scope", "fly"), 2, "choose from animations:read"),
        (("create", "--expires-in", "soon"), 2, "for example 90d"),
        (("create", "--expires-in", "-5d"), 2, "for example 90d"),
        (("create", "--expires-in", "0d"), 1, "lives longer than nothing"),
        (("create", "--owner", "a b"), 1, "An owner has"),
        (("revoke", "nobody"), 1, "There is no key with the id"),
        (("rotate", "nobody"), 1, "There is no key with the id"),
        (("rotate",), 2, "ID"),
        (("fly",), 2, "fly"),
    ],
)
def test_wrong_use_is_told(animato: Run, words: tuple[str, ...], code: int, said: str) -> None:
    ran = animato("keys", *words)
    assert ran.returncode == code, ran.stderr
    assert said in unboxed(ran.stderr)
    assert "Traceback" not in ran.stderr
    assert ran.stdout == ""


def test_up_says_who_may_call(settings: Settings) -> None:
    assert "asks for no API keys; this machine alone" in tell_keys(settings)
    assert "ANYBODY" in tell_keys(settings.model_copy(update={"auth": "off", "host": "0.0.0.0"}))
    locked = settings.model_copy(update={"host": "0.0.0.0"})
    store = JobStore.from_settings(locked)
    store.migrate()
    assert "there are none yet: animato keys create" in tell_keys(locked)
    store.create_key("ada")
    store.close()
    assert tell_keys(locked) == "It asks for API keys."
