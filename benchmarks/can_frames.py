"""How long frames and ISO-TP messages take on a CAN bus: counted here bit by bit, apart from the emulated wire.

After ISO 11898-1:2015, 10.4 (frames and their fields) and 10.5 (a stuff bit after five equal ones), and ISO 15765-2:2016,
9.6 (how a message is cut into frames), with 11-bit ids, data padded by 0xCC.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

PADDING = b"\xcc"
AFTER_CRC = 1 + 1 + 1 + 7 + 3
"""CRC delimiter, ACK slot, ACK delimiter, end of frame, intermission."""
SIZES = (8, 12, 16, 20, 24, 32, 48, 64)


@dataclass(frozen=True, slots=True)
class Bus:
    """`data_bitrate`: of CAN FD, with the bit rate switch; None: classic CAN. Rates in bit/s."""

    bitrate: int
    data_bitrate: int | None = None

    @property
    def frame(self) -> int:
        """Bytes that a frame carries at most."""
        return 64 if self.data_bitrate else 8


def seconds(bus: Bus, identifier: int, data: bytes) -> float:
    """One frame, from its start to the end of the intermission."""
    if bus.data_bitrate is None:
        # Start of frame, id, RTR, IDE, r0, DLC.
        bits = f"0{identifier:011b}000{len(data):04b}" + _bits(data)
        bits += f"{_crc15(bits):015b}"
        return (len(_stuffed(bits)) + AFTER_CRC) / bus.bitrate
    # Start of frame, id, RRS, IDE, FDF, reserved, bit rate switch: at the slow rate. From ESI on, at the fast one.
    head = f"0{identifier:011b}00101"
    code = len(data) if len(data) < SIZES[0] else 8 + SIZES.index(len(data))
    tail = f"0{code:04b}" + _bits(data)
    slow = len(_stuffed(head))
    # Without its last bit no stuff bit follows the data: there comes a fixed one, whatever the bits are.
    stuffed = len(_stuffed((head + tail)[:-1])) + 1
    # Stuff count with its parity, then the CRC: the fixed stuff bit ahead of them, and one after every four bits.
    check = 4 + (17 if len(data) <= 16 else 21)
    fast = stuffed - slow + check + -(-check // 4)
    return (slow + AFTER_CRC) / bus.bitrate + fast / bus.data_bitrate


def message(bus: Bus, sender: int, receiver: int, pdu: bytes) -> float:
    """An ISO-TP message with the receiver's one flow control frame: no block size, no separation time."""
    return sum(seconds(bus, identifier, data) for identifier, data in _frames(bus, sender, receiver, pdu))


def _frames(bus: Bus, sender: int, receiver: int, pdu: bytes) -> Iterator[tuple[int, bytes]]:
    if len(pdu) <= 7:
        yield sender, _padded(bytes([len(pdu)]) + pdu)
        return
    if bus.data_bitrate and len(pdu) <= bus.frame - 2:
        yield sender, _padded(bytes([0, len(pdu)]) + pdu)
        return
    yield sender, (0x1000 | len(pdu)).to_bytes(2, "big") + pdu[: bus.frame - 2]
    yield receiver, _padded(b"\x30\0\0")
    step = bus.frame - 1
    for number, start in enumerate(range(bus.frame - 2, len(pdu), step), 1):
        yield sender, _padded(bytes([0x20 | number & 0xF]) + pdu[start : start + step])


def _padded(data: bytes) -> bytes:
    return data.ljust(next(size for size in SIZES if size >= len(data)), PADDING)


def _bits(data: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in data)


def _stuffed(bits: str) -> str:
    """The bits with an opposite one after every five equal ones, which counts for the next five itself."""
    out: list[str] = []
    last, run = "", 0
    for bit in bits:
        run = run + 1 if bit == last else 1
        last = bit
        out.append(bit)
        if run == 5:
            last = "1" if bit == "0" else "0"
            out.append(last)
            run = 1
    return "".join(out)


def _crc15(bits: str) -> int:
    register = 0
    for bit in bits:
        turn = (register >> 14) ^ int(bit)
        register = register << 1 & 0x7FFF
        if turn:
            register ^= 0x4599
    return register
