"""Signatures of webhooks as standardwebhooks.com has them, and the secrets that make them. No network, no store."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks.webhooks import Webhook

SECRET_BYTES = 32


def make_secret() -> str:
    """Return a new secret of 256 random bits, e.g. ``whsec_MfKQ9r8G…``."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def sign(delivery_id: str, body: str, at: datetime, live_secrets: Sequence[str]) -> dict[str, str]:
    """Return the headers that let a receiver check who sent this body, when, and whether it has it already.

    Args:
        delivery_id: stays the same over all tries, so that receivers can drop repeats.
        at: the time of this very try: receivers refuse what is older than some minutes.
        live_secrets: one signature each; a receiver is content with any that it can check.
    """
    assert live_secrets, "an unsigned webhook is worth nothing to its receiver"
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(delivery_id, at, body) for secret in live_secrets),
    }
