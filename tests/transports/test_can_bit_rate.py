"""`CanBus.change_bit_rate`: whose bit rate this program sets, and whose it doesn't."""

from __future__ import annotations

import uuid

import can
import pytest
from proxyflash.emulators.can.wire import CanWire
from proxyflash.transports import clock
from proxyflash.transports.can import opening
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.errors import CanSettings, NotAcknowledged


def test_nodes_at_two_bit_rates_do_not_hear_each_other() -> None:
    wire = CanWire(uuid.uuid4().hex, bitrate=500_000, pace=0)
    heard: list[int] = []
    node = wire.attach("node", lambda message: heard.append(message.arbitration_id))
    bus = CanBus.open("b", wire.host_settings())
    channel = bus.channel(CanId(0x100), CanId(0x101))
    channel.send(b"\x01", 1.0)
    while not heard:
        clock.sleep(0.001)
    bus.change_bit_rate(125_000)
    channel.send(b"\x02", 1.0)
    with pytest.raises(NotAcknowledged):
        channel.recv(5.0)
    bus.change_bit_rate(500_000)
    channel.send(b"\x03", 1.0)
    node.send(can.Message(arbitration_id=0x101, is_extended_id=False, data=b"\x04"))
    frame = channel.recv(1.0)
    assert frame is not None
    assert frame.data == b"\x04"
    assert heard == [0x100, 0x100]
    bus.close()
    wire.close()


@pytest.mark.real_time("python-can's own buses wait in real time")
class TestPythonCan:
    SETTINGS = {"interface": "virtual", "bitrate": 500_000}  # noqa: RUF012

    def test_a_bit_rate_of_the_system_is_left(self) -> None:
        bus = CanBus.open("b", {**self.SETTINGS, "channel": uuid.uuid4().hex})
        with pytest.raises(CanSettings, match="can't be changed"):
            bus.change_bit_rate(125_000)
        assert bus.failure is None
        bus.close()

    def test_an_adapter_is_opened_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its channels go on."""
        monkeypatch.setattr(opening, "SHARED_INTERFACES", ())
        settings = {**self.SETTINGS, "channel": uuid.uuid4().hex}
        bus, other = CanBus.open("b", settings), CanBus.open("other", settings)
        channel, answering = bus.channel(CanId(0x100), CanId(0x101)), other.channel(CanId(0x101), CanId(0x100))
        for rate in (125_000, 500_000):
            bus.change_bit_rate(rate)
            channel.send(b"\x01", 1.0)
            assert answering.recv(5.0) is not None
            answering.send(b"\x02", 1.0)
            assert channel.recv(5.0) is not None
        bus.close()
        other.close()
