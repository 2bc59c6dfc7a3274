"""What exploration has found: each case holds now, and does not when its fault is put back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers.avr.flasher import AvrFlasher
from proxyflash.flashers.events import Event
from proxyflash.flashers.xymodem.console import LoaderConsole
from proxyflash.tools.interrupt_status import Standing
from proxyflash.transports import private_files

from .draw import NEW, OLD, OTHER, Bus, Case, Part, Round, Trouble
from .old_faults import names_that_are_not_on_the_disk, retry_that_forgets, torn_part_that_is_started
from .run import explore
from .world import replaced

pytestmark = pytest.mark.real_time("each seed has a simulated clock of its own")


@dataclass(frozen=True)
class Found:
    """`case`: in which it was found, no larger than it has to be. `fault`: puts the fault back.

    `shows`: what a command then says, where another command or a hand gets over it.
    """

    case: Case
    fault: Callable[[], Any]
    shows: str = ""

    @property
    def holds(self) -> bool:
        result = explore(self.case)
        return not result.wrong and not (self.shows and any(self.shows in line for line in result.log))


def alone(family: str, kind: str, *troubles: Trouble, update: bool = True, pace: float = 0.0, seed: int = 1) -> Case:
    part = Part("part1", 1, "bus1", family, "group1", {OLD: 428, NEW: 668, OTHER: 688})
    what = "apply" if update else "flash"
    return Case(
        seed,
        (Bus("bus1", kind, pace),),
        (part,),
        update,
        rounds=(Round(what, "part1", troubles=troubles),),
        preemption=0.05,
    )


def twice(family: str, kind: str, *troubles: Trouble, pace: float = 0.0) -> Case:
    """The same command again after each trouble."""
    case = alone(family, kind, pace=pace)
    [first] = case.rounds
    return replace(case, rounds=tuple(replace(first, troubles=(trouble,)) for trouble in troubles))


def opened_again(bench: Bench, close: Callable[[Bench], None] = Bench.close) -> None:
    close(bench)
    bench._is_closed = False


def restored_is_nothing(standing: Standing, event: Event, see: Callable[..., None] = Standing.see) -> None:
    see(standing, event)
    standing._changed.clear()


@contextmanager
def changed_and_started() -> Iterator[None]:
    """Without what the loader says of its transfer, and what the journal says of the part: either is enough."""
    flash = BenchComponent.flash

    def started(self: BenchComponent, *arguments: Any, **options: Any) -> Any:
        return flash(self, *arguments, **{**options, "starts_again": True})

    with (
        replaced(BenchComponent, "flash", started),
        replaced(LoaderConsole, "was_receiving", lambda console, heard: False),
    ):
        yield


def own_port_is_reset_by_opening() -> AbstractContextManager[None]:
    probe = AvrFlasher.probe.__func__  # type: ignore[attr-defined]

    def reset(cls: type[AvrFlasher], /, bus: Any, address: Any, profile: Any, **more: Any) -> Any:
        entry = profile.entry.model_copy(update={"touch": False})
        return probe(cls, bus, address, profile.model_copy(update={"entry": entry}), **more)

    return replaced(AvrFlasher, "probe", classmethod(reset))


FOUND = {
    # A part that was interrupted in the middle of a flash can't answer, and the same update was refused for that.
    "a part without an application is planned for": Found(
        alone("stm32-uart", "serial", Trouble("supply", 12, "part1")), retry_that_forgets
    ),
    # After a look at a part with half an application, that was started, and nothing could call it back.
    "a part that did not run is not started after a look": Found(
        alone("ymodem", "serial", Trouble("supply", 11, "part1")), torn_part_that_is_started
    ),
    # A loader that was halted in a block took its greeting for a part of that, and passed for a running application.
    "a part that an earlier run has changed is not started after a stop": Found(
        twice("ymodem", "serial", Trouble("halt", 12, point="wire"), Trouble("stop", 15), pace=1.0), changed_and_started
    ),
    # A loader that answers each byte with its menu was greeted more often than the line carried the answers.
    "a menu that talks is heard out": Found(
        alone("ymodem", "serial", Trouble("supply", 7, "part1", mends=0.05), update=False, pace=1.0),
        lambda: replaced(LoaderConsole, "_heard_out", lambda console, heard, deadline: heard),
        shows="E-PART-MODE",
    ),
    # The journal was on the disk, and the name of its folder was not.
    "a power cut leaves the journal": Found(
        alone("dfu", "usb", Trouble("power", 14, point="event", seed=1)), names_that_are_not_on_the_disk
    ),
    # A command was stopped after it made a folder and before the folder's name was on the disk; the next found the folder.
    "a power cut leaves the journal after a stopped command": Found(
        twice("dfu", "usb", Trouble("halt", 5), Trouble("power", 14, point="event", seed=2)),
        lambda: replaced(private_files, "_is_empty", lambda number: False),
    ),
    # A part with its own USB port waits in its loader because half an application is useless, and was ordered to start that.
    "a scan leaves a loader waiting on its own port": Found(
        alone("avr109", "serial", Trouble("supply", 2, "part1")), own_port_is_reset_by_opening
    ),
    # A thread of an update that was stopped at once opened the closed bench again, and went on with the part.
    "a closed bench stays closed": Found(
        replace(
            alone("dfu", "usb", Trouble("halt", 2, point="event")),
            policy={"parallel": "true"},
            options={"group1": {"timeoutSeconds": 5}},
        ),
        lambda: replaced(Bench, "close", opened_again),
    ),
    # Once a part was restored, a Ctrl-C said that nothing was changed.
    "what a rollback did is reported": Found(
        replace(
            alone("stk500v1", "serial"),
            rounds=(
                Round("apply", "part1"),
                Round("rollback", "part1", troubles=(Trouble("halt", 22, point="disk"),)),
            ),
        ),
        lambda: replaced(Standing, "see", restored_is_nothing),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_it_holds(name: str) -> None:
    assert FOUND[name].holds


@pytest.mark.parametrize("name", FOUND)
def test_it_is_found_when_it_is_put_back(name: str) -> None:
    with FOUND[name].fault():
        assert not FOUND[name].holds
