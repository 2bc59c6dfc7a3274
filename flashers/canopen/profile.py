"""What a bench file says of a CANopen device: its node id or LSS address, and how it takes a program."""

from __future__ import annotations

from typing import Annotated, Literal

from ..flasher import Address
from ..settings import Field, Settings
from .codec import NODES, Control, Ident

Word = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
Value = Annotated[int, Field(ge=0, le=0xFF)]


class CanopenAddress(Address):
    """Which node of the bus it is."""

    example = "node=NODE"

    node: int = Field(ge=NODES.start, lt=NODES.stop)
    """The node id, 1 to 127."""
    vendor: Word | None = None
    """Vendor id, object 1018:1. Another device is refused, as with the next three."""
    product: Word | None = None
    """Product code, object 1018:2. A bootloader may have another one."""
    revision: Word | None = None
    """Revision number, object 1018:3. A bootloader may have another one."""
    serial: Word | None = None
    """Serial number, object 1018:4. By it a device in its bootloader is known for the same."""
    lss: bool = False
    """Whether the node gets its node id by LSS if nothing answers under it. It gives the node id back afterwards. Needs vendor,
    product, revision and serial."""

    def check_together(self) -> None:
        if self.lss and self.ident is None:
            raise ValueError("lss needs vendor, product, revision and serial, by which the node is selected")

    @property
    def ident(self) -> Ident | None:
        if self.vendor is None or self.product is None or self.revision is None or self.serial is None:
            return None
        return Ident(self.vendor, self.product, self.revision, self.serial)

    def label(self) -> str:
        return f"node {self.node}"

    @property
    def serial_number(self) -> str:
        return "" if self.serial is None else f"{self.serial:08X}"


class CanopenProfile(Settings):
    """How the device takes a program, by its manual."""

    part: str = ""
    """A piece of the device name, object 1008, such as `"encoder"`. Another device is refused."""
    program: int = Field(default=1, ge=1, le=254)
    """Number of the program: the sub-index of 1F50, 1F51, 1F56 and 1F57."""
    slot_size: int = Field(default=0x100_0000, gt=0, le=0x1000_0000)
    """Bytes that the program may have. A larger file is refused before anything is stopped or erased."""
    identification: Literal["none", "crc32", "mcuboot", "stored"] = "none"
    """What the device reports as 1F56 once it holds the program. `"crc32"`: the CRC-32 (ISO-HDLC) of the file. `"mcuboot"`: that
    of as many of the file's first bytes as its MCUboot header gives as the image's size, as Zephyr reports it. `"stored"`: the
    four bytes at `identification_offset` of the file. `"none"`: nothing that the file shows; then 1F57 alone judges an upload."""
    identification_offset: int = Field(default=0, ge=0, le=0x1000_0000)
    """Where in the file the identification is stored, little endian."""
    stop: Value = Control.STOP
    """What is written to 1F51 to stop the program, such as 0x80 for an application that starts its bootloader by it."""
    validation: Value | None = None
    """What is written to 1F51 once the program is there, before it is started, such as 0x83. Default: nothing."""
    preoperational: bool = True
    """Whether the node is sent into the state pre-operational before its program is stopped, started or confirmed."""
    confirm: bool = True
    """Whether a program on trial (1F51 reads 0x80, as Zephyr's does) is confirmed, before another one is loaded and after it was
    started. Without it the next reset brings the program before it back."""
    block: bool = True
    """Whether block transfer is tried, before segmented transfer."""
    answer: float = Field(default=1.0, gt=0, le=60)
    """Seconds that the device has for an answer."""
    work: float = Field(default=20.0, ge=0, le=600)
    """Seconds that it may take besides to erase, to write, to judge a program and to compute its identification."""
    start: float = Field(default=10.0, gt=0, le=600)
    """Seconds until it answers again once its program was stopped or started."""
