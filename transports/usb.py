"""USB through pyusb: devices by vendor and product, serial number or port path; control transfers; re-enumeration.

Devices come and go, so nothing is remembered of a bus but its backend: each question looks anew.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, NoReturn, Self

import usb.core
import usb.util

from .deadline import Deadline
from .errors import (
    TransportError,
    UsbAbsent,
    UsbAmbiguous,
    UsbBusy,
    UsbForbidden,
    UsbGone,
    UsbSettings,
    UsbStall,
    UsbTimeout,
)

LOOK_SECONDS = 0.03
"""How often the bus is looked at for a device that is to come or go: libusb's Python binding has no notification."""

_CAUSES: Mapping[int, type[TransportError]] = {
    errno.EPIPE: UsbStall,
    errno.ETIMEDOUT: UsbTimeout,
    errno.ENODEV: UsbGone,
    errno.ENOENT: UsbGone,
    errno.EIO: UsbGone,
    errno.ESHUTDOWN: UsbGone,
    errno.EACCES: UsbForbidden,
    errno.EPERM: UsbForbidden,
    errno.EBUSY: UsbBusy,
}
_LIBUSB_CODES = {
    -1: errno.EIO,
    -3: errno.EACCES,
    -4: errno.ENODEV,
    -5: errno.ENOENT,
    -6: errno.EBUSY,
    -7: errno.ETIMEDOUT,
    -9: errno.EPIPE,
}
"""libusb's error codes (libusb.h, enum libusb_error), for backends that give no errno."""


@dataclass(frozen=True, slots=True)
class UsbMatch:
    """Which device is meant; None: any. `port`: bus and port path as in sysfs ("1-4.2")."""

    vendor_id: int | None = None
    product_id: int | None = None
    serial: str | None = None
    port: str | None = None

    def __str__(self) -> str:
        def part(value: int | None) -> str:
            return "*" if value is None else f"{value:04x}"

        place = "".join(f", {key} {text}" for key, text in (("serial", self.serial), ("port", self.port)) if text)
        return f"{part(self.vendor_id)}:{part(self.product_id)}{place}"


@dataclass(frozen=True, slots=True)
class UsbInterface:
    """One alternate setting of one interface, from the descriptors. `extra`: class-specific descriptors, raw."""

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


class UsbDevice:
    """One opened device."""

    def __init__(self, device: Any, info: UsbInfo) -> None:
        self.info = info
        self._device = device
        self._claimed: set[int] = set()

    def claim(self, interface: int, alternate: int = 0) -> None:
        """Claims an interface, detaching a kernel driver if one holds it. Raises UsbBusy, UsbForbidden, UsbGone."""
        try:
            if interface not in self._claimed:
                self._detach_kernel_driver(interface)
                usb.util.claim_interface(self._device, interface)
                self._claimed.add(interface)
            if self._alternates(interface) > 1:
                self._device.set_interface_altsetting(interface, alternate)
        except usb.core.USBError as error:
            _raise(error, f"interface {interface} of {self._named}")

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, deadline: Deadline
    ) -> int:
        """Sends; the number of bytes taken. Raises UsbStall, UsbTimeout, UsbGone."""
        try:
            taken: int = self._device.ctrl_transfer(request_type, request, value, index, data, _millis(deadline))
        except usb.core.USBError as error:
            _raise(error, f"request {request} to {self._named}")
        return taken

    def control_in(
        self, request_type: int, request: int, value: int, index: int, size: int, deadline: Deadline
    ) -> bytes:
        """Receives up to `size` bytes. Raises UsbStall, UsbTimeout, UsbGone."""
        try:
            data = self._device.ctrl_transfer(request_type, request, value, index, size, _millis(deadline))
        except usb.core.USBError as error:
            _raise(error, f"request {request} to {self._named}")
        return bytes(data)

    def reset(self) -> None:
        """A USB bus reset; the device may re-enumerate, after which this object is of no use. Raises UsbGone."""
        try:
            self._device.reset()
        except usb.core.USBError as error:
            _raise(error, f"reset of {self._named}")

    def close(self) -> None:
        try:
            usb.util.dispose_resources(self._device)
        except usb.core.USBError:
            # It is gone: there is nothing left to let go of.
            return

    @property
    def _named(self) -> str:
        return f"{self.info.vendor_id:04x}:{self.info.product_id:04x} at port {self.info.port}"

    def _alternates(self, interface: int) -> int:
        return len({item.alternate for item in self.info.interfaces if item.number == interface})

    def _detach_kernel_driver(self, interface: int) -> None:
        try:
            if self._device.is_kernel_driver_active(interface):
                self._device.detach_kernel_driver(interface)
        except NotImplementedError:
            # Where the system has no such drivers there is none to detach.
            return


class UsbBus:
    """The USB devices of this host, or those of an emulated backend."""

    kind: ClassVar[str] = "usb"

    def __init__(self, name: str, backend: Any) -> None:
        self.name = name
        self._backend = backend

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """`settings`: `backend`, an instance of pyusb's IBackend; None: libusb's. Raises UsbSettings without it."""
        for key in settings:
            if key != "backend":
                raise UsbSettings(f"bus {name!r}: a USB bus has no key {key!r}")
        backend = settings.get("backend")
        if backend is None:
            import usb.backend.libusb1

            backend = usb.backend.libusb1.get_backend()
            if backend is None:
                raise UsbSettings(f"bus {name!r}: libusb is not installed", remedy="sudo apt-get install libusb-1.0-0")
        return cls(name, backend)

    def list(self, match: UsbMatch | None = None) -> Sequence[UsbInfo]:
        """The devices that match, without claiming anything."""
        found = []
        for device, info in self._matching(match or UsbMatch()):
            usb.util.dispose_resources(device)
            found.append(info)
        return found

    def open_device(self, match: UsbMatch) -> UsbDevice:
        """Raises UsbAbsent, UsbAmbiguous (lists what tells the candidates apart), UsbForbidden, UsbBusy."""
        found = [*self._matching(match)]
        if not found:
            raise UsbAbsent(f"no USB device {match}")
        if len(found) > 1:
            which = "; ".join(f"port {info.port}, serial {info.serial or 'none'}" for _, info in found)
            for device, _ in found:
                usb.util.dispose_resources(device)
            raise UsbAmbiguous(f"{len(found)} USB devices are {match}: {which}")
        device, info = found[0]
        try:
            # Any request opens the device; this one is answered by every device (USB 2.0, 9.4.5).
            device.ctrl_transfer(0x80, 0, 0, 0, 2, 1000)
        except usb.core.USBError as error:
            usb.util.dispose_resources(device)
            _raise(error, f"{info.vendor_id:04x}:{info.product_id:04x} at port {info.port}")
        return UsbDevice(device, info)

    def wait_for(self, matches: Sequence[UsbMatch], deadline: Deadline) -> UsbDevice:
        """Waits for a device to come (back) and opens it: the first of `matches` that is there. Raises UsbAbsent."""
        refusal: TransportError | None = None
        while True:
            for match in matches:
                try:
                    return self.open_device(match)
                except UsbAbsent:
                    continue
                except (UsbForbidden, UsbBusy, UsbGone, UsbTimeout) as error:
                    # It has only just come: udev may still be at work on it.
                    refusal = error
            if deadline.expired:
                if refusal is not None:
                    raise refusal
                raise UsbAbsent(f"no USB device {' or '.join(map(str, matches))} came in time")
            self._wait_change(deadline)

    def wait_gone(self, match: UsbMatch, deadline: Deadline) -> bool:
        """Waits until no device matches, or the one that did has enumerated anew; False when the deadline passes."""
        before = {_address(device) for device, _ in self._matching(match)}
        while before & {_address(device) for device, _ in self._matching(match)}:
            if deadline.expired:
                return False
            self._wait_change(deadline)
        return True

    def close(self) -> None:
        """Nothing is held of the bus itself."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_change(self, deadline: Deadline) -> None:
        wait_change = getattr(self._backend, "wait_change", None)
        if wait_change is not None:
            wait_change(deadline.remaining)
        else:
            threading.Event().wait(min(LOOK_SECONDS, deadline.remaining))

    def _matching(self, match: UsbMatch) -> Iterator[tuple[Any, UsbInfo]]:
        wanted = {
            key: value
            for key, value in (("idVendor", match.vendor_id), ("idProduct", match.product_id))
            if value is not None
        }
        try:
            devices = [*(usb.core.find(find_all=True, backend=self._backend, **wanted) or ())]
        except usb.core.USBError as error:
            _raise(error, f"bus {self.name!r}")
        for device in devices:
            if match.port is not None and port_path(device) != match.port:
                continue
            try:
                info = _info(device)
            except usb.core.USBError:
                continue  # It went while it was looked at.
            if match.serial is None or info.serial == match.serial:
                yield device, info


def port_path(device: Any) -> str:
    """Bus and port path of a pyusb device, as in sysfs: "1-4.2"."""
    numbers = device.port_numbers or ()
    return f"{device.bus or 0}-{'.'.join(map(str, numbers)) or '0'}"


def _address(device: Any) -> tuple[int, int]:
    return device.bus or 0, device.address or 0


def _info(device: Any) -> UsbInfo:
    interfaces = tuple(
        UsbInterface(
            configuration.bConfigurationValue,
            interface.bInterfaceNumber,
            interface.bAlternateSetting,
            interface.bInterfaceClass,
            interface.bInterfaceSubClass,
            interface.bInterfaceProtocol,
            _string(device, interface.iInterface),
            bytes(interface.extra_descriptors or b""),
        )
        for configuration in device
        for interface in configuration
    )
    return UsbInfo(
        device.idVendor,
        device.idProduct,
        device.bcdDevice,
        _string(device, device.iManufacturer),
        _string(device, device.iProduct),
        _string(device, device.iSerialNumber),
        port_path(device),
        interfaces,
    )


def _string(device: Any, index: int) -> str:
    if not index:
        return ""
    try:
        text: str | None = usb.util.get_string(device, index)
    except (usb.core.USBError, ValueError, NotImplementedError):
        return ""
    return (text or "").rstrip("\0")


def _millis(deadline: Deadline) -> int:
    """Milliseconds left, at least one: libusb takes 0 for no limit."""
    return max(1, round(deadline.remaining * 1000))


def _raise(error: usb.core.USBError, what: str) -> NoReturn:
    """pyusb's error by its cause."""
    code = error.errno if error.errno is not None else _LIBUSB_CODES.get(error.backend_error_code or 0, 0)
    kind = _CAUSES.get(code, UsbGone)
    raise kind(f"{what}: {error.strerror or error}") from error
