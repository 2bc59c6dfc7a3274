"""Which frames ISO-TP takes, and which it ignores (ISO 15765-2:2016, 9.6 and 9.8): bytes in, a verdict out.

can-isotp takes some frames that the standard has ignored, and drops a reception that is under way, or flow control,
over others. So it is shown only what the standard lets pass.
"""

from __future__ import annotations

from enum import IntEnum


class Pci(IntEnum):
    """N_PCItype, the high half of the first byte (table 9)."""

    SINGLE_FRAME = 0
    FIRST_FRAME = 1
    CONSECUTIVE_FRAME = 2
    FLOW_CONTROL = 3


FRAME_SIZES = (8, 12, 16, 20, 24, 32, 48, 64)
"""Data lengths of the frames of one segmented message."""
LONGEST_SHORT = 4095
"""The longest message whose length has 12 bits."""
OVERFLOW = LAST_FLOW_STATUS = 2
"""ContinueToSend, Wait, Overflow; others are reserved (table 18)."""
LONGEST_ST_MIN = 0x7F
"""127 ms, which stands for each reserved value of STmin as well (9.6.5.4)."""


def pci_of(data: bytes, prefix: int) -> int:
    """The N_PCItype of a frame with `prefix` address bytes; -1 if it has none."""
    return data[prefix] >> 4 if len(data) > prefix else -1


def is_flow_control(data: bytes, prefix: int) -> bool:
    return pci_of(data, prefix) == Pci.FLOW_CONTROL


def accepted_frame(data: bytes, prefix: int) -> bytes | None:
    """The frame, with a reserved STmin replaced; None when it has to be ignored.

    `prefix`: address bytes ahead of the PCI, 1 with extended addressing. A flow control frame with a reserved flow
    status passes: it is not ignored, but ends the transmission (9.6.5.2).
    """
    pci = pci_of(data, prefix)
    if pci == Pci.CONSECUTIVE_FRAME:
        return data if len(data) > prefix + 1 else None
    if pci == Pci.SINGLE_FRAME:
        return data if _is_single(data, prefix) else None
    if pci == Pci.FIRST_FRAME:
        return data if _is_first(data, prefix) else None
    if pci == Pci.FLOW_CONTROL and len(data) >= prefix + 3:
        st_min = data[prefix + 2]
        if st_min <= LONGEST_ST_MIN or 0xF1 <= st_min <= 0xF9:
            return data
        return data[: prefix + 2] + bytes((LONGEST_ST_MIN,)) + data[prefix + 3 :]
    return None


def _is_single(data: bytes, prefix: int) -> bool:
    """SF_DL (9.6.2): in the first byte of frames of up to 8 bytes, in the second one of longer frames."""
    length = data[prefix] & 0x0F
    if len(data) <= 8:
        return 1 <= length <= len(data) - prefix - 1
    return length == 0 and 1 <= data[prefix + 1] <= len(data) - prefix - 2


def _is_first(data: bytes, prefix: int) -> bool:
    """FF_DL (9.6.3): no shorter than what would not fit a single frame (table 14), in its shortest form."""
    if len(data) not in FRAME_SIZES:
        return False
    length = (data[prefix] & 0x0F) << 8 | data[prefix + 1]
    if length == 0:
        return int.from_bytes(data[prefix + 2 : prefix + 6], "big") > LONGEST_SHORT
    shortest = 8 - prefix if len(data) == 8 else len(data) - 1 - prefix
    return length >= shortest
