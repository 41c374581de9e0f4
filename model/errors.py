"""What can go wrong in here, in sentences. Standard library only; no HTTP, no jobs.

The worker translates these into ``services.errors``; ``model`` itself never imports services.

::

    ModelError        code, message, hint
    └── BundleError   the bundle is missing, damaged, newer than this program or not what its manifest says
"""

from __future__ import annotations


class ModelError(Exception):
    """A failure of the model with a stable code, one sentence for people and a hint that says what to do.

    Args:
        code: kebab-case, e.g. ``"image-corrupt"`` or ``"bundle-damaged"``.
        message: one sentence that says what happened; no prompt and no picture in it.
        hint: one sentence that says what the reader can do about it.
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.code = code
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[ModelError], tuple[str, str, str]]:
        """Pickle by the three arguments: the error crosses from the inference child to the worker."""
        return type(self), (self.code, self.message, self.hint)


class BundleError(ModelError):
    """The bundle can't be used.

    Codes: bundle-missing, bundle-invalid, bundle-damaged, bundle-newer, bundle-mismatch (a graph with other inputs or
    outputs than the manifest promises).
    """
