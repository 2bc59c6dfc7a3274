"""The pyusb backend, used as pyusb's users use a backend: find, descriptors, strings, transfers, errors as libusb's."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import usb.control
import usb.core
import usb.util
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.device import BULK, Descriptors, EndpointDescriptor, InterfaceDescriptor, UsbFunction
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.tests.transports.threads import in_thread
from proxyflash.transports import clock

LONG = 300.0


class Desk:
    """A bus with two parts: one in DFU mode at port 1, a running one at port 2."""

    def __init__(self) -> None:
        self.wire = UsbWire(f"desk-{id(self)}", pace=0)
        spec = {"part": "stm32f405-dfu", "serial": "A1", "boot": "dfu"}
        self.rom = DfuDevice.attach(DeviceSpec("rom", settings=spec), self.wire)
        self.sensor = DfuDevice.attach(DeviceSpec("sensor", settings={"part": "slot-dfu", "serial": "B2"}), self.wire)
        self.sensor.flash.load(0, application.make("1.4.2", "imu", "Acme", 1000, start=0))
        self.sensor.supply.off()
        self.sensor.supply.on()
        self.backend = EmulatedUsbBackend(self.wire)

    def find(self, **more: Any) -> Any:
        return usb.core.find(backend=self.backend, **more)


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.wire.close()
    desk.rom.close()
    desk.sensor.close()


def failure(action: Any) -> tuple[int | None, int | None]:
    with pytest.raises(usb.core.USBError) as caught:
        action()
    return caught.value.errno, caught.value.backend_error_code


def test_find(desk: Desk) -> None:
    assert [device.serial_number for device in desk.find(find_all=True)] == ["A1", "B2"]
    rom = desk.find(idVendor=0x0483, idProduct=0xDF11)
    assert (rom.bus, rom.port_number, rom.port_numbers, rom.speed) == (1, 1, (1,), 2)
    assert (rom.manufacturer, rom.product, rom.bcdDevice) == ("STMicroelectronics", "STM32  BOOTLOADER", 0x2200)
    assert desk.find(idVendor=0x9999) is None
    sensor = desk.find(idVendor=0x1209)
    assert (sensor.manufacturer, sensor.product, sensor.bcdDevice) == ("Acme", "imu", 0x0142)
    assert rom.address != sensor.address


def test_descriptors(desk: Desk) -> None:
    rom = desk.find(idVendor=0x0483)
    (configuration,) = rom
    interfaces = list(configuration)
    assert [item.bAlternateSetting for item in interfaces] == [0, 1, 2, 3]
    assert {item.bInterfaceNumber for item in interfaces} == {0}
    assert all(list(item) == [] for item in interfaces)
    otp = usb.util.find_descriptor(configuration, bInterfaceClass=0xFE, bAlternateSetting=2)
    assert usb.util.get_string(rom, otp.iInterface) == "@OTP Memory /0x1FFF7800/01*512 e,01*016 e"
    # What pyusb prints of a device goes through all of them.
    assert "0483:df11" in str(rom)


def test_raw_descriptors_agree_with_the_parsed_ones(desk: Desk) -> None:
    for device in desk.find(find_all=True):
        raw = bytes(device.ctrl_transfer(0x80, 6, 0x0100, 0, 64))
        assert raw[8:12] == device.idVendor.to_bytes(2, "little") + device.idProduct.to_bytes(2, "little")
        whole = bytes(device.ctrl_transfer(0x80, 6, 0x0200, 0, 1024))
        assert len(whole) == device[0].wTotalLength == int.from_bytes(whole[2:4], "little")


def test_configuration_and_alternate_settings(desk: Desk) -> None:
    rom = desk.find(idVendor=0x0483)
    rom.set_configuration()
    assert rom.get_active_configuration().bConfigurationValue == 1
    rom.set_interface_altsetting(0, 3)
    assert bytes(rom.ctrl_transfer(0x81, 10, 0, 0, 1)) == b"\x03"
    assert failure(lambda: rom.set_interface_altsetting(0, 3) or rom.ctrl_transfer(0x01, 11, 9, 0)) == (errno.EPIPE, -9)


def test_transfers_both_ways(desk: Desk) -> None:
    rom = desk.find(idVendor=0x0483)
    assert rom.ctrl_transfer(0x21, 1, 0, 0, bytes([0x21, 0, 0, 0, 8])) == 5
    assert rom.ctrl_transfer(0xA1, 3, 0, 0, 6)[4] == 4
    buffer = usb.util.create_buffer(6)
    assert rom.ctrl_transfer(0xA1, 3, 0, 0, buffer) == 6
    assert buffer[4] == 5


def test_errors_are_libusbs(desk: Desk) -> None:
    rom = desk.find(idVendor=0x0483)
    rom.ctrl_transfer(0xA1, 3, 0, 0, 6)
    assert failure(lambda: rom.ctrl_transfer(0xA1, 2, 1, 0, 8)) == (errno.EPIPE, -9)
    desk.rom.supply.off()
    assert failure(lambda: rom.ctrl_transfer(0xA1, 3, 0, 0, 6)) == (errno.ENODEV, -4)
    assert failure(rom.reset) == (errno.ENODEV, -4)
    assert desk.find(idVendor=0x0483) is None
    stale = desk.find(idVendor=0x1209)
    desk.sensor.supply.off()
    assert failure(lambda: stale.ctrl_transfer(0xA1, 3, 0, 0, 6)) == (errno.ENODEV, -4)


def test_a_device_that_may_not_be_opened(desk: Desk) -> None:
    function = desk.wire.ports[0].function
    assert function is not None
    function.forbidden = True
    rom = desk.find(idVendor=0x0483)
    assert rom.idProduct == 0xDF11
    assert failure(lambda: rom.ctrl_transfer(0xA1, 3, 0, 0, 6)) == (errno.EACCES, -3)


def test_an_interface_has_one_owner(desk: Desk) -> None:
    one, two = desk.find(idVendor=0x0483), desk.find(idVendor=0x0483)
    usb.util.claim_interface(one, 0)
    assert failure(lambda: usb.util.claim_interface(two, 0)) == (errno.EBUSY, -6)
    assert failure(lambda: two.ctrl_transfer(0xA1, 3, 0, 0, 6)) == (errno.EBUSY, -6)
    # What goes to the device and not to its interface needs no claim.
    assert bytes(two.ctrl_transfer(0x80, 8, 0, 0, 1)) == b"\x01"
    usb.util.release_interface(one, 0)
    usb.util.claim_interface(two, 0)
    usb.util.dispose_resources(two)
    usb.util.claim_interface(one, 0)
    assert failure(lambda: usb.util.claim_interface(one, 5)) == (errno.ENOENT, -5)


def test_a_change_ends_the_wait(desk: Desk) -> None:
    assert not desk.backend.wait_change(0)
    desk.rom.supply.off()
    assert desk.backend.wait_change(0)
    assert not desk.backend.wait_change(0)


class Queue:
    """An endpoint's device side: it takes what fits into 8 bytes, and gives what it was ordered to."""

    def __init__(self) -> None:
        self.lock = clock.Lock()
        self.held = b""

    def take(self, data: bytes) -> int:
        with self.lock:
            fitting = data[: 8 - len(self.held)]
            self.held += fitting
            return len(fitting)

    def give(self, size: int) -> bytes | None:
        with self.lock:
            data, self.held = self.held[:size], self.held[size:]
            return data or None


class Adapter:
    """Bulk endpoints 01 and 81 in the first alternate setting, 02 in the second."""

    def __init__(self) -> None:
        self.wire = UsbWire(f"adapter-{id(self)}", pace=0)
        self.port = self.wire.new_port()
        self.ends = {address: Queue() for address in (0x01, 0x81, 0x02)}
        settings = tuple(
            InterfaceDescriptor(
                0, number, 0xFF, 0, 0, endpoints=tuple(EndpointDescriptor(at, BULK) for at in addresses)
            )
            for number, addresses in enumerate(((0x01, 0x81), (0x02,)))
        )
        about = Descriptors(0x1209, 1, 1, "", "", "", settings)
        self.function = UsbFunction(about, lambda *request: b"", lambda: None, endpoints=self.ends)
        self.wire.plug(self.port, self.function)
        self.host = usb.core.find(backend=EmulatedUsbBackend(self.wire))

    def does(self, change: Callable[[Queue], None], address: int) -> None:
        """Something at an endpoint, which it says while it still holds its lock, as drivers do."""
        with self.ends[address].lock:
            change(self.ends[address])
            self.function.ready()


@pytest.fixture
def adapter() -> Iterator[Adapter]:
    adapter = Adapter()
    yield adapter
    adapter.wire.close()


@pytest.mark.parametrize("timeout", [60_000, 0])
def test_a_read_and_a_write_wait_for_the_device(adapter: Adapter, timeout: int) -> None:
    reads = in_thread(lambda: bytes(adapter.host.read(0x81, 64, timeout)))
    writes = in_thread(lambda: adapter.host.write(0x01, b"0123456789", timeout))
    while adapter.ends[0x01].held != b"01234567":  # The write has begun, and has no room.
        clock.sleep(0.001)
    assert not reads.done()
    assert not writes.done()

    def offer(end: Queue) -> None:
        end.held = b"answer"

    def empty(end: Queue) -> None:
        end.held = b""

    adapter.does(offer, 0x81)
    assert reads.result(LONG) == b"answer"
    adapter.does(empty, 0x01)
    assert writes.result(LONG) == 10
    assert adapter.ends[0x01].held == b"89"


def test_a_device_says_that_it_is_ready_from_another_thread_while_it_is_asked(adapter: Adapter) -> None:
    def give(size: int) -> bytes:
        in_thread(adapter.function.ready).result(LONG)
        return b"answer"

    adapter.ends[0x81].give = give  # type: ignore[method-assign]
    assert bytes(adapter.host.read(0x81, 64, 60_000)) == b"answer"


def test_a_transfer_ends_with_its_time_and_with_the_device(adapter: Adapter) -> None:
    assert failure(lambda: adapter.host.read(0x81, 64, 1)) == (errno.ETIMEDOUT, -7)
    reads = in_thread(lambda: failure(lambda: adapter.host.read(0x81, 64, 60_000)))
    adapter.wire.unplug(adapter.port)
    assert reads.result(LONG) == (errno.ENODEV, -4)


def test_endpoints_are_those_of_the_alternate_setting(adapter: Adapter) -> None:
    backend, host = adapter.host.backend, adapter.host
    host.set_interface_altsetting(0, 1)
    handle = host._ctx.handle
    assert backend.bulk_write(handle, 0x02, 0, b"x", 1000) == 1
    assert failure(lambda: backend.bulk_write(handle, 0x01, 0, b"x", 1000)) == (errno.ENOENT, -5)
    host.set_interface_altsetting(0, 0)
    assert failure(lambda: backend.bulk_write(handle, 0x02, 0, b"x", 1000)) == (errno.ENOENT, -5)


def test_a_halted_endpoint_stalls_until_it_is_cleared(adapter: Adapter) -> None:
    adapter.host.write(0x01, b"a", 1000)
    usb.control.set_feature(adapter.host, usb.control.ENDPOINT_HALT, adapter.host[0][0, 0][0])
    assert failure(lambda: adapter.host.write(0x01, b"b", 1000)) == (errno.EPIPE, -9)
    adapter.host.clear_halt(0x01)
    adapter.host.write(0x01, b"c", 1000)
    assert adapter.ends[0x01].held == b"ac"


PROGRAM = """
import usb.backend.libusb1, usb.core, usb.util
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.wire import UsbWire

wire = UsbWire("lab")
imu = DfuDevice.attach(DeviceSpec("imu", settings={"part": "stm32f405-dfu", "serial": "A1"}), wire)
backend = EmulatedUsbBackend(wire)
usb.backend.libusb1.get_backend = lambda *args, **more: backend
device = usb.core.find(idVendor=0x0483, idProduct=0xDF11)
print(device.serial_number, device.ctrl_transfer(0xA1, 3, 0, 0, 6).tolist())
wire.close()
"""


def test_a_program_that_lets_pyusb_choose_its_backend() -> None:
    """As the module's docstring has it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "A1 [0, 0, 0, 0, 2, 0]\n"), done.stderr
