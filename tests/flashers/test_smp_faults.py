"""The SMP flasher beyond the contract kit: the raw framing, windows, parts that restart, and what earlier programs left.

After any of it: the new image runs and stays, or an error of the documented kind, the old or the new image running, and a
second run, on a line that is whole again, that ends with the new image.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from proxyflash.emulators.faults import FaultPlan
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import RunContext
from proxyflash.tests.emulators.smp_lab import IMAGE, NEW, OLD, READ, framed, packet
from proxyflash.tests.flashers.smp_rig import Rig
from proxyflash.tests.flashers.wire_faults import FAULTS, faults
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError

SHORT = {"answer": 0.2, "swap": 5.0, "erase": 0.5}


def make(plan: FaultPlan | None = None, **table: Any) -> Rig:
    profile = dict(SHORT)
    if table.get("framing") == "raw":
        profile |= {"framing": "raw"}  # type: ignore[dict-item]
    return Rig("acme-s1", profile, plan=plan, recovery_buf_size=384, **table)


def ends_well(rig: Rig) -> None:
    """Flashes on the faulty line, then, if that ended with an error, on a whole one."""
    try:
        rig.flash()
    except ProxyflashError:
        rig.whole_again()
        assert rig.runs in ((OLD, NEW) if not rig.recovers else (OLD, NEW, None))
        rig.flash()
    rig.whole_again()
    assert (rig.runs, rig.stays) == (NEW, True)
    rig.board.reset()
    assert rig.runs == NEW
    rig.close()


def units_of_one_flash(**table: Any) -> int:
    rig = make(**table)
    rig.flash()
    rig.close()
    return rig.faults.units


@pytest.mark.parametrize("kind", FAULTS)
def test_one_fault_at_any_byte_without_the_consoles_framing(kind: str) -> None:
    """Every 307th byte of a flash, from its first one on; each kind begins elsewhere."""
    for unit in range(1 + 53 * FAULTS.index(kind), units_of_one_flash(framing="raw"), 307):
        ends_well(make(faults(kind, 1.0, first=unit, last=unit, seed=unit), framing="raw"))


class At:
    """Does something at the `count`-th thing that the engine reports of writing."""

    def __init__(self, count: int, what: Callable[[], object]) -> None:
        self.count = count
        self.what = what
        self.seen = 0

    def __call__(self, event: ev.Event) -> None:
        if isinstance(event, ev.Progress) and event.phase is ev.Phase.WRITE:
            self.seen += 1
            if self.seen == self.count:
                self.what()


@pytest.mark.parametrize("count", [1, 3, 5])
@pytest.mark.parametrize("blank", [False, True])
def test_the_part_restarts_in_the_middle(count: int, blank: bool) -> None:
    """It has forgotten the upload: the offset that it wants goes back to 0, and the same run gets over it."""
    rig = make(blank=blank)
    at = At(count, rig.board.reset)
    rig.flash(context=RunContext(at))
    assert at.seen >= count
    assert (rig.runs, rig.stays) == (NEW, True)
    rig.close()


@pytest.mark.parametrize("into", ["recovery", "application"])
def test_it_comes_back_as_something_else(into: str) -> None:
    """Its pins were moved, and it was reset: another program takes the upload than the program that was asked."""
    rig = make(wiring="dtr-reset,!rts-recovery", blank=into == "application")

    def moved() -> None:
        rig.wire.set_modem(rts=True)
        rig.board.reset()

    at = At(2, moved if into == "recovery" else rig.board.reset)
    with suppress(ProxyflashError):
        rig.flash(context=RunContext(at))
    rig.wire.set_modem(rts=False)
    rig.board.reset()
    assert rig.runs in (OLD, NEW, None)
    rig.flash()
    assert (rig.runs, rig.stays) == (NEW, True)
    rig.close()


def test_cancelled_and_again() -> None:
    """The part runs what it ran, and the next run goes on where this one was."""
    rig = make()
    stop: list[bool] = []
    at = At(3, lambda: stop.append(True))
    with pytest.raises(Cancelled):
        rig.flash(context=RunContext(at, lambda: bool(stop)))
    assert rig.runs == OLD
    programs = rig.device.flash.programs
    before = rig.device.flash.erases
    rig.flash()
    assert rig.device.flash.programs > programs
    assert rig.runs == NEW
    assert rig.device.flash.erases - before < 40
    rig.close()


LEFT = {
    "half a line": b"\x06\x09AAsxMjM0",
    "a first line alone": framed(bytes(200)).splitlines(keepends=True)[0],
    "further lines": b"\x04\x14AAAA\n" * 5,
    "other text": b"\r\nhelp\r\nuart:~$ \x1b[8D\x1b[J" * 10,
    "another protocol": b"\x7f\x30\x20\x55" * 50,
    "every byte": bytes(range(256)),
    "a request": framed(packet(READ, IMAGE, 0, b"\xa0", sequence=1)),
    "a spoiled request": framed(packet(READ, IMAGE, 0, b"\xff\xff")),
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("blank", [False, True])
def test_what_an_earlier_program_left(left: str, blank: bool) -> None:
    """On its way to the part; its answers may still come."""
    rig = make(blank=blank)
    rig.port.write(LEFT[left], Deadline.after(5))
    rig.flash()
    assert (rig.runs, rig.stays) == (NEW, True)
    rig.close()


def test_answers_from_before() -> None:
    """Of the sequence numbers that this run will use, and to other requests: none is taken for its own."""
    rig = make()
    for sequence in range(12):
        state = packet(1, IMAGE, 0, b"\xa1\x66images\x80", sequence=sequence)
        rig.wire.device.send(framed(state))
    rig.flash()
    assert (rig.runs, rig.stays) == (NEW, True)
    rig.close()


def test_log_text_and_lost_answers_all_along() -> None:
    for blank in (False, True):
        ends_well(make(log="torn", blank=blank))


def test_more_under_way_than_the_part_has_buffers_for() -> None:
    """It says four, and has them; the wire loses one of them now and then: from there on it is one at a time."""
    for seed in range(3):
        rig = Rig("acme-s1", SHORT | {"window": 4}, plan=FaultPlan(drop=0.002, seed=seed))
        ends_well(rig)


def test_the_supply_goes_at_any_moment_of_the_boot() -> None:
    """Of the swap, that is: it is finished when the supply is back, and the second run confirms what runs."""
    for operation in range(60, 330, 30):
        rig = Rig("acme-s1", SHORT | {"swap": 1.0})
        rig.device.supply.cut_at(operation)
        with pytest.raises(ProxyflashError):
            rig.flash()
        rig.device.supply.on()
        rig.whole_again()
        assert rig.runs in (OLD, NEW)
        rig.profile = rig.profile.model_copy(update={"swap": 20.0})
        rig.flash()
        assert (rig.runs, rig.stays) == (NEW, True)
        rig.close()
