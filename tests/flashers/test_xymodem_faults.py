"""X- and YMODEM with receivers that go wrong, and command lines on lines that lose, garble and double bytes.

After any of it: the right image, or an error of its own within its limit and a second run, with a part and a line that are
whole again, that ends with the right image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import pytest
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.xymodem.receiver import Trouble
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import ImageError, NoResponse, PartError, PartRefused, ProtocolError
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.xymodem import console as loader_console
from proxyflash.flashers.xymodem import sender as xmodem_sender
from proxyflash.tests.flashers.wire_faults import FAULTS, faults
from proxyflash.tests.flashers.xymodem_lab import PARTS, Rig
from proxyflash.tests.rigs import rigs
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError, SerialTimeout, TransportError

SHELLS = [name for name in PARTS if name.startswith("shell")]
"""The parts that the contract kit has not."""


make_rig = rigs(Rig)


def ends_well_without(rig: Rig) -> None:
    """The same command, with a loader that does nothing wrong, and all the time that a busy machine needs."""
    rig.faults.plan = FaultPlan()
    rig.device.board.loader._receiver = rig.whole_receiver()
    timings = rig.profile.timings.model_copy(update={"block": 5.0, "connect": 20.0, "verdict": 10.0})
    rig.profile = rig.profile.model_copy(update={"timings": timings})
    assert rig.flash().version == "1.5.0"
    assert rig.holds(rig.new)


class TestTroubles:
    @pytest.mark.parametrize("trouble", ["lost-ack", "double-ack", "log"])
    @pytest.mark.parametrize("at", [1, 2, 3, 0])
    @pytest.mark.parametrize("name", PARTS)
    def test_what_the_sender_gets_over(self, make_rig: Callable[..., Rig], name: str, at: int, trouble: str) -> None:
        rig = make_rig(name, trouble=trouble, trouble_at=at, timeout=1)
        retries: list[ev.Event] = []
        rig.flash(context=RunContext(lambda event: retries.append(event) if isinstance(event, ev.Retrying) else None))
        assert rig.holds(rig.new)
        assert retries == [], "the flasher gets over it without a retry"

    @pytest.mark.parametrize(
        ("trouble", "error", "words"),
        [
            ("nak", PartRefused, "refused block 2 10 times"),
            ("silence", SerialTimeout, "does not answer block 2"),
            ("garbage", ProtocolError, "answered block 2 with bytes that are not an answer; it said: .*z"),
            ("cancel", ProxyflashError, "block 2"),
            ("gone", (PartError, TransportError), "block 2"),
        ],
    )
    @pytest.mark.parametrize("name", PARTS)
    def test_what_it_ends_with(
        self, make_rig: Callable[..., Rig], name: str, trouble: str, error: Any, words: str
    ) -> None:
        rig = make_rig(name, trouble=trouble, trouble_at=2, timeout=1)
        began = clock.monotonic()
        with pytest.raises(error, match=words):
            rig.flash(attempts=1)
        assert clock.monotonic() - began < 20
        ends_well_without(rig)

    @pytest.mark.parametrize("trouble", ["nak", "silence", "garbage", "cancel"])
    @pytest.mark.parametrize("name", PARTS)
    def test_at_the_end_of_the_file(self, make_rig: Callable[..., Rig], name: str, trouble: str) -> None:
        """Nothing but its word makes it a success, and here its word doesn't come."""
        rig = make_rig(name, trouble=trouble, trouble_at=0, timeout=1)
        silent = trouble in ("silence", "cancel") or (trouble == "nak" and name == "iap")
        try:
            rig.flash(attempts=1, ask_version=False)
        except (PartError, TransportError, ImageError):
            pass
        else:
            assert not silent, "it never said that the file is in place"
        ends_well_without(rig)

    def test_what_a_loader_says_when_it_cancels(self, make_rig: Callable[..., Rig]) -> None:
        with pytest.raises(PartError, match=r"after block 2 the loader says: 'block error 0x 21'"):
            make_rig("gecko", trouble="cancel", trouble_at=2).flash(attempts=1)
        with pytest.raises(PartError, match=r"after block 2 the loader says: 'aborted'"):
            make_rig("shell-x", trouble="cancel", trouble_at=2).flash(attempts=1)

    def test_a_mute_part(self, make_rig: Callable[..., Rig]) -> None:
        with pytest.raises(NoResponse):
            make_rig("gecko", {"timings": {"connect": 0.5, "knock": 0.1}}, mute=True).flash()

    @pytest.mark.parametrize("name", SHELLS)
    def test_the_supply_goes_in_the_middle(self, make_rig: Callable[..., Rig], name: str) -> None:
        rig = make_rig(name)
        rig.device.supply.cut_at(3)
        with pytest.raises((PartError, TransportError)):
            rig.flash(attempts=1)
        rig.device.supply.on()
        rig.device.settle()
        ends_well_without(rig)

    def test_every_trouble_is_tried(self) -> None:
        tried = {"lost-ack", "double-ack", "log", "nak", "silence", "garbage", "cancel", "gone"}
        assert tried == set(Trouble) - {Trouble.NONE}


# The wire's own faults.


@pytest.fixture
def hurried() -> Iterator[None]:
    """The line is taken to be quiet sooner: nothing here holds a byte back."""
    with (
        patch.object(xmodem_sender, "QUIET_SECONDS", 0.02),
        patch.object(loader_console, "QUIET_SECONDS", 0.02),
        patch.object(xmodem_sender, "LAST_SECONDS", 0.3),
    ):
        yield


QUICK = {"connect": 2, "knock": 0.1, "start": 0.6, "block": 0.3, "verdict": 0.5}


def faulty(name: str, plan: FaultPlan) -> Rig:
    """Lines of the part's own are whole: what a cut leaves it in is tried elsewhere."""
    return Rig(name, {"timings": QUICK}, faults=Faults(plan), timeout=0.2)


def ends_well(rig: Rig) -> None:
    """Flashes on the faulty line, then, if that ended with an error, on a whole one."""
    try:
        rig.flash(ask_version=False)
        assert rig.holds(rig.new), "it was reported that the file is in place, and it is not"
    except (TransportError, PartError, ImageError):
        ends_well_without(rig)
    rig.close()


def units_of_one_flash(name: str) -> int:
    rig = Rig(name)
    before = rig.faults.units
    rig.flash(ask_version=False)
    rig.close()
    return rig.faults.units - before


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", SHELLS)
def test_one_fault_at_any_byte(name: str, kind: str) -> None:
    """Every 211th byte of a flash, from its first one on; each kind begins elsewhere."""
    for unit in range(1 + 50 * FAULTS.index(kind), units_of_one_flash(name), 211):
        ends_well(faulty(name, faults(kind, 1.0, first=unit, last=unit, seed=unit)))
