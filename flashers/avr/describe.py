"""STK500 and AVR109 in words, after Atmel's AVR061 (STK500 version 1), AVR068 (version 2) and AVR109, by their own names.

Version 2 has messages with a length. The answers of the other two have none: what they hold follows from the request.
"""

from __future__ import annotations

from functools import reduce
from operator import xor

from ...transports.plain import counted
from ..describing import Said, StreamDescriber, name_in, shown
from . import stk500v1_codec as v1
from . import stk500v2_codec as v2

MEMORIES = {ord("F"): "flash", ord("E"): "EEPROM"}

V1_NAMES: dict[int, str] = {
    0x31: "GET_SIGN_ON",
    0x40: "SET_PARAMETER",
    0x42: "SET_DEVICE",
    0x45: "SET_DEVICE_EXT",
    0x53: "CHECK_AUTOINC",
    0x57: "UNIVERSAL_MULTI",
    0x60: "PROG_FLASH",
    0x61: "PROG_DATA",
    0x62: "PROG_FUSE",
    0x63: "PROG_LOCK",
    0x65: "PROG_FUSE_EXT",
    0x70: "READ_FLASH",
    0x71: "READ_DATA",
    0x72: "READ_FUSE",
    0x73: "READ_LOCK",
    0x76: "READ_OSCCAL",
    0x77: "READ_FUSE_EXT",
    0x78: "READ_OSCCAL_EXT",
    **{code: code.name for code in v1.Command},
}
V1_ARGUMENTS = {
    0x40: 2, 0x41: 1, 0x42: 20, 0x55: 2, 0x56: 4, 0x60: 2, 0x61: 1, 0x62: 2, 0x63: 1, 0x65: 3, 0x74: 3,
}  # fmt: skip
"""Bytes between a command and its EOP; none for the others but for those whose length is in them."""
V1_PAYLOADS = {
    0x31: 7, 0x41: 1, 0x56: 1, 0x57: 1, 0x70: 2, 0x71: 1, 0x72: 2, 0x73: 1, 0x75: 3, 0x76: 1, 0x77: 3, 0x78: 1,
}  # fmt: skip
"""Bytes between INSYNC and OK."""
V1_ENDS: dict[int, str] = {code: code.name for code in v1.Answer}
V1_PARAMETERS: dict[int, str] = {code: code.name for code in v1.Parameter}

V2_NAMES: dict[int, str] = {
    0x02: "SET_PARAMETER",
    0x04: "SET_DEVICE_PARAMETERS",
    0x05: "OSCCAL",
    0x07: "FIRMWARE_UPGRADE",
    0x0D: "CHECK_TARGET_CONNECTION",
    0x0E: "LOAD_RC_ID_TABLE",
    0x0F: "LOAD_EC_ID_TABLE",
    0x17: "PROGRAM_FUSE_ISP",
    0x19: "PROGRAM_LOCK_ISP",
    0x1C: "READ_OSCCAL_ISP",
    0x1D: "SPI_MULTI",
    0xB0: "ANSWER_CKSUM_ERROR",
    **{code: code.name for code in v2.Command},
}
V2_STATUS: dict[int, str] = {code: code.name for code in v2.Status}
V2_PARAMETERS: dict[int, str] = {code: code.name for code in v2.Parameter}
V2_BLOCKS = {
    v2.Command.PROGRAM_FLASH_ISP: "flash",
    v2.Command.READ_FLASH_ISP: "flash",
    v2.Command.PROGRAM_EEPROM_ISP: "EEPROM",
    v2.Command.READ_EEPROM_ISP: "EEPROM",
}

A109_NAMES = {
    "P": "Enter programming mode",
    "a": "Auto increment address",
    "A": "Set address",
    "H": "Set extended address",
    "c": "Write program memory, low byte",
    "C": "Write program memory, high byte",
    "m": "Issue page write",
    "l": "Write lock bits",
    "R": "Read program memory",
    "d": "Read data memory",
    "D": "Write data memory",
    "e": "Chip erase",
    "r": "Read lock bits",
    "F": "Read fuse bits",
    "N": "Read high fuse bits",
    "Q": "Read extended fuse bits",
    "L": "Leave programming mode",
    "E": "Exit bootloader",
    "T": "Select device type",
    "t": "Return supported device codes",
    "s": "Read signature bytes",
    "S": "Return software identifier",
    "V": "Return software version",
    "v": "Return hardware version",
    "p": "Return programmer type",
    "x": "Set LED",
    "y": "Clear LED",
    "b": "Check block support",
    "B": "Start block load",
    "g": "Start block read",
    "\x1b": "Synchronize",
}
"""AVR109, table 2; SET_EXTENDED_ADDRESS: as Atmel's later loaders have it."""
A109_ARGUMENTS = {"A": 2, "H": 3, "c": 1, "C": 1, "l": 1, "D": 1, "T": 1, "x": 1, "y": 1, "B": 3, "g": 3}
A109_PAYLOADS = {
    "a": 1, "R": 2, "d": 1, "r": 1, "F": 1, "N": 1, "Q": 1, "s": 3, "S": 7, "V": 2, "v": 2, "p": 1, "b": 3,
}  # fmt: skip
"""Bytes of an answer; of the others a carriage return is."""


class Stk500v1Describer(StreamDescriber):
    """AVR061: command, arguments, EOP; INSYNC, payload, OK."""

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._command = 0
        self._payload = 0

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        return self._request(data) if sent else self._answer(data, ended)

    def _request(self, data: bytearray) -> tuple[int, Said] | None:
        code = data[0]
        if code not in V1_NAMES:
            unknown = next((at for at, byte in enumerate(data) if byte in V1_NAMES), len(data))
            return unknown, Said(f"unknown: {shown(data[:unknown])}")
        size = _v1_size(data)
        if size is None or len(data) < size:
            return None
        if data[size - 1] != v1.EOP:
            return 1, Said(f"{V1_NAMES[code]} without EOP", True)
        self._command = code
        self._payload = V1_PAYLOADS.get(code, 0)
        if code == v1.Command.READ_PAGE:
            self._payload = int.from_bytes(data[1:3], "big")
        return size, Said(_joined(V1_NAMES[code], _v1_arguments(code, bytes(data[1 : size - 1]))))

    def _answer(self, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        if data[0] != v1.Answer.INSYNC:
            if data[0] == v1.Answer.NOSYNC:
                return 1, Said("NOSYNC", True)
            size = data.find(v1.Answer.INSYNC)
            size = len(data) if size < 0 else size
            return size, Said(f"unknown: {shown(data[:size])}")
        size = self._payload + 2
        if len(data) < size and not ended:
            return None
        size = min(size, len(data))
        name = name_in(V1_NAMES, self._command)
        if size < 2:
            return 1, Said(f"{name}: INSYNC alone", True)
        end, value = data[size - 1], bytes(data[1 : size - 1])
        if self._command == v1.Command.READ_PAGE:
            words = counted(len(value), "byte")
        else:
            words = shown(value) if value else ""
        return size, Said(f"{name}: {_joined(name_in(V1_ENDS, end), words)}", end != v1.Answer.OK)


def _v1_size(data: bytearray) -> int | None:
    """Bytes of a request with its EOP; None: they are not known yet."""
    code = data[0]
    if code == v1.Command.PROG_PAGE:
        return int.from_bytes(data[1:3], "big") + 5 if len(data) > 2 else None
    if code == 0x45:  # The length counts itself.
        return data[1] + 2 if len(data) > 1 else None
    if code == 0x57:
        return data[1] + 4 if len(data) > 1 else None
    return V1_ARGUMENTS.get(code, 0) + 2


def _v1_arguments(code: int, data: bytes) -> str:
    match code:
        case v1.Command.LOAD_ADDRESS:
            return f"word 0x{int.from_bytes(data, 'little'):04X}"
        case v1.Command.PROG_PAGE | v1.Command.READ_PAGE:
            return f"{counted(int.from_bytes(data[:2], 'big'), 'byte')} of {name_in(MEMORIES, data[2])}"
        case v1.Command.GET_PARAMETER:
            return name_in(V1_PARAMETERS, data[0])
        case _:
            return shown(data) if data else ""


class Stk500v2Describer(StreamDescriber):
    """AVR068: messages with their length and a checksum, on each side on their own."""

    half_duplex = False

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        if data[0] != v2.START:
            size = data.find(v2.START)
            size = len(data) if size < 0 else size
            return size, Said(f"unknown: {shown(data[:size])}")
        if len(data) < v2.HEADER:
            return None
        length = int.from_bytes(data[2:4], "big")
        if data[4] != v2.TOKEN or not 1 <= length <= v2.LONGEST:
            size = data.find(v2.START, 1)
            size = len(data) if size < 0 else size
            return size, Said(f"unknown: {shown(data[:size])}")
        size = v2.HEADER + length + 1
        if len(data) < size:
            return None
        said = describe_v2(bytes(data[v2.HEADER : size - 1]), answer=not sent)
        if reduce(xor, data[:size]):
            return size, Said(f"{said.words}, checksum wrong", True)
        return size, said


def describe_v2(body: bytes, *, answer: bool) -> Said:
    """The body of a message. `answer`: it comes from the loader, and has a status."""
    code, rest = body[0], body[1:]
    name = name_in(V2_NAMES, code)
    if answer:
        if not rest:
            return Said(f"{name}: no status", True)
        status = f"{name}: {name_in(V2_STATUS, rest[0])}"
        if code in V2_BLOCKS and len(rest) > 2:
            return Said(f"{status}, {counted(len(rest) - 2, 'byte')}", rest[0] != v2.Status.CMD_OK)
        return Said(_joined(status, shown(rest[1:]) if len(rest) > 1 else ""), rest[0] != v2.Status.CMD_OK)
    match code:
        case v2.Command.LOAD_ADDRESS if len(rest) == 4:
            address = int.from_bytes(rest, "big")
            return Said(f"{name} 0x{address & ~v2.EXTENDED:06X}{', extended' if address & v2.EXTENDED else ''}")
        case v2.Command.GET_PARAMETER if rest:
            return Said(f"{name} {name_in(V2_PARAMETERS, rest[0])}")
        case _ if code in V2_BLOCKS and len(rest) > 1:
            return Said(f"{name} {counted(int.from_bytes(rest[:2], 'big'), 'byte')} of {V2_BLOCKS[v2.Command(code)]}")
        case _:
            return Said(f"{name} {shown(rest)}" if rest else name)


class Avr109Describer(StreamDescriber):
    """AVR109: a letter and its arguments, a value or a carriage return."""

    def __init__(self, part: str = "") -> None:
        super().__init__(part)
        self._letter = ""
        self._block = 0

    def cut(self, sent: bool, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        return self._request(data) if sent else self._answer(data, ended)

    def _request(self, data: bytearray) -> tuple[int, Said] | None:
        letter = chr(data[0])
        name = A109_NAMES.get(letter)
        if name is None:
            size = next((at for at, byte in enumerate(data) if chr(byte) in A109_NAMES), len(data))
            return size, Said(f"unknown: {shown(data[:size])}")
        size = 1 + A109_ARGUMENTS.get(letter, 0)
        if len(data) < size:
            return None
        arguments = bytes(data[1:size])
        words = shown(arguments) if arguments else ""
        if letter in "Bg":
            self._block = int.from_bytes(arguments[:2], "big")
            words = f"{counted(self._block, 'byte')} of {name_in(MEMORIES, arguments[2])}"
            size += self._block if letter == "B" else 0
            if len(data) < size:
                return None
        elif letter in "AH":
            words = f"0x{arguments.hex().upper()}"
        self._letter = letter
        return size, Said(_joined(name, words))

    def _answer(self, data: bytearray, ended: bool) -> tuple[int, Said] | None:
        letter = self._letter
        name = A109_NAMES.get(letter, "unasked")
        size = self._block if letter == "g" else A109_PAYLOADS.get(letter, 1)
        if letter == "b" and data[0] != ord("Y"):
            size = 1
        if letter == "t":
            size = data.find(0) + 1 or len(data) + 1
        if letter == "g" and not size:
            size = 1
        if len(data) < size:
            if not ended:
                return None
            size = len(data)
        self._letter = ""
        value = bytes(data[:size])
        if value == b"?" and letter not in "rFNQd":
            return size, Said(f"{name}: unknown command", True)
        if letter == "g":
            return size, Said(f"{name}: {counted(size, 'byte')}")
        if letter == "b" and size == 3:
            return size, Said(f"{name}: yes, {counted(int.from_bytes(value[1:], 'big'), 'byte')}")
        return size, Said(f"{name}: {'done' if value == bytes([0x0D]) else shown(value)}")


def _joined(name: str, words: str) -> str:
    return f"{name} {words}" if words else name
