"""Recorded USB devices, as a pyusb backend.

    track = Replay.open("session.jsonl").track("usb", "usb")
    device = usb.core.find(idVendor=0x0483, idProduct=0xDF11, backend=ReplayUsbBackend(track))

Devices come and go as they were seen to. Descriptors are read at any time and any number of times; every other control
transfer has to be its device's next recorded transfer, and ends as it did then.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NoReturn

import usb.core

from ...transports import clock
from ...transports.recording.records import Record, UsbControl, UsbDevices, UsbSeen
from ..usb.backend import DriverlessBackend
from ..usb.device import CONFIGURATION, SETUP, StandardRequest
from .track import LONGEST_WAIT, Course, ReplayMismatch, Track, both

INTERFACE, ENDPOINT = 4, 5
"""Descriptor types (USB 2.0, table 9-5)."""
CONFIGURATION_BYTES = 9
"""Of a configuration's own descriptor (USB 2.0, table 9-10)."""
_LIBUSB = {
    errno.EIO: -1, errno.EACCES: -3, errno.ENODEV: -4, errno.ENOENT: -5, errno.EBUSY: -6, errno.ETIMEDOUT: -7,
    errno.EOVERFLOW: -8, errno.EPIPE: -9,
}  # fmt: skip
"""libusb.h, enum libusb_error, by the errno that pyusb gives for it."""
_ONLY_READS = (StandardRequest.GET_STATUS, StandardRequest.GET_DESCRIPTOR, StandardRequest.GET_CONFIGURATION)


def _fail(code: int) -> NoReturn:
    kind = usb.core.USBTimeoutError if code == errno.ETIMEDOUT else usb.core.USBError
    raise kind(os.strerror(code), _LIBUSB.get(code, -99), code)


def changes_nothing(transfer: UsbControl) -> bool:
    """Whether it only reads: a status, a descriptor, the number of the configuration."""
    return transfer.setup[0] & 0xE0 == 0x80 and transfer.setup[1] in _ONLY_READS


class UsbTrack(Track):
    """Control transfers of one bus, and the devices that were seen on it."""

    kind = "usb"
    record_types = (UsbControl, UsbDevices)

    def __init__(self, replay: Course, bus: str, records: Sequence[Record]) -> None:
        events = [
            record
            for record in records
            if isinstance(record, UsbDevices) or (isinstance(record, UsbControl) and not changes_nothing(record))
        ]
        super().__init__(replay, bus, events)
        self._events = events
        self._reads: dict[tuple[int, int, bytes], list[UsbControl]] = {}
        for record in records:
            if isinstance(record, UsbControl) and changes_nothing(record):
                self._reads.setdefault((record.root, record.address, record.setup[:6]), []).append(record)
        self._numbers: dict[int, int] = {}
        self._awaited: dict[tuple[int, int], deque[int]] = {}
        for index, event in enumerate(events):
            if isinstance(event, UsbControl):
                self._numbers[index] = len(self._numbers) + 1
                self._awaited.setdefault((event.root, event.address), deque()).append(index)
        self._position = 0
        self._gone: set[int] = set()
        self.present: tuple[UsbSeen, ...] = ()

    @property
    def exchanges(self) -> int:
        return len(self._numbers)

    def host_settings(self, channel: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        return {"backend": ReplayUsbBackend(self)}

    def look(self) -> tuple[UsbSeen, ...]:
        """The devices that the host saw when it looked here."""
        with self.changed:
            if isinstance(event := self._next_event(), UsbDevices):
                self._position += 1
                self.present = event.devices
            return self.present

    def will_change(self) -> bool:
        """Whether a host that looks again sees other devices."""
        with self.changed:
            return isinstance(self._next_event(), UsbDevices)

    def control(self, seen: UsbSeen, setup: bytes, data: bytes) -> bytes:
        """The data that came. Raises USBError as it was recorded, ReplayMismatch."""
        with self.changed:
            self.require_match()
            asked = UsbControl(0.0, self.bus, seen.root, seen.address, setup, data, 0, 0.0)
            transfer = self._read(asked) if changes_nothing(asked) else self._exchange(asked)
            wait = transfer.seconds * self.replay.pace
        clock.sleep(min(wait, LONGEST_WAIT))
        if transfer.status:
            _fail(-transfer.status)
        return transfer.data[: int.from_bytes(setup[6:8], "little")] if transfer.incoming else b""

    def unsent(self) -> ReplayMismatch | None:
        index = self._next()
        if index is None:
            return None
        recorded = _shown(self._events[index])
        return ReplayMismatch(self.bus, self._numbers[index], self.exchanges, recorded, "the host has ended")

    def _read(self, asked: UsbControl) -> UsbControl:
        """A recorded reading of the same, the longest that worked; a device stalls what was never read of it."""
        found = self._reads.get((asked.root, asked.address, asked.setup[:6]), [])
        stalled = replace(asked, status=-errno.EPIPE)
        return max(found, key=lambda item: (not item.status, len(item.data)), default=stalled)

    def _exchange(self, asked: UsbControl) -> UsbControl:
        awaited = self._awaited.get((asked.root, asked.address))
        index = awaited[0] if awaited else self._next()
        recorded = self._events[index] if index is not None else None
        if awaited and isinstance(recorded, UsbControl) and _same(recorded, asked):
            self._gone.add(awaited.popleft())
            self._pass()
            self.sent(recorded)
            return recorded
        number = self._numbers[index] if index is not None else self.exchanges + 1
        raise self.differ(number, *_both(recorded, asked))

    def _pass(self) -> None:
        """What the host didn't look at before it went on it passed over."""
        last = max(self._gone)
        while self._position < last and (
            self._position in self._gone or isinstance(self._events[self._position], UsbDevices)
        ):
            event = self._events[self._position]
            if isinstance(event, UsbDevices):
                self.present = event.devices
            self._gone.discard(self._position)
            self._position += 1

    def _next_event(self) -> Record | None:
        while self._position in self._gone:
            self._gone.discard(self._position)
            self._position += 1
        return self._events[self._position] if self._position < len(self._events) else None

    def _next(self) -> int | None:
        return min((awaited[0] for awaited in self._awaited.values() if awaited), default=None)


def _same(recorded: UsbControl, asked: UsbControl) -> bool:
    return recorded.setup == asked.setup and (recorded.incoming or recorded.data == asked.data)


def _shown(event: Record | None) -> str:
    if not isinstance(event, UsbControl):
        return "nothing more"
    return _text(event.setup, both(event.data, b"")[0] if event.data and not event.incoming else "")


def _text(setup: bytes, data: str) -> str:
    return setup.hex(" ").upper() + (f" -> {data}" if data else "")


def _both(recorded: Record | None, now: UsbControl) -> tuple[str, str]:
    if isinstance(recorded, UsbControl) and recorded.setup == now.setup and not now.incoming:
        ours, theirs = both(recorded.data, now.data)
        return _text(now.setup, ours), _text(now.setup, theirs)
    return _shown(recorded), _shown(now)


@dataclass(eq=False)
class _Handle:
    seen: UsbSeen


@dataclass
class _Setting:
    """An alternate setting: its descriptor, those behind it, and its endpoints with those behind them."""

    descriptor: bytes
    extra: bytes = b""
    endpoints: list[tuple[bytes, bytes]] = field(default_factory=list)


class ReplayUsbBackend(DriverlessBackend):
    """The devices of a UsbTrack."""

    def __init__(self, track: UsbTrack) -> None:
        self._track = track

    def wait_change(self, timeout: float) -> bool:
        """Waits until a look shows other devices, at most `timeout` seconds."""
        if self._track.will_change():
            return True
        clock.sleep(timeout)
        return False

    def enumerate_devices(self) -> Iterator[UsbSeen]:
        yield from self._track.look()

    def get_parent(self, dev: UsbSeen) -> None:
        return None

    def get_device_descriptor(self, dev: UsbSeen) -> SimpleNamespace:
        raw = dev.device
        word = [int.from_bytes(raw[at : at + 2], "little") for at in range(17)]
        return SimpleNamespace(
            bLength=18, bDescriptorType=1, bcdUSB=word[2], bDeviceClass=raw[4], bDeviceSubClass=raw[5],
            bDeviceProtocol=raw[6], bMaxPacketSize0=raw[7], idVendor=word[8], idProduct=word[10], bcdDevice=word[12],
            iManufacturer=raw[14], iProduct=raw[15], iSerialNumber=raw[16], bNumConfigurations=len(dev.configurations),
            address=dev.address, bus=dev.root, port_number=dev.ports[-1] if dev.ports else None,
            port_numbers=dev.ports or None, speed=dev.speed,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: UsbSeen, config: int) -> SimpleNamespace:
        raw, before, _ = _parsed(dev, config)
        return SimpleNamespace(
            bLength=9, bDescriptorType=CONFIGURATION, wTotalLength=int.from_bytes(raw[2:4], "little"),
            bNumInterfaces=raw[4], bConfigurationValue=raw[5], iConfiguration=raw[6], bmAttributes=raw[7],
            bMaxPower=raw[8], extra_descriptors=list(before),
        )  # fmt: skip

    def get_interface_descriptor(self, dev: UsbSeen, intf: int, alt: int, config: int) -> SimpleNamespace:
        item = _setting(dev, intf, alt, config)
        raw = item.descriptor
        return SimpleNamespace(
            bLength=9, bDescriptorType=INTERFACE, bInterfaceNumber=raw[2], bAlternateSetting=raw[3],
            bNumEndpoints=len(item.endpoints), bInterfaceClass=raw[5], bInterfaceSubClass=raw[6],
            bInterfaceProtocol=raw[7], iInterface=raw[8], extra_descriptors=list(item.extra),
        )  # fmt: skip

    def get_endpoint_descriptor(self, dev: UsbSeen, ep: int, intf: int, alt: int, config: int) -> SimpleNamespace:
        raw, extra = _setting(dev, intf, alt, config).endpoints[ep]
        return SimpleNamespace(
            bLength=raw[0], bDescriptorType=ENDPOINT, bEndpointAddress=raw[2], bmAttributes=raw[3],
            wMaxPacketSize=int.from_bytes(raw[4:6], "little"), bInterval=raw[6], bRefresh=0, bSynchAddress=0,
            extra_descriptors=list(extra),
        )  # fmt: skip

    def open_device(self, dev: UsbSeen) -> _Handle:
        if dev not in self._track.present:
            _fail(errno.ENODEV)
        return _Handle(dev)

    def close_device(self, dev_handle: _Handle) -> None:
        return None

    def set_configuration(self, dev_handle: _Handle, config_value: int) -> None:
        setup = SETUP.pack(0x00, StandardRequest.SET_CONFIGURATION, config_value, 0, 0)
        self._track.control(dev_handle.seen, setup, b"")

    def get_configuration(self, dev_handle: _Handle) -> int:
        configurations = dev_handle.seen.configurations
        return configurations[0][5] if configurations and len(configurations[0]) >= CONFIGURATION_BYTES else 0

    def set_interface_altsetting(self, dev_handle: _Handle, intf: int, altsetting: int) -> None:
        setup = SETUP.pack(0x01, StandardRequest.SET_INTERFACE, altsetting, intf, 0)
        self._track.control(dev_handle.seen, setup, b"")

    def claim_interface(self, dev_handle: _Handle, intf: int) -> None:
        return None

    def release_interface(self, dev_handle: _Handle, intf: int) -> None:
        return None

    def ctrl_transfer(
        self, dev_handle: _Handle, bmRequestType: int, bRequest: int, wValue: int, wIndex: int, data: Any, timeout: int
    ) -> int:
        length = len(data) if data is not None else 0
        setup = SETUP.pack(bmRequestType, bRequest, wValue & 0xFFFF, wIndex & 0xFFFF, length)
        if bmRequestType & 0x80:
            answer = self._track.control(dev_handle.seen, setup, b"")
            for offset, byte in enumerate(answer):
                data[offset] = byte
            return len(answer)
        self._track.control(dev_handle.seen, setup, bytes(data or b""))
        return length

    def clear_halt(self, dev_handle: _Handle, ep: int) -> None:
        return None

    def reset_device(self, dev_handle: _Handle) -> None:
        return None


def _parsed(seen: UsbSeen, config: int) -> tuple[bytes, bytes, Mapping[int, Sequence[_Setting]]]:
    """A configuration's own descriptor, what stands before its interfaces, and the alternate settings of each.

    Raises USBError without one.
    """
    raw = seen.configurations[config] if config < len(seen.configurations) else b""
    if len(raw) < CONFIGURATION_BYTES:
        _fail(errno.ENOENT)
    return raw, *_taken_apart(raw)


@lru_cache(maxsize=64)
def _taken_apart(raw: bytes) -> tuple[bytes, Mapping[int, Sequence[_Setting]]]:
    """What stands before the interfaces, and those. pyusb asks for each interface and each endpoint separately."""
    before = b""
    interfaces: dict[int, list[_Setting]] = {}
    last: _Setting | None = None
    place = CONFIGURATION_BYTES
    while place + 2 <= len(raw) and raw[place] >= 2:
        item, kind = raw[place : place + raw[place]], raw[place + 1]
        place += raw[place]
        if kind == INTERFACE and len(item) >= 9:
            last = _Setting(item)
            interfaces.setdefault(item[2], []).append(last)
        elif last is None:
            before += item
        elif kind == ENDPOINT and len(item) >= 7:
            last.endpoints.append((item, b""))
        elif last.endpoints:
            endpoint, extra = last.endpoints[-1]
            last.endpoints[-1] = (endpoint, extra + item)
        else:
            last.extra += item
    return before, interfaces


def _setting(seen: UsbSeen, intf: int, alt: int, config: int) -> _Setting:
    """pyusb counts interfaces and alternate settings from 0, as they stand. Raises IndexError, on which pyusb relies."""
    return list(_parsed(seen, config)[2].values())[intf][alt]
