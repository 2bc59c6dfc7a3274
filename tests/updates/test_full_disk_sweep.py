"""The sweep of full disks: an update, a resume and a rollback, each with a disk that is full from one operation on.

The operations are those that need room: folders and files that are made, writes, and fsyncs, where a file system finds out
late. After each there is room again, and what the error names is done: it leads to where the first command should have led.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from proxyflash.testing.thinning import Thinning
from proxyflash.tests.explore.disk import Image
from proxyflash.transports import clock
from proxyflash.transports.errors import NextAction, ProxyflashError
from proxyflash.transports.simulated_clock import SimulatedClock
from proxyflash.updates.engine.action import Action
from proxyflash.updates.manifests.resolved_update import Update

from .kills import Process
from .lab import FileHandler, Lab, all_new, all_old
from .test_room import full

pytestmark = pytest.mark.simulated_time
NEED_NO_ROOM = ("rename", "remove", "fsynced")


def run(
    lab: Lab, command: str, update: Update, at: int = 0, *, once: bool = False
) -> tuple[ProxyflashError | None, list[str]]:
    """One process, with a disk that is full from the operation `at` on; 0: never. Its error, and the operations.

    `once`: there is room again after this one, as other programs make and take it.
    """
    disk, names = lab.disk, list[str]()
    assert disk is not None
    failed: list[ProxyflashError | None] = []

    def point(name: str) -> None:
        if not name.startswith(NEED_NO_ROOM):
            names.append(name)
            if len(names) == at:
                disk.left = None if once else 0
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work() -> None:
        try:
            match command:
                case "apply":
                    outcome = lab.apply(update)
                case "resume":
                    outcome = lab.resume()
                case _:
                    outcome = lab.rollback()
            failed.append(outcome.error)
        except ProxyflashError as error:
            failed.append(error)

    Process(disk, point=point).run(work)
    disk.left = None
    return failed[0], names


@contextmanager
def begun(lab: Lab, command: str) -> Iterator[Update]:
    """Everything as before the command, on a clock of its own."""
    outer = clock.current()
    own = SimulatedClock()
    with clock.use(own):
        assert lab.disk is not None
        lab.disk.put(Image())
        FileHandler.asking = clock.local()
        update = lab.bundle()
        if command == "resume":
            lab.fault("right two", Action.BACKUP, full)
        if command != "apply":
            run(lab, "apply", update)
            FileHandler.faults.clear()
        yield update
    outer.sleep(own.elapsed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", ["apply", "resume", "rollback"])
def test_the_sweep_of_full_disks(lab: Lab, command: str, thinned: Thinning) -> None:
    with begun(lab, command) as update:
        error, names = run(lab, command, update)
        assert error is None
    wanted = all_old() if command == "rollback" else all_new()
    for number in thinned(range(1, len(names) + 1), 8):
        once = number % 2 == 0
        where = f"point {number} of {len(names)}: {names[number - 1]}, {'once' if once else 'from there on'}"
        with begun(lab, command) as update:
            before = lab.holds()
            error, _ = run(lab, command, update, number, once=once)
            if error is None:
                # What may fail without harm did.
                assert lab.holds() == wanted, where
                continue
            told = f"{where}: {error}"
            assert "Make room on that disk" in error.remedy, told
            assert "--state" not in error.remedy, told
            goes_on = NextAction.RESUME in error.advice
            assert error.exit_status == (10 if goes_on else 1), told
            assert goes_on or lab.holds() == before, told
            with lab.engine() as engine:
                unfinished = engine.unfinished() is not None
            if unfinished or not goes_on:
                assert run(lab, "resume" if goes_on else command, update)[0] is None, told
            assert lab.holds() == wanted, told
