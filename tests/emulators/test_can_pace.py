"""The emulated CAN bus and the ECU on it keep their own time: a thread that wakes up late slows neither of them down."""

from __future__ import annotations

import uuid

import can
import pytest
from proxyflash.emulators.board import Board
from proxyflash.emulators.can.isotp import EcuAddress, IsoTpNode, Request
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.supply import Supply
from proxyflash.transports import clock

LONG = 300.0
FRAMES = 8


def test_answers_to_frames_that_were_brought_late(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = CanWire(uuid.uuid4().hex, bitrate=50_000)
    sleeps: list[float] = []
    done = clock.Event()

    sleep = clock.sleep

    def oversleep(seconds: float) -> None:
        sleeps.append(seconds)
        sleep(seconds + 0.025)

    def answer(message: can.Message) -> None:
        if message.arbitration_id == FRAMES:
            done.set()
        else:
            sender = right if message.arbitration_id % 2 else left
            sender.send(can.Message(arbitration_id=message.arbitration_id + 1, is_extended_id=False, data=bytes(8)), 0)

    monkeypatch.setattr(clock, "sleep", oversleep)
    left, right = wire.attach("left", answer), wire.attach("right", answer)
    left.send(can.Message(arbitration_id=1, is_extended_id=False, data=bytes(8)))
    assert done.wait(LONG)
    wire.close()
    # A frame takes 2.7 ms at most: after the first wake-up, 25 ms late, the others are over already.
    assert len(sleeps) <= FRAMES / 2


class Worker(Board):
    """Works 20 ms on each request, then answers it."""

    link: IsoTpNode

    def firmware(self) -> None:
        while True:
            request = self.link.receive(None)
            assert request is not None
            self.link.busy(0.02)
            self.link.send(request.data)


def test_an_ecu_works_from_the_end_of_the_request_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wire = CanWire(uuid.uuid4().hex)
    board = Worker("ecu", Supply())
    board.link = IsoTpNode(board, wire, EcuAddress(0x7E0, 0x7DF, 0x7E8, False))
    sent: list[float | None] = []
    done = clock.Event()

    def send(message: can.Message, timeout: float | None = None, *, at: float | None = None) -> bool:
        sent.append(at)
        done.set()
        return True

    monkeypatch.setattr(board.link.node, "send", send)
    ended = clock.monotonic() - 1
    board.link.inbox.append(Request(b"\x3e\x00", False, ended))
    board.start()
    assert done.wait(LONG)
    board.close()
    wire.close()
    assert sent == [pytest.approx(ended + 0.02, abs=1e-6)]
