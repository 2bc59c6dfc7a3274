"""What a bench file says of a component with MBoot: its address, and what its bootloader does not report."""

from __future__ import annotations

from typing import Annotated

from ...transports.serial import MOST_RATE
from ..can.question import ArbitrationId, CanEnter, CanVersion, QuestionAddress
from ..flasher import Address
from ..memory_runs import MemoryRun, check_apart, listed
from ..serial.boot_pins import Output, PinSettings
from ..serial.profile import SerialProfile
from ..settings import Before, Field, Settings

EXAMPLE = "[{start = 0x6000_0000, size = 0x40_0000, erase_unit = 0x1000}]"


def _listed(value: object) -> object:
    return listed(value, EXAMPLE)


class MbootProfile(Settings):
    """What the bootloader does not report of its part."""

    part: str | int = ""
    """The expected part, by the SYSTEM DEVICE ID that its bootloader reports (`0x25152486`), or a piece of it as text. Another
    part is refused. "": any part."""
    memory: Annotated[tuple[MemoryRun, ...], Before(_listed)] = ()
    """The flash, as a list of runs of erase units. Default: as the bootloader reports it (FLASH START, SIZE, SECTOR SIZE),
    without its own region (RESERVED REGIONS)."""
    memory_id: int = Field(default=0, ge=0, le=0xFFFF_FFFF)
    """Number of the memory that `memory` describes, as the part's reference manual has it: 0 is the internal flash."""
    write_alignment: int = Field(default=16, ge=1, le=4096)
    """Bytes to which each write is aligned: a power of two, and a multiple of what the flash programs at once (4, 8 or 16 bytes
    of Kinetis parts; 512 of LPC55)."""
    sb: bool = False
    """Whether the part takes `.sb` files: what such a file erases, writes and starts is said in the file alone, and the
    bootloader checks it."""
    erase: float = Field(default=1.0, gt=0, le=60)
    """Seconds that erasing one unit may take at most."""
    program: float = Field(default=0.1, gt=0, le=60)
    """Seconds that programming one packet may take at most."""
    answer: float = Field(default=0.5, gt=0, le=60)
    """Seconds that the bootloader has for an answer, its work and the wire's time aside."""

    def check_together(self) -> None:
        check_apart(self.memory)
        if self.write_alignment & self.write_alignment - 1:
            raise ValueError(f"write_alignment is not a power of two: {self.write_alignment}")


class MbootCanAddress(QuestionAddress):
    """Under which ids the bootloader speaks, and how its application is asked for its version."""

    request: ArbitrationId = 0x321
    """Arbitration id of what the bootloader takes. Above 0x7FF it is an extended one."""
    response: ArbitrationId = 0x123
    """Arbitration id of what the bootloader answers."""

    def check_together(self) -> None:
        super().check_together()
        ids = [self.request, self.response, self.version_request, self.version_response]
        given = [number for number in ids if number is not None]
        if len(set(given)) < len(given):
            raise ValueError("two of request, response, version_request and version_response are the same")

    def label(self) -> str:
        return f"0x{self.request:X}/0x{self.response:X}"


class MbootCanProfile(MbootProfile):
    """What the bootloader does not report of its part, and how a part on CAN gets into it."""

    enter: CanEnter = CanEnter()
    """The frame by which the application starts its bootloader."""
    start: float = Field(default=5.0, gt=0, le=600)
    """Seconds for which the bootloader is pinged once the application was asked to start it, or a person is to reset the part."""
    version: CanVersion = CanVersion()
    """How the application is asked for its version."""


class MbootUartAddress(Address):
    """The serial bus is the address: one part is on it."""


class MbootPins(PinSettings):
    """How the modem lines bring the part into its bootloader: its boot pin active while the part leaves its reset."""

    boot: Output = "none"
    """The modem line that drives the boot pin (BOOTCFG, NMI, ISP). `"none"`: a person does, or the bootloader waits after each
    reset for a ping."""
    boot_asserted: bool = True
    """Whether the asserted line (low on the wire) selects the bootloader."""

    @property
    def select_line(self) -> tuple[Output, bool]:
        return self.boot, self.boot_asserted


class MbootUartProfile(MbootProfile, SerialProfile):
    """What the bootloader does not report of its part, and how a part on a serial line gets into it."""

    entry: MbootPins = MbootPins()
    """How the modem lines bring the part into its bootloader."""
    enter: str = ""
    """Text that makes the application start its bootloader, sent at the application's bit rate. "": nothing is sent."""
    app_baudrate: int | None = Field(default=None, gt=0, le=MOST_RATE)
    """Bit rate of the application, in bit/s. Default: the bus's `baudrate`."""
