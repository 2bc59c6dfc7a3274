"""The STM32 flasher on lines that lose, garble, double and delay bytes, on a port that closes, and after earlier runs.

After any of it: the right image, or an error of the documented kind and a second run, on a line that is whole again,
that ends with the right image.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import ImageTooLarge, NoResponse, PartError, ProfileWrong
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.stm32 import uart_commands as stm32_commands
from proxyflash.flashers.stm32.profile import Stm32Address, Stm32Profile
from proxyflash.flashers.stm32.uart import Stm32UartFlasher
from proxyflash.tests.flashers.wire_faults import FAULTS, faults
from proxyflash.transports import clock
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError, SerialGone, TransportError
from proxyflash.transports.serial.port import SerialPort

BASE = 0x08000000
NEW = application.make("1.5.0", "imu", "Acme", 1500)
IMAGE = FirmwareImage((Segment(BASE, NEW),), "bin")
LINES = {"reset": "dtr", "boot0": "rts", "hold": 1e-4, "settle": 1e-3}


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line is taken to be quiet sooner: nothing here holds a byte back."""
    monkeypatch.setattr(stm32_commands, "QUIET_SECONDS", 0.03)


class Rig:
    """A part with something else in its flash, and the host's port. `lines`: the modem lines are wired."""

    def __init__(self, part: str = "stm32l476xg", *, plan: FaultPlan | None = None, lines: bool = True) -> None:
        self.faults = Faults(plan)
        self.wire = UartWire(uuid.uuid4().hex, faults=self.faults, pace=0)
        settings = {"part": part, "app_baudrate": 4_000_000,
                    **({"wiring": "dtr-reset,!rts-boot0"} if lines else {"boot0": True})}  # fmt: skip
        self.device = Stm32UartDevice.attach(DeviceSpec("imu", settings=settings, pace=0), self.wire)
        self.memory = self.device.flash
        self.memory.load(BASE, bytes(range(256)) * 8)
        self.memory.load(self.far, b"\xc3" * 64)
        url = self.wire.host_settings()["url"]
        self.port = SerialPort.open("imu", {"url": url, "baudrate": 4_000_000, "dtr": False, "rts": False})
        self.profile = Stm32Profile.model_validate({"answer": 0.1, "entry": LINES if lines else {}})

    @property
    def far(self) -> int:
        """In the last erase unit, which nothing has to do with."""
        return self.memory.end - 64

    def flash(self, **keys: object) -> None:
        programmer = Programmer(Stm32UartFlasher.attach(self.port, Stm32Address(), self.profile), "imu", **keys)  # type: ignore[arg-type]
        try:
            programmer.flash(programmer.plan(IMAGE))
        finally:
            programmer.bootloader.close()

    def holds_new(self) -> bool:
        return self.memory.read(BASE, len(NEW)) == NEW

    def whole_again(self) -> None:
        """No more faults from here on, and all the time that an answer needs on a busy machine."""
        self.faults.plan = FaultPlan()
        self.profile = self.profile.model_copy(update={"answer": 1.0})

    def close(self) -> None:
        self.port.close()
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


def ends_well(rig: Rig) -> None:
    """Flashes on the faulty line, then, if that ended with an error, on a whole one."""
    try:
        rig.flash()
    except (TransportError, PartError, ProfileWrong, ImageTooLarge):
        rig.whole_again()
        rig.flash()
    assert rig.holds_new()
    assert rig.memory.read(rig.far, 64) == b"\xc3" * 64, "a unit that the image has nothing in was changed"
    rig.close()


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("part", ["stm32f103xb", "stm32l073xz", "stm32g474xe"])
def test_faults_all_along(kind: str, part: str) -> None:
    """Parts with other commands than the contract kit's: Erase, small pages, Get Checksum."""
    ends_well(Rig(part, plan=faults(kind, 0.001)))


def test_all_faults_at_once_without_lines() -> None:
    for seed in range(4):
        plan = FaultPlan(drop=3e-4, duplicate=3e-4, corrupt=3e-4, delay=3e-4, delay_seconds=0.03, seed=seed)
        rig = Rig(plan=plan, lines=False)
        with suppress(ProxyflashError):
            rig.flash()
        rig.whole_again()
        try:
            rig.flash()
        except NoResponse:
            # The first 0x7F was garbled: its bit rate is none of ours until it is reset.
            rig.device.board.reset()
            rig.flash()
        assert rig.holds_new()
        rig.close()


@pytest.mark.real_time("the kernel closes the port")
def test_a_pseudo_terminal_that_is_closed_in_the_middle() -> None:
    wire = UartWire(uuid.uuid4().hex, pace=0)
    device = Stm32UartDevice.attach(DeviceSpec("imu", settings={"part": "stm32l476xg", "boot0": True}, pace=0), wire)
    path, close = serve_pty(wire)
    port = SerialPort.open("imu", {"url": path, "baudrate": 115_200})
    flasher = Stm32UartFlasher.attach(port, Stm32Address(), Stm32Profile())

    def pulled(event: ev.Event) -> None:
        if isinstance(event, ev.Progress) and event.phase is ev.Phase.WRITE:
            close()

    programmer = Programmer(flasher, "imu", context=RunContext(pulled))
    plan = programmer.plan(IMAGE)
    started = clock.monotonic()
    with pytest.raises(SerialGone):
        programmer.flash(plan)
    assert clock.monotonic() - started < 10
    flasher.close()
    port.close()
    device.close()
    wire.close()


# What an earlier run left.

LEFT = {
    "write": "31 ce | 08 00 08 00 00 | 0f 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 0f",
    "read": "11 ee | 08 00 00 00 08 | ff 00",
    "extended erase": "44 bb | 00 03 00 00 00 01 00 02 00 03 03",
    "mass erase": "44 bb | ff ff 00",
    "go": "21 de | 08 00 00 00 08",
    "get checksum": "a1 5e | 08 00 00 00 08 | 00 00 00 10 10 | 04 c1 1d b7 6f | ff ff ff ff 00",
    "erase": "43 bc | 03 00 01 02 03 03",
}
GIVEN_UP = {("extended erase", 2), ("mass erase", 2), ("mass erase", 3)}
"""Extended Erase waits for its page count: with the 0x7F that has to come first it is 32 Ki pages or more."""


def cuts() -> Iterator[tuple[str, int]]:
    """Each place at which a run can end within a command: the number of its bytes that were sent, fewer than all."""
    for name, text in LEFT.items():
        length = len(bytes.fromhex(text.replace("|", "")))
        # Of the block's bytes every fourth: they are all alike.
        yield from ((name, count) for count in range(1, length) if name != "write" or count < 10 or count % 4 == 3)


@pytest.mark.parametrize("name", LEFT)
def test_a_loader_in_the_middle_of_a_command(name: str) -> None:
    """Without modem lines: the loader is where the earlier run has left it, and may be asked for its state only."""
    for _, count in (cut for cut in cuts() if cut[0] == name):
        part = {"erase": "stm32f103xb", "get checksum": "stm32g474xe"}.get(name, "stm32l476xg")
        rig = Rig(part, lines=False)
        send_all_but_the_rest(rig, LEFT[name], count)
        if (name, count) in GIVEN_UP:
            with pytest.raises(NoResponse, match="0x7F"):
                rig.flash()
            rig.device.board.reset()
        rig.flash()
        assert rig.holds_new()
        assert rig.memory.read(rig.far, 64) == b"\xc3" * 64
        rig.close()


def send_all_but_the_rest(rig: Rig, command: str, count: int) -> None:
    rig.port.set_line(parity="E")
    rig.port.write(b"\x7f", Deadline.after(5))
    assert rig.port.read_exactly(1, Deadline.after(5)) == b"\x79"
    for group in command.split("|"):
        data = bytes.fromhex(group)
        rig.port.write(data[:count], Deadline.after(5))
        if count <= len(data):
            if count == len(data):
                assert rig.port.read_exactly(1, Deadline.after(5)) == b"\x79"
            break
        assert rig.port.read_exactly(1, Deadline.after(5)) == b"\x79"
        count -= len(data)
    rig.port.set_line(parity="N")


def test_an_earlier_run_that_was_cut_in_a_block_at_any_byte() -> None:
    """A block of 256 bytes, in steps; the rest never comes."""
    block = bytes([255, *range(256), 255])
    for count in range(1, len(block), 23):
        rig = Rig(lines=False)
        send_all_but_the_rest(rig, LEFT["write"], 7)
        rig.port.set_line(parity="E")
        rig.port.write(block[:count], Deadline.after(5))
        rig.port.set_line(parity="N")
        rig.flash()
        assert rig.holds_new()
        rig.close()


@pytest.mark.parametrize("sights", range(4))
@pytest.mark.parametrize("left", ["31 ce | 08 00 10 00 18 | 00", "43 bc | 00"])
def test_what_is_sent_to_come_into_step_completes_nothing(sights: int, left: str) -> None:
    """The loader waits for a block, or a list of pages, from its count on; enumerators ask before the flasher comes."""
    rig = Rig("stm32f103xb", lines=False)
    send_all_but_the_rest(rig, left, len(bytes.fromhex(left.replace("|", ""))) - 1)
    address = Stm32Address()
    for _ in range(sights):
        assert Stm32UartFlasher.probe(rig.port, address, rig.profile, active=True, deadline=Deadline.after(5)) is None
    flasher = Stm32UartFlasher.attach(rig.port, address, rig.profile)
    flasher.connect()
    assert (rig.memory.programs, rig.memory.erases) == (0, 0)
    flasher.close()
    rig.close()


@pytest.mark.parametrize("command", [b"\x44\xbb", b"\x31\xce", b"\x11\xee", b"\x21\xde"])
def test_a_lost_ack_of_a_command(command: bytes) -> None:
    """The loader is in the command then, and waits for its arguments."""
    rig = Rig(lines=False)
    host_send, device_send = rig.wire.host.send, rig.wire.device.send
    last = [b""]
    lost: list[bytes] = []

    def sent(data: bytes, at: float | None = None) -> None:
        last[0] = data
        host_send(data, at)

    def answered(data: bytes, at: float | None = None) -> None:
        if last[0] == command and not lost:
            lost.append(data)
        else:
            device_send(data, at)

    rig.wire.host.send = sent  # type: ignore[method-assign]
    rig.wire.device.send = answered  # type: ignore[method-assign]
    retries: list[ev.Event] = []
    rig.flash(context=RunContext(lambda event: retries.append(event) if isinstance(event, ev.Retrying) else None))
    assert lost == [b"\x79"]
    assert rig.holds_new()
    assert retries == [], "the flasher gets over it without a retry"
    rig.close()
