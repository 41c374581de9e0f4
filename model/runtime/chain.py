"""An engine that outlives its providers: when one can't open the file or fails while running it, the next one takes
over for good, and the log, ``fallbacks`` and ``provider`` say so.

A provider that failed is not tried again by this process: a CUDA context that has failed once fails for ever. Starting
the worker again is what brings it back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import structlog

from model.errors import ModelError
from model.runtime.contract import Array, Engine, Fallback, ProviderFailedError, Tensor

Open = Callable[[Sequence[str]], Engine]

logger = structlog.get_logger(__name__)


class ChainedEngine:
    """One file on the best provider that works.

    Args:
        graph: its name in messages.
        providers: where it is tried, best first.
        open_on: opens it on the first of these providers; the others may take what that one lacks.
            Raises ProviderFailedError, or BundleError for a file that is at fault itself.

    Raises:
        ModelError: provider-unavailable when no provider opens it.
    """

    def __init__(self, graph: str, providers: Sequence[str], open_on: Open) -> None:
        self._graph, self._open_on = graph, open_on
        self._left = tuple(providers)
        self._lock = threading.Lock()
        self.fallbacks: list[Fallback] = []
        self._engine = self._open()

    @property
    def provider(self) -> str:
        """What runs it now."""
        return self._engine.provider

    @property
    def inputs(self) -> Sequence[Tensor]:
        """What the file takes."""
        return self._engine.inputs

    @property
    def outputs(self) -> Sequence[Tensor]:
        """What the file gives."""
        return self._engine.outputs

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the named outputs, from the next provider where this one fails.

        Raises:
            ModelError: out-of-memory, or internal for every other failure of the last provider.
        """
        while True:
            engine = self._engine
            try:
                return engine.run(outputs, inputs)
            except ProviderFailedError as failure:
                self._leave(engine, failure)

    def _leave(self, engine: Engine, failure: ProviderFailedError) -> None:
        """Replace an engine that has failed; raise its error where there is no other."""
        with self._lock:
            if self._engine is not engine:
                return  # another thread saw it fail too, and was first
            if len(self._left) < 2:
                raise failure.to_model_error(self._graph) from failure
            try:
                self._engine = self._open(failure)
            except ModelError as error:
                raise failure.to_model_error(self._graph) from error

    def _open(self, failure: ProviderFailedError | None = None) -> Engine:
        """Open the file on the first provider that manages to; with a failure, on one after the present one."""
        failed = [(self._left[0], failure.reason)] if failure else []
        for rank in range(len(failed), len(self._left)):
            rest = self._left[rank:]
            try:
                engine = self._open_on(rest)
            except ProviderFailedError as error:
                failed.append((rest[0], error.reason))
                continue
            self._left = rest
            self._tell(failed, engine.provider, running=failure is not None)
            return engine
        provider, reason = failed[-1]
        raise ModelError(
            "provider-unavailable",
            f"The execution provider {provider} can't be used on this machine ({reason}), and no other is allowed.",
            "Check the GPU driver (`animato doctor`), or add cpu to ANIMATO_PROVIDERS.",
        )

    def _tell(self, failed: Sequence[tuple[str, str]], using: str, *, running: bool) -> None:
        for provider, reason in failed:
            when = "while running" if running else "while opening"
            logger.warning(
                "providers.fallback", graph=self._graph, failed=provider, using=using, when=when, reason=reason
            )
            self.fallbacks.append(Fallback(self._graph, provider, using, reason))
