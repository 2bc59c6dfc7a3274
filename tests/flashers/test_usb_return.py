"""A board that is its own USB serial port and leaves at each reset: where it is found again, and what is said if it isn't.

The host's list of USB serial ports is played; the board and its wire are emulated, and known by one name at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from proxyflash.emulators import registry
from proxyflash.flashers.serial import usb_return
from proxyflash.tests.emulators.avr_lab import CATERINA
from proxyflash.tests.flashers.test_stk500_emulated import Rig
from proxyflash.transports import clock
from proxyflash.transports.errors import SerialAbsent
from proxyflash.transports.serial import usb_tty
from proxyflash.transports.serial.usb_tty import UsbTty
from proxyflash.transports.usb import claims

BESIDE = UsbTty("1-9", 4, "/dev/ttyACM9", product="Another")


class Usb:
    """The board's port has another name each time it comes back; `where` gives its place and serial number then."""

    def __init__(self, rig: Rig, where: Callable[[int], tuple[str, str]]) -> None:
        self.rig = rig
        self._where = where
        self._names = [rig.wire.channel]
        self.stays_away = False

    def ports(self) -> list[UsbTty]:
        wire = self.rig.wire
        if wire.is_gone or (self.stays_away and wire.plugs):
            return [BESIDE]
        if len(self._names) <= wire.plugs:
            registry.forget(self._names[-1])
            self._names.append(f"{wire.channel}-{wire.plugs}")
            registry.register(self._names[-1], wire)
        place, serial = self._where(wire.plugs)
        return [BESIDE, UsbTty(place, 10 + wire.plugs, f"emulated://{self._names[-1]}", serial=serial)]

    def close(self) -> None:
        registry.forget(self._names[-1])
        registry.register(self.rig.wire.channel, self.rig.wire)
        self.rig.close()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Usb]]:
    all_of_them: list[Usb] = []

    def make(where: Callable[[int], tuple[str, str]], **table: Any) -> Usb:
        usb = Usb(Rig(CATERINA, **table), where)
        monkeypatch.setattr(usb_tty, "ports", usb.ports)
        monkeypatch.setattr(
            usb_tty, "usb_tty", lambda path: next((port for port in usb.ports() if port.path == path), None)
        )
        monkeypatch.setattr(usb_return, "ports", usb.ports)
        monkeypatch.setattr(claims, "PREFIX", f"proxyflash-test-{os.getpid()}")
        all_of_them.append(usb)
        return usb

    yield make
    for usb in all_of_them:
        usb.close()


@pytest.mark.parametrize(
    "where",
    [
        lambda times: ("1-4", ""),
        lambda times: (f"1-{4 + times}", "HIDPC"),
        lambda times: (f"1-{4 + times}", "HIDPC" if times != 1 else ""),
        lambda times: (f"1-{4 + times}", ""),
    ],
    ids=["at its place", "by its serial number", "its loader has none", "as the only one"],
)
def test_a_board_that_comes_back_under_another_name(
    made: Callable[..., Usb], where: Callable[[int], tuple[str, str]]
) -> None:
    rig = made(where).rig
    rig.flash()
    assert rig.holds_new()
    assert rig.runs("1.5.0")


def test_a_board_that_takes_its_time(made: Callable[..., Usb]) -> None:
    """It leaves after it was looked for, and comes back just within the profile's time."""
    usb = made(lambda times: ("1-4", ""), reenumerate=4.8)
    vanish, late = usb.rig.wire.vanish, 3.0
    usb.rig.wire.vanish = lambda at: clock.Timer(late, vanish, (at + late,)).start()  # type: ignore[method-assign]
    board = usb.rig.device.board
    board._reenumerates = late + 4.8
    usb.rig.flash()
    assert usb.rig.holds_new()


def test_one_that_stays_away(made: Callable[..., Usb]) -> None:
    usb = made(lambda times: ("1-4", "HIDPC"))
    usb.stays_away = True
    with pytest.raises(SerialAbsent, match=r"USB port 1-4\) left, and did not come back within 5 s") as caught:
        usb.rig.flash()
    assert "there: /dev/ttyACM9 (Another, no serial number, USB port 1-9)" in str(caught.value)
    usb.stays_away = False
