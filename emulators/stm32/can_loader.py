"""The commands of the STM32's system-memory bootloader on CAN and on CAN FD, from the part's side.

On CAN it follows AN3154 and AN2662, 3 (the same loader, with more figures). Where they leave open how many ACKs there are,
`shape` chooses: "rom" as hosts that were tried with ROMs expect it (canprog, and others in public), "openbl" as the loader that
ST publishes (STMicroelectronics/stm32-mw-openbl, openbl_can_cmd.c). On CAN FD it follows openbl_fdcan_cmd.c, which AN5405
describes. A command is the frame's id; answers go under it, and an unknown one gets NACK. Where data or numbers of erase units
are due, any frame is taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .part import Stm32Memory

ACK, NACK = b"\x79", b"\x1f"
INITIALISE = 0x79
OPENER = (0x111, b"\x5a")
SPECIAL_ERASES = {0xFFFF: None, 0xFFFE: 1, 0xFFFD: 2}
"""Extended Erase: the special codes, and the bank that each erases (None: all)."""
LEFT_BY_PROTECTION = (0x00, 0x01, 0x02, 0x03, 0x92)
"""What readout protection leaves (AN2662, table 4)."""
VERSION = 0x20
SPEEDS = {1: 125_000, 2: 250_000, 3: 500_000, 4: 1_000_000}


class Controller(Protocol):
    """The part's CAN controller."""

    def receive(self) -> tuple[int, bytes]: ...

    def send(self, identifier: int, data: bytes) -> None: ...

    def change_bit_rate(self, bitrate: int) -> None:
        """Takes its time."""

    def reset_itself(self) -> None: ...


class CommandRefused(Exception):
    """The command ends with NACK."""


class CanLoader:
    """`shape`: "rom" or "openbl"."""

    frame = 8
    version = VERSION

    def __init__(self, controller: Controller, memory: Stm32Memory, *, shape: str) -> None:
        self._controller = controller
        self._memory = memory
        self._is_openbl = shape == "openbl"
        self._command = 0
        self._buffer = bytearray(320)
        """What the last frames held: a short frame leaves the rest as it was."""
        self._go_to: int | None = None
        self._commands: dict[int, Callable[[], None]] = {
            0x00: self._get,
            0x01: self._get_version,
            0x02: self._get_id,
            **({0x03: self._speed} if self.frame == 8 else {}),
            0x11: self._read_memory,
            0x21: self._go,
            0x31: self._write_memory,
            self.erase_code: self._erase,
            0x63: self._write_protect,
            0x73: self._write_unprotect,
            0x82: self._readout_protect,
            0x92: self._readout_unprotect,
        }

    erase_code = 0x43

    def run(self) -> int:
        """Serves commands until Go: the address to start at."""
        self._go_to = None
        self._first_frame()
        while self._go_to is None:
            self._serve(*self._controller.receive())
        return self._go_to

    def _first_frame(self) -> None:
        """By this the ROM measures the bit rate: it is answered where hosts send it for that."""
        identifier, data = self._controller.receive()
        if self._is_openbl:
            self._serve(identifier, data)
        elif identifier == INITIALISE:
            self._controller.send(identifier, ACK)

    def _serve(self, identifier: int, data: bytes) -> None:
        self._command = identifier
        self._take(data, 0)
        try:
            if identifier not in self._commands:
                raise CommandRefused
            if self._memory.options.rdp and identifier not in LEFT_BY_PROTECTION:
                self._protected()
                return
            self._commands[identifier]()
        except CommandRefused:
            self._send(NACK)

    def _protected(self) -> None:
        raise CommandRefused

    # Frames.

    def _take(self, data: bytes, at: int) -> None:
        self._buffer[at : at + len(data)] = data

    def _receive(self, at: int) -> None:
        self._take(self._controller.receive()[1], at)

    def _send(self, data: bytes) -> None:
        self._controller.send(self._command, data)

    def _accept(self, accepted: bool = True) -> None:
        if not accepted:
            raise CommandRefused
        self._send(ACK)

    @property
    def _address(self) -> int:
        return int.from_bytes(self._buffer[:4], "big")

    # Commands.

    def _get(self) -> None:
        for data in (
            ACK,
            bytes([len(self._commands)]),
            bytes([self.version]),
            *(bytes([code]) for code in self._commands),
        ):
            self._send(data)
        self._send(ACK)

    def _get_version(self) -> None:
        for data in (ACK, bytes([self.version]), bytes(2), ACK):
            self._send(data)

    def _get_id(self) -> None:
        for data in (ACK, self._memory.part.product_id.to_bytes(2, "big"), ACK):
            self._send(data)

    def _speed(self) -> None:
        """The second ACK comes at the new bit rate."""
        code = self._buffer[0]
        self._accept(code in SPEEDS)
        self._controller.change_bit_rate(SPEEDS[code])
        self._send(ACK)

    def _read_memory(self) -> None:
        address, size = self._address, self._buffer[4] + 1
        self._accept(self._memory.is_readable(address) and self._memory.is_readable(address, size))
        data = self._memory.read(address, size)
        whole = size - size % self.frame
        for at in range(0, whole, self.frame):
            self._send(data[at : at + self.frame])
        self._send_rest(data[whole:])
        self._send(ACK)

    def _send_rest(self, data: bytes) -> None:
        if self._is_openbl:
            for byte in data:
                self._send(bytes([byte]))
        elif data:
            self._send(data)

    def _write_memory(self) -> None:
        address, size = self._address, self._buffer[4] + 1
        self._accept(self._memory.is_writable(address))
        for at in range(0, size, self.frame):
            self._receive(at)
            self._data_taken()
        self._accept(size % 4 == 0 and self._memory.write(address, bytes(self._buffer[:size])))

    def _data_taken(self) -> None:
        self._send(ACK)

    def _go(self) -> None:
        self._accept(self._memory.is_writable(self._address))
        self._go_to = self._address

    def _erase(self) -> None:
        count = self._buffer[0] + 1
        self._send(ACK)
        if count == 256:
            self._accept(self._memory.erase_all())
            if self._is_openbl:
                self._send(ACK)
            return
        if self._is_openbl:
            self._send(ACK)
        for at in range(0, count, 8):
            self._receive(at)
            if not self._is_openbl or count - at >= 8:
                self._send(ACK)
        self._memory.erase(self._buffer[:count])
        # What goes wrong is not managed: "no error is returned" (AN3154, 3.9).
        self._send(ACK)

    def _write_protect(self) -> None:
        count = self._buffer[0] + 1
        self._send(ACK)
        for at in range(0, count, 8):
            self._receive(at)
            self._send(ACK)
        self._memory.protect(self._buffer[:count])
        self._ended()

    def _write_unprotect(self) -> None:
        self._send(ACK)
        self._memory.protect(())
        self._ended()

    def _readout_protect(self) -> None:
        self._send(ACK)
        self._memory.protect_readout()
        self._ended()

    def _readout_unprotect(self) -> None:
        self._send(ACK)
        self._memory.unprotect_readout()
        self._ended()

    def _ended(self) -> None:
        self._send(ACK)
        self._controller.reset_itself()


class FdcanLoader(CanLoader):
    """`opener`: only 0x111#5A starts it, as of protocol 2.2 on (AN5405, 1)."""

    frame = 64
    erase_code = 0x44

    def __init__(self, controller: Controller, memory: Stm32Memory, *, opener: bool) -> None:
        super().__init__(controller, memory, shape="openbl")
        self._needs_opener = opener
        self.version = 0x22 if opener else 0x20

    def _first_frame(self) -> None:
        while self._needs_opener and self._controller.receive() != OPENER:
            pass
        if not self._needs_opener:
            self._serve(*self._controller.receive())

    def _serve(self, identifier: int, data: bytes) -> None:
        """The command is the id's lowest 8 bits; the answer goes under the whole id."""
        if identifier > 0xFF:
            self._command = identifier
            self._send(NACK)
            return
        super()._serve(identifier, data)

    def _protected(self) -> None:
        """On an STM32H7 reading ends in a bus error, without an answer (andoma/mios, stm32_fdcan_flasher.c)."""
        if not self._memory.part.name.startswith("stm32h7"):
            raise CommandRefused

    def _send_rest(self, data: bytes) -> None:
        if data:
            self._send(data.ljust(64, b"\xff"))

    def _data_taken(self) -> None:
        """Frames of data are not acknowledged."""

    def _go(self) -> None:
        self._send(ACK)
        super()._go()

    def _erase(self) -> None:
        self._send(ACK)
        count = int.from_bytes(self._buffer[:2], "big")
        if count >= 0xFFF0:
            self._accept(count in SPECIAL_ERASES and self._memory.erase_all(SPECIAL_ERASES[count]))
            return
        self._send(ACK)
        self._receive(0)
        listed = bytes(self._buffer[:64])
        pages = [int.from_bytes(listed[at : at + 2], "big") for at in range(0, 64, 2)]
        self._memory.erase(pages[:count])
        self._send(ACK)

    def _write_protect(self) -> None:
        self._send(ACK)
        self._memory.protect(self._buffer[1 : 1 + self._buffer[0]])
        self._ended()
