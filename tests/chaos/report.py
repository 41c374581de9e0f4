"""The one line that chaos ends in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.settings import Settings
from tests.chaos.act import Outcome
from tests.chaos.watch import percentile


def sum_up(outcomes: Sequence[Outcome], *, wanted: int, settings: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the line's members, and whether every job was taken and none went wrong."""
    verdicts = [outcome.verdict for outcome in outcomes]
    recoveries = [seconds for outcome in outcomes for found in outcome.recoveries.values() for seconds in found]
    by_fault: dict[str, list[float]] = {}
    for outcome in outcomes:
        for kind, found in outcome.recoveries.items():
            by_fault.setdefault(kind, []).extend(found)
    faults: Counter[str] = Counter()
    for outcome in outcomes:
        faults.update(outcome.faults)
    complaints = sum(len(outcome.complaints) for outcome in outcomes)
    line: dict[str, Any] = {
        "accepted": sum(verdict.accepted for verdict in verdicts),
        "succeeded": sum(len(verdict.succeeded) for verdict in verdicts),
        "failed_by_design": sum(len(verdict.failed_by_design) for verdict in verdicts),
        "lost": sum(len(verdict.lost) for verdict in verdicts),
        "duplicated": sum(len(verdict.duplicated) for verdict in verdicts),
        "innocent_failures": sum(len(verdict.innocent_failures) for verdict in verdicts),
        "recovery_p50_s": _rounded(percentile(recoveries, 0.5)),
        "recovery_p95_s": _rounded(percentile(recoveries, 0.95)),
    }
    faultless = line["lost"] == line["duplicated"] == line["innocent_failures"] == complaints == 0
    faultless &= line["accepted"] >= wanted
    frozen = [seconds for outcome in outcomes for seconds in outcome.calm.posts_s]
    posts = [seconds for outcome in outcomes for seconds in outcome.posts_s]
    during = [seconds for outcome in outcomes for seconds in outcome.posts_redis_away_s]
    line |= {
        "canceled": sum(len(verdict.canceled) for verdict in verdicts),
        "complaints": complaints,
        "recoveries": len(recoveries),
        "recovery_p95_s_after": {kind: _rounded(percentile(found, 0.95)) for kind, found in sorted(by_fault.items())},
        "post_p99_redis_frozen_s": _rounded(percentile(frozen, 0.99), 3),
        "post_p99_storm_s": _rounded(percentile(posts, 0.99), 3),
        "post_p99_storm_redis_away_s": _rounded(percentile(during, 0.99), 3),
        "backlog_s": _worst(outcome.calm.backlog_s for outcome in outcomes),
        "cancel_queued_max_s": _worst((s for outcome in outcomes for s in outcome.calm.cancel_queued_s), 2),
        "cancel_running_max_s": _worst((s for outcome in outcomes for s in outcome.calm.cancel_running_s), 2),
        "posts_refused": sum(outcome.refused_posts for outcome in outcomes),
        "sigterm_max_s": _worst(s for outcome in outcomes for s in outcome.drains_s),
        "webhooks_told": sum(outcome.told for outcome in outcomes),
        "webhooks_refused_once": sum(outcome.refused_webhooks for outcome in outcomes),
        "faults": dict(sorted(faults.items())),
        "left_out": [words for outcome in outcomes for words in outcome.left_out],
        "lease_s": settings.get("lease_s", Settings.model_fields["lease_s"].default),
    }
    return line, faultless


def _rounded(seconds: float | None, digits: int = 1) -> float | None:
    return None if seconds is None else round(seconds, digits)


def _worst(seconds: Iterable[float | None], digits: int = 1) -> float | None:
    return _rounded(max((s for s in seconds if s is not None), default=None), digits)
