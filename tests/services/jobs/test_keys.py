"""The table of keys, on both databases."""

from __future__ import annotations

import re

import pytest

from services.errors import PermanentError
from services.jobs.keys import CLIENT_SCOPES, Scope, hash_key, read_key_id
from services.jobs.store import JobStore
from tests.services.jobs.conftest import Clock


def test_key_is_long_and_stored_as_a_hash(store: JobStore) -> None:
    texts = {store.create_key("ada")[0] for _ in range(5)}
    assert len(texts) == 5
    for text in texts:
        assert re.fullmatch(r"ank_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", text), "43 characters of base64url are 256 bits"
        key_id = read_key_id(text)
        assert key_id is not None
        proof = store.find_key(key_id)
        assert proof is not None
        assert proof.sha256 == hash_key(text)
        assert text not in str(proof)
    assert read_key_id("ank_x") is read_key_id("") is read_key_id("ank_" + "0" * 16 + "_" + "é" * 43) is None


def test_defaults_open_all_that_a_client_needs(store: JobStore) -> None:
    _, record = store.create_key("ada", "ci")
    assert (record.owner, record.name, record.expires_at, record.used_at) == ("ada", "ci", None, None)
    assert record.scopes == CLIENT_SCOPES
    assert set(Scope) - set(CLIENT_SCOPES) == {Scope.METRICS_READ}


def test_expiry(store: JobStore, clock: Clock) -> None:
    _, record = store.create_key("ada", lifetime_s=60)
    clock.advance(59)
    assert record.state_at(clock()) == "live"
    assert store.has_live_keys()
    clock.advance(1)
    assert record.state_at(clock()) == "expired"
    assert not store.has_live_keys()


def test_rotation_gives_the_old_key_some_time(store: JobStore, clock: Clock) -> None:
    _, old = store.create_key("ada", "ci", [Scope.MODELS_READ])
    clock.advance(10)
    _, new = store.rotate_key(old.id, overlap_s=100, lifetime_s=1000)
    assert (new.owner, new.name, new.scopes) == ("ada", "ci", (Scope.MODELS_READ,))
    states = {}
    for _ in range(2):
        records, now = store.list_keys("ada")
        states[now] = [record.state_at(now) for record in records]
        clock.advance(100)
    assert list(states.values()) == [["live", "live"], ["expired", "live"]]
    with pytest.raises(PermanentError, match="is expired, so it can't be rotated"):
        store.rotate_key(old.id, overlap_s=100)


def test_rotation_never_lengthens_the_old_key_s_life(store: JobStore, clock: Clock) -> None:
    _, old = store.create_key("ada", lifetime_s=50)
    store.rotate_key(old.id, overlap_s=100)
    proof = store.find_key(old.id)
    assert proof is not None
    assert proof.record.expires_at == old.expires_at


def test_revocation_is_for_good(store: JobStore, clock: Clock) -> None:
    _, record = store.create_key("ada")
    revoked_at = store.revoke_key(record.id).revoked_at
    clock.advance(60)
    again = store.revoke_key(record.id)
    assert again.revoked_at == revoked_at == record.created_at
    assert again.state_at(clock()) == "revoked"
    with pytest.raises(PermanentError, match="is revoked"):
        store.rotate_key(record.id, overlap_s=100)
    for unknown in ("", "nobody", "0" * 16, "' or 1=1 --"):
        with pytest.raises(PermanentError, match="no key with the id"):
            store.revoke_key(unknown)


def test_lists_are_by_owner_and_age(store: JobStore, clock: Clock) -> None:
    made = []
    for owner in ("ada", "bob", "ada"):
        made.append(store.create_key(owner)[1])
        clock.advance(1)
    assert [record.id for record in store.list_keys()[0]] == [record.id for record in made]
    assert [record.id for record in store.list_keys("ada")[0]] == [made[0].id, made[2].id]


def test_use_is_noted_once_a_minute(store: JobStore, clock: Clock) -> None:
    _, record = store.create_key("ada")

    def read_use() -> object:
        return store.list_keys()[0][0].used_at

    store.note_key_use(record.id)
    first = read_use()
    assert first == clock().replace(second=0, microsecond=0)
    clock.advance(59)
    store.note_key_use(record.id)
    assert read_use() == first
    clock.advance(1)
    store.note_key_use(record.id)
    assert read_use() == clock().replace(second=0, microsecond=0) != first
    store.note_key_use("nobody")


@pytest.mark.parametrize(
    "facts",
    [
        {"owner": ""},
        {"owner": "a b"},
        {"owner": "-a"},
        {"owner": "x" * 129},
        {"owner": "a\n"},
        {"name": "x" * 129},
        {"name": "a\x1b[31m"},
        {"scopes": ()},
        {"lifetime_s": 0},
        {"lifetime_s": -1},
        {"lifetime_s": 1e12},
        {"lifetime_s": float("nan")},
    ],
)
def test_what_can_be_no_key_is_refused(store: JobStore, facts: dict[str, object]) -> None:
    with pytest.raises(PermanentError) as caught:
        store.create_key(**({"owner": "ada"} | facts))  # type: ignore[arg-type]
    assert caught.value.code == "key-invalid"
    assert store.list_keys()[0] == []
