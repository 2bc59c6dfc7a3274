"""How long flashers wait, on simulated time: not longer than what they wait for takes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.avr.avr109 import Avr109Loader
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.tests.flashers.benches import UDS, VECTORS, serial
from proxyflash.transports import clock
from proxyflash.transports.serial.port import SerialPort

pytestmark = pytest.mark.simulated_time

STK500V2 = serial("stk500v2", "atmega2560-wiring", "entry = {discharge = 0.01}")
AVR109 = serial("avr109", "atmega32u4-caterina", 'entry = {reset = "none", touch = true}', ", reenumerate = 0.25")


def spent(folder: Path, bench: str, start: int, *, vectors: bytes | None = None) -> dict[Phase, float]:
    """Seconds of each phase of a flash at the wire's true pace; the part holds the image, and nothing was tried twice."""
    new = application.make("1.5.0", "part", "Acme", 2560, start=start, vectors=vectors)
    (folder / "old.bin").write_bytes(application.make("1.4.2", "part", "Acme", 2560, start=start, vectors=vectors))
    (folder / "new.bin").write_bytes(new)
    (folder / "bench.toml").write_text(bench)
    events: list[ev.Event] = []
    with Bench.open(folder / "bench.toml", state=folder / "state") as opened:
        device = opened.emulated_device("part")
        clock.sleep(3.0)
        opened.component("part").flash(folder / "new.bin", address=start, context=RunContext(events.append))
        assert device.flash.read(start, len(new)) == new
    assert not [event for event in events if isinstance(event, ev.Retrying)]
    return {event.phase: event.seconds for event in events if isinstance(event, ev.PhaseFinished)}


def test_an_ecu_that_restarts_is_asked_again_as_soon_as_p2_is_over(tmp_path: Path) -> None:
    """It takes 0.1 s; a question that is lost costs P2, 0.05 s, and nothing is waited for beyond that."""
    assert 0.1 < spent(tmp_path, UDS, 0x10000)[Phase.BOOT] < 0.125


def test_a_loader_of_stk500v2_that_starts_is_greeted_again_soon(tmp_path: Path) -> None:
    """It listens 0.065 s after its reset; 0.3 s were waited for the answer to a greeting that it never heard."""
    assert spent(tmp_path, STK500V2, 0, vectors=VECTORS)[Phase.CONNECT] < 0.2


def test_pages_are_erased_while_a_usb_device_is_sent_their_data(tmp_path: Path) -> None:
    """At the wire's true pace the bytes that come meanwhile stay with the host, and none is lost."""
    phases = spent(tmp_path, AVR109, 0, vectors=VECTORS)
    assert phases[Phase.WRITE] == pytest.approx(20 * 0.008, rel=0.1)


class TestTwoAnswers:
    """A loader of AVR109 that has kept two greetings while it started answers both."""

    @pytest.fixture
    def wire(self) -> Iterator[UartWire]:
        wire = UartWire(uuid.uuid4().hex)
        yield wire
        wire.close()

    def answering(self, wire: UartWire, *answers: bytes) -> Callable[[], None]:
        """A part that answers nothing until two greetings are there."""

        def part() -> None:
            while wire.device.available() < 2:
                clock.sleep(0.001)
            for answer in answers:
                wire.device.send(answer)
            while wire.device.take(1) != b"V":
                clock.sleep(0.001)
                wire.device.available()
            wire.device.send(b"10")

        return part

    def test_the_second_one_is_no_answer_to_what_is_asked_next(self, wire: UartWire) -> None:
        thread = clock.Thread(self.answering(wire, b"CATERIN", b"CATERIN"))
        thread.start()
        with SerialPort.open("part", wire.host_settings() | {"baudrate": 9600}) as port:
            loader = Avr109Loader(port, answer=0.5)
            assert loader.sync()
            port.write(b"V", loader.line.within(1))
            assert port.read_exactly(2, loader.line.within(3)) == b"10"
        thread.join()
