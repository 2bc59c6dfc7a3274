"""The emulated X- and YMODEM loaders, given files by lrzsz's sx and sb, over a pseudo-terminal.

sx and sb throw away what comes in while they end, so what the loaders say of a file is seen elsewhere
(tests/flashers/test_xymodem_loaders.py).
"""

from __future__ import annotations

import os
import random
import select
import shutil
import subprocess
import termios
import uuid
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.xymodem.device import XmodemDevice, XymodemDevice, YmodemDevice

pytestmark = pytest.mark.real_time("peer programs at pseudo-terminals")

DEVICES = {"xmodem": XmodemDevice, "ymodem": YmodemDevice}


@dataclass(frozen=True)
class Served:
    """A part behind a path, and what a person at a terminal does."""

    device: XymodemDevice
    line: int

    def type(self, text: str) -> None:
        os.write(self.line, text.encode())

    def until(self, text: str) -> str:
        """What the loader says, up to and with this."""
        said = b""
        while text.encode() not in said:
            assert select.select([self.line], [], [], 10)[0], said
            said += os.read(self.line, 1)
        return said.decode("latin-1")

    def knock(self) -> None:
        """Ctrl-C until the prompt answers: what sb throws away may be one of these, or its answer."""
        for _ in range(10):
            self.type("\x03")
            said = b""
            while select.select([self.line], [], [], 0.3 if said else 3)[0]:
                said += os.read(self.line, 4096)
            if said.endswith(b"<INTERRUPT>\r\n=> "):
                return

    def send(self, *command: str | Path) -> str:
        """Runs sx or sb on the line; what it said."""
        done = subprocess.run(
            [*map(str, command)], stdin=self.line, stdout=self.line, stderr=subprocess.PIPE, timeout=600
        )
        assert done.returncode == 0, done.stderr
        return done.stderr.decode()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    for program in ("sx", "sb"):
        if shutil.which(program) is None:
            pytest.skip("lrzsz is not installed: apt-get install lrzsz")
    closers: list[Callable[[], None]] = []

    def make(protocol: str, part: str, **table: Any) -> Served:
        wire = UartWire(uuid.uuid4().hex, pace=0)
        spec = DeviceSpec("part", settings={"part": part, "boot": True, **table}, pace=0)
        device = DEVICES[protocol].attach(spec, wire)
        path, close = serve_pty(wire)
        line = os.open(path, os.O_RDWR | os.O_NOCTTY)
        mode = termios.tcgetattr(line)
        mode[4] = mode[5] = termios.B115200
        termios.tcsetattr(line, termios.TCSANOW, mode)
        closers.extend([lambda: os.close(line), close, device.close, wire.close])
        return Served(device, line)

    yield make
    for close in closers:
        close()


def file(folder: Path, data: bytes) -> Path:
    path = folder / "new.bin"
    path.write_bytes(data)
    return path


def test_sx_to_the_gecko_menu(serve: Callable[..., Served], tmp_path: Path) -> None:
    served = serve("xmodem", "efr32mg1")
    data = application.make("1.5.0", "part", "Acme", 5_000, start=0x4000)
    served.type("\r")
    served.until("BL > ")
    served.type("1")
    served.until("begin upload\r\n")
    served.send("sx", file(tmp_path, data))
    served.type("\r")
    served.until("BL > ")
    assert served.device.flash.read(0x4000, len(data)) == data
    served.type("2")
    with served.device.board.changed:
        assert served.device.board.changed.wait_for(lambda: served.device.application_version == "1.5.0", 20)


@pytest.mark.parametrize("options", [[], ["-k"]], ids=["128", "1024"])
def test_sb_to_the_in_application_programming(serve: Callable[..., Served], tmp_path: Path, options: list[str]) -> None:
    served = serve("ymodem", "stm32l4-iap")
    data = application.make("1.5.0", "part", "Acme", 5_000, start=0x08008000)
    served.type("\r")
    served.until("\n" + "=" * 58 + "\r\n\n")
    served.type("1")
    served.until("abort)")
    served.send("sb", *options, file(tmp_path, data))
    served.type("\r")
    served.until("\n" + "=" * 58 + "\r\n\n")
    assert served.device.flash.read(0x08008000, 5_000) == data
    assert served.device.flash.read(0x08008000 + 5_000, 100) == b"\xff" * 100


@pytest.mark.parametrize("options", [[], ["-k"]], ids=["128", "1024"])
@pytest.mark.parametrize(
    ("protocol", "asks"),
    [("xmodem", "crc"), ("xmodem", "checksum"), ("ymodem", "crc"), ("ymodem", "checksum"), ("ymodem", "stream")],
)
def test_all_modes_to_the_command_line(
    serve: Callable[..., Served], tmp_path: Path, protocol: str, asks: str, options: list[str]
) -> None:
    """More than 256 short blocks; its own CRC-32 and Python's of what arrived agree.

    The end of a stream's batch, which nobody answers, sb may throw away itself.
    """
    served = serve(protocol, "shell-nor", asks=asks, timeout=2)
    data = random.Random(5).randbytes(36_000)
    served.type("\x03")
    served.until("=> ")
    served.type(f"load{protocol[0]}\r")
    served.until("bps...\r\n")
    served.send("sx" if protocol == "xmodem" else "sb", *options, file(tmp_path, data))
    served.knock()
    served.type(f"crc32 40200000 {len(data):x}\r")
    assert f"==> {zlib.crc32(data):08x}" in served.until("\n=> ")
