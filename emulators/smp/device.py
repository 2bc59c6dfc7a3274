"""`SmpDevice`: an emulated sensor with MCUboot and a Zephyr application, updated over SMP on a serial line.

The loader is in mcuboot/loader.py, the commands in images.py, recovery.py and os_group.py, the part in part.py and
parts.toml; this module has the bench file's keys.
"""

from __future__ import annotations

from ..device import BadDevice, DeviceSpec, factory_content
from ..mcuboot import image as mcuboot_image
from ..mcuboot.loader import Mode
from ..serial.device import UartDevice
from ..serial.settings import UartSettings
from ..serial.wire import UartWire
from .board import Build, Log, SmpBoard
from .part import SmpPart, parts

MIN_BUFFER = 64
MAX_BUFFER = 65_535


class SmpDevice(UartDevice):
    """One part, alone on its line.

    After a reset MCUboot does what the slots' trailers say, and starts the image in slot 0 if its hash is right; if
    there is none it stays in serial recovery. An image is MCUboot's format; what is in it must begin with an ARM vector
    table for where it lies, or it crashes. The application answers SMP, and on a console the bench file's version question.

    The keys of the `emulated` table:

    - `part`: a table of parts.toml, such as "nrf52840"; needed.
    - `firmware`: the image that slot 0 of a new part holds.
    - `mode`: what MCUboot does with a new image: "swap", "overwrite", "highest". Default: as the part.
    - `framing`: "console" (default) or "raw".
    - `build`: "new" (default), or "old": SMP version 1 alone, `rc` also after some successes, no parameters, no slot info,
      no bootloader info, no comparison with the hash; serial recovery without echo, hashes, flags and states.
    - `buf_size`, `buf_count`: the application's buffers for packets. Default 384, 4. `recovery_buf_size`: serial
      recovery's one. Default 1024.
    - `progressive_erase`: sectors are erased as their data come. Default false: with the first chunk.
    - `serial_recovery`: whether MCUboot has it. Default true. `recovery_wait`: seconds after each reset for which
      it waits for a packet. Default 0. `recovery_baudrate`: of MCUboot's line. Default: as `app_baudrate`.
    - `wiring`: what the adapter's outputs drive: "dtr-reset,rts-recovery" and so on, as for an STM32. `recovery`: true
      holds that pin high.
    - `no_downgrade`: MCUboot refuses a lower version than the running one. Default false.
    - `confirms`: the application confirms itself. Default false.
    - `watchdog`: seconds after which an application that crashed is reset. Default 0: never.
    - `log`: other text on the console: "none" (default), "lines", "torn" (now and then within a line of a packet).
    - `app_baudrate`, `app_parity`: the line. Default 115200, "N".
    - `quiet_reset`: a reset comes without an answer. `mute`: nothing is ever answered. Default false.
    """

    board: SmpBoard

    def __init__(self, spec: DeviceSpec, wire: UartWire) -> None:
        settings = _Settings(spec.settings)
        part = settings.part()
        mode = Mode(settings.word("mode", part.mode, [mode.value for mode in Mode]))
        no_downgrade = settings.choice("no_downgrade", False)
        fresh = spec.is_new
        super().__init__(spec, wire)
        self.board = SmpBoard(
            spec.name,
            self.supply,
            wire,
            settings.pins("recovery"),
            settings.sensor(spec.version),
            settings.build(),
            ram=part.ram,
            facts=_facts(spec.name, part),
            pace=spec.pace,
        )
        settings.refuse_others()
        self.flash = part.make_flash(self.supply, spec.flash_path, self.board.work)
        self.loader = part.make_loader(self.flash, mode, no_downgrade=no_downgrade)
        self.board.loader = self.loader
        factory_content(spec, self.flash, fresh=fresh, start=self.application_start)
        self.board.start()

    @property
    def application_start(self) -> int:
        """Slot 0, where the image's header lies."""
        return self.loader.pairs[0].primary.start

    def make_firmware(self, version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
        """An MCUboot image of `size` bytes."""
        start = self.application_start
        return mcuboot_image.around_firmware(version, product, manufacturer, size, start=start, seed=seed)


class _Settings(UartSettings):
    """The `emulated` table. Every method raises BadDevice."""

    def part(self) -> SmpPart:
        return parts()[self.word("part", "", list(parts()))]

    def word(self, key: str, default: str, words: list[str]) -> str:
        value: str = self._get(key, str, default)
        if value not in words:
            raise BadDevice(key, f"{value!r} is none of {', '.join(words)}")
        return value

    def build(self) -> Build:
        is_new = self.word("build", "new", ["new", "old"]) == "new"
        return Build(
            raw=self.word("framing", "console", ["console", "raw"]) == "raw",
            buffer_size=self._size("buf_size", 384),
            buffers=self._count("buf_count", 4),
            recovery_size=self._size("recovery_buf_size", 1024),
            version=1 if is_new else 0,
            told=not is_new,
            params=is_new,
            informs=is_new,
            full_recovery=is_new,
            checks=is_new,
            progressive=self.choice("progressive_erase", False),
            recovery=self.choice("serial_recovery", True),
            recovery_wait=self.number("recovery_wait", 0),
            recovery_baudrate=int(self.number("recovery_baudrate", 0)),
            confirms=self.choice("confirms", False),
            watchdog=self.number("watchdog", 0),
            quiet_reset=self.choice("quiet_reset", False),
            log=Log(self.word("log", Log.NONE, [log.value for log in Log])),
            mute=self.choice("mute", False),
        )

    def _size(self, key: str, default: int) -> int:
        value: int = self._get(key, int, default)
        if not MIN_BUFFER <= value <= MAX_BUFFER:
            raise BadDevice(key, f"{value} is not between {MIN_BUFFER} and {MAX_BUFFER}")
        return value

    def _count(self, key: str, default: int) -> int:
        value: int = self._get(key, int, default)
        if not 1 <= value <= 64:
            raise BadDevice(key, f"{value} is not between 1 and 64")
        return value


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
