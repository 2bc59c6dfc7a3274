"""Loaders that take a file by XMODEM or YMODEM, and talk in text: each class holds the texts and the behaviour of one loader.

`GeckoLoader` after the Gecko Bootloader of Silicon Labs (UG266; texts and behaviour as in the Gecko SDK's
btl_comm_xmodem.c), but for the file: it takes a sensor's firmware instead of a .gbl. `IapLoader` after the in-application
programming example of STM32Cube (AN4657). `ShellLoader` in the style of U-Boot's command line ("loadx", "loady", "crc32",
"erase", "cp.b", "go"; U-Boot's doc/usage/cmd).
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from .. import application
from ..flash import FlashRefused, NorFlash
from ..serial.board import Silence, UartBoard
from .receiver import ACK, CAN, EOT, NAK, SOH, Ended, Receiver, Sink, Trouble
from .slot import FlashSlot, LoaderPart, RamSlot

MakeReceiver = Callable[[], Receiver]


class XymodemLoader(ABC):
    """`receiver`: makes what takes one file."""

    def __init__(
        self, board: UartBoard, part: LoaderPart, flash: NorFlash, protocol: str, receiver: MakeReceiver
    ) -> None:
        self._board = board
        self._part = part
        self._flash = flash
        self._protocol = protocol
        self._receiver = receiver

    @abstractmethod
    def run(self) -> None:
        """Serves until it starts the application. Raises PowerLost, ResetPulled."""

    def is_bootable(self) -> bool:
        """Whether the flash holds a whole firmware, by its descriptor: a vector table alone doesn't show it."""
        found = application.find(self._flash, self._flash.base)
        return found is not None and found.size > 0

    def _say(self, text: str) -> None:
        self._board.send(text.encode())


class GeckoLoader(XymodemLoader):
    """Every text of it ends with a NUL. A packet of one byte that it doesn't know cancels the transfer."""

    VERSION = "2.04.02"
    FAULTS: ClassVar = {
        "start": ("block", "21"),
        "cancelled": ("block", "21"),
        "silence": ("block", "21"),
        "file": ("file", "44"),
        "verify": ("file", "43"),
        "full": ("file", "4F"),
    }

    def run(self) -> None:
        self._menu()
        while True:
            key = self._board.receive(1)
            if key == b"1":
                self._upload()
            elif key == b"2" and self.is_bootable():
                return
            self._menu()

    def _menu(self) -> None:
        self._say(f"\r\nGecko Bootloader v{self.VERSION}\r\n1. upload gbl\r\n2. run\r\n3. ebl info\r\nBL > \0")

    def _upload(self) -> None:
        self._say("\r\nbegin upload\r\n\0")
        try:
            self._receiver().file(FlashSlot(self._flash, accept=_is_sensor_firmware, judge=self.is_bootable))
        except Ended as ended:
            if ended.reason == "gone":
                return
            self._board.send(CAN * 3)
            kind, code = self.FAULTS[ended.reason]
            self._say(f"\r\nSerial upload aborted\r\n\0\r\n{kind} error 0x\0{code}\r\n")
            return
        self._say("\r\nSerial upload complete\r\n\0")


class GeckoReceiver(Receiver):
    """As the Gecko Bootloader's parser: for a packet that doesn't come it asks for ever, and a byte that begins none ends
    the transfer."""

    def file(self, sink: Sink) -> None:
        sink.begin("", None)
        byte, last = self._first_byte(), 0
        while byte != EOT:
            if byte != SOH:
                raise Ended("cancelled" if byte in (CAN, b"C", b"\x03") else "start")
            last = self._packet(sink, last)
            byte = self._next_byte()
        sink.finish()
        self._answer(ACK, 0)

    def _packet(self, sink: Sink, last: int) -> int:
        """Takes one packet; the number of the last packet that it has, not wrapped."""
        block = self.read_block(SOH)
        if block.number == last & 0xFF and last:
            self._answer(ACK, last)
        elif block.number != (last + 1) & 0xFF or (self._trouble is Trouble.NAK and self._is_trouble(last + 1)):
            self._board.send(NAK)
        else:
            sink.take(block.data)
            last += 1
            self._answer(ACK, last)
        return last

    def _next_byte(self) -> bytes:
        while True:
            try:
                return self._board.receive(1, silence=self._timeout)
            except Silence:
                self._board.send(NAK)


class IapLoader(XymodemLoader):
    """Erases all of the slot when it gets the file's name, and starts its content on request, whole or not."""

    def run(self) -> None:
        while True:
            self._say(self.MENU)
            key = self._board.receive(1)
            if key == b"1":
                self._say("Waiting for the file to be sent ... (press 'a' to abort)\n\r")
                self._download()
            elif key == b"3":
                self._say("Start program execution......\r\n\n")
                return
            else:
                self._say("Invalid Number ! ==> The number should be either 1, 2, 3 or 4\r")

    def _download(self) -> None:
        slot = FlashSlot(self._flash, at_once=True)
        try:
            self._receiver().batch(slot)
        except Ended as ended:
            if ended.reason == "gone":
                return
            self._board.send(CAN * 2)
            self._say(self.ENDS.get(ended.reason, "\n\rFailed to receive the file!\n\r"))
            return
        rule = "-" * 32
        self._say(f"\n\n\r Programming Completed Successfully!\n\r{rule}\r\n Name: {slot.name}")
        self._say(f"\n\r Size: {slot.received} Bytes\r\n-------------------\n")

    ENDS: ClassVar = {
        "full": "\n\n\rThe image size is higher than the allowed space memory!\n\r",
        "verify": "\n\n\rVerification failed!\n\r",
        "cancelled": "\r\n\nAborted by user.\n\r",
    }
    MENU = (
        "\r\n=================== Main Menu ============================\r\n\n"
        "  Download image to the internal Flash ----------------- 1\r\n\n"
        "  Upload image from the internal Flash ----------------- 2\r\n\n"
        "  Execute the loaded application ----------------------- 3\r\n\n"
        "==========================================================\r\n\n"
    )


class ShellLoader(XymodemLoader):
    """A command line. Numbers are hexadecimal, with or without 0x; Ctrl-C and Ctrl-X empty the line."""

    PROMPT = "=> "

    def run(self) -> None:
        self._ram = RamSlot(self._part.ram, self._part.ram_size)
        self._say(f"\r\nShellBoot 2023.01 ({self._part.name})\r\n\r\n{self.PROMPT}")
        while True:
            words = self._line().split()
            commands: dict[str, Callable[..., str]] = {
                "loadx": self._loadx,
                "loady": self._loady,
                "crc32": self._crc32,
                "erase": self._erase,
                "cp.b": self._copy,
            }
            if words and words[0] == "go" and self.is_bootable():
                self._say(f"## Starting application at 0x{self._flash.base:08X} ...\r\n")
                return
            if words:
                command = commands.get(words[0])
                try:
                    said = command(*words[1:]) if command else f"Unknown command '{words[0]}' - try 'help'\r\n"
                except (ValueError, TypeError):
                    said = "Usage: address and size in hexadecimal\r\n"
                except FlashRefused as refusal:
                    said = f"- {refusal}\r\n"
                self._say(said)
            self._say(self.PROMPT)

    def _line(self) -> str:
        line = ""
        while True:
            key = self._board.receive(1)
            if key == b"\r":
                self._say("\r\n")
                return line
            if key == b"\x03":
                self._say("<INTERRUPT>\r\n" + self.PROMPT)
                line = ""
            elif key == b"\x18":
                line = ""
            elif key == b"\b":
                line = line[:-1]
            elif key.isascii() and key.decode().isprintable() and len(line) < 200:
                line += key.decode()
                self._board.send(key)

    def _loadx(self, address: str = "") -> str:
        return self._load(address, "xmodem", lambda receiver, slot: receiver.file(slot))

    def _loady(self, address: str = "") -> str:
        return self._load(address, "ymodem", lambda receiver, slot: receiver.batch(slot))

    def _load(self, address: str, protocol: str, take: Callable[[Receiver, RamSlot], None]) -> str:
        """The address is that of the RAM: a file goes nowhere else."""
        if protocol != self._protocol or (address and int(address, 16) != self._ram.base):
            raise ValueError
        self._say(f"## Ready for binary ({protocol}) download to 0x{self._ram.base:08X} at 115200 bps...\r\n")
        try:
            take(self._receiver(), self._ram)
        except Ended as ended:
            return "" if ended.reason == "gone" else f"## Binary ({protocol}) download aborted\r\n"
        size = self._ram.received
        return f"## Total Size      = 0x{size:08x} = {size} Bytes\r\n## Start Addr      = 0x{self._ram.base:08X}\r\n"

    def _crc32(self, address: str, size: str) -> str:
        start, count = int(address, 16), int(size, 16)
        value = zlib.crc32(self._memory(start, count))
        return f"crc32 for {start:08x} ... {start + count - 1:08x} ==> {value:08x}\r\n"

    def _erase(self, address: str, size: str) -> str:
        start, count = int(address, 16), int(size.removeprefix("+"), 16)
        done = 0
        while done < count:
            at, length = self._flash.unit_of(start + done)
            self._flash.erase(at)
            self._say(".")
            done += length
        return f" done\r\nErased {done // self._part.pages[1]} sectors\r\n"

    def _copy(self, source: str, target: str, size: str) -> str:
        """In pieces, so that a cut finds it in the middle."""
        data = self._memory(int(source, 16), int(size, 16))
        data += bytes([self._flash.erased]) * (-len(data) % self._flash.program_unit)
        self._say("Copy to Flash... ")
        for offset in range(0, len(data), 256):
            self._flash.program(int(target, 16) + offset, data[offset : offset + 256])
        return "done\r\n"

    def _memory(self, start: int, size: int) -> bytes:
        if self._ram.base <= start and start + size <= self._ram.base + len(self._ram.cells):
            return bytes(self._ram.cells[start - self._ram.base :][:size])
        return self._flash.read(start, size)


def _is_sensor_firmware(head: bytes) -> None:
    """Raises Ended for what doesn't begin as a sensor's firmware does."""
    if application.told_size(head) is None:
        raise Ended("file")
