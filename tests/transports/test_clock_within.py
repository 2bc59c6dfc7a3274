"""A simulated clock that is used in pieces, and what it remembers of threads that it doesn't run."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from proxyflash.transports import clock
from proxyflash.transports.errors import MixedClocks, UnknownThread
from proxyflash.transports.simulated_clock import SimulatedClock

pytestmark = pytest.mark.real_time("clocks of its own")


def test_simulated_time_stands_still_outside_of_its_pieces() -> None:
    real, simulated = clock.current(), SimulatedClock()
    simulated.begin()
    said: list[float] = []

    def late() -> None:
        clock.sleep(10)
        said.append(clock.monotonic())

    with clock.within(simulated):
        thread = clock.Thread(late)
        thread.start()
        clock.sleep(1)
        with clock.within(real):
            assert clock.current() is real
            with pytest.raises(MixedClocks):
                thread.join()
    assert clock.current() is real
    assert simulated.elapsed < 2
    assert said == []
    with clock.within(simulated):
        thread.join()
        assert said == [pytest.approx(1010, abs=0.001)]
        simulated.end()
    assert clock.current() is real


def test_what_a_stranger_gets_is_remembered() -> None:
    with clock.use(SimulatedClock()) as simulated:
        assert isinstance(simulated, SimulatedClock)
        caught: list[UnknownThread] = []

        def stranger() -> None:
            with pytest.raises(UnknownThread, match="'stranger'") as error:
                clock.sleep(1)
            caught.append(error.value)

        thread = threading.Thread(target=stranger, name="stranger")
        thread.start()
        thread.join()
        assert simulated.refused == caught
        assert len(caught) == 1


def test_what_a_stranger_gets_outside_of_the_pieces_is_remembered_too() -> None:
    simulated = SimulatedClock()
    simulated.begin()
    with clock.within(simulated):
        event = clock.Event()
    with ThreadPoolExecutor(1, "stranger") as pool:
        assert isinstance(pool.submit(event.set).exception(), MixedClocks)
    with pytest.raises(MixedClocks):
        event.set()
    (error,) = simulated.refused
    assert isinstance(error, UnknownThread)
    assert "'stranger_0'" in str(error)
    with clock.within(simulated):
        simulated.end()


def test_programs_run_where_the_clock_was_told_so() -> None:
    with clock.use(SimulatedClock()), pytest.raises(MixedClocks, match="the program true can't"):
        clock.program("the program true")
    with clock.use(SimulatedClock(runs_programs=True)) as simulated:
        clock.program("the program true")
        with pytest.raises(MixedClocks):
            clock.real("the serial port /dev/ttyS0")
        assert isinstance(simulated, SimulatedClock)
        assert simulated.elapsed == 0
    clock.program("the program true")
