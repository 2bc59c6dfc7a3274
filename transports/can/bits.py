"""How many bits a CAN frame has on the wire, stuff bits among them (ISO 11898-1:2015, 10.4 and 10.5).

A stuff bit follows five equal bits. Counting them bit by bit is slow, so the state (the last bit, and how many like it
came in a row) goes through a table by whole bytes: for each state and byte the number of stuff bits and the next state.
"""

from __future__ import annotations

from functools import lru_cache

import can

CRC15 = 0x4599
"""CRC polynomial of classic frames, without its highest bit."""
TRAILER = 1 + 1 + 1 + 7 + 3
"""CRC delimiter, ACK slot, ACK delimiter, EOF, interframe space: bits that are never stuffed."""
FD_SIZES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 24, 32, 48, 64)


def _step(state: tuple[int, int], bit: int) -> tuple[tuple[int, int], int]:
    """The state after one bit, and whether a stuff bit followed: that is the opposite bit, and begins a run itself."""
    last, run = state
    run = run + 1 if bit == last else 1
    if run == 5:
        return (1 - bit, 1), 1
    return (bit, run), 0


def _byte(state: tuple[int, int], value: int) -> tuple[tuple[int, int], int]:
    stuffed = 0
    for position in range(7, -1, -1):
        state, more = _step(state, value >> position & 1)
        stuffed += more
    return state, stuffed


@lru_cache(maxsize=1)
def _tables() -> tuple[dict[tuple[int, int], list[tuple[tuple[int, int], int]]], list[int]]:
    """The stuffing table by state and byte, and the CRC-15 table by byte."""
    states = [(bit, run) for bit in (0, 1) for run in range(5)]
    stuffing = {state: [_byte(state, value) for value in range(256)] for state in states}
    crcs = []
    for value in range(256):
        crc = value << 7
        for _ in range(8):
            crc = (crc << 1 ^ CRC15 if crc & 0x4000 else crc << 1) & 0x7FFF
        crcs.append(crc)
    return stuffing, crcs


def _stuffing(bits: int, count: int) -> tuple[int, bool]:
    """The stuff bits of `count` bits, highest first, and whether one follows the last of them."""
    stuffing, _ = _tables()
    state = (1, 0)
    total = 0
    lead = count % 8
    for position in range(count - 1, count - lead - 1, -1):
        state, more = _step(state, bits >> position & 1)
        total += more
    for value in (bits & (1 << count - lead) - 1).to_bytes((count - lead) // 8, "big"):
        state, more = stuffing[state][value]
        total += more
    return total, state[0] != bits & 1


def crc15(bits: int, count: int) -> int:
    """The CRC of `count` bits, highest first, as it follows them in a classic frame (10.4.2.6)."""
    _, table = _tables()
    crc = 0
    # Leading zeros leave a CRC that starts from 0 as it is.
    for value in bits.to_bytes(-(-count // 8), "big"):
        crc = (crc << 8 ^ table[(crc >> 7 ^ value) & 0xFF]) & 0x7FFF
    return crc


def _classic_header(message: can.Message) -> tuple[int, int]:
    """From SOF to DLC: the bits, and how many."""
    remote = int(message.is_remote_frame)
    dlc = message.dlc if message.is_remote_frame else len(message.data)
    if message.is_extended_id:
        bits = message.arbitration_id >> 18
        bits = bits << 2 | 0b11  # SRR, IDE
        bits = bits << 18 | message.arbitration_id & 0x3FFFF
        return (bits << 3 | remote << 2) << 4 | dlc, 39  # RTR, r1, r0
    return (message.arbitration_id << 3 | remote << 2) << 4 | dlc, 19  # RTR, IDE, r0


def classic_bits(message: can.Message) -> int:
    """Bits of a classic frame, from SOF to the end of the interframe space."""
    bits, count = _classic_header(message)
    if not message.is_remote_frame:
        bits = bits << 8 * len(message.data) | int.from_bytes(message.data, "big")
        count += 8 * len(message.data)
    bits = bits << 15 | crc15(bits, count)
    count += 15
    return count + _stuffing(bits, count)[0] + TRAILER


def fd_bits(message: can.Message) -> tuple[int, int]:
    """Bits of an FD frame: those at the nominal bit rate, and those from ESI to the end of the CRC.

    The CRC's value doesn't matter: its stuff bits are at fixed places, before the stuff count and after each 4 bits.
    """
    size = next(size for size in FD_SIZES if size >= len(message.data))
    if message.is_extended_id:
        bits = (message.arbitration_id >> 18) << 2 | 0b11  # SRR, IDE
        bits = (bits << 18 | message.arbitration_id & 0x3FFFF) << 3 | 0b010  # RRS, FDF, res
        head = 36
    else:
        bits = message.arbitration_id << 4 | 0b0010  # RRS, IDE, FDF, res
        head = 17
    bits = bits << 1 | int(message.bitrate_switch)
    tail = bits << 5 | int(message.error_state_indicator) << 4 | FD_SIZES.index(size)
    data = bytes(message.data).ljust(size, b"\0")
    whole = tail << 8 * size | int.from_bytes(data, "big")
    nominal = head + _stuffing(bits, head)[0]
    count = head + 5 + 8 * size
    stuffed, at_end = _stuffing(whole, count)
    # The fixed bit that opens the CRC field takes the place of a stuff bit that the last five bits ask for.
    stuffed -= at_end
    crc = 4 + (17 if size <= 16 else 21)  # stuff count and its parity, CRC
    return nominal + TRAILER, count + stuffed - nominal + crc + -(-crc // 4)


def frame_seconds(message: can.Message, bitrate: int, data_bitrate: int) -> float:
    """How long a frame occupies the bus."""
    if not message.is_fd:
        return classic_bits(message) / bitrate
    nominal, fast = fd_bits(message)
    return nominal / bitrate + fast / (data_bitrate if message.bitrate_switch else bitrate)
