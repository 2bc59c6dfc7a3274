"""A pyusb back end around another one, which records the devices that it lists and their control transfers.

Requests that the operating system makes on its own are not seen here: SET_ADDRESS, the reading of descriptors while a
device is enumerated. What this host asks of an open device is seen whole.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import usb.core

from .. import clock
from ..recording.recorder import Recorder
from ..recording.records import UsbSeen
from .failures import FAILURES

SETUP = struct.Struct("<BBHHH")
"""USB 2.0, table 9-2: bmRequestType, bRequest, wValue, wIndex, wLength."""
SET_CONFIGURATION, SET_INTERFACE = 9, 11
"""USB 2.0, table 9-4."""


class RecordingBackend:
    """`backend`: an instance of pyusb's IBackend. What isn't defined here is that back end's own."""

    def __init__(self, backend: Any, recorder: Recorder, bus: str) -> None:
        self._backend = backend
        self._recorder = recorder
        self._bus = bus
        self._handles: dict[int, tuple[Any, int, int]] = {}
        """By the id of an open handle, which is kept with it: the device's bus and address."""
        self._seen: dict[tuple[int, int], UsbSeen] = {}
        self._last: tuple[UsbSeen, ...] | None = None
        """What was listed last, unless a transfer came after it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def enumerate_devices(self) -> Iterator[Any]:
        handles = list(self._backend.enumerate_devices())
        there: dict[tuple[int, int], UsbSeen] = {}
        for handle in handles:
            # A device may leave while it is being listed.
            with suppress(*FAILURES):
                descriptor = self._backend.get_device_descriptor(handle)
                place = int(descriptor.bus or 0), int(descriptor.address or 0)
                seen = self._seen.get(place)
                device = _device_descriptor(descriptor)
                if seen is None or seen.device != device:
                    seen = _look(self._backend, handle, descriptor, place, device)
                there[place] = seen
        self._seen = there
        listed = tuple(there.values())
        if listed != self._last:
            self._last = listed
            self._recorder.devices(self._bus, listed)
        yield from handles

    def open_device(self, dev: Any) -> Any:
        handle = self._backend.open_device(dev)
        descriptor = self._backend.get_device_descriptor(dev)
        self._handles[id(handle)] = (handle, int(descriptor.bus or 0), int(descriptor.address or 0))
        return handle

    def close_device(self, dev_handle: Any) -> None:
        self._backend.close_device(dev_handle)
        self._handles.pop(id(dev_handle), None)

    def set_configuration(self, dev_handle: Any, config_value: int) -> None:
        setup = SETUP.pack(0x00, SET_CONFIGURATION, config_value & 0xFFFF, 0, 0)
        self._recorded(dev_handle, setup, b"", self._backend.set_configuration, dev_handle, config_value)

    def set_interface_altsetting(self, dev_handle: Any, intf: int, altsetting: int) -> None:
        setup = SETUP.pack(0x01, SET_INTERFACE, altsetting & 0xFFFF, intf & 0xFFFF, 0)
        self._recorded(dev_handle, setup, b"", self._backend.set_interface_altsetting, dev_handle, intf, altsetting)

    def ctrl_transfer(
        self, dev_handle: Any, bmRequestType: int, bRequest: int, wValue: int, wIndex: int, data: Any, timeout: int
    ) -> int:
        length = len(data) if data is not None else 0
        setup = SETUP.pack(bmRequestType, bRequest, wValue & 0xFFFF, wIndex & 0xFFFF, length)
        count: int = self._recorded(
            dev_handle, setup, data, self._backend.ctrl_transfer,
            dev_handle, bmRequestType, bRequest, wValue, wIndex, data, timeout,
        )  # fmt: skip
        return count

    def reset_device(self, dev_handle: Any) -> None:
        _, root, address = self._handles.get(id(dev_handle), (None, 0, 0))
        self._recorder.note(self._bus, f"bus reset of the device {root}.{address}")
        self._last = None
        self._backend.reset_device(dev_handle)

    def _recorded(self, handle: Any, setup: bytes, data: Any, call: Any, *arguments: Any) -> Any:
        """Calls the back end, and records the transfer with what came of it."""
        _, root, address = self._handles.get(id(handle), (None, 0, 0))
        started = clock.monotonic()
        status, count = 0, 0
        self._last = None
        try:
            result = call(*arguments)
            count = result if isinstance(result, int) else 0
            return result
        except FAILURES as error:
            status = -(getattr(error, "errno", None) or _number(error))
            raise
        finally:
            passed = bytes(data or b"")
            self._recorder.usb(
                self._bus, root, address, setup, passed[:count] if setup[0] & 0x80 else passed, status, started
            )


def _number(error: Exception) -> int:
    return errno.ETIMEDOUT if isinstance(error, usb.core.USBTimeoutError) else errno.EIO


def _device_descriptor(item: Any) -> bytes:
    """USB 2.0, table 9-8."""
    return struct.pack(
        "<BBHBBBBHHHBBBB", 18, 1, item.bcdUSB, item.bDeviceClass, item.bDeviceSubClass, item.bDeviceProtocol,
        item.bMaxPacketSize0, item.idVendor, item.idProduct, item.bcdDevice, item.iManufacturer, item.iProduct,
        item.iSerialNumber, item.bNumConfigurations,
    )  # fmt: skip


def _look(backend: Any, handle: Any, descriptor: Any, place: tuple[int, int], device: bytes) -> UsbSeen:
    configurations = []
    found = usb.core.Device(handle, backend)
    for index in range(int(descriptor.bNumConfigurations)):
        # An unreadable configuration hides no other.
        with suppress(*FAILURES):
            configurations.append(_configuration(found[index]))
    ports = tuple(int(port) for port in descriptor.port_numbers or ())
    return UsbSeen(*place, ports, int(descriptor.speed or 0), device, tuple(configurations))


def _configuration(configuration: Any) -> bytes:
    """USB 2.0, table 9-10, with what follows it: the interfaces (table 9-12) and endpoints (table 9-13)."""
    body = bytes(configuration.extra_descriptors or ())
    for item in configuration:
        body += struct.pack(
            "<BBBBBBBBB", 9, 4, item.bInterfaceNumber, item.bAlternateSetting, item.bNumEndpoints,
            item.bInterfaceClass, item.bInterfaceSubClass, item.bInterfaceProtocol, item.iInterface,
        )  # fmt: skip
        body += bytes(item.extra_descriptors or ())
        for endpoint in item:
            body += struct.pack(
                "<BBBBHB", 7, 5, endpoint.bEndpointAddress, endpoint.bmAttributes, endpoint.wMaxPacketSize,
                endpoint.bInterval,
            )  # fmt: skip
            body += bytes(endpoint.extra_descriptors or ())
    head = struct.pack(
        "<BBHBBBBB", 9, 2, min(9 + len(body), 0xFFFF), configuration.bNumInterfaces, configuration.bConfigurationValue,
        configuration.iConfiguration, configuration.bmAttributes, configuration.bMaxPower,
    )  # fmt: skip
    return head + body
