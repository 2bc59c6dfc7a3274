"""`TimeOfTests`: which time the bench tests of a run have: simulated time, or real time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING

import pytest

from . import verdicts
from .names import SIMULATED, SIMULATED_INI

if TYPE_CHECKING:
    from .simulated_time import SimulatedTime


class TimeOfTests:
    """Real time, unless the run's options ask for simulated time."""

    def __init__(self, config: pytest.Config) -> None:
        wanted = config.getoption("simulated_time")
        self.is_simulated: bool = config.getini(SIMULATED_INI) if wanted is None else wanted
        self._clock = _simulated_time() if self.is_simulated else None

    def begin_test(self, item: pytest.Item) -> None:
        if self._clock is not None:
            self._clock.begin_test(item.nodeid, str(item.path))

    def of(self, is_ours: bool = True) -> AbstractContextManager[object]:
        """The time of a bench test, for a block; real time where the block isn't ours, or nothing is simulated."""
        if self._clock is None:
            return nullcontext()
        return self._clock.running() if is_ours else self._clock.standing_still()

    def at_end(self, is_ours: bool) -> tuple[Callable[[], object], Callable[[], object]]:
        """Two finalizers of a fixture: the first is called last, and the second begins the time of those between."""
        stack = ExitStack()
        return stack.close, lambda: stack.enter_context(self.of(is_ours))

    @contextmanager
    def test_time(self) -> Iterator[None]:
        """The time of a test's own function."""
        with self._without_strangers(), self.of():
            yield

    @contextmanager
    def teardown(self) -> Iterator[None]:
        """All that ends with a test. Warns of threads that don't."""
        with self._without_strangers():
            yield
            if self._clock is not None:
                self._clock.warn_of_threads()

    def fixture_time(self, is_ours: bool, scope: str) -> AbstractContextManager[object]:
        """The time of a fixture that is set up."""
        stack = ExitStack()
        if self._clock is not None and scope != "function":
            stack.enter_context(self._clock.outlasting())
        stack.enter_context(self.of(is_ours))
        return stack

    @contextmanager
    def _without_strangers(self) -> Iterator[None]:
        """Fails the test for threads that it had beside the simulated clock's."""
        try:
            yield
        except BaseException as error:
            if self._clock is not None and (said := self._clock.refused()):
                error.add_note(said)
            raise
        if self._clock is not None and (said := self._clock.refused()):
            verdicts.fail(said)

    def tell(self, item: pytest.Item) -> None:
        """What the test took on simulated time goes into its report."""
        if self._clock is not None and item.nodeid == self._clock.test_name:
            verdicts.tell(item, {SIMULATED: f"{self._clock.test_seconds:.6f}"})

    def end(self) -> list[str]:
        """Of the whole run. What went wrong, in words."""
        return self._clock.end() if self._clock is not None else []


def _simulated_time() -> SimulatedTime:
    """Only where it is wanted: what is made beside a simulated clock costs more."""
    from .simulated_time import SimulatedTime

    return SimulatedTime()
