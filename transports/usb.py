"""USB through pyusb: devices found by vendor and product, serial number or port path; control transfers; re-enumeration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

from .deadline import Deadline


@dataclass(frozen=True, slots=True)
class UsbMatch:
    """Which device is meant; None: any. `port`: bus and port path as in sysfs ("1-4.2")."""

    vendor_id: int | None = None
    product_id: int | None = None
    serial: str | None = None
    port: str | None = None


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

    info: UsbInfo

    def claim(self, interface: int, alternate: int = 0) -> None:
        """Claims an interface, detaching a kernel driver if one holds it. Raises UsbBusy, UsbForbidden."""
        raise NotImplementedError

    def control_out(
        self, request_type: int, request: int, value: int, index: int, data: bytes, deadline: Deadline
    ) -> int:
        """Sends; the number of bytes taken. Raises UsbStall, UsbTimeout, UsbGone."""
        raise NotImplementedError

    def control_in(
        self, request_type: int, request: int, value: int, index: int, size: int, deadline: Deadline
    ) -> bytes:
        """Receives up to `size` bytes. Raises UsbStall, UsbTimeout, UsbGone."""
        raise NotImplementedError

    def reset(self) -> None:
        """A USB bus reset; the device may re-enumerate, after which this object is of no use."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


class UsbBus:
    """The USB devices of this host, or those of an emulated backend."""

    kind: ClassVar[str] = "usb"
    name: str

    @classmethod
    def open(cls, name: str, settings: Mapping[str, Any]) -> Self:
        """`settings`: `backend`, an instance of pyusb's IBackend, None for libusb. Raises UsbSettings without libusb."""
        raise NotImplementedError

    def list(self, match: UsbMatch | None = None) -> Sequence[UsbInfo]:
        """The devices that match, without claiming anything."""
        raise NotImplementedError

    def open_device(self, match: UsbMatch) -> UsbDevice:
        """Raises UsbAbsent, UsbAmbiguous (lists what tells the candidates apart), UsbForbidden."""
        raise NotImplementedError

    def wait_for(self, matches: Sequence[UsbMatch], deadline: Deadline) -> UsbDevice:
        """Waits for a device to come (back) and opens it: the first match of the list that is there. Raises UsbAbsent."""
        raise NotImplementedError

    def wait_gone(self, match: UsbMatch, deadline: Deadline) -> bool:
        """Waits until no device matches; False when the deadline passes first."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
