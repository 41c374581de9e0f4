"""Fixtures that the tests of several rooms share."""

from __future__ import annotations

from tests.services.outbound.internet import authority, internet, tls, trust  # noqa: F401 - fixtures
