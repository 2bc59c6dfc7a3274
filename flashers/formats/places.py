"""Where files have, by convention, bytes that are not a program: an AVR's fuses, Nordic's UICR, an STM32's option bytes.

For messages about addresses that a part does not have, or that its bootloader does not tell of.
"""

from __future__ import annotations

from . import avr_memories as avr

CONVENTIONS = (
    (avr.EEPROM, avr.FUSES, "an AVR's EEPROM"),
    (avr.FUSES, avr.LOCK, "an AVR's fuses"),
    (avr.LOCK, avr.SIGNATURE, "an AVR's lock bits"),
    (avr.SIGNATURE, avr.USER_SIGNATURES, "an AVR's signature"),
    (avr.USER_SIGNATURES, 0x860000, "an AVR's user signatures"),
    # Nordic's product specifications, "UICR": nRF51 and nRF52; nRF53 and nRF91; nRF53's network core.
    (0x10001000, 0x10002000, "the UICR of a Nordic nRF"),
    (0x00FF8000, 0x00FF9000, "the UICR of a Nordic nRF"),
    (0x01FF8000, 0x01FF9000, "the UICR of a Nordic nRF"),
    # ST's reference manuals, "Embedded flash memory": 0x1FFF7800, 0x1FFFC000, 0x1FF80000 and others.
    (0x1FF00000, 0x20000000, "the option bytes, the OTP or the system memory of an STM32"),
)
"""First address, the address after the last, what is there."""


def conventional(address: int) -> str:
    """What files have at this address; "" where nothing is known of it."""
    return next((what for start, end, what in CONVENTIONS if start <= address < end), "")
