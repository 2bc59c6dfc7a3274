"""A pytest plugin for pyserial's suite: its port is an emulated line with the loopback plug that the suite asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from proxyflash.emulators.serial.wire import UartWire


@pytest.fixture(autouse=True)
def loopback(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """TX to RX, RTS to CTS, DTR to DSR. What comes back has the settings that it was sent with."""
    wire = UartWire("loop")

    def modem() -> None:
        wire.cts, wire.dsr = wire.rts, wire.dtr

    wire.modem_listener = modem
    # A plug has no receiver of its own: the transmitter's far end is the host's receiver.
    wire.host.peer = wire.host
    if hasattr(request.module, "PORT"):
        monkeypatch.setattr(request.module, "PORT", "emulated://loop")
    yield
    wire.close()
