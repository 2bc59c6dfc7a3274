"""ECUs that insist on what ends a download: after a kill, Ctrl-C or a lost session at any moment the same command succeeds."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.faults import FaultPlan, Faults
from proxyflash.emulators.uds.device import UdsDevice
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled, PartRefused
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.uds.flasher import UdsFlasher
from proxyflash.flashers.uds.profile import UdsAddress, UdsProfile
from proxyflash.testing.thinning import Sweep
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus

pytestmark = [
    pytest.mark.simulated_time,
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

ENDINGS = ("exit", "reset", "s3", "power")
BASE = 0x10000
NEW = application.make("1.5.0", "radar", "Acme", 2100, start=BASE)
IMAGE = FirmwareImage((Segment(BASE, NEW), Segment(BASE + 0x4000, b"\x5a" * 300)), "bin")
EVENTS = 17
"""Of one flash: each phase begins and ends, the plan, two erase units, three blocks and one."""
PLACES = range(5, EVENTS + 1)
"""From the first erase on."""
BLOCK_FRAMES = 149
"""Of one block of 1026 bytes: a first frame, a flow control, 146 consecutive frames, and the response."""
PROFILE: dict[str, Any] = {
    "memory": [{"start": BASE, "size": 0x70000, "erase_unit": 0x1000, "write_alignment": 8}],
    "security": {"key": "xor", "secret": "5a5a5a5a"},
    "timings": {"reset_gap": 2},
}


class Killed(BaseException):
    """What the process does not survive."""


class Lab:
    """One ECU, and the processes that flash it: each has a connection of its own."""

    def __init__(self, folder: Path, *, faults: FaultPlan | None = None, **table: Any) -> None:
        (folder / "old.bin").write_bytes(application.make("1.4.2", "radar", "Acme", 2000, start=BASE))
        self.faults = Faults(faults)
        self.wire = CanWire(uuid.uuid4().hex, pace=0, faults=self.faults)
        spec = DeviceSpec("radar", address={"request": 0x7E0}, settings={"firmware": "old.bin", **table},
                          firmware_folder=folder, pace=0)  # fmt: skip
        self.device = UdsDevice.attach(spec, self.wire)
        self.device.settle()
        self.events: list[ev.Event] = []

    def flash(
        self,
        at: int = 0,
        strike: Callable[[CanBus], None] = lambda bus: None,
        cancelled: Callable[[], bool] = lambda: False,
        **profile: Any,
    ) -> FlashResult:
        """`strike`: what happens at event `at`, counted from 1."""
        bus = CanBus.open("b", {"interface": "proxyflash", "channel": self.wire.channel})
        seen = 0

        def hear(event: ev.Event) -> None:
            nonlocal seen
            self.events.append(event)
            seen += 1
            if seen == at:
                strike(bus)

        flasher = UdsFlasher.attach(bus, UdsAddress(request=0x7E0), UdsProfile.model_validate(PROFILE | profile))
        try:
            programmer = Programmer(flasher, "radar", RunContext(hear, cancelled))
            return programmer.flash(programmer.plan(IMAGE))
        finally:
            with suppress(Killed):
                flasher.close()
            bus.close()

    def runs(self, version: str) -> bool:
        self.device.settle()
        return self.device.application_version == version

    def close(self) -> None:
        self.device.close()
        self.wire.close()
        assert self.device.board.fault is None


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(**keys: Any) -> Lab:
        made.append(Lab(tmp_path, **keys))
        return made[-1]

    yield make
    for item in made:
        item.close()


def dead(*_: object, **__: object) -> None:
    raise Killed


def kill(bus: CanBus) -> None:
    """What the process would still send on its way out ends it there, too."""
    setattr(bus, "send", dead)  # noqa: B010
    raise Killed


def recovers(lab: Lab, ending: str) -> None:
    """By the same command; where nothing but power ends a download, the message says so at once, and it does then."""
    error: PartRefused | None = None
    try:
        lab.flash()
    except PartRefused as refused:
        error = refused
    if error is not None:
        assert ending == "power"
        assert "conditionsNotCorrect (NRC 0x22)" in error.cause
        assert "cut its supply" in error.remedy
        lab.device.supply.off()
        lab.device.supply.on()
        lab.device.settle()
        lab.flash()
    assert lab.runs("1.5.0")
    assert lab.device.flash.read(BASE, len(NEW)) == NEW


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_kill(lab: Callable[..., Lab], request: pytest.FixtureRequest, ending: str) -> None:
    sweep = Sweep(request, PLACES, 2, "killed at event")
    for place in sweep:
        with sweep.at(place):
            made = lab(download_ends=ending)
            with pytest.raises(Killed):
                made.flash(place, kill)
            recovers(made, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_ctrl_c(lab: Callable[..., Lab], request: pytest.FixtureRequest, ending: str) -> None:
    sweep = Sweep(request, PLACES, 2, "Ctrl-C at event")
    for place in sweep:
        with sweep.at(place):
            made = lab(download_ends=ending)
            stop: list[object] = []
            with suppress(Cancelled):
                made.flash(place, stop.append, partial(bool, stop))
            assert stop
            recovers(made, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_lost_session(lab: Callable[..., Lab], request: pytest.FixtureRequest, ending: str) -> None:
    """S3 runs out during the run; the run goes on, unless the ECU needs its supply cut."""
    sweep = Sweep(request, PLACES, 2, "the session is lost at event")
    for place in sweep:
        with sweep.at(place):
            made = lab(download_ends=ending, s3=0.5)
            try:
                made.flash(place, lambda bus: clock.sleep(1.0), timings={"s3": 60})
            except PartRefused:
                assert ending == "power"
            recovers(made, ending)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_lost_frame(lab: Callable[..., Lab], request: pytest.FixtureRequest, ending: str) -> None:
    """That of a request or that of a response, from which an ECU that refuses a repeated block keeps the block."""
    sweep = Sweep(request, PLACES, 2, "a frame is lost at event")
    for place in sweep:
        with sweep.at(place):
            made = lab(download_ends=ending, repeats=False)

            def lose(bus: CanBus, made: Lab = made, after: int = (1, BLOCK_FRAMES)[place % 2]) -> None:
                frame = made.faults.units + after
                made.faults.restart(FaultPlan(drop=1.0, first=frame, last=frame))

            try:
                made.flash(place, lose)
            except PartRefused:
                assert ending == "power"
            recovers(made, ending)


def test_the_places_are_all_there_are(lab: Callable[..., Lab]) -> None:
    made = lab()
    made.flash()
    assert len(made.events) == EVENTS
