"""DFU on a bad wire: at each control transfer of a flash in turn the device vanishes, stalls, is mute, or is misheard.

Whatever happens, the failure is a documented one, the part never runs anything but a whole firmware, and the same
command, run again, ends with the new one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.usb.device import Stall
from proxyflash.emulators.usb.wire import DeviceGone, TransferTimeout
from proxyflash.flashers.errors import NoResponse
from proxyflash.flashers.memory import Range
from proxyflash.tests.flashers.dfu_lab import BLIND, F105, F405, NEW, OLD, SLOT, WAITING, Lab, Part, memory
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError, UsbGone, UsbStall, UsbTimeout

PROFILE = {"reenumerate": 0.2, "work": 0.3}
SIZE = 2100
"""Bytes of the firmware: several blocks, and sectors, of every part."""

Carry = Callable[[], bytes]


def vanish(device: DfuDevice, carry: Carry, number: int) -> bytes:
    device.supply.off()
    raise DeviceGone


def stall(device: DfuDevice, carry: Carry, number: int) -> bytes:
    raise Stall


def lose_request(device: DfuDevice, carry: Carry, number: int) -> bytes:
    raise TransferTimeout


def lose_answer(device: DfuDevice, carry: Carry, number: int) -> bytes:
    carry()
    raise TransferTimeout


def mishear(device: DfuDevice, carry: Carry, number: int) -> bytes:
    """One bit of the answer is another one: a different one each time."""
    answer = bytearray(carry())
    if answer:
        answer[number % len(answer)] ^= 1 << number % 8
    return bytes(answer)


def shorten(device: DfuDevice, carry: Carry, number: int) -> bytes:
    return carry()[:-1]


class Fault:
    """Happens to the `number`-th control transfer of the bus from now on."""

    def __init__(self, lab: Lab, device: DfuDevice, number: int, happens: Any) -> None:
        self.count = 0
        self._wire = lab.wire
        self._passed_on = passed_on = lab.wire.control

        def control(port: Any, function: Any, setup: bytes, data: bytes) -> bytes:
            self.count += 1

            def carry() -> bytes:
                return passed_on(port, function, setup, data)

            return bytes(happens(device, carry, number)) if self.count == number else carry()

        lab.wire.control = control  # type: ignore[method-assign]

    def mend(self) -> None:
        self._wire.control = self._passed_on  # type: ignore[method-assign]


@pytest.mark.parametrize("happens", [vanish, stall, lose_request, lose_answer, mishear, shorten])
@pytest.mark.parametrize("part", [F105, SLOT, WAITING, BLIND], ids=lambda part: part.name)
def test_a_fault_at_each_transfer(part: Part, happens: Any) -> None:
    hit = 0
    for number in itertools.count(1):
        lab = Lab()
        try:
            device = lab.add(part, old=part.firmware(OLD, SIZE))
            fault = Fault(lab, device, number, happens)
            failure = failure_of(lab, part)
            if failure is None:
                # It may have vanished when all was done.
                assert device.application_version == NEW or not device.supply.is_on
            else:
                assert failure.code not in ("E-FAILED", "E-TRANSPORT", "E-PART", "E-IMAGE")
                assert failure.cause
            fault.mend()
            if fault.count < number:
                break
            hit += 1
            device.supply.on()
            assert device.application_version in (OLD, NEW, None)
            assert failure_of(lab, part) is None
            assert device.application_version == NEW
            assert device.flash.read(part.start, SIZE) == part.firmware(NEW, SIZE)
        finally:
            lab.close()
    assert hit > 20


def failure_of(lab: Lab, part: Part) -> ProxyflashError | None:
    """What a flash fails with."""
    try:
        lab.flash(part, part.image(size=SIZE), profile=PROFILE)
    except ProxyflashError as error:
        return error
    return None


@pytest.mark.parametrize(("happens", "kind"), [(vanish, UsbGone), (stall, UsbStall), (lose_request, UsbTimeout)])
def test_what_a_fault_in_the_middle_is_called(happens: Any, kind: type[ProxyflashError]) -> None:
    """Without the engine and its retries."""
    lab = Lab()
    try:
        device = lab.add(F105, old=b"", boot="dfu")
        flasher = lab.flasher(F105, profile=PROFILE)
        flasher.connect()
        for _ in memory(flasher).erase([Range(0x08000000, 2048)]):
            pass
        writing = memory(flasher).write(F105.image(size=SIZE).segments[0])
        # After dfuIDLE is reached (GETSTATUS, ABORT, GETSTATUS) and the address set (DNLOAD, GETSTATUS, GETSTATUS).
        first_block = 7
        Fault(lab, device, first_block, happens)
        with pytest.raises(kind):
            list(writing)
    finally:
        lab.close()


def test_unplugged_while_it_erases_all() -> None:
    """It is not waited for as long as it said that it would take."""
    lab = Lab(pace=1.0)
    try:
        device = lab.add(F405, old=b"", boot="dfu")
        flasher = lab.flasher(F405)
        flasher.connect()
        # DS8626: 8.5 s for all sectors.
        erasing = memory(flasher).erase([Range(0x08000000, 0x100000)])
        unplugged = clock.Timer(0.1, device.supply.off)
        unplugged.start()
        began = clock.monotonic()
        with pytest.raises(UsbGone):
            list(erasing)
        assert clock.monotonic() - began < 4
        unplugged.join()
        flasher.close()
    finally:
        lab.close()


def test_a_part_that_never_answers() -> None:
    lab = Lab()
    try:
        lab.add(F105, mute=True)
        with pytest.raises(ProxyflashError) as caught:
            lab.flash(F105, profile=PROFILE)
        assert caught.value.remedy
        assert not isinstance(caught.value, NoResponse)
    finally:
        lab.close()
