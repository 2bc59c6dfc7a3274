"""A board's firmware stops wherever it is when the supply goes or the reset line is pulled, and starts again."""

from __future__ import annotations

from proxyflash.emulators.board import Board
from proxyflash.emulators.supply import Supply
from proxyflash.tests.transports.threads import names
from proxyflash.transports import clock


class Blinker(Board):
    """Counts its starts and ends, and is busy for an hour in between."""

    def __init__(self, pace: float = 1.0) -> None:
        super().__init__("blinker", Supply(), pace=pace)
        self.starts = clock.Semaphore(0)
        self.offs = clock.Semaphore(0)

    def firmware(self) -> None:
        self.starts.release()
        self.busy(3600)

    def powered_off(self) -> None:
        self.offs.release()


def test_a_cut_stops_it_and_power_starts_it_again() -> None:
    board = Blinker()
    board.start()
    assert board.starts.acquire(timeout=5)
    board.supply.off()
    assert board.offs.acquire(timeout=5)
    assert not board.starts.acquire(timeout=0.05)
    board.supply.on()
    assert board.starts.acquire(timeout=5)
    board.close()
    assert "board blinker" not in names()


def test_a_reset_starts_it_again() -> None:
    board = Blinker()
    board.start()
    assert board.starts.acquire(timeout=5)
    board.reset()
    assert board.starts.acquire(timeout=5)
    board.close()


def test_a_halted_processor_still_obeys_its_reset_line() -> None:
    board = Blinker(pace=0)
    board.start()
    assert board.starts.acquire(timeout=5)
    board.reset()
    assert board.starts.acquire(timeout=5)
    assert board.fault is None
    board.close()


def test_input_wakes_a_waiting_firmware_at_once() -> None:
    heard = clock.Event()
    inbox: list[bytes] = []

    class Listener(Board):
        def firmware(self) -> None:
            if self.wait(lambda: bool(inbox), 60):
                heard.set()

    board = Listener("listener", Supply())
    board.start()
    began = clock.monotonic()
    with board.changed:
        inbox.append(b"x")
        board.changed.notify_all()
    assert heard.wait(5)
    assert clock.monotonic() - began < 5
    board.close()


def test_a_wait_that_nothing_ends_is_over_in_time() -> None:
    done = clock.Event()
    results: list[bool] = []

    class Waiter(Board):
        def firmware(self) -> None:
            results.append(self.wait(lambda: False, 0.01))
            done.set()

    board = Waiter("waiter", Supply())
    board.start()
    assert done.wait(5)
    assert results == [False]
    board.close()


def test_a_supply_that_is_back_at_once_was_gone_all_the_same() -> None:
    """However short the gap: a processor that was too busy to see it has lost what it held, and starts again."""
    board = Blinker()
    board.start()
    assert board.starts.acquire(timeout=5)
    with board.changed:
        board.supply.off()
        board.supply.on()
    assert board.starts.acquire(timeout=5)
    board.close()


def test_it_settles_once_its_firmware_waits_for_input() -> None:
    go = clock.Event()

    class Starter(Board):
        def firmware(self) -> None:
            go.wait(5)
            self.wait(lambda: False, None)

    board = Starter("starter", Supply())
    board.start()
    assert not board.settle(0.02)
    go.set()
    assert board.settle()
    go.clear()
    board.supply.off()
    board.supply.on()
    assert not board.settle(0.02)
    go.set()
    assert board.settle()
    board.close()
