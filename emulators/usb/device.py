"""A USB device as its descriptors and its answers to control requests (USB 2.0, chapter 9).

A device is declared: descriptors as values, a handler for class requests. The standard requests are served here. It
works on raw setup packets, so whatever carries those (a backend in this process, USB/IP) can serve it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol


class Stall(Exception):
    """The device refuses a request (USB 2.0, 8.5.3.4)."""


class StandardRequest(IntEnum):
    """bRequest of standard requests (table 9-4)."""

    GET_STATUS = 0
    CLEAR_FEATURE = 1
    SET_FEATURE = 3
    SET_ADDRESS = 5
    GET_DESCRIPTOR = 6
    GET_CONFIGURATION = 8
    SET_CONFIGURATION = 9
    GET_INTERFACE = 10
    SET_INTERFACE = 11


DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT = 1, 2, 3, 4, 5
"""Descriptor types (table 9-5)."""
SETUP = struct.Struct("<BBHHH")
LONGEST_STRING = 126
"""Characters (UTF-16 code units) of a string descriptor, whose length is a byte (9.6.7)."""


TO_DEVICE, TO_ENDPOINT, ENDPOINT_HALT = 0, 2, 0
"""Recipients (table 9-2), and a feature of the latter (table 9-6)."""
BULK, INTERRUPT = 2, 3
"""Transfer types in an endpoint's bmAttributes (table 9-13)."""


@dataclass(frozen=True, slots=True)
class EndpointDescriptor:
    """Table 9-13. `address`: with bit 7 for those that send to the host. `interval`: in milliseconds, of INTERRUPT."""

    address: int
    kind: int
    max_packet: int = 64
    interval: int = 0

    def packed(self) -> bytes:
        return struct.pack("<BBBBHB", 7, ENDPOINT, self.address, self.kind, self.max_packet, self.interval)


@dataclass(frozen=True, slots=True)
class InterfaceDescriptor:
    """One alternate setting. `extra`: the class-specific descriptors behind it."""

    number: int
    alternate: int
    class_code: int
    subclass: int
    protocol: int
    name: str = ""
    extra: bytes = b""
    endpoints: tuple[EndpointDescriptor, ...] = ()


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What a device says of itself. `configuration`: the name of its one configuration. `self_powered`: it does not live
    off the bus."""

    vendor_id: int
    product_id: int
    bcd_device: int
    manufacturer: str
    product: str
    serial: str
    interfaces: tuple[InterfaceDescriptor, ...]
    configuration: str = ""
    max_packet: int = 64
    self_powered: bool = False

    @property
    def attributes(self) -> int:
        """bmAttributes of the configuration (table 9-10)."""
        return 0xC0 if self.self_powered else 0x80

    @property
    def strings(self) -> tuple[str, ...]:
        """All strings, by index from 1 on."""
        named = (self.manufacturer, self.product, self.serial, self.configuration)
        texts = [*named, *(interface.name for interface in self.interfaces)]
        return tuple(dict.fromkeys(text for text in texts if text))

    def index(self, text: str) -> int:
        """The index of a string; 0: none."""
        return self.strings.index(text) + 1 if text else 0

    def device(self) -> bytes:
        """Table 9-8."""
        return struct.pack(
            "<BBHBBBBHHHBBBB", 18, DEVICE, 0x0200, 0, 0, 0, self.max_packet, self.vendor_id, self.product_id,
            self.bcd_device, self.index(self.manufacturer), self.index(self.product), self.index(self.serial), 1,
        )  # fmt: skip

    def whole_configuration(self) -> bytes:
        """Tables 9-10, 9-12 and 9-13, with all interfaces and their endpoints."""
        body = b"".join(
            struct.pack(
                "<BBBBBBBBB", 9, INTERFACE, item.number, item.alternate, len(item.endpoints), item.class_code,
                item.subclass, item.protocol, self.index(item.name),
            ) + item.extra + b"".join(endpoint.packed() for endpoint in item.endpoints)
            for item in self.interfaces
        )  # fmt: skip
        count = len({item.number for item in self.interfaces})
        name = self.index(self.configuration)
        return struct.pack("<BBHBBBBB", 9, CONFIGURATION, 9 + len(body), count, 1, name, self.attributes, 50) + body

    def string(self, index: int) -> bytes:
        """9.6.7: index 0 lists the languages (English, United States). What is too long is cut. Raises Stall."""
        if index == 0:
            return struct.pack("<BBH", 4, STRING, 0x0409)
        if index > len(self.strings):
            raise Stall
        text = self.strings[index - 1].encode("utf-16-le", "replace")[: 2 * LONGEST_STRING]
        return bytes([2 + len(text), STRING]) + text


class Endpoint(Protocol):
    """An endpoint but 0. None of its methods waits."""

    def give(self, size: int, /) -> bytes | None:
        """Up to `size` bytes for the host; None: not yet (NAK)."""

    def take(self, data: bytes, /) -> int:
        """How many bytes of the host's it takes now."""


def _nobody() -> None:
    """The listener of a device that nothing serves."""


ClassRequest = Callable[[int, int, int, int, bytes, int], bytes]
"""Answers (request type, request, value, index, data, length); raises Stall."""


@dataclass
class UsbFunction:
    """One device as it is on the bus from one enumeration to the next. `bus_reset`: called on a reset of its port.

    `forbidden`: this user may not open it. `busy`: another program holds its interfaces. `claims`: who claimed which.
    `endpoints`: those but 0, by address. `halted`: those that the host has halted. `ready`: the device calls it when one
    of them may have become ready; set by who serves them.
    """

    descriptors: Descriptors
    class_request: ClassRequest
    bus_reset: Callable[[], None]
    forbidden: bool = False
    busy: bool = False
    configuration: int = 1
    alternates: dict[int, int] = field(default_factory=dict)
    claims: dict[int, object] = field(default_factory=dict)
    endpoints: Mapping[int, Endpoint] = field(default_factory=dict)
    halted: set[int] = field(default_factory=set)
    ready: Callable[[], None] = _nobody

    def reset(self) -> None:
        """As after a reset of its port (9.1.1.3): nothing is configured. What the device makes of it is `bus_reset`."""
        self.configuration = 0
        self.alternates.clear()
        self.halted.clear()

    def active(self) -> set[int]:
        """The addresses of the endpoints, but 0, of the alternate settings that are set."""
        return {
            endpoint.address
            for item in self.descriptors.interfaces
            if self.configuration and self.alternates.get(item.number, 0) == item.alternate
            for endpoint in item.endpoints
        } & set(self.endpoints)

    def control(self, setup: bytes, data: bytes) -> bytes:
        """One control transfer: the data that goes to the host. Raises Stall."""
        kind, request, value, index, length = SETUP.unpack(setup)
        if kind & 0x60 == 0:
            return self._standard(kind, request, value, index)[:length]
        if kind & 0x60 != 0x20 or not self.configuration:
            # No vendor requests; and none but standard ones before a configuration is set (9.1.1.5).
            raise Stall
        return self.class_request(kind, request, value, index, data, length)[:length]

    def _standard(self, kind: int, request: int, value: int, index: int) -> bytes:
        inward = request in (
            StandardRequest.GET_STATUS,
            StandardRequest.GET_DESCRIPTOR,
            StandardRequest.GET_CONFIGURATION,
            StandardRequest.GET_INTERFACE,
        )
        if inward != bool(kind & 0x80):
            raise Stall
        match request:
            case StandardRequest.GET_DESCRIPTOR:
                return self._descriptor(value >> 8, value & 0xFF)
            case StandardRequest.GET_STATUS if kind & 0x1F == TO_ENDPOINT and index & 0x7F:
                return bytes([self._endpoint(index) in self.halted, 0])
            case StandardRequest.GET_STATUS:
                return bytes([kind & 0x1F == TO_DEVICE and self.descriptors.self_powered, 0])
            case StandardRequest.SET_FEATURE if kind & 0x1F == TO_ENDPOINT and value == ENDPOINT_HALT:
                self.halted.add(self._endpoint(index))
                return b""
            case StandardRequest.CLEAR_FEATURE if kind & 0x1F == TO_ENDPOINT and value == ENDPOINT_HALT:
                self.halted.discard(self._endpoint(index))
                return b""
            case StandardRequest.GET_CONFIGURATION:
                return bytes([self.configuration])
            case StandardRequest.SET_CONFIGURATION if value in (0, 1):
                self.configuration = value
                self.alternates.clear()
                self.halted.clear()
                return b""
            case StandardRequest.GET_INTERFACE:
                return bytes([self.alternates.get(index, 0)])
            case StandardRequest.SET_INTERFACE:
                if not any((item.number, item.alternate) == (index, value) for item in self.descriptors.interfaces):
                    raise Stall
                self.alternates[index] = value
                return b""
            case _:
                raise Stall

    def _endpoint(self, address: int) -> int:
        if address not in self.endpoints:
            raise Stall
        return address

    def _descriptor(self, kind: int, index: int) -> bytes:
        if kind == DEVICE:
            return self.descriptors.device()
        if kind == CONFIGURATION and index == 0:
            return self.descriptors.whole_configuration()
        if kind == STRING:
            return self.descriptors.string(index)
        raise Stall
