"""What MCUboot logs while it starts, where its log is on the serial line that SMP uses.

After MCUboot's boot/zephyr/main.c. The rule: what follows from the log
alone is not certain, so it is believed only of a part that is silent, too.
"""

from __future__ import annotations

import re

from ..formats.mcuboot import McubootImage

NOTHING_TO_START = b"Unable to find bootable image"
"""What MCUboot logs before it stops for good."""
_STARTED = re.compile(rb"Bootloader chainload address offset: 0x([0-9A-Fa-f]{1,8})\r?\n")
"""What it logs before it starts an image: where that begins, from the flash's first address on."""
BASES = 1 << 20
"""The flash of a Cortex-M part begins at a multiple of this number; where, the log does not say."""


def missed(log: bytes, image: McubootImage) -> str:
    """How the bootloader has started the image where that is not linked for, in words; "": the log does not say so."""
    found, reset = _STARTED.findall(log), image.reset_vector
    if not found or reset is None or not image.is_cortex_m or image.load_address is not None:
        return ""
    offset = int(found[-1], 16)
    if (reset - offset) % BASES < image.size:
        return ""
    return (
        f"the bootloader says that it has started the image at 0x{offset:X} of its flash, and the image is linked for another "
        f"address: its program starts at 0x{reset & ~1:08X}"
    )


def unchecked_start(reset: object, load: object, run_address: int | None) -> int | None:
    """Where a program starts that nobody can hold against its slot before it is there; None: that can be, or it isn't known.

    `reset`: its reset vector, with the bit that a Cortex-M wants; `load`: the load address of its header.
    """
    known = load is not None or run_address is not None
    return reset & ~1 if isinstance(reset, int) and reset & 1 and not known else None
