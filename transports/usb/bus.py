"""USB through pyusb: devices found by ids, serial number or port path; control transfers; re-enumeration.

Descriptors: USB 2.0, chapter 9. A device is known by its port path and its address: a device that re-enumerates keeps the
first and gets another of the second, even when it comes back with the same ids.

Of a back end (pyusb's IBackend, libusb's or an injected one) this module calls: `enumerate_devices`,
`get_device_descriptor`, `get_configuration_descriptor`, `get_interface_descriptor`, `open_device`, `close_device`,
`ctrl_transfer`, `claim_interface`, `release_interface`; for a device with alternate settings or several
configurations `get_configuration` and `set_interface_altsetting`; if it has them, `is_kernel_driver_active`,
`detach_kernel_driver`, `attach_kernel_driver`; for `reset`, `reset_device`. pyusb has no event for a device that came or
went, so waiting for one looks again every 25 ms, unless the back end has a method `wait_change(timeout: float) -> bool`
that returns early when its devices have changed.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import usb.core
import usb.util

from .. import clock
from ..deadline import Deadline
from ..errors import UsbAbsent, UsbAmbiguous, UsbForbidden, UsbGone, UsbSettings, UsbTimeout
from ..recording.recorder import Recorder
from ..toml_text import Hexadecimal
from ..transport import HostCheck, Transport, Where
from . import claims, host
from .claims import Claim, Claimed
from .failures import FAILURES, named, naming
from .strings import Strings, open_handle, release

LOOK_AGAIN = 0.025
"""Seconds between two looks at the list of devices, for back ends that don't tell of changes."""

STILL_THERE = 0.25
"""Seconds between two looks whether a device that is given time is still there."""

LONGEST_WAIT = 0.1
"""Seconds for one `wait_change`: a change just before the call may have been missed."""

HUB_CLASS = 0x09


@dataclass(frozen=True, slots=True)
class UsbMatch:
    """Which device is meant; None: any. `port`: bus and port path as in sysfs ("1-4.2")."""

    vendor_id: int | None = None
    product_id: int | None = None
    serial: str | None = None
    port: str | None = None

    def __str__(self) -> str:
        ids = ":".join("any" if value is None else f"{value:04x}" for value in (self.vendor_id, self.product_id))
        serial = "" if self.serial is None else f", serial {self.serial}"
        port = "" if self.port is None else f", port {self.port}"
        return f"{ids}{serial}{port}"


@dataclass(frozen=True, slots=True)
class UsbInterface:
    """One alternate setting of one interface, from the descriptors. `extra`: class-specific descriptors, raw.

    A descriptor that a device has once for all alternate settings follows the last of them, and is that one's `extra`.
    """

    configuration: int
    number: int
    alternate: int
    class_code: int
    subclass: int
    protocol: int
    name: str
    extra: bytes


@dataclass(frozen=True, slots=True)
class UsbInfo:
    """What a device's descriptors say. Strings are "" where the device has none or forbids reading them."""

    vendor_id: int
    product_id: int
    bcd_device: int
    manufacturer: str
    product: str
    serial: str
    port: str
    interfaces: tuple[UsbInterface, ...]

    def __str__(self) -> str:
        return f"{self.vendor_id:04x}:{self.product_id:04x} at port {self.port}"


class UsbDevice:
    """One opened device."""

    info: UsbInfo

    def __init__(self, info: UsbInfo, device: Any) -> None:
        self.info = info
        self._device = device
        self._open = True
        self._claimed: set[int] = set()
        self._detached: list[int] = []

    def claim(self, interface: int, alternate: int = 0) -> None:
        """Claims an interface, detaching a kernel driver if one holds it, and selects the alternate setting.

        Raises UsbBusy, UsbForbidden, UsbGone; UsbAbsent if the descriptors have no such setting.
        """
        with self._naming(f"claiming interface {interface}"):
            alternates = self._alternates(interface)
            if alternate not in alternates:
                raise UsbAbsent(
                    f"the USB device {self.info} has no interface {interface} with alternate setting {alternate}",
                    remedy="Is the device in the mode that is meant? List its interfaces: lsusb -v",
                )
            if interface not in self._claimed:
                self._detach_driver(interface)
                usb.util.claim_interface(self._device, interface)
                self._claimed.add(interface)
            # A device may stall the request if there is nothing to choose (USB 2.0, 9.4.10).
            if len(alternates) > 1:
                self._device.set_interface_altsetting(interface, alternate)

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, deadline: Deadline | float
    ) -> int:
        """Sends; the number of bytes taken. Raises UsbStall, UsbTimeout, UsbGone."""
        deadline = Deadline.of(deadline)
        return int(self._transfer(request_type, request, value, index, data, deadline))

    def control_in(
        self, request_type: int, request: int, value: int, index: int, size: int, deadline: Deadline | float
    ) -> bytes:
        """Receives up to `size` bytes. Raises UsbStall, UsbTimeout, UsbGone."""
        deadline = Deadline.of(deadline)
        return bytes(self._transfer(request_type, request, value, index, size, deadline))

    def wait(self, seconds: float) -> None:
        """Gives the device time. Raises UsbGone soon after it has left, as far as the back end shows it."""
        deadline = Deadline.after(seconds)
        while deadline.remaining > STILL_THERE:
            clock.sleep(STILL_THERE)
            if not self._is_listed():
                raise UsbGone(f"the USB device {self.info} left while it was given time")
        clock.sleep(deadline.remaining)

    def reset(self) -> None:
        """A USB bus reset, after which this object is closed: the device may re-enumerate, and is to be found again."""
        self._require_open("resetting")
        try:
            with suppress(UsbGone), self._naming("resetting"):
                self._device.reset()
        finally:
            self.close()

    def close(self) -> None:
        """Releases what was claimed and gives it back to its kernel driver. A second call does nothing."""
        if not self._open:
            return
        self._open = False
        for interface in self._detached:
            with suppress(*FAILURES):
                usb.util.release_interface(self._device, interface)
                self._device.attach_kernel_driver(interface)
        release(self._device)

    def _transfer(
        self, request_type: int, request: int, value: int, index: int, data_or_size: bytes | int, deadline: Deadline
    ) -> Any:
        self._require_open(f"control request 0x{request:02X}")
        # libusb takes 0 for "no limit".
        timeout = min(math.ceil(deadline.remaining * 1000), 2**31 - 1)
        if timeout == 0:
            raise UsbTimeout(f"control request 0x{request:02X} to {self.info}: not sent, its deadline has passed")
        try:
            return self._device.ctrl_transfer(request_type, request, value, index, data_or_size, timeout)
        except FAILURES as error:
            raise named(error, f"control request 0x{request:02X}, USB device {self.info}") from error

    def _is_listed(self) -> bool:
        """Also where that isn't known: the next request shows it then."""
        with suppress(*FAILURES):
            return any(_place(device) == _place(self._device) for device in _listed(self._device.backend))
        return True

    def _alternates(self, interface: int) -> set[int]:
        """The alternate settings of an interface, in the active configuration."""
        active = None
        if len({item.configuration for item in self.info.interfaces}) > 1:
            active = self._device.get_active_configuration().bConfigurationValue
        return {
            item.alternate
            for item in self.info.interfaces
            if item.number == interface and active in (None, item.configuration)
        }

    def _detach_driver(self, interface: int) -> None:
        # Not every back end and operating system knows kernel drivers.
        with suppress(NotImplementedError):
            if self._device.is_kernel_driver_active(interface):
                self._device.detach_kernel_driver(interface)
                self._detached.append(interface)

    def _require_open(self, doing: str) -> None:
        # pyusb would open a closed device again.
        if not self._open:
            raise UsbGone(f"{doing}: the USB device {self.info} was closed", remedy="")

    @contextmanager
    def _naming(self, doing: str) -> Iterator[None]:
        self._require_open(doing)
        with naming(f"{doing}, USB device {self.info}"):
            yield


class UsbBus(Transport):
    """The USB devices of this host, or those of an emulated backend."""

    kind: ClassVar[str] = "usb"
    where_form: ClassVar[str] = "VENDOR:PRODUCT"
    shared_wire: ClassVar[bool] = False

    def __init__(self, name: str, backend: Any) -> None:
        self.name = name
        self._plain_backend = self._backend = backend
        self._recorder: Recorder | None = None
        self._opened: weakref.WeakSet[UsbDevice] = weakref.WeakSet()
        self._addresses: dict[str, int] = {}
        """By port path, the address of the device that was opened there last."""
        self._followed: dict[str, tuple[Claim, str]] = {}
        """By port path, the devices that were opened, where they are now or were last, and their serial numbers."""
        self._of_this_host = False

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """`settings`: `backend`, an instance of pyusb's IBackend; None: libusb. Raises UsbAbsent without libusb."""
        cls.check(name, settings)
        backend = settings.get("backend")
        if backend is None:
            clock.real("the USB of this host")
            import usb.backend.libusb1

            backend = usb.backend.libusb1.get_backend()
        if backend is None:
            raise UsbAbsent(
                "libusb 1.0 is not installed, or finds no USB in this kernel",
                remedy="Install it: sudo apt install libusb-1.0-0",
            )
        bus = cls(name, backend)
        bus._of_this_host = settings.get("backend") is None
        return bus

    @classmethod
    def where(cls, text: str) -> Where | None:
        """VENDOR:PRODUCT in hexadecimal, or a port path such as 1-4.2; "": all devices of this host."""
        if found := re.fullmatch(r"([0-9A-Fa-f]{4}):([0-9A-Fa-f]{4})", text):
            vendor, product = (Hexadecimal(word, 16) for word in found.groups())
            return Where({}, text.lower(), {"vendor_id": vendor, "product_id": product})
        if re.fullmatch(r"[0-9]+-[0-9]+(\.[0-9]+)*", text):
            return Where({}, text, {"port": text})
        return None if text else Where({}, cls.kind)

    @classmethod
    def nearly(cls, text: str) -> str:
        """VENDOR:PRODUCT with 0x before a number, or without its leading zeros."""
        found = re.fullmatch(r"(?:0[xX])?([0-9A-Fa-f]{1,4}):(?:0[xX])?([0-9A-Fa-f]{1,4})", text)
        return ":".join(word.zfill(4) for word in found.groups()) if found else ""

    @classmethod
    def place(cls, address: Mapping[str, Any]) -> str:
        if "serial" not in address and "port" in address:
            return str(address["port"])
        return f"{address['vendor_id']:04x}:{address['product_id']:04x}"

    @classmethod
    def wheres(cls) -> Iterator[str]:
        return host.devices()

    @classmethod
    def check(cls, name: str, settings: Mapping[str, Any]) -> None:
        for key in settings:
            if key != "backend":
                raise UsbSettings(
                    f"a USB bus has no key {key!r}", remedy="It needs none: its devices are found."
                ).about(key)

    @classmethod
    def host_checks(cls) -> Iterator[HostCheck]:
        return host.checks()

    @property
    def recorder(self) -> Recorder | None:
        """Records the devices that are listed and the transfers of those opened from now on."""
        return self._recorder

    @recorder.setter
    def recorder(self, recorder: Recorder | None) -> None:
        self._recorder = recorder
        self._backend = self._plain_backend
        if recorder is not None:
            from .recording import RecordingBackend

            self._backend = RecordingBackend(self._backend, recorder, self.name)

    def list(self, match: UsbMatch | None = None) -> Sequence[UsbInfo]:
        """The devices that match, without claiming anything. Their strings are read, for which they are opened."""
        found, _ = self._find(match or UsbMatch())
        return [_look_at(device) for device in found]

    def ports(self) -> frozenset[str]:
        """Where devices are now; none of them is opened."""
        return frozenset(_port(device) for device in self._devices())

    @property
    def followed(self) -> Sequence[Claimed]:
        """The devices that were opened through this bus, or are followed by another process on this host."""
        mine = [Claimed(port, claims.marks([serial])) for port, (_, serial) in self._followed.items()]
        return [*mine, *(claims.of_others() if self._of_this_host else ())]

    def moved(self, before: str, now: str) -> None:
        """A device that was opened through this bus has come back at another port."""
        if before and now and before != now:
            claim, serial = self._followed.pop(before, (None, ""))
            if claim is not None:
                claim.close()
            self._follow(now, serial)

    def check_one(self, matches: Sequence[UsbMatch]) -> None:
        """Raises UsbAmbiguous when devices at several ports match."""
        found = {_port(device): device for match in matches for device in self._find(match)[0]}
        if len(found) > 1:
            raise _ambiguous(matches, [_look_at(device) for device in found.values()])

    def open_device(self, match: UsbMatch) -> UsbDevice:
        """Raises UsbAbsent, UsbAmbiguous (lists how the candidates differ), UsbForbidden."""
        device = self._the_one(match)
        if device is None:
            raise UsbAbsent(f"no USB device {match}")
        return self._open_found(device)

    def wait_for(self, matches: Sequence[UsbMatch], deadline: Deadline | float) -> UsbDevice:
        """Waits for a device to come (back) and opens it: the first match of the list that is there.

        A device that may not be opened yet, or left again, is waited for like an absent one. Raises UsbAbsent,
        UsbAmbiguous, UsbForbidden (still, when the deadline passes).
        """
        deadline = Deadline.of(deadline)
        while True:
            forbidden = None
            for match in matches:
                try:
                    device = self._the_one(match)
                    if device is not None:
                        return self._open_found(device)
                except UsbGone:
                    continue
                except UsbForbidden as error:
                    # udev opens a device to its group a moment after it has come.
                    forbidden = error
            if deadline.expired:
                raise forbidden or UsbAbsent(f"no USB device {' or '.join(map(str, matches))} came")
            self._pause(deadline)

    def wait_seen(
        self, match: UsbMatch, deadline: Deadline | float, accept: Callable[[UsbInfo], bool] = lambda info: True
    ) -> UsbInfo | None:
        """Waits for a device that matches and is accepted, without opening it for more than its strings; None if the
        deadline passes first."""
        deadline = Deadline.of(deadline)
        while True:
            for info in self.list(match):
                if info.interfaces and accept(info):
                    return info
            if deadline.expired:
                return None
            self._pause(deadline)

    def wait_gone(self, match: UsbMatch, deadline: Deadline | float) -> bool:
        """Waits until no device matches; False when the deadline passes first.

        A device that re-enumerated has gone too, be it since this call or since it was opened through this bus.
        """
        deadline = Deadline.of(deadline)
        found, unreadable = self._find(match)
        places = map(_place, (*found, *unreadable))
        watched = {(port, address) for port, address in places if self._addresses.get(port, address) == address}
        anyone = replace(match, serial=None)
        while watched & {_place(device) for device in self._devices() if _fits(device, anyone)}:
            if deadline.expired:
                return False
            self._pause(deadline)
        return True

    def close(self) -> None:
        """Closes the devices that are still open."""
        for device in tuple(self._opened):
            device.close()
        for claim, _ in self._followed.values():
            claim.close()

    def _devices(self) -> Iterator[Any]:
        with naming("listing the USB devices"):
            yield from _listed(self._backend)

    def _find(self, match: UsbMatch) -> tuple[Sequence[Any], Sequence[Any]]:
        """The devices that match; and those of which only the serial number is unknown: this user may not read it."""
        found, unreadable = [], []
        for device in self._devices():
            if not _fits(device, match):
                continue
            if match.serial is None:
                found.append(device)
                continue
            strings = Strings(device)
            if strings.read(device.iSerialNumber) == match.serial:
                found.append(device)
            elif strings.failure is UsbForbidden:
                unreadable.append(device)
            release(device)
        return found, unreadable

    def _the_one(self, match: UsbMatch) -> Any | None:
        """Raises UsbAmbiguous, UsbForbidden."""
        found, unreadable = self._find(match)
        if len(found) > 1:
            raise _ambiguous((match,), [_look_at(device) for device in found])
        if not found and unreadable:
            raise UsbForbidden(f"this user may not read the serial number of the USB devices {match}")
        return found[0] if found else None

    def _open_found(self, device: Any) -> UsbDevice:
        with naming(f"opening the USB device {device.idVendor:04x}:{device.idProduct:04x} at port {_port(device)}"):
            open_handle(device)
        info = _describe(device)
        if not info.interfaces:
            release(device)
            raise UsbGone(f"the USB device {info} left while it was opened")
        port, address = _place(device)
        if port:
            self._addresses[port] = address
            self._follow(port, info.serial)
        opened = UsbDevice(info, device)
        self._opened.add(opened)
        return opened

    def _follow(self, port: str, serial: str) -> None:
        claim, before = self._followed.get(port, (Claim(), ""))
        self._followed[port] = claim, before or serial
        if self._of_this_host:
            claim.say(port, [before or serial])

    def _pause(self, deadline: Deadline) -> None:
        wait_change = getattr(self._backend, "wait_change", None)
        if wait_change is not None:
            wait_change(min(deadline.remaining, LONGEST_WAIT))
        else:
            clock.sleep(min(deadline.remaining, LOOK_AGAIN))


def _listed(backend: Any) -> Iterator[Any]:
    """The devices of a back end, none of them opened. Raises `FAILURES`."""
    for handle in [*backend.enumerate_devices()]:
        # A device may leave while it is being listed.
        with suppress(*FAILURES):
            yield usb.core.Device(handle, backend)


def _look_at(device: Any) -> UsbInfo:
    """What an unopened device reports; it is closed again."""
    try:
        return _describe(device)
    finally:
        release(device)


def _describe(device: Any) -> UsbInfo:
    strings = Strings(device)
    return UsbInfo(
        vendor_id=int(device.idVendor),
        product_id=int(device.idProduct),
        bcd_device=int(device.bcdDevice),
        manufacturer=strings.read(device.iManufacturer),
        product=strings.read(device.iProduct),
        serial=strings.read(device.iSerialNumber),
        port=_port(device),
        interfaces=tuple(_interfaces(device, strings)),
    )


def _interfaces(device: Any, strings: Strings) -> Iterator[UsbInterface]:
    for index in range(device.bNumConfigurations):
        # An unreadable configuration hides no other.
        with suppress(*FAILURES):
            configuration = device[index]
            for item in configuration:
                yield UsbInterface(
                    configuration=int(configuration.bConfigurationValue),
                    number=int(item.bInterfaceNumber),
                    alternate=int(item.bAlternateSetting),
                    class_code=int(item.bInterfaceClass),
                    subclass=int(item.bInterfaceSubClass),
                    protocol=int(item.bInterfaceProtocol),
                    name=strings.read(item.iInterface),
                    extra=bytes(item.extra_descriptors or ()),
                )


def _fits(device: Any, match: UsbMatch) -> bool:
    """All of the match but the serial number, which has to be asked for."""
    return (
        match.vendor_id in (None, device.idVendor)
        and match.product_id in (None, device.idProduct)
        and match.port in (None, _port(device))
    )


def _port(device: Any) -> str:
    """As sysfs names it: "1-4.2", "usb1" for a root hub; "" where the back end does not tell."""
    if device.port_numbers:
        return f"{device.bus}-{'.'.join(map(str, device.port_numbers))}"
    return f"usb{device.bus}" if device.bDeviceClass == HUB_CLASS else ""


def _place(device: Any) -> tuple[str, int]:
    return _port(device), int(device.address)


def _ambiguous(matches: Sequence[UsbMatch], candidates: Sequence[UsbInfo]) -> UsbAmbiguous:
    listed = ", ".join(f"serial {info.serial or 'unknown'} at port {info.port}" for info in candidates)
    serials = [info.serial for info in candidates]
    apart = all(serials) and len(set(serials)) == len(serials)
    names = [f'serial = "{info.serial}"' if apart else f'port = "{info.port}"' for info in candidates]
    return UsbAmbiguous(
        f"{len(candidates)} USB devices are {' or '.join(map(str, matches))}: {listed}",
        remedy=f"Put one of these into the component's address: {' or '.join(names)}.",
    )
