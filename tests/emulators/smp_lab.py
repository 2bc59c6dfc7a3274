"""An emulated SMP part on a line without pace, and a client of a few lines that shares nothing with what is tested."""

from __future__ import annotations

import base64
import binascii
import struct
import uuid
from pathlib import Path
from typing import Any

import cbor2
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.smp.board import SmpBoard
from proxyflash.emulators.smp.device import SmpDevice
from proxyflash.tests.emulators.line_lab import LineRig

READ, WRITE = 0, 2
OS, IMAGE = 0, 1
QUESTION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}
OLD, NEW = "1.0.0", "2.1.0"


def image(version: str, *, start: int = 0x1000, size: int = 1000, header_size: int = 32) -> bytes:
    """For a part whose slot 0 begins at `start`."""
    numbers = [int(part) for part in version.split(".")]
    firmware = application.make(version, "imu", "Acme", size, start=start + header_size)
    return mcuboot_image.make(firmware, (numbers[0], numbers[1], numbers[2], 0), header_size=header_size)


def packet(op: int, group: int, command: int, body: bytes, *, version: int = 1, sequence: int = 7) -> bytes:
    return struct.pack(">BBHHBB", op | version << 3, 0, len(body), group, sequence, command) + body


def framed(data: bytes, line: int = 124) -> bytes:
    raw = struct.pack(">H", len(data) + 2) + data + struct.pack(">H", binascii.crc_hqx(data, 0))
    text = base64.b64encode(raw)
    pieces = [text[at : at + line] for at in range(0, len(text), line)]
    return b"".join((b"\x04\x14" if number else b"\x06\x09") + piece + b"\n" for number, piece in enumerate(pieces))


class Rig(LineRig):
    """One part with the old image in it, unless `blank`, and the host's port."""

    device: SmpDevice
    board: SmpBoard

    def __init__(self, part: str = "acme-s1", *, blank: bool = False, folder: Path | None = None, **table: Any) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=0)
        self.raw = table.get("framing") == "raw"
        spec = DeviceSpec("imu", settings={"part": part, **table}, folder=folder, pace=0, version=QUESTION)
        self.device = SmpDevice.attach(spec, self.wire)
        self.board = self.device.board
        self.flash = self.device.flash
        self.start = self.device.application_start
        self.pair = self.device.loader.pairs[0]
        if not blank and self.pair.primary.whole_image() is None:
            self.flash.load(self.start, self.image(OLD))
            self.board.reset()
        self.port = self.opened(baudrate=115_200, timeout=5, dsrdtr=True, rtscts=True)
        self.board.settle()
        self.port.reset_input_buffer()
        self.text = b""
        """What came beside packets."""

    def image(self, version: str, **keys: int) -> bytes:
        return image(version, start=self.start, **keys)

    def ask(self, op: int, group: int, command: int, arguments: Any = None, *, version: int = 1) -> dict[str, Any]:
        """Sends a request, and takes the answer, whose header belongs to it."""
        body = cbor2.dumps({} if arguments is None else arguments)
        self.send(packet(op, group, command, body, version=version))
        return self.answer(op, group, command)

    def send(self, data: bytes) -> None:
        self.port.write(data if self.raw else framed(data))

    def answer(self, op: int, group: int, command: int, *, sequence: int = 7) -> dict[str, Any]:
        data = self.take()
        first, flags, length, found, number, what = struct.unpack_from(">BBHHBB", data)
        self.version = first >> 3
        assert (first & 7, flags, found, number, what) == (op + 1, 0, group, sequence, command)
        assert length == len(data) - 8
        answer = cbor2.loads(data[8:])
        assert isinstance(answer, dict)
        return answer

    def take(self) -> bytes:
        if self.raw:
            head = self.port.read(8)
            assert len(head) == 8
            return head + self.port.read(int.from_bytes(head[2:4], "big"))
        found = b""
        while True:
            line = self.port.read_until(b"\n")
            assert line.endswith(b"\n"), f"no answer, but {line!r}"
            marker = b"\x04\x14" if found else b"\x06\x09"
            before, mark, text = line.partition(marker)
            self.text += before
            if not mark:
                continue
            assert len(mark + text) <= 127
            found += base64.b64decode(text, validate=False)
            if len(found) >= 2 + int.from_bytes(found[:2], "big"):
                assert binascii.crc_hqx(found[2:], 0) == 0
                return found[2:-2]

    def states(self) -> dict[int, dict[str, Any]]:
        return {state["slot"]: state for state in self.ask(READ, IMAGE, 0)["images"]}

    def flags(self) -> list[str]:
        """Of each slot with an image: "version: flags"."""
        names = ("pending", "confirmed", "active", "permanent")
        return [
            f"{state['version']}: {' '.join(name for name in names if state.get(name))}"
            for state in self.ask(READ, IMAGE, 0)["images"]
        ]

    def upload(self, data: bytes, *, chunk: int = 200, **keys: Any) -> dict[str, Any]:
        """All of it, as the part asks for it."""
        answer: dict[str, Any] = {"off": 0}
        while answer["off"] < len(data):
            offset = answer["off"]
            arguments: dict[str, Any] = {"off": offset, "data": data[offset : offset + chunk]}
            if offset == 0:
                arguments |= {"len": len(data), **keys}
            answer = self.ask(WRITE, IMAGE, 1, arguments)
            assert "off" in answer, answer
        return answer

    def test(self, data: bytes, *, confirm: bool = False) -> dict[str, Any]:
        """Has this image run from the next reset on."""
        digest = data[-32:]
        return self.ask(WRITE, IMAGE, 0, {"hash": digest, **({"confirm": True} if confirm else {})})

    def confirm(self) -> dict[str, Any]:
        return self.ask(WRITE, IMAGE, 0, {"confirm": True})

    def restart(self, **arguments: int) -> None:
        """By request; returns when the part has started."""
        starts = self.board.starts
        self.ask(WRITE, OS, 5, arguments)
        self.started(starts)

    def started(self, before: int) -> None:
        with self.board.changed:
            assert self.board.changed.wait_for(
                lambda: self.board.starts > before and self.board.stage not in (Stage.OFF, Stage.RESET), 30
            )
        self.board.settle(30)

    def pull_reset(self) -> None:
        starts = self.board.starts
        self.board.reset()
        self.started(starts)
