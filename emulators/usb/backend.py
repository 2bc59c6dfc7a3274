"""A pyusb backend over an emulated USB bus: pyusb finds, opens and talks to emulated devices as to real ones.

    from proxyflash.emulators.device import DeviceSpec
    from proxyflash.emulators.dfu.device import DfuDevice
    from proxyflash.emulators.usb.backend import EmulatedUsbBackend
    from proxyflash.emulators.usb.wire import UsbWire

    wire = UsbWire("lab")                       # a bus; pace=0 takes no time
    imu = DfuDevice.attach(DeviceSpec("imu", settings={"part": "stm32f405-dfu", "serial": "A1"}), wire)
    backend = EmulatedUsbBackend(wire)
    device = usb.core.find(idVendor=0x0483, idProduct=0xDF11, backend=backend)
    device.ctrl_transfer(0xA1, 3, 0, 0, 6)      # GETSTATUS
    imu.supply.off(), imu.supply.on()           # a power cycle: it re-enumerates
    wire.close()

A bench file's emulated bus has its wire too: `EmulatedUsbBackend(bench.emulated_wire("usb"))`. A program that lets pyusb
choose its backend gets this one when, before it looks for a device,

    usb.backend.libusb1.get_backend = lambda *args, **more: backend

Errors and their numbers are those of libusb 1.0 on Linux: ENODEV once the device has left, EPIPE for a STALL,
ETIMEDOUT, EACCES for a device made `forbidden`, EBUSY for an interface that another handle has claimed. Bulk and
interrupt transfers go to the endpoints that a device has, and take no time.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import usb.backend
import usb.core

from ...transports import clock
from .device import SETUP, Endpoint, InterfaceDescriptor, Stall, UsbFunction
from .wire import DeviceGone, Port, TransferTimeout, UsbWire

CONTROL_TIMEOUT = 1000
"""Milliseconds that libusb gives the requests it makes of its own accord."""
SPEED_FULL = 2
"""libusb.h, enum libusb_speed."""
_LIBUSB = {
    errno.EIO: -1,
    errno.EINVAL: -2,
    errno.EACCES: -3,
    errno.ENODEV: -4,
    errno.ENOENT: -5,
    errno.EBUSY: -6,
    errno.ETIMEDOUT: -7,
    errno.EPIPE: -9,
}
"""libusb.h, enum libusb_error, by the errno that pyusb gives for it."""
MOST_CONTROL = 4096
"""libusb's os/linux_usbfs.h, MAX_CTRL_BUFFER_LENGTH: the most bytes of a control transfer."""
CLASS_TO_INTERFACE = 0x21


@dataclass(eq=False)
class _Enumerated:
    """A device as it was found: the function, and where."""

    port: Port
    function: UsbFunction
    address: int


@dataclass(eq=False)
class _Handle:
    device: _Enumerated
    claimed: set[int] = field(default_factory=set)


def _fail(code: int, text: str) -> NoReturn:
    raise usb.core.USBError(text, _LIBUSB.get(code), code)


class DriverlessBackend(usb.backend.IBackend):  # type: ignore[misc]
    """No driver of a kernel has an interface."""

    def is_kernel_driver_active(self, dev_handle: object, intf: int) -> bool:
        return False

    def detach_kernel_driver(self, dev_handle: object, intf: int) -> None:
        return None

    def attach_kernel_driver(self, dev_handle: object, intf: int) -> None:
        return None


class EmulatedUsbBackend(DriverlessBackend):
    """What libusb's backend is to a real bus, errors and their numbers included."""

    def __init__(self, wire: UsbWire) -> None:
        self._wire = wire
        self._seen = wire.changes
        self._calls = 0
        """How often a device has said that an endpoint may be ready."""
        self._transfers = clock.RLock()
        """Held while an endpoint is asked: never while a thread waits, nor by a thread that says that it is ready."""

    def wait_change(self, timeout: float) -> bool:
        """Waits until a device came or went since the last call, at most `timeout` seconds."""
        with self._wire.changed:
            changed = self._wire.changed.wait_for(lambda: self._wire.changes != self._seen, timeout)
            self._seen = self._wire.changes
            return changed

    def enumerate_devices(self) -> Iterator[_Enumerated]:
        with self._wire.changed:
            there = [_Enumerated(port, port.function, port.address) for port in self._wire.ports if port.function]
        yield from there

    def get_parent(self, dev: _Enumerated) -> None:
        return None

    def get_device_descriptor(self, dev: _Enumerated) -> SimpleNamespace:
        about = dev.function.descriptors
        return SimpleNamespace(
            bLength=18, bDescriptorType=1, bcdUSB=0x0200, bDeviceClass=0, bDeviceSubClass=0, bDeviceProtocol=0,
            bMaxPacketSize0=about.max_packet, idVendor=about.vendor_id, idProduct=about.product_id,
            bcdDevice=about.bcd_device, iManufacturer=about.index(about.manufacturer),
            iProduct=about.index(about.product), iSerialNumber=about.index(about.serial), bNumConfigurations=1,
            address=dev.address, bus=1, port_number=dev.port.number, port_numbers=(dev.port.number,),
            speed=SPEED_FULL,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: _Enumerated, config: int) -> SimpleNamespace:
        if config != 0:
            raise IndexError(config)
        about = dev.function.descriptors
        return SimpleNamespace(
            bLength=9, bDescriptorType=2, wTotalLength=len(about.whole_configuration()),
            bNumInterfaces=len({item.number for item in about.interfaces}), bConfigurationValue=1,
            iConfiguration=about.index(about.configuration), bmAttributes=about.attributes, bMaxPower=50,
            extra_descriptors=[],
        )  # fmt: skip

    def get_interface_descriptor(self, dev: _Enumerated, intf: int, alt: int, config: int) -> SimpleNamespace:
        about = dev.function.descriptors
        found = [item for item in about.interfaces if item.number == intf]
        item: InterfaceDescriptor = found[alt]
        return SimpleNamespace(
            bLength=9, bDescriptorType=4, bInterfaceNumber=item.number, bAlternateSetting=item.alternate,
            bNumEndpoints=len(item.endpoints), bInterfaceClass=item.class_code, bInterfaceSubClass=item.subclass,
            bInterfaceProtocol=item.protocol, iInterface=about.index(item.name), extra_descriptors=list(item.extra),
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev: _Enumerated, ep: int, intf: int, alt: int, config: int) -> SimpleNamespace:
        found = [item for item in dev.function.descriptors.interfaces if item.number == intf]
        item = found[alt].endpoints[ep]
        return SimpleNamespace(
            bLength=7, bDescriptorType=5, bEndpointAddress=item.address, bmAttributes=item.kind,
            wMaxPacketSize=item.max_packet, bInterval=item.interval, bRefresh=0, bSynchAddress=0, extra_descriptors=[],
        )  # fmt: skip

    def open_device(self, dev: _Enumerated) -> _Handle:
        if dev.port.function is not dev.function:
            _fail(errno.ENODEV, "No such device (it may have been disconnected)")
        if dev.function.forbidden:
            _fail(errno.EACCES, "Access denied (insufficient permissions)")
        return _Handle(dev)

    def close_device(self, dev_handle: _Handle) -> None:
        for interface in tuple(dev_handle.claimed):
            self.release_interface(dev_handle, interface)

    def set_configuration(self, dev_handle: _Handle, config_value: int) -> None:
        self._transfer(dev_handle, 0x00, 9, config_value, 0, b"", 0)

    def get_configuration(self, dev_handle: _Handle) -> int:
        answer = self._transfer(dev_handle, 0x80, 8, 0, 0, b"", 1)
        if len(answer) != 1:
            _fail(errno.EIO, "Input/Output Error")
        return answer[0]

    def set_interface_altsetting(self, dev_handle: _Handle, intf: int, altsetting: int) -> None:
        self._transfer(dev_handle, 0x01, 11, altsetting, intf, b"", 0)

    def claim_interface(self, dev_handle: _Handle, intf: int) -> None:
        function = dev_handle.device.function
        if dev_handle.device.port.function is not function:
            _fail(errno.ENODEV, "No such device (it may have been disconnected)")
        if all(item.number != intf for item in function.descriptors.interfaces):
            _fail(errno.ENOENT, "Entity not found")
        if function.busy or function.claims.setdefault(intf, dev_handle) is not dev_handle:
            _fail(errno.EBUSY, "Resource busy")
        dev_handle.claimed.add(intf)

    def release_interface(self, dev_handle: _Handle, intf: int) -> None:
        if intf in dev_handle.claimed:
            dev_handle.claimed.discard(intf)
            dev_handle.device.function.claims.pop(intf, None)

    def ctrl_transfer(
        self, dev_handle: _Handle, bmRequestType: int, bRequest: int, wValue: int, wIndex: int, data: Any, timeout: int
    ) -> int:
        if data is not None and len(data) > MOST_CONTROL:
            _fail(errno.EINVAL, "Invalid parameter")
        holder = dev_handle.device.function.claims.get(wIndex & 0xFF, dev_handle)
        if bmRequestType & 0x7F == CLASS_TO_INTERFACE and holder is not dev_handle:
            _fail(errno.EBUSY, "Resource busy")
        if bmRequestType & 0x80:
            answer = self._transfer(dev_handle, bmRequestType, bRequest, wValue, wIndex, b"", len(data), timeout)
            for offset, byte in enumerate(answer):
                data[offset] = byte
            return len(answer)
        payload = bytes(data) if data is not None else b""
        self._transfer(dev_handle, bmRequestType, bRequest, wValue, wIndex, payload, len(payload), timeout)
        return len(payload)

    def bulk_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:
        payload = bytes(data)
        left = payload

        def taken() -> bool:
            nonlocal left
            left = left[self._endpoint(dev_handle, ep).take(left) :]
            return not left

        self._until(dev_handle, taken, timeout)
        return len(payload)

    def bulk_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:
        given: list[bytes] = []

        def came() -> bool:
            data = self._endpoint(dev_handle, ep).give(len(buff))
            if data is not None:
                given.append(data)
            return bool(given)

        self._until(dev_handle, came, timeout)
        for offset, byte in enumerate(given[0]):
            buff[offset] = byte
        return len(given[0])

    intr_write, intr_read = bulk_write, bulk_read

    def clear_halt(self, dev_handle: _Handle, ep: int) -> None:
        self._transfer(dev_handle, 0x02, 1, 0, ep, b"", 0)

    def reset_device(self, dev_handle: _Handle) -> None:
        device = dev_handle.device
        if device.port.function is not device.function:
            _fail(errno.ENODEV, "No such device (it may have been disconnected)")
        device.function.bus_reset()

    def _endpoint(self, handle: _Handle, address: int) -> Endpoint:
        device = handle.device
        if device.port.function is not device.function:
            _fail(errno.ENODEV, "No such device (it may have been disconnected)")
        if address not in device.function.active():
            _fail(errno.ENOENT, "Entity not found")
        if address in device.function.halted:
            _fail(errno.EPIPE, "Pipe error")
        return device.function.endpoints[address]

    def _until(self, handle: _Handle, done: Callable[[], bool], timeout: int) -> None:
        """Waits on the device until a transfer is done. `timeout`: in milliseconds; 0: no limit."""
        wire = self._wire
        ends = clock.monotonic() + timeout / 1000
        handle.device.function.ready = self._ready
        while True:
            seen = (self._calls, wire.changes)
            with self._transfers:
                if done():
                    return
            with wire.changed:
                left = max(0.0, ends - clock.monotonic()) if timeout else None
                if (self._calls, wire.changes) == seen and not wire.changed.wait(left):
                    raise usb.core.USBTimeoutError("Operation timed out", _LIBUSB[errno.ETIMEDOUT], errno.ETIMEDOUT)

    def _ready(self) -> None:
        with self._wire.changed:
            self._calls += 1
            self._wire.changed.notify_all()

    def _transfer(
        self,
        handle: _Handle,
        kind: int,
        request: int,
        value: int,
        index: int,
        data: bytes,
        length: int,
        timeout: int = CONTROL_TIMEOUT,
    ) -> bytes:
        setup = SETUP.pack(kind, request, value & 0xFFFF, index & 0xFFFF, length)
        try:
            return self._wire.control(handle.device.port, handle.device.function, setup, data)
        except Stall:
            _fail(errno.EPIPE, "Pipe error")
        except DeviceGone:
            _fail(errno.ENODEV, "No such device (it may have been disconnected)")
        except TransferTimeout:
            clock.sleep(timeout / 1000 * self._wire.pace)
            raise usb.core.USBTimeoutError("Operation timed out", _LIBUSB[errno.ETIMEDOUT], errno.ETIMEDOUT) from None
