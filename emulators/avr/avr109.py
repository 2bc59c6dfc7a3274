"""`Avr109Device`: an emulated sensor on an ATmega32U4, updated through Caterina, the loader of the Arduino Leonardo.

Follows Atmel's AVR109 (Self-programming; the table of commands), as far as Caterina does. Its own ways:

- the part is the USB device: there is no line and no rate, and no modem line that resets it. The application starts the
  loader when its port is set to 1200 bit/s and DTR is not asserted; that reset is the watchdog's;
- it serves after a reset from outside or by the application, and after any other if the flash begins blank. After 8
  seconds in which no block was asked for or written it starts the application, if there is one; after Exit
  Bootloader half a second later. It never gives up a command whose bytes don't come;
- Block Load erases the page that the address is in, and writes it; Set Lock Bits is there, fuses are read only;
- an escape is not answered; what it doesn't know is answered by "?".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from ...transports import clock
from ..serial.board import Silence
from .board import AvrLoader, Reset
from .device import AvrDevice, UsbAvrKeys

NAME = b"CATERIN"
PART_CODE = b"\x44\x00"
"""The device code of an ATmega128, for a program that knows no other, and the list's end."""
DONE = b"\r"
UNKNOWN = b"?"
ESCAPE = 0x1B
EXIT_SECONDS = 0.5
"""How long after Exit Bootloader the application starts."""


class Caterina(AvrLoader):
    """The loader. Its address counts bytes of the flash; of the EEPROM it is the double."""

    def enters(self, cause: Reset) -> bool:
        return cause in (Reset.EXTERNAL, Reset.TOUCHED, Reset.NONE) or self._memory.starts_blank

    def run(self) -> None:
        self._address = 0
        self._low = b"\xff"
        self._keep_waiting()
        while True:
            try:
                code = self._board.receive(1, self._left())[0]
            except Silence:
                if self._memory.starts_blank:
                    self._keep_waiting()
                    continue
                return
            answer = self._obey(code)
            self._board.send(answer)

    def _keep_waiting(self) -> None:
        self._until = None if self.window is None else clock.monotonic() + self.window

    def _left(self) -> float | None:
        return None if self._until is None else max(0.0, self._until - clock.monotonic())

    def _take(self, count: int) -> bytes:
        return self._board.receive(count)

    def _obey(self, code: int) -> bytes:
        low, high, extended = self._memory.part.fuses
        plain: dict[int, bytes] = {
            ord("a"): b"Y",
            ord("b"): b"Y" + self._memory.part.page.to_bytes(2, "big"),
            ord("p"): b"S",
            ord("t"): PART_CODE,
            ord("S"): NAME,
            ord("V"): bytes(ord("0") + number for number in self._memory.part.version),
            ord("s"): self._memory.part.signature_bytes[::-1],
            ord("P"): DONE,
            ord("L"): DONE,
            ord("r"): bytes([self._memory.lock]),
            ord("F"): bytes([low]),
            ord("N"): bytes([high]),
            ord("Q"): bytes([extended]),
            ESCAPE: b"",
        }
        handlers: dict[int, Callable[[], bytes]] = {
            ord("A"): self._set_address,
            ord("B"): self._block_load,
            ord("g"): self._block_read,
            ord("e"): self._chip_erase,
            ord("E"): self._exit,
            ord("T"): self._select_device,
            ord("l"): self._set_lock,
            ord("c"): self._write_low_byte,
            ord("C"): self._write_high_byte,
            ord("m"): self._write_page,
            ord("R"): self._read_word,
            ord("D"): self._write_eeprom_byte,
            ord("d"): self._read_eeprom_byte,
        }
        if code in plain:
            return plain[code]
        return handlers.get(code, lambda: UNKNOWN)()

    def _set_address(self) -> bytes:
        self._address = int.from_bytes(self._take(2), "big") * 2
        return DONE

    def _exit(self) -> bytes:
        self._until = clock.monotonic() + EXIT_SECONDS
        return DONE

    def _select_device(self) -> bytes:
        self._take(1)
        return DONE

    def _chip_erase(self) -> bytes:
        """The application section."""
        for address in range(0, self._memory.part.boot, self._memory.part.page):
            self._memory.erase_page(address)
        return DONE

    def _set_lock(self) -> bytes:
        self._memory.set_lock(self._take(1)[0])
        return DONE

    # Blocks.

    def _block_load(self) -> bytes:
        self._keep_waiting()
        size = int.from_bytes(self._take(2), "big")
        memory = self._take(1)
        if memory == b"E":
            for byte in self._each(size):
                self._memory.write_eeprom(self._address // 2, byte)
                self._address += 2
            return DONE
        if memory != b"F":
            return UNKNOWN
        start = self._address
        self._memory.erase_page(start)
        word = b""
        for byte in self._each(size):
            word += byte
            if len(word) == 2:
                self._memory.fill(self._address, word)
                self._address += 2
                word = b""
        self._memory.write_page(start)
        return DONE

    def _each(self, size: int) -> list[bytes]:
        return [self._take(1) for _ in range(size)]

    def _block_read(self) -> bytes:
        self._keep_waiting()
        size = int.from_bytes(self._take(2), "big")
        memory = self._take(1)
        if memory == b"E":
            data = self._memory.read_eeprom(self._address // 2, size)
            self._address += 2 * size
            return data
        if memory != b"F":
            return UNKNOWN
        data = self._memory.read(self._address, size)
        self._address += size // 2 * 2
        return data

    # Single bytes and words.

    def _write_low_byte(self) -> bytes:
        self._low = self._take(1)
        return DONE

    def _write_high_byte(self) -> bytes:
        self._memory.fill(self._address, self._low + self._take(1))
        self._address += 2
        return DONE

    def _write_page(self) -> bytes:
        self._memory.write_page(self._address)
        return DONE

    def _read_word(self) -> bytes:
        return self._memory.read(self._address, 2)[::-1]

    def _write_eeprom_byte(self) -> bytes:
        self._memory.write_eeprom(self._address // 2, self._take(1))
        self._address += 2
        return DONE

    def _read_eeprom_byte(self) -> bytes:
        data = self._memory.read_eeprom(self._address // 2, 1)
        self._address += 2
        return data


class Avr109Device(AvrDevice):
    """One part, on its own port."""

    loaders: ClassVar[dict[str, type[AvrLoader]]] = {"caterina": Caterina}
    keys = UsbAvrKeys
