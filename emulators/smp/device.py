"""`SmpDevice`: an emulated sensor with MCUboot and a Zephyr application, updated over SMP on a serial line.

The loader is in mcuboot/loader.py, the commands in images.py, recovery.py and os_group.py, the part in part.py and
parts.toml; this module has the bench file's keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from ..device import DeviceSpec, factory_content
from ..keys import Range
from ..mcuboot import image as mcuboot_image
from ..mcuboot.loader import Mode
from ..serial.device import UartDevice
from ..serial.keys import BootPinKeys
from ..serial.wire import UartWire
from .board import Build, Log, SmpBoard
from .part import SmpPart, parts

MIN_BUFFER = 64
MAX_BUFFER = 32_768


@dataclass(frozen=True, kw_only=True)
class SmpKeys(BootPinKeys):
    """The `emulated` table. Every method raises BadDevice."""

    strap: ClassVar[str] = "recovery"

    part: str
    """Which part it is, with what MCUboot does on it."""
    firmware: str | None = None
    """MCUboot image that slot 0 of a new part holds. A relative path starts at the bench file's folder. Default: the slot is
    erased."""
    app_baudrate: Annotated[int, Range(1)] = 115_200
    """Bit rate of the application's line, and of MCUboot's line without `recovery_baudrate`, in bit/s."""
    mode: Mode | None = None
    """What MCUboot does with a new image: "swap" exchanges it with the old one, "overwrite" copies it over the old one, with
    "highest" the slot with the higher version runs. Default: as the part."""
    framing: Literal["console", "raw"] = "console"
    """How packets are framed: "console" as lines of base64, "raw" not at all."""
    build: Literal["new", "old"] = "new"
    """Which firmware the part has. With "old" SMP has version 1 only; `rc` is also reported for some successes; there are
    no parameters, slot info, bootloader info, nor comparison with the hash of the upload; serial recovery has no echo, hashes,
    flags and states."""
    buf_size: Annotated[int, Range(MIN_BUFFER, MAX_BUFFER)] = 384
    """Bytes of each of the application's buffers for packets. An answer that is larger is refused."""
    buf_count: Annotated[int, Range(1, 64)] = 4
    """Number of the application's buffers for packets. A packet that comes while all are in use is lost."""
    recovery_buf_size: Annotated[int, Range(MIN_BUFFER, MAX_BUFFER)] = 1024
    """Bytes of the only buffer of serial recovery."""
    progressive_erase: bool = False
    """Whether sectors are erased when their data come. Otherwise all are erased with the first chunk."""
    serial_recovery: bool = True
    """Whether MCUboot stays in serial recovery if no slot can be booted."""
    recovery_wait: Annotated[float, Range(0)] = 0.0
    """Seconds after each reset within which a packet keeps MCUboot in serial recovery."""
    recovery_baudrate: Annotated[int, Range(0)] = 0
    """Bit rate of MCUboot's line in bit/s. 0: as `app_baudrate`."""
    recovery: bool = False
    """Whether the pin that selects serial recovery is held high."""
    wiring: str = "none"
    """What the adapter's outputs drive: "dtr-reset,rts-recovery", "rts-reset,dtr-recovery", or one of the two alone. An asserted
    output pulls its pin low. With "!" before an output ("dtr-reset,!rts-recovery") a transistor turns that round. While no
    program has the port open, both outputs are released."""
    no_downgrade: bool = False
    """Whether MCUboot refuses a version below the running one."""
    confirms: bool = False
    """Whether the application confirms itself."""
    watchdog: Annotated[float, Range(0)] = 0.0
    """Seconds after which an application that crashed is reset. 0: never."""
    log: Log = Log.NONE
    """Which other text is on the console: "none"; "lines" between those of packets; "torn" now and then within the line of a
    packet, which is then lost."""
    quiet_reset: bool = False
    """Whether a reset comes without an answer."""
    mute: bool = False
    """Whether the part never answers."""

    def made(self) -> Build:
        is_new = self.build == "new"
        return Build(
            raw=self.framing == "raw",
            buffer_size=self.buf_size,
            buffers=self.buf_count,
            recovery_size=self.recovery_buf_size,
            version=1 if is_new else 0,
            told=not is_new,
            params=is_new,
            informs=is_new,
            full_recovery=is_new,
            checks=is_new,
            progressive=self.progressive_erase,
            recovery=self.serial_recovery,
            recovery_wait=self.recovery_wait,
            recovery_baudrate=self.recovery_baudrate,
            confirms=self.confirms,
            watchdog=self.watchdog,
            quiet_reset=self.quiet_reset,
            log=self.log,
            mute=self.mute,
        )


class SmpDevice(UartDevice):
    """One part, alone on its line.

    After a reset MCUboot does what the slots' trailers say, and starts the image in slot 0 if its hash is right; if
    there is none it stays in serial recovery. An image is MCUboot's format; what is in it must begin with an ARM vector
    table for where it lies, or it crashes. The application answers SMP, and on a console the bench file's version question.
    """

    keys = SmpKeys
    board: SmpBoard

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = SmpKeys.of(spec.settings, self.part_names())
        part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = SmpBoard(
            spec.name,
            self.supply,
            wire,
            settings.pins(),
            settings.sensor(spec.version),
            settings.made(),
            ram=part.ram,
            facts=_facts(spec.name, part),
            pace=spec.pace,
        )
        self.flash = part.make_flash(self.supply, spec.flash_path, self.board.work)
        self.loader = part.make_loader(self.flash, settings.mode or part.mode, no_downgrade=settings.no_downgrade)
        self.board.loader = self.loader
        factory_content(spec, self.flash, fresh=fresh, start=self.application_start)
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    @property
    def application_start(self) -> int:
        """Slot 0, where the image's header lies."""
        return self.loader.pairs[0].primary.start

    def make_firmware(self, version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
        """An MCUboot image of `size` bytes."""
        start = self.application_start
        return mcuboot_image.around_firmware(version, product, manufacturer, size, start=start, seed=seed)


def _facts(name: str, part: SmpPart) -> dict[str, str]:
    """By the letters that uname has for them."""
    return {
        "s": "Zephyr",
        "n": name,
        "r": "v4.4.0",
        "v": "4.4.0",
        "m": "arm",
        "p": part.processor,
        "i": part.board,
        "o": "Zephyr",
    }
