"""`stm32-uart`: the STM32 system memory bootloader on a USART, by ST's AN3155 (the protocol) and AN2606 (the parts).

What is sent is in uart_commands.py and codec.py, how the part gets into its loader in serial/boot_pins.py, the order of things in
flasher.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ...transports.deadline import Deadline
from ...transports.serial.port import SerialPort
from ..flasher import Capability, Digest, Identity
from ..serial.boot_pins import BootPins
from ..serial.bootloader import SerialBootloader
from ..serial.entry import LineSettings
from ..serial.exchange import LOST
from .codec import BLOCK, WORD, Command, crc32_mpeg2
from .eraser import Eraser
from .flasher import Stm32Memory
from .parts import FLASH_START, families
from .profile import Stm32Address, Stm32Profile
from .uart_commands import Stm32Commands

if TYPE_CHECKING:
    from ..describing import Describer

FOUND_SECONDS = 0.1
"""How long a loader has for an answer that runs already: the part is brought into it if none comes."""
SAMPLE = 32
"""Bytes over which the loader's Get Checksum is tried."""


class Stm32UartFlasher(Stm32Memory, SerialBootloader):
    """One part behind a serial port."""

    protocol = "stm32-uart"
    other_names = ("an3155", "stm32", "stm32flash", "stm32loader")
    Address = Stm32Address
    Profile = Stm32Profile

    _profile: Stm32Profile
    _loader: Stm32Commands
    _entry: BootPins
    _mute = (
        "the loader's 0x7F",
        "Is BOOT0 set, the part reset, its wires and its profile's entry right? Spoken to at another rate, it needs a reset.",
    )

    def __init__(self, port: SerialPort, profile: Stm32Profile) -> None:
        super().__init__(port, profile)
        self._loader = Stm32Commands(port, answer=profile.answer)
        self._eraser = Eraser(self._loader, profile, self._has_changed)

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import Stm32Describer

        return Stm32Describer(name)

    @classmethod
    def _part_names(cls) -> Sequence[str]:
        return [family.name for family in families().values()]

    def _make_entry(self) -> BootPins:
        port, profile = self._port, self._profile
        return BootPins(
            port,
            profile.entry,
            text=profile.enter,
            text_seconds=profile.answer,
            loader=LineSettings(profile.baudrate, profile.parity),
            application=LineSettings(profile.app_baudrate or port.baudrate, profile.app_parity or port.parity),
        )

    # The interface.

    def digest(self, start: int, size: int) -> Digest | None:
        """The loader computes over whole words; the few bytes before and after them are read, and follow in the value."""
        before, after = -start % WORD, (start + size) % WORD
        words = size - before - after
        value = self._loader.get_checksum(start + before, words) if words > 0 else None
        if value is None:
            return None
        edges = b"".join((*self.read(start, before), *self.read(start + size - after, after)))

        def compute(data: bytes) -> int:
            outside = data[:before] + data[before + words :]
            return crc32_mpeg2(data[before : before + words]) << 8 * len(outside) | int.from_bytes(outside, "big")

        return Digest("CRC-32", value << 8 * len(edges) | int.from_bytes(edges, "big"), compute)

    def _wire_seconds(self, size: int) -> float:
        return self._port.wire_seconds(int(2 * size + size / BLOCK * 24))

    def start_application(self) -> None:
        by_reset = self._profile.boot == "reset" or (self._profile.boot == "auto" and self._entry.is_wired)
        if not (by_reset and self._entry.reset()):
            self._loader.go(FLASH_START)
        self._started()

    # Into the loader, and who it is.

    def _sync(self) -> bool:
        if self._can_reset:
            # A part that was just reset is in no command: filling one up would only spoil its bit rate.
            return self._loader.sync_started()
        if self._loader.sync():
            return True
        with suppress(*LOST):
            self._loader.resync()
            # It was in a command, where it did not answer when it was looked for.
            self._found = True
            return True
        return False

    def _answers(self) -> bool:
        return self._loader.sync(FOUND_SECONDS)

    @property
    def _enters_again(self) -> bool:
        return self._can_reset

    def _find(self, deadline: Deadline) -> Identity | None:
        """By 0x7F alone: what fills up a command would be noise to another program."""
        return self._identify() if self._loader.sync() else None

    def _accept(self, identity: Identity) -> None:
        super()._accept(identity)
        if Command.GET_CHECKSUM in self._known.commands and self._learn_checksum():
            self.capabilities |= Capability.DIGEST

    def _learn_checksum(self) -> bool:
        return self._loader.learn_checksum(FLASH_START, self._loader.read_memory(FLASH_START, SAMPLE))
