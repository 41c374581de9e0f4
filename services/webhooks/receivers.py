"""What this process knows of the receivers it calls: how many calls are under way, and who is to be left in peace.

It is why one receiver that is slow or dead holds nobody else up. Nothing of it is kept: after a restart a dead receiver
is found dead again after a few calls.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from services.jobs.deliveries import Address

# So many failures in a row are bad luck; from then on a receiver is called less and less often.
PATIENCE = 4
MAX_PAUSE_S = 60.0
_REMEMBERED = 1000


@dataclass
class _Trouble:
    failures: int
    until_s: float


class Receivers:
    """Bounds the calls under way, in all and of each owner and receiver. Thread-safe.

    Args:
        concurrency: calls under way at once. One receiver takes a quarter of them, one owner three quarters.
        clock: a monotonic one, in seconds; only tests pass another.
    """

    def __init__(self, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._concurrency = concurrency
        self._of_receiver = max(1, concurrency // 4)
        self._of_owner = max(1, concurrency * 3 // 4)
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: Counter[Address] = Counter()
        self._troubles: dict[Address, _Trouble] = {}

    def plan(self) -> Plan:
        """Return what may be called now."""
        with self._lock:
            now_s = self._clock()
            paused = {address for address, trouble in self._troubles.items() if trouble.until_s > now_s}
            return Plan(self._concurrency, self._of_receiver, self._of_owner, Counter(self._under_way), paused)

    def begin(self, address: Address) -> None:
        """Count a call that begins."""
        with self._lock:
            self._under_way[address] += 1

    def end(self, address: Address, *, answered: bool) -> None:
        """Count a call that has ended; ``answered``: it was taken, so the receiver is well."""
        with self._lock:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]
            if answered:
                self._troubles.pop(address, None)
                return
            trouble = self._troubles.pop(address, _Trouble(0, 0.0))  # taken out and put in again: the latest is last
            trouble.failures += 1
            excess = trouble.failures - PATIENCE
            if excess >= 0:
                trouble.until_s = self._clock() + min(MAX_PAUSE_S, 2.0 ** min(excess, 16))
            self._troubles[address] = trouble
            if len(self._troubles) > _REMEMBERED:
                del self._troubles[next(iter(self._troubles))]


class Plan:
    """One round's choice of deliveries: asked for each candidate, it books a place with every yes."""

    def __init__(
        self, concurrency: int, of_receiver: int, of_owner: int, under_way: Counter[Address], paused: set[Address]
    ) -> None:
        self._of_receiver = of_receiver
        self._of_owner = of_owner
        self._under_way = under_way
        self._owners: Counter[str] = Counter()
        for (owner, _), calls in under_way.items():
            self._owners[owner] += calls
        self.free = concurrency - under_way.total()
        self.avoid = paused | {address for address, calls in under_way.items() if calls >= of_receiver}
        self.avoid_owners = {owner for owner, calls in self._owners.items() if calls >= of_owner}

    def admits(self, address: Address) -> bool:
        """Return whether one more call for this owner to this receiver may begin, and count it as begun."""
        owner, _ = address
        if self._under_way[address] >= self._of_receiver or self._owners[owner] >= self._of_owner:
            return False
        self._under_way[address] += 1
        self._owners[owner] += 1
        return True
