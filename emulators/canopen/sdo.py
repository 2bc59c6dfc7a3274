"""A node's SDO server (CiA 301, 7.2.4.3): expedited, segmented and block transfers of one client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import crcmod

TOGGLE, COMMAND, SEQUENCE, CRC_ERROR = 0x0503_0000, 0x0504_0001, 0x0504_0003, 0x0504_0004
TOO_LONG, TOO_SHORT = 0x0607_0012, 0x0607_0013
_crc = crcmod.predefined.mkPredefinedCrcFun("xmodem")


class Refused(Exception):
    """The dictionary refuses an access with this abort code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"0x{code:08X}")
        self.code = code


@dataclass
class _Download:
    index: int
    sub: int
    size: int | None
    crc: bool = False
    toggle: int = 0
    done: int = 0
    sequence: int = 0
    """The last segment of the sub-block that came in order."""
    pending: bytes = b""
    """What of the sub-block has come."""
    total: int = 0
    value: int = 0
    """The CRC so far."""
    is_last: bool = False


class Server:
    """`read(index, sub)` gives a value, `write(index, sub, data, first, last)` takes a piece of one; both may raise Refused.

    `size` of a download is known to the first write only as a limit: `begin(index, sub, size)` is asked before it is accepted.
    """

    def __init__(
        self,
        read: Callable[[int, int], bytes],
        begin: Callable[[int, int, int | None], None],
        write: Callable[[int, int, bytes, bool], None],
        *,
        block: int,
        crc: bool,
    ) -> None:
        self._read = read
        self._begin = begin
        self._write = write
        self._block = block
        self._crc = crc
        self._down: _Download | None = None
        self._in_block = False
        self._up: tuple[bytes, int, int] | None = None
        """What of a value is still to be sent, with its multiplexer."""
        self._up_toggle = 0

    def answer(self, data: bytes) -> bytes:
        """The answer to a frame; b"": none."""
        if len(data) != 8:
            return b""
        index, sub = (
            (self._down.index, self._down.sub) if self._down else (int.from_bytes(data[1:3], "little"), data[3])
        )
        try:
            if self._in_block and data[0] != 0x80:
                return self._segment_of_block(data)
            return self._answer(data)
        except Refused as refused:
            self._down, self._in_block, self._up = None, False, None
            return b"\x80" + index.to_bytes(2, "little") + bytes((sub,)) + refused.code.to_bytes(4, "little")

    def _answer(self, data: bytes) -> bytes:
        kind = data[0] >> 5
        index, sub = int.from_bytes(data[1:3], "little"), data[3]
        if data[0] == 0x80:
            self._down, self._in_block, self._up = None, False, None
            return b""
        if kind == 1:
            return self._started(data, index, sub)
        if kind == 0:
            return self._segment(data)
        if kind == 2:
            return self._uploaded(data, index, sub)
        if kind == 3 and self._up is not None:
            return self._upload_segment(data)
        if kind == 6 and self._block and not data[0] & 1:
            size = int.from_bytes(data[4:], "little") if data[0] & 2 else None
            self._begin(index, sub, size)
            self._down = _Download(index, sub, size, crc=self._crc and bool(data[0] & 4))
            self._in_block = True
            return bytes((0xA0 | self._crc << 2,)) + data[1:4] + bytes((self._block, 0, 0, 0))
        if kind == 6 and self._block and self._down is not None and self._down.is_last:
            return self._block_ended(data)
        raise Refused(COMMAND)

    def _started(self, data: bytes, index: int, sub: int) -> bytes:
        self._down = None
        if data[0] & 2:
            size = 4 - (data[0] >> 2 & 3) if data[0] & 1 else 4
            self._begin(index, sub, size)
            self._write(index, sub, data[4 : 4 + size], True)
        else:
            total = int.from_bytes(data[4:], "little") if data[0] & 1 else None
            self._begin(index, sub, total)
            self._down = _Download(index, sub, total)
        return b"\x60" + data[1:4] + bytes(4)

    def _segment(self, data: bytes) -> bytes:
        down = self._down
        if down is None:
            raise Refused(COMMAND)
        if data[0] >> 4 & 1 != down.toggle:
            raise Refused(TOGGLE)
        piece, last = data[1 : 8 - (data[0] >> 1 & 7)], bool(data[0] & 1)
        self._take(down, piece, last)
        answer = bytes((0x20 | down.toggle << 4,)) + bytes(7)
        down.toggle ^= 1
        if last:
            self._down = None
        return answer

    def _take(self, down: _Download, piece: bytes, last: bool) -> None:
        down.done += len(piece)
        if down.size is not None and down.done > down.size:
            raise Refused(TOO_LONG)
        if last and down.size is not None and down.done < down.size:
            raise Refused(TOO_SHORT)
        self._write(down.index, down.sub, piece, last)

    def _segment_of_block(self, data: bytes) -> bytes:
        down = self._down
        assert down is not None
        number, last = data[0] & 0x7F, bool(data[0] & 0x80)
        if number == down.sequence + 1 and number <= self._block:
            down.sequence = number
            down.pending += data[1:]
            if not last and number < self._block:
                return b""
            down.is_last = last
        elif number == down.sequence or down.sequence == 0:
            # The same again, or the rest of a sub-block that was acknowledged early.
            return b""
        answer = bytes((0xA2, down.sequence, self._block)) + bytes(5)
        down.sequence = 0
        self._flush(down)
        return answer

    def _flush(self, down: _Download) -> None:
        if down.is_last:
            # How much of the last segment counts only the end says.
            self._in_block = False
            return
        piece, down.pending = down.pending, b""
        down.value = _crc(piece, down.value)
        if piece:
            self._take(down, piece, False)

    def _block_ended(self, data: bytes) -> bytes:
        down = self._down
        assert down is not None
        unused = data[0] >> 2 & 7
        piece = down.pending[: len(down.pending) - unused]
        if down.crc and _crc(piece, down.value) != int.from_bytes(data[1:3], "little"):
            raise Refused(CRC_ERROR)
        self._take(down, piece, True)
        self._down = None
        return b"\xa1" + bytes(7)

    def _uploaded(self, data: bytes, index: int, sub: int) -> bytes:
        value = self._read(index, sub)
        if len(value) <= 4:
            return bytes((0x43 | (4 - len(value)) << 2,)) + data[1:4] + value.ljust(4, b"\0")
        self._up, self._up_toggle = (value, index, sub), 0
        return b"\x41" + data[1:4] + len(value).to_bytes(4, "little")

    def _upload_segment(self, data: bytes) -> bytes:
        assert self._up is not None
        if data[0] >> 4 & 1 != self._up_toggle:
            raise Refused(TOGGLE)
        value, index, sub = self._up
        piece, rest = value[:7], value[7:]
        self._up = (rest, index, sub) if rest else None
        head = self._up_toggle << 4 | (7 - len(piece)) << 1 | (not rest)
        self._up_toggle ^= 1
        return bytes((head,)) + piece.ljust(7, b"\0")
