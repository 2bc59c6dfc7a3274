"""MCUmgr's Simple Management Protocol, as bytes: packets, and how a serial console carries them.

After Zephyr's documentation, "SMP Protocol Specification" (header, groups 0 and 1, return codes) and "SMP over console"
(the transport specification's encoding); bodies are CBOR (RFC 8949) maps. Codecs only: bytes in, values out, nothing is
sent here. What comes from a part is held against every limit before it is used, and bytes outside of the limits are not a packet.
"""

from __future__ import annotations

import base64
import binascii
import struct
from binascii import crc_hqx
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import cbor2

from ..errors import USUAL_SILENCES, Meaning, Step


class Op(IntEnum):
    """The lowest three bits of a packet's first byte."""

    READ = 0
    READ_RSP = 1
    WRITE = 2
    WRITE_RSP = 3


class Group(IntEnum):
    OS = 0
    IMAGE = 1


class OsCommand(IntEnum):
    """Commands of group 0, default/OS management."""

    ECHO = 0
    RESET = 5
    MCUMGR_PARAMETERS = 6
    APPLICATION_INFO = 7
    BOOTLOADER_INFO = 8


class ImageCommand(IntEnum):
    """Commands of group 1, application/software image management."""

    STATE = 0
    UPLOAD = 1
    ERASE = 5
    SLOT_INFO = 6


def request_name(group: int, command: int) -> str:
    """A request of `Group` in words, such as "SMP's image state"."""
    if group == Group.OS:
        return f"SMP's {OsCommand(command).name.lower().replace('_', ' ')}"
    return f"SMP's image {ImageCommand(command).name.lower().replace('_', ' ')}"


class Rc(IntEnum):
    """`rc` of any group (MGMT_ERR)."""

    EOK = 0
    EUNKNOWN = 1
    ENOMEM = 2
    EINVAL = 3
    ETIMEOUT = 4
    ENOENT = 5
    EBADSTATE = 6
    EMSGSIZE = 7
    ENOTSUP = 8
    ECORRUPT = 9
    EBUSY = 10
    EACCESSDENIED = 11
    UNSUPPORTED_TOO_OLD = 12
    UNSUPPORTED_TOO_NEW = 13


class ImageRc(IntEnum):
    """`err.rc` of group 1 in replies of version 2 (IMG_MGMT_ERR)."""

    UNKNOWN = 1
    FLASH_CONFIG_QUERY_FAIL = 2
    NO_IMAGE = 3
    NO_TLVS = 4
    INVALID_TLV = 5
    TLV_MULTIPLE_HASHES_FOUND = 6
    TLV_INVALID_SIZE = 7
    HASH_NOT_FOUND = 8
    NO_FREE_SLOT = 9
    FLASH_OPEN_FAILED = 10
    FLASH_READ_FAILED = 11
    FLASH_WRITE_FAILED = 12
    FLASH_ERASE_FAILED = 13
    INVALID_SLOT = 14
    NO_FREE_MEMORY = 15
    FLASH_CONTEXT_ALREADY_SET = 16
    FLASH_CONTEXT_NOT_SET = 17
    FLASH_AREA_DEVICE_NULL = 18
    INVALID_PAGE_OFFSET = 19
    INVALID_OFFSET = 20
    INVALID_LENGTH = 21
    INVALID_IMAGE_HEADER = 22
    INVALID_IMAGE_HEADER_MAGIC = 23
    INVALID_HASH = 24
    INVALID_FLASH_ADDRESS = 25
    VERSION_GET_FAILED = 26
    CURRENT_VERSION_IS_NEWER = 27
    IMAGE_ALREADY_PENDING = 28
    INVALID_IMAGE_VECTOR_TABLE = 29
    INVALID_IMAGE_TOO_LARGE = 30
    INVALID_IMAGE_DATA_OVERRUN = 31
    IMAGE_CONFIRMATION_DENIED = 32
    IMAGE_SETTING_TEST_TO_ACTIVE_DENIED = 33


MEANINGS: Mapping[int, Meaning] = {
    Rc.EUNKNOWN: Meaning.FAILED,
    Rc.ENOMEM: Meaning.BUSY,
    Rc.EINVAL: Meaning.FAILED,
    Rc.ETIMEOUT: Meaning.FAILED,
    Rc.EBADSTATE: Meaning.FAILED,
    Rc.ECORRUPT: Meaning.LOST,
    Rc.EBUSY: Meaning.BUSY,
}
"""Of an `rc` of any group; the others are REFUSED. EINVAL: MCUboot's serial recovery says it of a failed erase or write too."""
IMAGE_MEANINGS: Mapping[int, Meaning] = {
    ImageRc.UNKNOWN: Meaning.FAILED,
    ImageRc.FLASH_CONFIG_QUERY_FAIL: Meaning.FAILED,
    ImageRc.FLASH_OPEN_FAILED: Meaning.FAILED,
    ImageRc.FLASH_READ_FAILED: Meaning.FAILED,
    ImageRc.FLASH_WRITE_FAILED: Meaning.FAILED,
    ImageRc.FLASH_ERASE_FAILED: Meaning.FAILED,
    ImageRc.NO_FREE_MEMORY: Meaning.BUSY,
    ImageRc.FLASH_CONTEXT_ALREADY_SET: Meaning.LOST,
    ImageRc.FLASH_CONTEXT_NOT_SET: Meaning.LOST,
    ImageRc.INVALID_OFFSET: Meaning.LOST,
    ImageRc.INVALID_LENGTH: Meaning.LOST,
}
"""Of an `err.rc` of group 1; the others are REFUSED."""
SILENCES: Mapping[Step, Meaning] = {**USUAL_SILENCES, Step.START: Meaning.GONE}
"""The part erases before it answers the first piece of an upload."""


class Major(IntEnum):
    """CBOR's major types that matter here (RFC 8949, section 3.1)."""

    BYTES = 2
    TEXT = 3
    MAP = 5
    TAG = 6


BREAK = 0xFF
"""Ends an item of indefinite length."""
DEEPEST = 16
"""Levels of a reply's body. Those that are known have five."""

VERSION_2 = 1
"""Bits 3 and 4 of a packet's first byte, in which a client asks for `err` maps; older servers answer 0, and `rc`."""
HEADER = struct.Struct(">BBHHBB")
"""Version and op, flags, length of the body, group, sequence number, command."""
LARGEST = HEADER.size + 0xFFFF

FIRST_LINE = b"\x06\x09"
NEXT_LINE = b"\x04\x14"
LINE_LENGTH = 127
"""Bytes of a line on a console, with its two marks and its end."""
LONGEST_LINE = 0x4000
"""Bytes without an end of line that are kept."""


@dataclass(frozen=True, slots=True)
class SmpRefusal:
    """Why a request was not carried out. `group` is None where the code is one of all groups (Rc)."""

    group: int | None
    rc: int
    reason: str = ""

    @property
    def meaning(self) -> Meaning:
        """Codes of groups that nothing here is asked of are REFUSED."""
        if self.group is None:
            return MEANINGS.get(self.rc, Meaning.REFUSED)
        return IMAGE_MEANINGS.get(self.rc, Meaning.REFUSED) if self.group == Group.IMAGE else Meaning.REFUSED

    @property
    def unsupported(self) -> bool:
        """Whether the part doesn't know the command at all."""
        return self.group is None and self.rc == Rc.ENOTSUP

    @property
    def is_already_pending(self) -> bool:
        """Whether the image waits already for the next reset to try it."""
        return self.group == Group.IMAGE and self.rc == ImageRc.IMAGE_ALREADY_PENDING

    @property
    def too_long(self) -> bool:
        """Whether the part knows the command, and its own answer doesn't fit its buffer."""
        return self.group is None and self.rc == Rc.EMSGSIZE

    def __str__(self) -> str:
        codes: type[IntEnum] | None = Rc if self.group is None else ImageRc if self.group == Group.IMAGE else None
        name = codes(self.rc).name if codes and self.rc in codes.__members__.values() else ""
        where = "" if self.group is None else f" of group {self.group}"
        text = f"{name} (rc {self.rc}{where})" if name else f"rc {self.rc}{where}"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(frozen=True, slots=True)
class Packet:
    """One request or reply."""

    op: int
    group: int
    sequence: int
    command: int
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def refusal(self) -> SmpRefusal | None:
        """What a reply says against the request; None: it was carried out. Replies of version 1 have `rc`, those of
        version 2 `err`, or `rc` where the command is not known; some say `rc` 0 with what was asked for."""
        error = self.body.get("err")
        if isinstance(error, dict):
            group, rc = error.get("group"), error.get("rc")
            if isinstance(rc, int) and rc != Rc.EOK:
                return SmpRefusal(_code(group) if isinstance(group, int) else None, _code(rc))
        rc = self.body.get("rc")
        if isinstance(rc, int) and rc != Rc.EOK:
            reason = self.body.get("rsn")
            return SmpRefusal(None, _code(rc), reason[:80] if isinstance(reason, str) else "")
        return None


def _code(value: int) -> int:
    """A code as servers have it, in 32 bits; a larger code only shows that it is not a success."""
    return value if abs(value) >> 32 == 0 else Rc.EUNKNOWN


def encode(packet: Packet, version: int = VERSION_2) -> bytes:
    body = cbor2.dumps(dict(packet.body))
    head = HEADER.pack(packet.op | version << 3, 0, len(body), packet.group, packet.sequence, packet.command)
    return head + bytes(body)


def decode(data: bytes) -> Packet | None:
    """One packet; None if that is none: cut short or too long, or its body no CBOR map with texts for keys."""
    if len(data) < HEADER.size:
        return None
    first, _, length, group, sequence, command = HEADER.unpack_from(data)
    if len(data) != HEADER.size + length:
        return None
    try:
        if length:
            check_items(data, HEADER.size)
        body = cbor2.loads(data[HEADER.size :]) if length else {}
    except Exception:  # Whatever a decoder of foreign bytes finds wrong with them, they are no packet.
        return None
    if not isinstance(body, dict) or not all(isinstance(key, str) for key in body):
        return None
    return Packet(first & 0x07, group, sequence, command, body)


def check_items(data: bytes, offset: int) -> None:
    """Holds a CBOR body (RFC 8949, section 3) against what replies are made of, before a library decodes it: no tags, and
    DEEPEST levels. Without tags no number has more than 64 bits. Raises ValueError."""
    open_items = [1]
    """How many items each level still wants; -1: as many as come before a break."""
    while open_items:
        first = data[offset] if offset < len(data) else None
        if first is None:
            raise ValueError("cut short")
        offset += 1
        major, info = first >> 5, first & 0x1F
        if first == BREAK:
            if open_items.pop() >= 0:
                raise ValueError("a break where none may stand")
            while open_items and not open_items[-1]:
                open_items.pop()
            continue
        value = info
        if 24 <= info <= 27:
            size = 1 << info - 24
            if offset + size > len(data):
                raise ValueError("cut short")
            value = int.from_bytes(data[offset : offset + size], "big")
            offset += size
        elif info > 27 and not (info == 31 and 2 <= major <= 5):
            raise ValueError("no form of an item")
        if major == Major.TAG:
            raise ValueError("a tag")
        if open_items[-1] > 0:
            open_items[-1] -= 1
        if major in (Major.BYTES, Major.TEXT) and info != 31:
            offset += value
        elif 2 <= major <= 5:
            open_items.append(-1 if info == 31 else 2 * value if major == Major.MAP else value)
        if len(open_items) > DEEPEST:
            raise ValueError("nested too deeply")
        while open_items and not open_items[-1]:
            open_items.pop()
    if offset > len(data):
        raise ValueError("cut short")


class Framing(Protocol):
    """How packets lie in a stream of bytes."""

    overhead: int
    """Bytes of the part's buffer that the framing takes beside the packet."""

    def wrap(self, packet: bytes) -> list[bytes]:
        """What is sent, in the pieces that the part takes in one go."""

    def feed(self, data: bytes) -> list[bytes]:
        """The packets that these bytes complete."""

    def forget(self) -> None:
        """Drops what is incomplete: nothing more came."""


class ConsoleFraming:
    """Lines of base64 between other text. A packet follows its length and is followed by its CRC-16/XMODEM; other
    text, and packets whose CRC is wrong, are passed over."""

    overhead = 4

    def __init__(self, line_length: int = LINE_LENGTH) -> None:
        self._step = (line_length - 3) // 4 * 4
        self._line = b""
        self._text = b""
        """The base64 of the packet that has begun."""

    def wrap(self, packet: bytes) -> list[bytes]:
        text = base64.b64encode((len(packet) + 2).to_bytes(2, "big") + packet + crc_hqx(packet, 0).to_bytes(2, "big"))
        step = self._step
        return [
            (NEXT_LINE if start else FIRST_LINE) + text[start : start + step] + b"\n"
            for start in range(0, len(text), step)
        ]

    def feed(self, data: bytes) -> list[bytes]:
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-LONGEST_LINE:]
        return [packet for line in lines if (packet := self._take(line)) is not None]

    def forget(self) -> None:
        self._line = self._text = b""

    def _take(self, line: bytes) -> bytes | None:
        first, following = line.rfind(FIRST_LINE), line.rfind(NEXT_LINE)
        if first > following:
            self._text = line[first + 2 :].rstrip(b"\r")
        elif following >= 0 and self._text:
            self._text += line[following + 2 :].rstrip(b"\r")
        else:
            return None
        try:
            length = int.from_bytes(binascii.a2b_base64(self._text[:4], strict_mode=True)[:2], "big")
            wanted = -(-(length + 2) // 3) * 4
            if len(self._text) < wanted:
                return None
            data = binascii.a2b_base64(self._text, strict_mode=True)
        except ValueError:
            self._text = b""
            return None
        self._text = b""
        if length < 2 + HEADER.size or len(data) < length + 2:
            return None
        packet, crc = data[2:length], data[length : length + 2]
        return packet if crc_hqx(packet, 0).to_bytes(2, "big") == crc else None


class RawFraming:
    """Bare packets, one after the other; the header has their length. What can't be a reply's header is passed over
    byte by byte."""

    overhead = 0

    def __init__(self) -> None:
        self._data = b""

    def wrap(self, packet: bytes) -> list[bytes]:
        return [packet]

    def feed(self, data: bytes) -> list[bytes]:
        self._data += data
        found = []
        start = 0
        while len(self._data) - start >= HEADER.size:
            first, flags, length, *_ = HEADER.unpack_from(self._data, start)
            if first & 0xE0 or first & 0x07 not in (Op.READ_RSP, Op.WRITE_RSP) or flags:
                start += 1
                continue
            end = start + HEADER.size + length
            if len(self._data) < end:
                break
            found.append(self._data[start:end])
            start = end
        self._data = self._data[start:]
        return found

    def forget(self) -> None:
        self._data = b""
