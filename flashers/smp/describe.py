"""SMP in words, after Zephyr's "SMP Protocol Specification": groups, commands, the keys of the bodies, return codes.

A packet says it all, so each is described on its own, whatever carries it: a console's lines, bare packets, datagrams.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...transports.plain import counted, plain, word
from ...transports.recording.records import Record, SerialBytes
from ..describing import Describer, Line, Said, StreamDescriber, name_in, shown
from .codec import FIRST_LINE, HEADER, LONGEST_LINE, NEXT_LINE, ConsoleFraming, Op, decode

GROUPS = {
    0: "os",
    1: "image",
    2: "stat",
    3: "settings",
    4: "log",
    5: "crash",
    6: "split",
    7: "run",
    8: "fs",
    9: "shell",
    10: "enum",
    63: "zephyr",
}
"""Groups ("Group ID's"); those from 64 on are an application's own."""
FIRST_OF_APPLICATION = 64
COMMANDS = {
    0: {
        0: "echo",
        1: "console echo control",
        2: "task statistics",
        3: "memory pool statistics",
        4: "date-time",
        5: "reset",
        6: "MCUmgr parameters",
        7: "application info",
        8: "bootloader info",
    },
    1: {0: "state", 1: "upload", 2: "file", 3: "corelist", 4: "coreload", 5: "erase", 6: "slot info"},
    2: {0: "group data", 1: "list of groups"},
    3: {0: "read/write", 1: "delete", 2: "commit", 3: "load/save"},
    8: {0: "download/upload", 1: "status", 2: "hash/checksum", 3: "supported hash/checksum types", 4: "close"},
    9: {0: "execute"},
    10: {0: "count", 1: "list", 2: "single", 3: "details"},
    63: {0: "erase storage"},
}
MOST_WORDS = 300
"""Characters of a body."""
MOST_ITEMS = 12
"""Of a list or map that words name."""
LONGEST_TEXT = 256
"""Bytes of a console's line without an end that are shown."""


def describe(packet: bytes) -> Said:
    """One packet."""
    found = decode(packet)
    if found is None:
        return Said(f"no packet of SMP: {shown(packet)}", True)
    group = name_in(GROUPS, found.group, 1)
    if found.group >= FIRST_OF_APPLICATION:
        group = f"group {found.group}"
    command = COMMANDS.get(found.group, {}).get(found.command) or f"command {found.command}"
    reply = found.op in (Op.READ_RSP, Op.WRITE_RSP)
    kind = "write" if found.op in (Op.WRITE, Op.WRITE_RSP) else "read"
    refusal = found.refusal
    if refusal is not None:
        return Said(f"reply: {group} {command}: {word(refusal)}", True)
    body = ", ".join(f"{plain(key, 40)} {_shown(value)}" for key, value in list(found.body.items())[:MOST_ITEMS])
    head = f"{'reply: ' if reply else f'{kind}: '}{group} {command}"
    return Said(plain(f"{head}: {body}" if body else head, MOST_WORDS))


def _shown(value: Any) -> str:
    """A value of a body. The decoder has bounded how deep it is."""
    match value:
        case bool() | None:
            return str(value).lower()
        case int():
            return f"{value:,}"
        case bytes():
            return shown(value, 8) if len(value) <= 8 else counted(len(value), "byte")
        case str():
            return f'"{plain(value, 64)}"'
        case dict():
            return f"{{{', '.join(f'{plain(str(key), 40)} {_shown(item)}' for key, item in list(value.items())[:MOST_ITEMS])}}}"
        case list():
            return f"[{', '.join(map(_shown, value[:MOST_ITEMS]))}]"
        case _:
            return word(value)


class ConsoleDescriber(StreamDescriber):
    """Packets in a console's lines, with the text between them."""

    half_duplex = False

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._framings = {True: ConsoleFraming(), False: ConsoleFraming()}

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        end = data.find(b"\n", 0, LONGEST_LINE)
        if end < 0 and not ended and len(data) < LONGEST_LINE:
            return None
        size = end + 1 if end >= 0 else min(len(data), LONGEST_LINE)
        line = bytes(data[:size])
        if FIRST_LINE not in line and NEXT_LINE not in line:
            text = line.strip(b"\r\n")
            return size, Said(f"text: {plain(text[:LONGEST_TEXT].decode('utf-8', 'replace'))}" if text else "")
        if end < 0:
            return size, Said(f"a line that never ended: {shown(line)}", True)
        found = self._framings[sent].feed(line)
        return size, describe(found[0]) if found else Said("")


class RawDescriber(StreamDescriber):
    """Bare packets, one after the other."""

    half_duplex = False

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        if len(data) < HEADER.size:
            return None
        first, flags, length, *_ = HEADER.unpack_from(data)
        if first & 0xE0 or flags or (first & 7) not in ((Op.READ, Op.WRITE) if sent else (Op.READ_RSP, Op.WRITE_RSP)):
            size = next(
                (at for at in range(1, len(data)) if not data[at] & 0xE4 and not any(data[at + 1 : at + 2])), len(data)
            )
            return size, Said(f"unknown: {shown(data[:size])}")
        size = HEADER.size + length
        return (size, describe(bytes(data[:size]))) if len(data) >= size else None


class DatagramDescriber(Describer):
    """A packet is a datagram."""

    def take(self, record: Record) -> Iterable[Line] | None:
        if not isinstance(record, SerialBytes):
            return None
        return [self.line(record, record.outgoing, describe(record.data), record.data)]
