"""Where stored submissions become jobs: those that come at the same time share one thread and one transaction.

Knows the job store, the catalogue and the dispatcher; no request, no picture.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from services.api.auth import ANONYMOUS
from services.api.gathering import Gathering
from services.api.models import Catalogue
from services.api.uploads import Submission
from services.errors import AnimatoError
from services.jobs.contract import InputFacts
from services.jobs.dispatch import Dispatcher
from services.jobs.intake import NewJob, Taken
from services.jobs.store import JobStore
from services.settings import Settings

# PostgreSQL shares commits by itself, and every transaction there waits for a network: many at once, each alone.
LANES_OF_A_SERVER = 20


@dataclass(frozen=True)
class Candidate:
    """A submission whose picture is stored: all that its row is made of."""

    job_id: str
    owner: str
    submission: Submission
    facts: InputFacts
    key: str | None
    traceparent: str | None


Desk = Gathering[Candidate, Taken]


def make_desk(settings: Settings, store: JobStore, catalogue: Catalogue, dispatcher: Dispatcher) -> Desk:
    """Return where candidates become jobs."""
    take_in = partial(_take_in, settings, store, catalogue, dispatcher)
    if store.is_sqlite:
        return Gathering(take_in, together=settings.commit_batch)
    return Gathering(take_in, together=1, lanes=LANES_OF_A_SERVER)


def _take_in(
    settings: Settings,
    store: JobStore,
    catalogue: Catalogue,
    dispatcher: Dispatcher,
    candidates: Sequence[Candidate],
) -> list[Taken | Exception]:
    """Make jobs of candidates in one transaction, then hint; returns what became of each. Runs on a thread."""
    newcomers = [_make_newcomer(settings, catalogue, candidate) for candidate in candidates]
    taken = iter(store.accept_all([newcomer for newcomer in newcomers if isinstance(newcomer, NewJob)]))
    outcomes = [next(taken) if isinstance(newcomer, NewJob) else newcomer for newcomer in newcomers]
    for outcome in outcomes:
        if isinstance(outcome, Taken) and outcome.created:
            dispatcher.hint(outcome.record.id)
    return outcomes


def _make_newcomer(settings: Settings, catalogue: Catalogue, candidate: Candidate) -> NewJob | AnimatoError:
    options, key = candidate.submission.options, candidate.key
    try:
        manifest = catalogue.choose(options.model)
    except AnimatoError as refusal:
        return refusal
    return NewJob(
        id=candidate.job_id,
        owner=candidate.owner,
        options=options,
        input=candidate.facts,
        seed=secrets.randbelow(2**32) if options.seed is None else options.seed,
        model_id=manifest.id,
        model_sha256=manifest.sha256,
        idempotency=None if key is None else (key, candidate.submission.body_sha256),
        queue_limit=settings.queue_limit,
        # Without keys all are one owner, and the whole queue is theirs.
        owner_limit=(settings.owner_queue_limit or None) if candidate.owner != ANONYMOUS else None,
        traceparent=candidate.traceparent,
    )
