"""What is said without waiting: order, what a full queue does, and the end."""

import threading

from services.background import BackgroundQueue

LONG_S = 150.0


class Listener:
    """Keeps what it is handed, and stands still at a word while told to."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.busy, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.finished_after: list[int] = []

    def handle(self, word: str) -> None:
        self.busy.set()
        assert self.go.wait(LONG_S)
        self.heard.append(word)

    def finish(self) -> None:
        self.finished_after.append(len(self.heard))


def _open(size: int = 8) -> tuple[Listener, BackgroundQueue]:
    listener = Listener()
    return listener, BackgroundQueue("listener", size, listener.handle, listener.finish)


def test_words_come_in_their_order_and_the_end_after_the_last() -> None:
    listener, words = _open(size=100)
    for number in range(100):
        words.put(str(number))
    words.close(LONG_S)
    assert listener.heard == [str(number) for number in range(100)]
    assert listener.finished_after == [100]


def test_a_full_queue_drops_and_nobody_waits() -> None:
    listener, words = _open(size=2)
    listener.go.clear()
    words.put("taken")
    assert listener.busy.wait(LONG_S)
    for word in ("first", "second", "dropped", "dropped"):
        words.put(word)
    assert words.left == 2
    listener.go.set()
    words.close(LONG_S)
    assert listener.heard == ["taken", "first", "second"]


def test_the_end_comes_in_time_though_a_word_hangs() -> None:
    listener, words = _open()
    listener.go.clear()
    words.put("hangs")
    assert listener.busy.wait(LONG_S)
    words.close(0.01)  # without its limit this would wait for ever
    assert not listener.heard
    assert not listener.finished_after
    listener.go.set()


def test_nothing_is_taken_after_the_end() -> None:
    listener, words = _open()
    words.put("before")
    words.close(LONG_S)
    words.put("after")
    assert words.left == 0
    assert listener.heard == ["before"]


def test_who_never_spoke_has_no_thread() -> None:
    before = threading.active_count()
    listener, words = _open()
    words.close(LONG_S)
    words.put("late")
    assert threading.active_count() == before
    assert listener.finished_after == []
