"""How often and how late an event is tried again."""

from __future__ import annotations

import pytest

from services.settings import Settings
from services.webhooks.schedule import choose_delay_s

DELAYS_S = Settings.model_fields["webhook_delays_s"].default


def test_default_is_some_eight_tries_within_a_day() -> None:
    delays = [choose_delay_s(tries, 500, 0.0, DELAYS_S) for tries in range(1, 20)]
    assert delays.count(None) == 19 - len(DELAYS_S), "an event is given up too early or too late"
    assert 7 <= len(DELAYS_S) <= 9
    assert 20 * 3600 < sum(DELAYS_S) <= 24 * 3600
    assert list(DELAYS_S) == sorted(DELAYS_S)


def test_pauses_have_jitter() -> None:
    delays = {choose_delay_s(4, None, 0.0, DELAYS_S) for _ in range(200)}
    assert len(delays) > 100, "what failed together comes back together"
    assert all(delay is not None and 270 <= delay <= 330 for delay in delays)


@pytest.mark.parametrize(("status", "ends"), [(410, True), (404, False), (429, False), (500, False), (None, False)])
def test_only_gone_ends_it_at_once(status: int | None, ends: bool) -> None:
    assert (choose_delay_s(1, status, 0.0, DELAYS_S) is None) is ends


@pytest.mark.parametrize(
    ("wished_s", "at_least_s", "at_most_s"), [(120, 120, 132), (1, 9, 11), (10**6, 86_400, 95_040)]
)
def test_receiver_may_ask_for_more_time(wished_s: float, at_least_s: float, at_most_s: float) -> None:
    delay_s = choose_delay_s(2, 429, 0.0, DELAYS_S, wished_s)
    assert delay_s is not None
    assert at_least_s <= delay_s <= at_most_s


def test_what_waited_for_days_behind_others_is_not_tried_again() -> None:
    assert choose_delay_s(1, 500, 86_400.0, DELAYS_S) is not None
    assert choose_delay_s(1, 500, 2 * 86_400.0, DELAYS_S) is None
    assert choose_delay_s(1, 500, 80_000.0, (0.1,)) is not None  # a short schedule is no reason to hurry
