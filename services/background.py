"""Words that somebody says without waiting whether they are heard: one thread behind a short queue.

For what may be lost and must never hold up who says it.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable


class BackgroundQueue:
    """Hands words to one daemon thread, which starts with the first of them; drops them while ``size`` are pending.

    Args:
        name: of the thread.
        size: how many may be pending.
        handle: takes a word, on the thread. It must not raise: the thread would end with it.
        finish: called once, on the thread, after the last word. Never, where there was no word.
    """

    def __init__(self, name: str, size: int, handle: Callable[[str], None], finish: Callable[[], None]) -> None:
        self._name, self._handle, self._finish = name, handle, finish
        self._pending: queue.Queue[str | None] = queue.Queue(maxsize=size)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self.closed = False

    @property
    def left(self) -> int:
        """How many words are pending."""
        return self._pending.qsize()

    def put(self, word: str) -> None:
        """Leave a word. Never raises, never waits; safe on any thread. Nothing is taken after ``close``."""
        if self.closed:
            return
        self._start()
        try:
            self._pending.put_nowait(word)
        except queue.Full:
            return

    def close(self, timeout_s: float) -> None:
        """Handle what is pending, within ``timeout_s``, and stop."""
        self.closed = True
        thread = self._thread
        if thread is None:
            return
        deadline_s = time.monotonic() + timeout_s
        try:
            self._pending.put(None, timeout=timeout_s)
        except queue.Full:
            return  # a daemon thread: it ends with the process
        thread.join(max(0.0, deadline_s - time.monotonic()))

    def _start(self) -> None:
        if self._thread is not None:
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (word := self._pending.get()) is not None:
            self._handle(word)
        self._finish()
