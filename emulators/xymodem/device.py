"""What the emulated sensors whose loader takes a file by XMODEM or YMODEM have in common: the part, the bench file's keys.

The loaders are in loaders.py, the receiving end in receiver.py, the parts in loaders.toml.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from .. import application
from ..application import Application
from ..device import BadDevice, DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range
from ..serial.board import Sensor, Stage
from ..serial.boot_pin_board import BootPinBoard, Pins
from ..serial.device import UartDevice
from ..serial.keys import BootPinKeys
from ..serial.line import Line
from ..serial.wire import UartWire
from ..supply import Supply
from .loaders import GeckoLoader, GeckoReceiver, IapLoader, ShellLoader, XymodemLoader
from .receiver import Receiver, Trouble
from .slot import LoaderPart, parts

LOADERS: dict[str, type[XymodemLoader]] = {"gecko": GeckoLoader, "iap": IapLoader, "shell": ShellLoader}
ASKS = {"crc": b"C", "checksum": b"\x15", "stream": b"G"}


class XymodemBoard(BootPinBoard):
    """The part on its board. `line`: the loader's. `called_by`: what the application is sent to start the loader; b"":
    nothing does. `mute`: the part never answers."""

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        pins: Pins,
        sensor: Sensor,
        line: Line,
        *,
        called_by: bytes = b"",
        mute: bool = False,
        pace: float = 1.0,
    ) -> None:
        super().__init__(name, supply, wire, pins, sensor, mute=mute, pace=pace)
        self.loader: XymodemLoader
        self.flash: NorFlash
        self._line = line
        self._called_by = called_by

    def firmware(self) -> None:
        if not self._comes_out_of_reset():
            return
        wanted = self._strap or not self.loader.is_bootable()
        while True:
            if wanted:
                self._uart.measuring = False
                self._uart.line = self._line
                self._enter(Stage.LOADER)
                self.loader.run()
            self._run_application(application.find(self.flash, self.flash.base))
            if self.stage is Stage.HUNG or not self._called_by:
                return
            wanted = True

    def has_heard_all(self, seconds: float = 5.0) -> bool:
        """Waits until nothing is on its way to the part that it has not taken; False after `seconds`."""
        with self.changed:
            return self.changed.wait_for(lambda: not (self.supply.is_on and self._uart.expected()), seconds)

    def _run_application(self, found: Application | None) -> None:
        """Answers its question; returns once it is called into its loader, or hangs."""
        if found is None or not self._called_by:
            super()._run_application(found)
            return
        self.running = found
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        self._answers_until(self._called_by, found)
        self.running = None


@dataclass(frozen=True, kw_only=True)
class XymodemKeys(BootPinKeys):
    """The `emulated` table. Every method raises BadDevice."""

    strap: ClassVar[str] = "boot"

    part: str
    """Which bootloader it is, and on which memory."""
    boot: bool = False
    """Whether the strap pin that selects the bootloader is held high."""
    wiring: str = "none"
    """What the adapter's outputs drive: "dtr-reset,rts-boot", "rts-reset,dtr-boot", or one of the two alone. An asserted
    output pulls its pin low. With "!" before an output ("dtr-reset,!rts-boot") a transistor turns that round. While no program
    has the port open, both outputs are released."""
    enter: str = ""
    """The text that the application is sent to start the bootloader. "": nothing starts it."""
    baudrate: Annotated[int, Range(1)] = 115_200
    """Bit rate of the bootloader's line in bit/s."""
    asks: Literal["crc", "checksum", "stream"] = "crc"
    """What the receiver asks for. "stream" (YMODEM-g) is for a YMODEM part that loads into RAM. The Gecko Bootloader asks for
    "crc" only."""
    timeout: Annotated[float, Range(0, above=True)] | None = None
    """Seconds that the receiver waits for a block. Default: as the real bootloader."""
    trouble: Trouble = Trouble.NONE
    """What goes wrong in each transfer: the answer is lost once ("lost-ack"), is sent twice ("double-ack"), or comes after
    other text ("log"); the block is refused each time ("nak"); the transfer is cancelled ("cancel"); nothing is answered from
    there on ("silence"); other bytes than an answer are sent ("garbage"); the bootloader is back at its prompt without an
    answer ("gone")."""
    trouble_at: Annotated[int, Range(0)] = 1
    """Number of the block at which the trouble happens. 0: the end of the file."""
    mute: bool = False
    """Whether the part never answers."""

    def receiver(self, board: XymodemBoard, part: LoaderPart) -> Callable[[], Receiver]:
        asks, timeout = self.asks, part.timeout if self.timeout is None else self.timeout
        streams = part.loader == "shell" and "ymodem" in part.protocols
        if (part.loader == "gecko" and asks != "crc") or (asks == "stream" and not streams):
            raise BadDevice("asks", f"{asks!r} is nothing that this part asks for")
        kind = GeckoReceiver if part.loader == "gecko" else Receiver

        def make() -> Receiver:
            return kind(
                board, ask=ASKS[asks], asks=part.asks, timeout=timeout, trouble=self.trouble, trouble_at=self.trouble_at
            )

        return make


class XymodemDevice(UartDevice):
    """One part, alone on its line.

    After a reset it starts the loader if the strap pin `boot` is high or its flash holds no whole application, else the
    application, which answers the bench file's version question (`send`, and a line that `match` fits, such as "FW
    1.5.0") and ignores everything else.
    """

    keys = XymodemKeys
    board: XymodemBoard
    protocol: ClassVar[str]

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = XymodemKeys.of(spec.settings, self.part_names())
        part = parts()[settings.part]
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = XymodemBoard(
            spec.name,
            self.supply,
            wire,
            settings.pins(),
            settings.sensor(spec.version),
            Line(settings.baudrate),
            called_by=settings.enter.encode(),
            mute=settings.mute,
            pace=spec.pace,
        )
        receiver = settings.receiver(self.board, part)
        self.flash = NorFlash(
            part.base,
            [part.pages],
            self.supply,
            program_unit=part.program_unit,
            path=spec.flash_path,
            erase_seconds=lambda size: part.erase_seconds,
            program_seconds=part.program_seconds,
            busy=self.board.work,
        )
        factory_content(spec, self.flash, fresh=fresh)
        self.board.flash = self.flash
        self.board.loader = LOADERS[part.loader](self.board, part, self.flash, self.protocol, receiver)
        self.board.start()

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return [name for name, part in parts().items() if cls.protocol in part.protocols]

    def settle(self) -> None:
        """Also waits until the part has done what it was asked."""
        self.board.has_heard_all()
        super().settle()


class XmodemDevice(XymodemDevice):
    """An emulated sensor whose loader takes a file by XMODEM. See XymodemDevice."""

    protocol = "xmodem"


class YmodemDevice(XymodemDevice):
    """An emulated sensor whose loader takes a file by YMODEM. See XymodemDevice."""

    protocol = "ymodem"
