"""What workers remove for good: objects of deleted jobs, objects that no job names, records past their time.

Every worker may do so at any moment; what goes over all objects is done by one at a time, page by page. No SQL.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from itertools import islice

import structlog

from services.errors import AnimatoError
from services.jobs.store import JobStore
from services.settings import Settings
from services.storage import DATABASE_KEY, JOB_FOLDERS, ObjectInfo, ObjectMissing, ObjectStore, job_of

log = structlog.get_logger(__name__)

# Records are looked through once a minute; objects all over again every six hours, at most a page a sweep.
PURGE_EVERY_S = 60.0
ORPHANS_EVERY_S = 6 * 3600.0
PAGE_OBJECTS = 500
# Longer than a page may take: another worker goes on when we die, from the beginning.
ORPHANS_LEASE_S = 120.0


class Retention:
    """A thread that forgets what is due, a little every ``settings.sweep_s``.

    A thread of its own: an object store that does not answer must not keep the sweeper from its work.
    """

    def __init__(self, settings: Settings, store: JobStore, storage: ObjectStore) -> None:
        self._pause_s = settings.sweep_s
        self._job_ttl_s = settings.job_ttl_s
        self._store = store
        self._storage = storage
        self._orphans = OrphanCollector(store, storage, settings.orphan_age_s)
        self._purged_at_s = float("-inf")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="retention", daemon=True)

    def start(self) -> None:
        """Begin to forget."""
        self._thread.start()

    def close(self) -> None:
        """Stop; what waits for a store that does not answer is left behind, for nothing is half done by it."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=1.0)

    def step(self) -> None:
        """Do a little of all that is due; what fails is tried again at the next step."""
        for chore in (self._remove_outdated, self._empty_graves, self._purge, self._orphans.step):
            try:
                chore()
            except AnimatoError as error:
                log.warning("retention_failed", code=error.code, reason=error.message)
            except Exception:  # the thread must not end while its worker lives
                log.exception("retention_failed_unexpectedly")

    def _loop(self) -> None:
        while not self._closing.wait(self._pause_s):
            self.step()

    def _remove_outdated(self) -> None:
        outdated = self._store.outdated()
        for keys in outdated.values():
            self._storage.delete(keys)
        self._store.mark_swept(list(outdated))
        if outdated:
            log.info("expired_results_deleted", jobs=len(outdated))

    def _empty_graves(self) -> None:
        """Remove the objects of deleted jobs that the API could not remove at once."""
        for job_id in self._store.buried():
            self._storage.delete_job(job_id)
            self._store.unbury([job_id])
            log.info("deleted_job_removed", job_id=job_id)

    def _purge(self) -> None:
        if time.monotonic() - self._purged_at_s < PURGE_EVERY_S:
            return
        jobs, keys = self._store.purge(self._job_ttl_s), self._store.purge_keys()
        self._purged_at_s = time.monotonic()
        if jobs or keys:
            log.info("records_purged", jobs=jobs, idempotency_keys=keys)


class OrphanCollector:
    """Goes through all stored objects and removes those that are old and that no job names.

    Such objects come from workers that died between storing a result and naming it, from requests that ended between
    storing a picture and accepting the job, and from writes that were cut short.

    Args:
        min_age_s: younger objects may belong to a job that is just being accepted.
        page_objects: how many are looked at in one step.
    """

    NAME = "orphans"

    def __init__(
        self, store: JobStore, storage: ObjectStore, min_age_s: float, *, page_objects: int = PAGE_OBJECTS
    ) -> None:
        self._store = store
        self._storage = storage
        self._min_age_s = min_age_s
        self._page_objects = page_objects
        self._token = secrets.token_hex(16)
        self._pass: Iterator[ObjectInfo] | None = None
        self._asked_at_s = float("-inf")
        self._removed = 0

    def step(self) -> None:
        """Look at the next page of a pass that is ours, or begin one that is due. Raises: AnimatoError."""
        now_s = time.monotonic()
        if self._pass is None and now_s - self._asked_at_s < PURGE_EVERY_S:
            return
        self._asked_at_s = now_s
        if not self._store.take_chore(self.NAME, self._token, ORPHANS_LEASE_S):
            self._pass = None
            return
        if self._pass is None and not self._begin():
            self._store.finish_chore(self.NAME, self._token, ORPHANS_EVERY_S)
            return
        assert self._pass is not None
        try:
            page = list(islice(self._pass, self._page_objects))
            self._remove(page)
        except AnimatoError:
            self._pass = None  # a listing that broke off can't be taken up; it begins again in a minute
            raise
        if len(page) < self._page_objects:
            self._pass = None
            self._store.finish_chore(self.NAME, self._token, ORPHANS_EVERY_S)
            log.info("orphans_collected", objects=self._removed)

    def _begin(self) -> bool:
        """Make sure that this store is ours to tidy up, and begin to list it."""
        if not self._is_ours():
            log.warning(
                "orphans_not_collected",
                reason="the object store belongs to another database",
                hint=f"If that database is gone for good, remove the object {DATABASE_KEY}.",
            )
            return False
        self._removed = 0
        self._pass = (found for folder in JOB_FOLDERS for found in self._storage.list_objects(folder))
        self._remove_unfinished()
        return True

    def _is_ours(self) -> bool:
        """Tell whether the store is marked as this database's; a store without a mark is given ours.

        A service that is started with a new database beside an old store would take everything in it for orphans.
        """
        ours = self._store.identity().encode()
        try:
            mark = self._storage.get(DATABASE_KEY)
        except ObjectMissing:
            self._storage.put(DATABASE_KEY, ours, "text/plain")
            mark = self._storage.get(DATABASE_KEY)
        return mark == ours

    def _remove(self, page: list[ObjectInfo]) -> None:
        objects = [(found.key, job_id, found.modified_at) for found in page if (job_id := job_of(found.key))]
        orphans = self._store.find_orphans(objects, self._min_age_s)
        self._storage.delete(orphans)
        self._removed += len(orphans)

    def _remove_unfinished(self) -> None:
        for path in self._storage.list_unfinished():
            try:
                if time.time() - path.stat().st_mtime > self._min_age_s:
                    path.unlink()
            except OSError:  # finished or removed by its writer, or not ours to remove
                continue
