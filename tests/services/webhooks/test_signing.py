"""Signatures are those of Standard Webhooks: its own package is the judge."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from services.webhooks.signing import make_secret, sign

BODY = '{"type":"animation.succeeded","data":{"prompt":"lächelt 😀"}}'


def test_receivers_accept_either_of_two_secrets() -> None:
    new, old, foreign = make_secret(), make_secret(), make_secret()
    headers = sign("msg_1", BODY, datetime.now(UTC), [new, old])
    for secret in (new, old):
        assert Webhook(secret).verify(BODY.encode(), headers)["type"] == "animation.succeeded"
    with pytest.raises(WebhookVerificationError):
        Webhook(foreign).verify(BODY, headers)


@pytest.mark.parametrize("change", ["webhook-id", "webhook-timestamp", "body"])
def test_nothing_can_be_changed(change: str) -> None:
    secret, now = make_secret(), datetime.now(UTC)
    headers = sign("msg_1", BODY, now, [secret])
    body = BODY
    if change == "body":
        body = BODY.replace("succeeded", "failed")
    else:
        headers[change] = {"webhook-id": "msg_2", "webhook-timestamp": str(int(now.timestamp()) - 1)}[change]
    with pytest.raises(WebhookVerificationError, match="No matching signature"):
        Webhook(secret).verify(body, headers)


def test_an_old_call_can_not_be_replayed() -> None:
    secret = make_secret()
    headers = sign("msg_1", BODY, datetime.now(UTC) - timedelta(minutes=6), [secret])
    with pytest.raises(WebhookVerificationError, match="too old"):
        Webhook(secret).verify(BODY, headers)


def test_secrets_have_256_bits_and_never_repeat() -> None:
    made = {make_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(base64.b64decode(secret.removeprefix("whsec_"))) for secret in made} == {32}
