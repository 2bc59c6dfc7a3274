"""Recordings as pcapng, which Wireshark opens (draft-ietf-opsawg-pcapng; link types: tcpdump.org/linktypes.html).

One interface a bus, and a packet a record, with its direction:

- CAN: LINKTYPE_CAN_SOCKETCAN (227);
- USB: LINKTYPE_USB_LINUX_MMAPPED (220), each transfer as usbmon has it: a submission and a completion;
- serial lines: LINKTYPE_RTAC_SERIAL (250), which is registered for bytes of a serial line with modem lines.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from ..plain import plain
from .records import CanFlag, CanFrame, Record, SerialBytes, SerialLine, UsbControl, fd_flags, raw_id

LINKTYPE_CAN_SOCKETCAN, LINKTYPE_USB_LINUX_MMAPPED, LINKTYPE_RTAC_SERIAL = 227, 220, 250
SECTION_HEADER, INTERFACE_DESCRIPTION, ENHANCED_PACKET = 0x0A0D0D0A, 1, 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
IF_NAME, EPB_FLAGS, SHB_APPLICATION = 2, 2, 4
INBOUND, OUTBOUND = 1, 2
CANFD_FDF = 0x04
LONGEST_NAME = 64
"""Characters of a bus's name in the file."""
STATUS_CHANGE, DATA_TX_START, DATA_RX_START = 0x00, 0x01, 0x02
"""Serial event types of LINKTYPE_RTAC_SERIAL."""
RTS, DTR = 0x08, 0x10
"""Its bits of modem lines."""
EINPROGRESS, CONTROL = -115, 2
_LINK_TYPES: dict[type[Record], int] = {
    CanFrame: LINKTYPE_CAN_SOCKETCAN,
    SerialBytes: LINKTYPE_RTAC_SERIAL,
    SerialLine: LINKTYPE_RTAC_SERIAL,
    UsbControl: LINKTYPE_USB_LINUX_MMAPPED,
}
PCAPNG_RECORDS = (CanFrame, SerialBytes, UsbControl)
"""For a recording with one of them a file is worth writing."""


def write_pcapng(records: Sequence[Record], file: BinaryIO) -> None:
    """Writes the CAN, serial and USB records into an open file. Raises OSError."""
    interfaces: dict[str, int] = {}
    links: list[int] = []
    lines: dict[str, int] = {}
    for record in records:
        link = _LINK_TYPES.get(type(record))
        if link is not None and record.bus not in interfaces:
            interfaces[record.bus] = len(interfaces)
            links.append(link)
    file.write(_block(SECTION_HEADER, struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1) + _application()))
    for name, link in zip(interfaces, links, strict=True):
        options = _option(IF_NAME, plain(name)[:LONGEST_NAME].encode()) + _option(0, b"")
        file.write(_block(INTERFACE_DESCRIPTION, struct.pack("<HHI", link, 0, 0) + options))
    packets = [
        (micro, interfaces[record.bus], direction, data)
        for number, record in enumerate(records, 1)
        for micro, direction, data in _packets(record, number, lines)
    ]
    packets.sort(key=lambda packet: packet[0])
    for micro, interface, direction, data in packets:
        head = struct.pack("<IIIII", interface, micro >> 32, micro & 0xFFFF_FFFF, len(data), len(data))
        flags = _option(EPB_FLAGS, struct.pack("<I", direction)) + _option(0, b"")
        file.write(_block(ENHANCED_PACKET, head + _padded(data) + flags))


def _application() -> bytes:
    return _option(SHB_APPLICATION, b"proxyflash") + _option(0, b"")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def _packets(record: Record, number: int, lines: dict[str, int]) -> Iterator[tuple[int, int, bytes]]:
    """Microseconds since 1970, direction, bytes. `lines`: the state of each serial line's modem lines, kept here."""
    micro = round(record.time * 1e6)
    match record:
        case CanFrame():
            fd = CANFD_FDF | fd_flags(record) if record.flags & CanFlag.FD else 0
            data = b"" if record.flags & CanFlag.REMOTE else record.data
            head = struct.pack(">IBBH", raw_id(record), len(record.data), fd, 0)
            yield micro, OUTBOUND if record.outgoing else INBOUND, head + data
        case SerialBytes():
            event = DATA_TX_START if record.outgoing else DATA_RX_START
            state = lines.get(record.bus, 0)
            yield micro, OUTBOUND if record.outgoing else INBOUND, _rtac(micro, event, state) + record.data
        case SerialLine():
            state = lines.get(record.bus, 0)
            for key, value in record.changes:
                bit = {"dtr": DTR, "rts": RTS}.get(key, 0)
                state = state | bit if value else state & ~bit
            if state != lines.get(record.bus, 0):
                lines[record.bus] = state
                yield micro, OUTBOUND, _rtac(micro, STATUS_CHANGE, state)
        case UsbControl():
            yield from _urb(record, number, micro)


def _rtac(micro: int, event: int, state: int) -> bytes:
    return struct.pack(">IIBBH", micro // 1_000_000, micro % 1_000_000, event, state, 0)


def _urb(record: UsbControl, number: int, micro: int) -> Iterator[tuple[int, int, bytes]]:
    """Linux, Documentation/usb/usbmon.rst, the 64-byte packet. A failed transfer completes with its status."""
    wanted = int.from_bytes(record.setup[6:8], "little")
    sent, got = (b"", record.data) if record.incoming else (record.data, b"")
    endpoint = 0x80 if record.incoming else 0
    done = micro + round(record.seconds * 1e6)
    for kind, at, status, length, data in (
        (b"S", micro, EINPROGRESS, wanted, sent),
        (b"C", done, record.status, len(record.data), got),
    ):
        submitted = kind == b"S"
        absent = b"<" if record.incoming else b">"
        head = struct.pack(
            "<QcBBBHccqiiII8siiII",
            number, kind, CONTROL, endpoint, record.address, record.root,
            b"\0" if submitted else b"-", b"\0" if data else absent,
            at // 1_000_000, at % 1_000_000, status, length, len(data),
            record.setup if submitted else bytes(8), 0, 0, 0, 0,
        )  # fmt: skip
        yield at, OUTBOUND if submitted else INBOUND, head + data
