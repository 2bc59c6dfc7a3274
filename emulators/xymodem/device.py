"""What the emulated sensors whose loader takes a file by XMODEM or YMODEM have in common: the part, the bench file's keys.

The loaders are in loaders.py, the receiving end in receiver.py, the parts in loaders.toml.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from .. import application
from ..application import Application
from ..device import BadDevice, DeviceSpec, factory_content
from ..flash import NorFlash
from ..serial.board import Sensor, Stage
from ..serial.boot_pin_board import BootPinBoard, Pins
from ..serial.device import UartDevice
from ..serial.line import Line
from ..serial.settings import UartSettings
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
        question = self._sensor.question
        heard = b""
        while not heard.endswith(self._called_by):
            heard = (heard + self.receive(1))[-200:]
            if question and heard.endswith(question):
                self.send(self._sensor.answer(found.version))
        self.running = None


class XymodemDevice(UartDevice):
    """One part, alone on its line.

    After a reset it starts the loader if the strap pin `boot` is high or its flash holds no whole application, else the
    application, which answers the bench file's version question (`send`, and a line that `match` fits, such as "FW
    1.5.0") and ignores everything else.

    The keys of the `emulated` table:

    - `part`: a table of loaders.toml; needed.
    - `firmware`: raw binary that a new part's flash holds.
    - `boot`: true holds the strap pin high. Default false.
    - `wiring`: what the adapter's outputs drive: "dtr-reset,rts-boot", "rts-reset,dtr-boot", or one of the two alone; an
      asserted output pulls its pin low, with "!" before it ("dtr-reset,!rts-boot") a transistor turns that round. Default
      "none".
    - `enter`: what the application is sent to start its loader. Default "": nothing does.
    - `baudrate`: of the loader. Default 115200.
    - `app_baudrate`, `app_parity`: the application's line. Default 115200, "N".
    - `asks`: what the receiver asks for: "crc", "checksum", "stream" (YMODEM-g, of a part that loads into RAM). Default
      "crc".
    - `timeout`: seconds that it waits for a block. Default: as the loader.
    - `trouble`: what goes wrong in a transfer, one of `Trouble`; `trouble_at`: at which block, 0 for the end of the file.
      Default "none", 1.
    - `mute`: true: the part never answers.
    """

    board: XymodemBoard
    protocol: ClassVar[str]

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = _Settings(spec.settings)
        part = settings.part(self.protocol)
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = XymodemBoard(
            spec.name,
            self.supply,
            wire,
            settings.pins("boot"),
            settings.sensor(spec.version),
            settings.loader_line(),
            called_by=settings.text("enter").encode(),
            mute=settings.choice("mute", False),
            pace=spec.pace,
        )
        receiver = settings.receiver(self.board, part)
        settings.refuse_others()
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

    def settle(self) -> None:
        """Also waits until the part has done what it was asked."""
        self.board.has_heard_all()
        super().settle()


class _Settings(UartSettings):
    """The `emulated` table. Every method raises BadDevice."""

    def part(self, protocol: str) -> LoaderPart:
        return self.one_of({name: part for name, part in parts().items() if protocol in part.protocols})

    def text(self, key: str) -> str:
        value: str = self._get(key, str, "")
        return value

    def loader_line(self) -> Line:
        baudrate = int(self.number("baudrate", 115_200))
        if baudrate < 1:
            raise BadDevice("baudrate", f"{baudrate} is not a bit rate")
        return Line(baudrate)

    def receiver(self, board: XymodemBoard, part: LoaderPart) -> Callable[[], Receiver]:
        asks = self._get("asks", str, "crc")
        streams = part.loader == "shell" and "ymodem" in part.protocols
        if asks not in ASKS or (part.loader == "gecko" and asks != "crc") or (asks == "stream" and not streams):
            raise BadDevice("asks", f"{asks!r} is nothing that this part asks for")
        trouble = self._get("trouble", str, "none")
        if trouble not in list(Trouble):
            raise BadDevice("trouble", f"{trouble!r} is none of {', '.join(Trouble)}")
        at = int(self.number("trouble_at", 1))
        timeout = self.number("timeout", part.timeout)
        if not timeout:
            raise BadDevice("timeout", "0 is not a time to wait")
        kind = GeckoReceiver if part.loader == "gecko" else Receiver

        def make() -> Receiver:
            return kind(board, ask=ASKS[asks], asks=part.asks, timeout=timeout, trouble=Trouble(trouble), trouble_at=at)

        return make


class XmodemDevice(XymodemDevice):
    """An emulated sensor whose loader takes a file by XMODEM. See XymodemDevice."""

    protocol = "xmodem"


class YmodemDevice(XymodemDevice):
    """An emulated sensor whose loader takes a file by YMODEM. See XymodemDevice."""

    protocol = "ymodem"
