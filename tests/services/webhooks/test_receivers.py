"""Who may be called now: places are shared between receivers and owners, and who does not answer is left in peace."""

from __future__ import annotations

from services.webhooks.receivers import MAX_PAUSE_S, PATIENCE, Receivers

SLOW, FAST, OTHER = ("me", "slow:443"), ("me", "fast:443"), ("you", "slow:443")


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def fail(receivers: Receivers, address: tuple[str, str], times: int = 1) -> None:
    for _ in range(times):
        receivers.begin(address)
        receivers.end(address, answered=False)


def test_one_receiver_takes_a_quarter() -> None:
    receivers = Receivers(8)
    plan = receivers.plan()
    assert plan.free == 8
    assert [plan.admits(SLOW) for _ in range(3)] == [True, True, False]
    assert plan.admits(FAST)
    assert plan.admits(OTHER), "another owner's calls to it wait for mine"
    assert receivers.plan().admits(SLOW), "a plan that was not carried out took places"


def test_calls_under_way_count_until_they_end() -> None:
    receivers = Receivers(8)
    for _ in range(2):
        receivers.begin(SLOW)
    plan = receivers.plan()
    assert (plan.free, plan.avoid, plan.admits(SLOW)) == (6, {SLOW}, False)
    receivers.end(SLOW, answered=True)
    assert receivers.plan().admits(SLOW)


def test_one_owner_leaves_places_to_others() -> None:
    receivers = Receivers(8)
    for number in range(6):
        receivers.begin(("me", f"host{number}:443"))
    plan = receivers.plan()
    assert plan.avoid_owners == {"me"}
    assert not plan.admits(FAST)
    assert plan.admits(OTHER)


def test_a_dead_receiver_is_called_less_and_less() -> None:
    clock = Clock()
    receivers = Receivers(8, clock)
    fail(receivers, SLOW, PATIENCE - 1)
    assert receivers.plan().avoid == set(), "a few failures are bad luck"
    pauses = []
    for _ in range(12):
        fail(receivers, SLOW)
        began_s = clock.now_s
        while receivers.plan().avoid == {SLOW}:
            clock.now_s += 0.5
        pauses.append(clock.now_s - began_s)
    assert pauses[:4] == [1, 2, 4, 8]
    assert pauses[-1] == MAX_PAUSE_S
    assert not receivers.plan().avoid
    receivers.begin(SLOW)
    receivers.end(SLOW, answered=True)
    fail(receivers, SLOW)
    assert receivers.plan().avoid == set(), "an answer did not clear its name"


def test_memory_is_bounded() -> None:
    receivers = Receivers(8, Clock())
    for number in range(3000):
        fail(receivers, ("me", f"host{number}:443"), PATIENCE)
    avoid = receivers.plan().avoid
    assert len(avoid) == 1000
    assert ("me", "host2999:443") in avoid


def test_the_smallest_concurrency_still_calls() -> None:
    assert Receivers(1).plan().admits(SLOW)
