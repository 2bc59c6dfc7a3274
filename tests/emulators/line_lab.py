"""`LineRig`: an emulated part on a serial line without pace, and the host's port of pyserial."""

from __future__ import annotations

from typing import Any

import serial
from proxyflash.emulators.serial.board import Stage, UartBoard
from proxyflash.emulators.serial.protocol_emulated import Serial
from proxyflash.emulators.serial.wire import UartWire


class LineRig:
    """A subclass makes the part."""

    wire: UartWire
    device: Any
    board: UartBoard
    port: Serial

    def opened(self, *, dtr: bool = False, rts: bool = False, **settings: Any) -> Serial:
        """The host's port. `settings`: of pyserial."""
        port = serial.serial_for_url(self.wire.host_settings()["url"], do_not_open=True, **settings)
        assert isinstance(port, Serial)
        port.dtr, port.rts = dtr, rts
        port.open()
        return port

    def close(self) -> None:
        self.port.close()
        self.device.close()
        self.wire.close()
        assert self.board.fault is None


class ByteRig(LineRig):
    """What it says and hears is compared byte for byte."""

    def ask(self, sent: str | bytes, answer: str | bytes) -> None:
        """Sends bytes (or their hexadecimal digits) and reads exactly this answer."""
        sent, answer = (bytes.fromhex(text) if isinstance(text, str) else text for text in (sent, answer))
        self.port.write(sent)
        assert self.port.read(len(answer)).hex(" ") == answer.hex(" ")

    def reach(self, *stages: Stage) -> None:
        """Waits until the part does this."""
        with self.board.changed:
            assert self.board.changed.wait_for(lambda: self.board.stage in stages, 300), self.board.stage
