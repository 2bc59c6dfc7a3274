"""The receiving end of XMODEM, YMODEM and YMODEM-g, as a loader's firmware has it.

Written from the "X/YMODEM Protocol Reference" (C. Forsberg, 1988-06-18): blocks of figures 9 and 11, the receiver's part
of 7.3.2 and 8.2.2, batches of 5, streams of 6. `Trouble` has what it does wrong on request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from ..serial.board import Silence, UartBoard

SOH, STX, EOT, ACK, NAK, CAN = (bytes([code]) for code in (0x01, 0x02, 0x04, 0x06, 0x15, 0x18))
TRIES = 10
"""Errors in a row after which it gives up (7.3.1)."""


class Trouble(StrEnum):
    """What goes wrong at one block, or at the end of the file (block 0)."""

    NONE = "none"
    LOST_ACK = "lost-ack"
    """It is taken, and the answer is lost, once."""
    DOUBLE_ACK = "double-ack"
    """It is answered twice, once."""
    LOG = "log"
    """Text comes before the answer, once."""
    NAK = "nak"
    """It is refused, each time."""
    CANCEL = "cancel"
    """The transfer is cancelled there."""
    SILENCE = "silence"
    """Nothing is answered from there on, ever."""
    GARBAGE = "garbage"
    """Each time it sends bytes that are not an answer."""
    GONE = "gone"
    """The loader leaves the transfer without a word, for its prompt."""


class Ended(Exception):
    """The transfer is over before its end. `reason`: "cancelled", "errors", "silence", "order", "gone", or
    what the sink says."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Sink(Protocol):
    """Where a file goes."""

    def begin(self, name: str, size: int | None) -> None:
        """`size`: None where the protocol doesn't tell. Raises Ended."""

    def take(self, data: bytes) -> None:
        """The next bytes. Raises Ended."""

    def finish(self) -> None:
        """The file has ended, and is not acknowledged yet. Raises Ended."""


@dataclass(frozen=True, slots=True)
class Block:
    """`number`: None where the block is garbled."""

    number: int | None
    data: bytes


class Receiver:
    """`ask`: what it asks for the first block with: b"C", NAK (a checksum), or b"G" (a stream). `asks`: how often.
    `timeout`: seconds that it waits for a block (10 in 7.3.2); a tenth of it for each further byte."""

    def __init__(
        self,
        board: UartBoard,
        *,
        ask: bytes = b"C",
        asks: int = 20,
        timeout: float = 10.0,
        trouble: Trouble = Trouble.NONE,
        trouble_at: int = 1,
    ) -> None:
        self._board = board
        self._ask = ask
        self._asks = asks
        self._timeout = timeout
        self._trouble = trouble
        self._trouble_at = trouble_at
        self._told = False

    @property
    def _streams(self) -> bool:
        return self._ask == b"G"

    def file(self, sink: Sink) -> None:
        """One file by XMODEM. Raises Ended."""
        sink.begin("", None)
        self._contents(self._first_byte(), sink.take)
        sink.finish()
        self._answer(ACK, 0)

    def batch(self, sink: Sink) -> None:
        """The files of a YMODEM batch. Raises Ended.

        A sender that leaves after a file without the empty name has sent that file all the same.
        """
        files = 0
        while True:
            try:
                data = self._header()
            except Ended:
                if files:
                    return
                raise
            name, _, rest = data.partition(b"\0")
            if not name:
                if not self._streams:
                    self._board.send(ACK)
                return
            fields = rest.partition(b"\0")[0].split()
            size = int(fields[0]) if fields and fields[0].isdigit() else None
            sink.begin(name.decode("ascii", "replace"), size)
            if not self._streams:
                self._board.send(ACK)
            left = size

            def take(data: bytes) -> None:
                nonlocal left
                if left is not None:
                    data = data[:left]
                    left -= len(data)
                sink.take(data)

            self._contents(self._first_byte(), take, batch=True)
            sink.finish()
            self._answer(ACK, 0)
            files += 1

    # Blocks.

    def _header(self) -> bytes:
        """The data of block 0."""
        byte = self._first_byte()
        for _ in range(TRIES):
            if byte in (SOH, STX):
                block = self.read_block(byte)
                if block.number == 0:
                    return block.data
                self._refuse()
            byte = self._next_byte()
        raise self._given_up("errors")

    def _contents(self, byte: bytes, take: Callable[[bytes], None], *, batch: bool = False) -> None:
        """Blocks from number 1 on, up to and with EOT."""
        expected, errors, ends = 1, 0, 0
        while True:
            if byte == EOT:
                ends += 1
                if self._is_trouble(0) and self._trouble is Trouble.NAK:
                    ends = 0
                elif not batch or self._streams or ends == 2:
                    return
                self._board.send(NAK)
            elif byte in (SOH, STX):
                block = self.read_block(byte)
                if block.number == expected & 0xFF and self._trouble is Trouble.NAK and self._is_trouble(expected):
                    self._board.send(NAK)
                elif block.number == expected & 0xFF:
                    take(block.data)
                    self._answer(b"" if self._streams else ACK, expected)
                    errors = 0
                    expected += 1
                elif block.number == (expected - 1) & 0xFF and expected > 1:
                    self._answer(ACK, expected - 1)
                elif block.number is None:
                    errors += 1
                    self._refuse()
                elif block.number == 0 and batch and expected == 1:
                    self._board.send(ACK + self._ask)
                else:
                    raise self._given_up("order")
            else:
                errors += 1
                self._refuse()
            if errors == TRIES:
                raise self._given_up("errors")
            byte = self._next_byte()

    def read_block(self, first: bytes) -> Block:
        """What follows SOH or STX."""
        size = 128 if first == SOH else 1024
        check = 1 if self._ask == NAK else 2
        try:
            body = self._board.receive(2 + size + check, silence=self._timeout / 10)
        except Silence:
            return Block(None, b"")
        data, sent = body[2:-check], int.from_bytes(body[-check:], "big")
        right = sum(data) % 256 if check == 1 else crc(data)
        sound = body[0] ^ body[1] == 0xFF and sent == right
        return Block(body[0] if sound else None, data)

    def _first_byte(self) -> bytes:
        """Asks until something comes (8.2.2)."""
        for _ in range(self._asks):
            self._board.send(self._ask)
            try:
                return self._cancellable(self._board.receive(1, silence=self._timeout * 0.3))
            except Silence:
                continue
        raise self._given_up("silence")

    def _next_byte(self) -> bytes:
        for _ in range(TRIES):
            try:
                return self._cancellable(self._board.receive(1, silence=self._timeout))
            except Silence:
                self._refuse()
        raise self._given_up("silence")

    def _cancellable(self, byte: bytes) -> bytes:
        """Two CANs in a row end it (4.1)."""
        if byte == CAN:
            try:
                if self._board.receive(1, silence=self._timeout / 10) == CAN:
                    raise Ended("cancelled")
            except Silence:
                pass
        return byte

    def _refuse(self) -> None:
        """Waits until nothing more comes (7.4), and asks again."""
        if self._streams:
            raise self._given_up("errors")
        try:
            while True:
                self._board.receive(1, silence=self._timeout / 20)
        except Silence:
            self._board.send(NAK)

    def _given_up(self, reason: str) -> Ended:
        self._board.send(CAN * 8 + b"\b" * 8)
        return Ended(reason)

    # Troubles.

    def _is_trouble(self, block: int) -> bool:
        return self._trouble is not Trouble.NONE and block == self._trouble_at

    def _answer(self, answer: bytes, block: int) -> None:
        if not self._is_trouble(block):
            self._board.send(answer)
            return
        once, self._told = not self._told, True
        match self._trouble:
            case Trouble.LOST_ACK if once:
                answer = b""
            case Trouble.DOUBLE_ACK if once:
                answer *= 2
            case Trouble.LOG if once:
                answer = b"\r\n[I] CG: writing CRC G\r\n" + answer
            case Trouble.GARBAGE:
                answer = b"\xff\xfe\x7fz"
            case Trouble.CANCEL:
                raise self._given_up("cancelled")
            case Trouble.GONE:
                raise Ended("gone")
            case Trouble.SILENCE:
                while True:
                    self._board.receive(1)
        self._board.send(answer)


def crc(data: bytes) -> int:
    """The remainder of the data, times x^16, by x^16 + x^12 + x^5 + 1 (8.1.1)."""
    remainder = 0
    for byte in data:
        remainder = (remainder << 8 & 0xFFFF) ^ _TABLE[remainder >> 8 ^ byte]
    return remainder


def _step(value: int) -> int:
    for _ in range(8):
        value = value << 1 ^ (0x11021 if value & 0x8000 else 0)
    return value


_TABLE = [_step(high << 8) for high in range(256)]
