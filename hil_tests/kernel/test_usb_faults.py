"""A USB device that leaves in the middle, by the kernel's own hand: what is said, how soon, what is left, what helps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.hil_tests.kernel.usb_lab import SLOT, ST, Kind, MakeBench, Part
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import UsbGone, UsbTimeout
from proxyflash.transports.usb.bus import UsbDevice, UsbMatch

GETSTATUS = (0xA1, 3, 0, 0)
"""DFU 1.1, 6.1.2, to interface 0: bmRequestType, bRequest, wValue, wIndex."""
DEADLINE = 60.0
"""Seconds that the calls here are given. The kernel reports at once that a device has left."""
AT_ONCE = DEADLINE / 6


class Pull:
    """Detaches a part a moment from now, on a thread of its own; `at`: when."""

    def __init__(self, part: Part) -> None:
        self.at = 0.0
        self._part = part
        self._timer = threading.Timer(0.3, self._pull)
        self._timer.start()

    def _pull(self) -> None:
        self.at = time.monotonic()
        self._part.detach()

    def since(self) -> float:
        """Seconds."""
        self._timer.join()
        return time.monotonic() - self.at


def ask(device: UsbDevice) -> object:
    return device.control_in(*GETSTATUS, 6, Deadline.after(DEADLINE))


def give_time(device: UsbDevice) -> None:
    device.wait(DEADLINE)


@pytest.mark.parametrize("call", [ask, give_time])
def test_a_call_that_waits_ends_as_soon_as_the_device_has_left(
    make_bench: MakeBench, usb_parts: dict[Kind, Part], nothing_left: None, call: Callable[[UsbDevice], object]
) -> None:
    part = usb_parts[ST]
    version, number = part.running(), part.number()
    with make_bench(part) as bench:
        bus = bench.transport("usb")
        device = bus.open_device(UsbMatch(port=part.place))
        part.hold()
        try:
            pull = Pull(part)
            with pytest.raises(UsbGone):
                call(device)
            assert pull.since() < AT_ONCE
        finally:
            part.let_go()
        part.plug()
        part.wait_running(version)
        assert part.number() != number
        # The old device stays gone, and the new one is found at its port.
        with pytest.raises(UsbGone):
            ask(device)
        device.close()
        found = bus.open_device(UsbMatch(port=part.place))
        assert len(found.control_in(*GETSTATUS, 6, Deadline.after(DEADLINE))) == 6


def test_a_device_that_does_not_answer_has_its_time_and_no_more(
    make_bench: MakeBench, usb_parts: dict[Kind, Part], nothing_left: None
) -> None:
    part = usb_parts[ST]
    with make_bench(part) as bench:
        device = bench.transport("usb").open_device(UsbMatch(port=part.place))
        part.hold()
        try:
            began = time.monotonic()
            with pytest.raises(UsbTimeout):
                device.control_in(*GETSTATUS, 6, Deadline.after(0.5))
            assert 0.4 < time.monotonic() - began < 10
        finally:
            part.let_go()
        # The kernel has taken the request back, and the next is answered.
        assert len(device.control_in(*GETSTATUS, 6, Deadline.after(DEADLINE))) == 6


@pytest.mark.parametrize(
    ("kind", "answered"), [(ST, False), (SLOT, True)], ids=["dfuse, in a request", "dfu, between two"]
)
def test_unplugged_while_it_is_flashed(
    make_bench: MakeBench, usb_parts: dict[Kind, Part], nothing_left: None, kind: Kind, answered: bool
) -> None:
    """Then it is plugged in, and the same flash again ends well."""
    part, version = usb_parts[kind], f"3.{int(answered)}.0"
    file = part.file(version, "dfuse" if kind is ST else "dfu")
    pulled: list[float] = []
    pulls: list[Pull] = []

    def pull(event: ev.Event) -> None:
        if pulled or pulls or not isinstance(event, ev.Progress) or event.phase is not ev.Phase.WRITE:
            return
        if answered:
            part.detach()
            pulled.append(time.monotonic())
        else:
            part.hold()
            pulls.append(Pull(part))

    with make_bench(part) as bench:
        component = bench.component(kind.part)
        with pytest.raises(UsbGone) as caught:
            component.flash(file, context=RunContext(pull), compare=False)
        ended = time.monotonic()
        assert (caught.value.code, caught.value.component) == ("E-USB-GONE", kind.part)
        for one in pulls:
            one.since()
            pulled.append(one.at)
            part.let_go()
        # A request has 5 s, and is tried three times.
        assert ended - pulled[0] < 5
        part.plug()
        part.wait_dfu()
        result = component.flash(file)
        assert result is not None
        assert result.version == version
    part.wait_running(version)
