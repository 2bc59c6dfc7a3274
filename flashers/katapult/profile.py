"""What a bench file says of a component with Katapult: its address, and what its bootloader does not report."""

from __future__ import annotations

from typing import Annotated

from ..can.question import ArbitrationId, CanVersion, QuestionAddress
from ..flasher import Address
from ..serial.profile import SerialProfile
from ..settings import After, Field, Settings, in_words
from .codec import NODES, UUID_BYTES

DIGITS = 2 * UUID_BYTES
Size = Annotated[int, Field(gt=0, le=0x1000_0000, multiple_of=64)]
Uuid = Annotated[
    str,
    Field(pattern=rf"^[0-9A-Fa-f]{{1,{DIGITS}}}$"),
    in_words(f"{DIGITS} hexadecimal digits, as scan shows them"),
    After(lambda text: text.lower().zfill(DIGITS)),
]


class KatapultCanAddress(QuestionAddress):
    """Which node of the bus it is, and how its application is asked for its version."""

    example = "uuid=UUID"

    uuid: Uuid
    """The node's UUID: 12 hexadecimal digits, as `scan` and Klipper's `canbus_query.py` show them. Leading zeros may be left
    out."""
    version_request: ArbitrationId | None = None
    """Arbitration id under which the application takes the question for its version (`version` of the profile). Without it the
    application is asked by Klipper's query for nodes alone, which only a node without a node id answers."""

    def label(self) -> str:
        return self.uuid

    @property
    def serial_number(self) -> str:
        return self.uuid

    @property
    def raw(self) -> bytes:
        return bytes.fromhex(self.uuid)


class KatapultProfile(Settings):
    """What the bootloader does not report of its part."""

    part: str = ""
    """A piece of the type that the bootloader reports, such as `"stm32f072"`. Another part is refused."""
    page_size: Size | None = None
    """Bytes of an erase unit, where all have the same size. Default: by the reported type."""
    flash_size: Size | None = None
    """Bytes of the part's flash, the bootloader's included. Default: the least that parts of the reported type have."""
    answer: float = Field(default=0.5, gt=0, le=60)
    """Seconds that the bootloader has for an answer, its work and the wire's time aside."""


class KatapultCanProfile(KatapultProfile):
    """What the bootloader does not report of its part, and how a node on CAN gets into it."""

    enter: bool = True
    """Whether the running application is brought into its bootloader by Klipper's message for that. If false, a person does
    so."""
    start: float = Field(default=5.0, gt=0, le=600)
    """Seconds until the bootloader answers once the application was asked to start it."""
    node: int | None = Field(default=None, ge=NODES.start, lt=NODES.stop)
    """Node id that the bootloader gets while it is asked; it then receives under 0x100 + 2 times the node id, and answers under
    the next id. Default: by the UUID."""
    version: CanVersion = CanVersion()
    """How the application is asked for its version."""


KLIPPER_TEXT = "~ \x1c Request Serial Bootloader!! ~"
"""What Klipper's application takes for the wish to start its bootloader (Klipper's Bootloader_Entry.md)."""


class KatapultUartAddress(Address):
    """The serial bus is the address: one part is on it."""


class UartEntrySettings(Settings):
    """How the application is brought into its bootloader."""

    touch: bool = False
    """Whether the application starts its bootloader when its USB serial port is opened at 1200 bit/s and closed with DTR low.
    The port then vanishes, and the bootloader's port comes at the same USB place. `enter` is not sent then."""
    touch_seconds: float = Field(default=10.0, gt=0, le=120)
    """Seconds that the bootloader's port may take to come."""
    settle: float = Field(default=0.1, ge=0, le=5)
    """Seconds that the bootloader has to start."""


class KatapultUartProfile(KatapultProfile, SerialProfile):
    """What the bootloader does not report of its part, and how a part on a serial line gets into it."""

    enter: str | None = None
    """Text that makes the application start its bootloader. Default: Klipper's, `~ \\x1c Request Serial Bootloader!! ~`, where
    `\\x1c` is one byte. "": nothing is sent, and a person starts the bootloader."""
    entry: UartEntrySettings = UartEntrySettings()
    """How the application is brought into its bootloader."""
    app_baudrate: int | None = Field(default=None, gt=0)
    """Bit rate of the application, in bit/s. Default: the bus's `baudrate`."""
