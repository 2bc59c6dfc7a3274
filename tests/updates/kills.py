"""Processes that are killed: of this process on simulated time, or real ones that are forked from it.

A simulated process is a piece of a test on simulated threads of its own; the emulated parts, their wires and the host's
disk are the test's. A kill ends its threads where they are. What they do on their way out has no effect: the clock lets
them neither take a lock nor wait nor start a thread, so that nothing reaches a wire, and the state folder is put back to
what the disk holds: all that was written, or what a host that loses its supply leaves of it.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from proxyflash.emulators.can.python_can import EmulatedCanBus
from proxyflash.emulators.can.wire import CanWire
from proxyflash.tests.explore.disk import Disk, Image
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock, SimulatedThread

KILLED = -signal.SIGKILL
LONGEST = 1e5
"""Simulated seconds that a process may take; a process that takes longer hangs."""
NOT_OF_A_PROCESS = "proxyflash.emulators."
"""Modules whose threads are the parts', whoever started them."""
LEFT = (1.0, 0.0, 0.5)
"""How much a kill leaves of what was written and not synced: that of a process all of it, that of its host any part."""
_running: list[Process] = []
"""The simulated process that is under way, if one is."""


class Process:
    """A simulated process.

    Args:
        disk: its host's; made with `passed`. The process writes nowhere else.
        left: how much a kill leaves of what was not synced, see LEFT.
        point: called with the name of each operation on the disk, before it.
        wires: those that it may use.
    """

    def __init__(
        self,
        disk: Disk,
        *,
        left: float = 1.0,
        point: Callable[[str], None] = lambda _: None,
        wires: tuple[CanWire, ...] = (),
    ) -> None:
        self.image: Image | None = None
        """What the disk holds after a kill; None: it was not killed."""
        self._disk = disk
        self._left = left
        self._point = point
        self._wires = wires
        self._clock = cast(SimulatedClock, clock.current())
        self._strangers = {thread.number for thread in self._clock.threads()}
        self._main: SimulatedThread | None = None
        self._raised: BaseException | None = None
        self._adapters: list[EmulatedCanBus] = []

    def run(self, work: Callable[[], object], until: clock.SomeEvent | None = None) -> int:
        """To its end or until it is killed; 0 or KILLED. Raises what `work` raises.

        `until`: set when it is to be killed.
        """

        def call() -> None:
            try:
                work()
            except BaseException as error:
                if self.image is None:
                    self._raised = error

        self._disk.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            stack.enter_context(_noted(self._adapters))
            _running.append(self)
            stack.callback(_running.remove, self)
            self._main = cast(SimulatedThread, clock.Thread(target=call, name="process"))
            self._main.start()
            if until is None:
                self._main.join(LONGEST)
                assert not self._main.is_alive(), self._waiting()
            else:
                assert until.wait(LONGEST), self._waiting()
                self.kill()
            ended = self.image is None
            if ended:
                # What it left running ends with it.
                self._clock.kill(self._threads())
            self._bury()
            if not ended:
                self._disk.put(cast(Image, self.image))
        if self._raised is not None:
            raise self._raised
        return 0 if ended else KILLED

    def kill(self) -> None:
        """Doesn't return to who is of this process."""
        if self.image is None:
            self.image = self._disk.left_of(self._left)
        self._clock.kill(self._threads())

    def has(self, thread: SimulatedThread) -> bool:
        if thread.number in self._strangers or thread is self._clock.main:
            return False
        module = getattr(thread._target, "__module__", "") or ""
        return thread is self._main or not module.startswith(NOT_OF_A_PROCESS)

    def pass_by(self, what: str) -> None:
        """A point of the disk."""
        if self.image is None and self.has(self._clock.running):
            self._point(what)

    def _threads(self) -> list[SimulatedThread]:
        return [thread for thread in self._clock.threads() if self.has(thread)]

    def _bury(self) -> None:
        """As an operating system does: closes what is open, once the threads have ended."""
        for thread in self._threads():
            thread.join(LONGEST)
        assert self._threads() == []
        for wire in self._wires:
            for node in list(wire._nodes):
                if id(node) in wire._hosts:
                    wire.detach(node)
        for adapter in self._adapters:
            # Nothing is left to be closed when the garbage is collected.
            adapter._is_shutdown = True
        if self.image is not None:
            for path in list(Path("/proc/self/fd").iterdir()):
                with suppress(OSError):
                    if self._disk.folder in path.readlink().parents:
                        os.close(int(path.name))

    def _waiting(self) -> str:
        return "it hangs: " + "; ".join(f"{thread.name} waits for {thread.waits_for}" for thread in self._threads())


@contextmanager
def _noted(adapters: list[EmulatedCanBus]) -> Iterator[None]:
    """Notes each adapter that is opened."""
    opened = EmulatedCanBus.__init__

    def noted(bus: EmulatedCanBus, *arguments: Any, **settings: Any) -> None:
        adapters.append(bus)
        opened(bus, *arguments, **settings)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(EmulatedCanBus, "__init__", noted)
        yield


def passed(what: str) -> None:
    """For a disk: something is about to happen to it."""
    if _running:
        _running[-1].pass_by(what)


def is_in_process() -> bool:
    """Whether who calls is of a simulated process."""
    return bool(_running) and _running[-1].has(cast(SimulatedThread, clock.current_thread()))


def kill() -> None:
    """Kills the process that calls it."""
    if clock.current().is_simulated:
        _running[-1].kill()
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], object], *, until: Callable[[int], None] | None = None) -> int:
    """Runs `work` in a real process; its exit status, or minus the signal that ended it; 1 if it raised.

    `until`: called with its id, once it runs.
    """
    assert not clock.current().is_simulated
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    try:
        if until is not None:
            until(child)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
