"""A real AVR bootloader on a simulated AVR: Debian's arduino-core-avr on libsimavr, and programs for it by avr-gcc.

The loaders are the stock hex files; Optiboot is built from the stock source, since Debian's compiler makes its hex file
20 bytes longer than the boot section: without the LED's blinking it fits. The part is a process (avr_host.c) that ends with
the pipe to it, so with the test in any case.

A pseudo-terminal has no modem lines. `AvrPort` is a SerialPort whose DTR is wired to the part's reset by that pipe.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from proxyflash.hil_tests.real.qemu import NotInstalled
from proxyflash.transports.serial.port import SerialPort

LOADERS = Path("/usr/share/arduino/hardware/arduino/avr/bootloaders")
HERTZ = 16_000_000


@dataclass(frozen=True)
class Board:
    """`baudrate`: the loader's, in bit/s; `programmer` and `part`: avrdude's names. Sizes and addresses in bytes."""

    name: str
    mcu: str
    part: str
    protocol: str
    programmer: str
    baudrate: int
    flash: int
    page: int
    boot: int


OPTIBOOT = Board("optiboot", "atmega328p", "m328p", "stk500v1", "arduino", 115_200, 0x8000, 128, 0x7E00)
BLINKING = Board("optiboot-1k", "atmega328p", "m328p", "stk500v1", "arduino", 115_200, 0x8000, 128, 0x7C00)
"""Optiboot with its LED's blinking, in a boot section of twice the size: it doesn't listen for 0.4 s after a reset."""
ATMEGABOOT = Board("atmegaboot", "atmega328p", "m328p", "stk500v1", "arduino", 57_600, 0x8000, 128, 0x7800)
WIRING = Board("wiring", "atmega2560", "m2560", "stk500v2", "wiring", 115_200, 0x4_0000, 256, 0x3E000)
BOARDS = (OPTIBOOT, BLINKING, ATMEGABOOT, WIRING)


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            raise NotInstalled(f"{program} is not installed")


@cache
def workshop() -> Path:
    """Where what is compiled goes; it is gone with this process."""
    folder = tempfile.TemporaryDirectory(prefix="proxyflash-avr-")
    _kept.append(folder)
    return Path(folder.name)


_kept: list[tempfile.TemporaryDirectory[str]] = []


def run(*command: Any) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr


@cache
def host() -> Path:
    """The compiled simulator."""
    need("gcc")
    if not Path("/usr/include/simavr/sim_avr.h").exists():
        raise NotInstalled("libsimavr-dev is not installed")
    program = workshop() / "avr_host"
    run("gcc", "-O2", "-w", "-o", program, Path(__file__).with_name("avr_host.c"), "-lsimavr", "-lelf")
    return program


@cache
def loader(board: Board) -> bytes:
    """What the boot section holds, from its start on."""
    if not LOADERS.is_dir():
        raise NotInstalled("arduino-core-avr is not installed")
    stock = {
        "atmegaboot": LOADERS / "atmega/ATmegaBOOT_168_atmega328.hex",
        "wiring": LOADERS / "stk500v2/stk500boot_v2_mega2560.hex",
    }
    source = stock.get(board.name) or _optiboot(board)
    raw = workshop() / f"{board.name}.bin"
    kind = "ihex" if source.suffix == ".hex" else "elf32-avr"
    run("avr-objcopy", "-I", kind, "-O", "binary", source, raw)
    return raw.read_bytes()


def _optiboot(board: Board) -> Path:
    """With the options of its Makefile, but for the place and the blinking."""
    elf = workshop() / f"{board.name}.elf"
    options = [
        "-Os",
        "-w",
        "-fno-inline-small-functions",
        "-fno-split-wide-types",
        "-nostartfiles",
        "-nostdlib",
        "-Wl,--relax",
    ]
    blinks = 3 if board is BLINKING else 0
    places = [f"-Wl,--section-start=.text={board.boot:#x}", f"-Wl,--section-start=.version={board.flash - 2:#x}"]
    settings = [f"-DF_CPU={HERTZ}L", f"-DBAUD_RATE={board.baudrate}", f"-DLED_START_FLASHES={blinks}"]
    need("avr-gcc")
    run("avr-gcc", f"-mmcu={board.mcu}", *options, *places, *settings, "-o", elf, LOADERS / "optiboot/optiboot.c")
    return elf


PROGRAM = r"""
#include <avr/eeprom.h>
#include <avr/io.h>
#include <avr/pgmspace.h>

static const uint8_t ballast[BALLAST] PROGMEM = {BALLAST_BYTES};
#ifdef WITH_EEPROM
uint8_t remembered[] EEMEM = "kept in the EEPROM";
#endif

static void say(const char *text)
{
    for (; *text; text++) {
        while (!(UCSR0A & _BV(UDRE0)));
        UDR0 = *text;
    }
}

int main(void)
{
    uint8_t last = pgm_read_byte(&ballast[BALLAST - 1]);
    UCSR0A = _BV(U2X0);
    UBRR0 = F_CPU / 8 / BAUD - 1;
    UCSR0B = _BV(RXEN0) | _BV(TXEN0);
    UCSR0C = _BV(UCSZ01) | _BV(UCSZ00);
    say(last == LAST ? "hello from " VERSION "\r\n" : "a torn program\r\n");
    for (;;) {
        while (!(UCSR0A & _BV(RXC0)));
        if (UDR0 == '\r')
            say("FW " VERSION "\r\n");
    }
}
"""
"""Greets, and answers each carriage return with its version. Its ballast is in flash, and its end is looked at."""


@cache
def program(board: Board, version: str, ballast: int, *, eeprom: bool = False) -> Path:
    """An ELF file for the board, with `ballast` bytes that differ from version to version in its flash."""
    need("avr-gcc")
    seed = sum(version.encode())
    data = [(seed * 31 + index * 7 + (index >> 8) * 13) % 251 for index in range(ballast)]
    name = f"{board.name}-{version}-{ballast}{'-eeprom' if eeprom else ''}"
    source, elf = workshop() / f"{name}.c", workshop() / f"{name}.elf"
    text = PROGRAM.replace("BALLAST_BYTES", ",".join(map(str, data))).replace("BALLAST", str(ballast))
    source.write_text(text.replace("VERSION", f'"{version}"').replace("LAST", str(data[-1])))
    settings = [f"-DF_CPU={HERTZ}L", f"-DBAUD={board.baudrate}L", *(["-DWITH_EEPROM"] if eeprom else [])]
    run("avr-gcc", f"-mmcu={board.mcu}", "-Os", "-Wno-overflow", *settings, "-o", elf, source)
    return elf


class AvrPart:
    """The running part. `url`: its UART, a pseudo-terminal, whose opening resets it."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.loader = loader(board)
        binary = workshop() / f"{board.name}.bin"
        self._folder = tempfile.TemporaryDirectory(prefix="proxyflash-avr-")
        self._process = subprocess.Popen(
            [host(), board.mcu, str(HERTZ), binary, hex(board.boot)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url.startswith("/dev/")

    def tell(self, order: str) -> None:
        """An order of avr_host.c's list."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(order + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ok\n", order

    def flash(self) -> bytes:
        return self._dump("flash")

    def eeprom(self) -> bytes:
        return self._dump("eeprom")

    def _dump(self, what: str) -> bytes:
        path = Path(self._folder.name) / what
        self.tell(f"{what} {path}")
        return path.read_bytes()

    def boot_section_is_whole(self) -> bool:
        return self.flash()[self.board.boot :].rstrip(b"\xff") == self.loader.rstrip(b"\xff")

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AvrPort(SerialPort):
    """The part's line, with DTR through a capacitor to its reset where `wired`."""

    part: AvrPart
    wired = True
    _dtr = True

    @classmethod
    def to(cls, part: AvrPart, *, wired: bool = True) -> AvrPort:
        port = cls.open(part.board.name, {"url": part.url, "baudrate": part.board.baudrate})
        port.part = part
        port.wired = wired
        # That opening it resets the part is noticed in its own time; this is not.
        part.tell("reset")
        return port

    def set_modem(self, *, dtr: bool | None = None, rts: bool | None = None) -> bool:
        if not self.wired:
            return False
        if dtr and not self._dtr:
            self.part.tell("reset")
        self._dtr = self._dtr if dtr is None else dtr
        return True
