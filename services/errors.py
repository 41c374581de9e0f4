"""The errors that cross a boundary, and their codes.

This room knows nothing of HTTP (``services.api.problems`` maps codes to statuses), of SQL or of models.

::

    AnimatoError              code, message, hint
    ├── PermanentError        the same input will fail again
    │   ├── RequestError      the client's request can't be accepted (never becomes a job)
    │   └── JobCanceled       the client asked for it; raised between frames
    └── TemporaryError        worth another try after ``delay_s``
"""

from __future__ import annotations

from typing import Any


class AnimatoError(Exception):
    """Root of the tree: a stable ``code`` for programs, a sentence for people and a ``hint`` that says what to do.

    Args:
        code: one of the kebab-case codes of the API contract, e.g. ``"image-corrupt"``.
        message: one sentence that says what happened, free of secrets and of the client's prompt or image.
        hint: one sentence that says what the reader can do about it.
        details: extra members for the problem document (JSON-serialisable).
    """

    retryable = False

    def __init__(self, code: str, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details


class PermanentError(AnimatoError):
    """The same input will fail again; the job ends as ``failed`` with this code."""


class RequestError(PermanentError):
    """The request itself can't be accepted; raised before anything is queued."""


class JobCanceled(PermanentError):  # noqa: N818 - it reads as what happened
    """The client asked for the job to stop; raised between two frames."""

    def __init__(self) -> None:
        super().__init__("canceled", "The job was canceled.", "Post it again if it is still wanted.")


class TemporaryError(AnimatoError):
    """Something outside is down or full; the job goes back to the queue and is tried again after ``delay_s``."""

    retryable = True

    def __init__(self, code: str, message: str, hint: str = "", delay_s: float = 5.0, **details: Any) -> None:
        super().__init__(code, message, hint, **details)
        self.delay_s = delay_s
