"""The SMP flasher with the emulated part, as the command line drives it: every state that a part can be found in."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from proxyflash.emulators.serial.board import Stage
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    ImageTooLarge,
    ImageWrongPart,
    NoResponse,
    RebootFailed,
    Unsupported,
    VerifyMismatch,
)
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.flasher import State
from proxyflash.tests.emulators.smp_lab import NEW, OLD, image
from proxyflash.tests.flashers.smp_rig import Rig
from proxyflash.tests.rigs import rigs
from proxyflash.transports import clock
from proxyflash.transports.errors import SerialSettings

pytestmark = pytest.mark.simulated_time


make_rig = rigs(Rig)


@pytest.mark.parametrize(
    ("part", "profile", "table"),
    [
        ("acme-s1", {}, {}),
        ("microbit", {}, {"log": "lines"}),
        ("microbit", {"window": 4}, {"buf_size": 512}),
        ("nrf52840", {"framing": "raw"}, {"framing": "raw", "buf_size": 1024}),
        ("stm32h743", {}, {"buf_size": 2048}),
        ("acme-s1", {"slot_size": 7168}, {"build": "old"}),
        ("acme-s1", {}, {"progressive_erase": True}),
        ("acme-s1", {}, {"confirms": True}),
        ("acme-s1", {}, {"quiet_reset": True}),
        ("acme-s1", {"answer": 0.3}, {"log": "torn"}),
        ("acme-o4", {}, {}),
        ("acme-h3", {}, {}),
        ("acme-d2", {}, {"buf_size": 512}),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_an_update(make_rig: Callable[..., Rig], part: str, profile: dict[str, Any], table: dict[str, Any]) -> None:
    rig = make_rig(part, profile, **table)
    result = rig.flash()
    assert result.written_bytes == len(rig.image(NEW))
    assert (rig.runs, rig.stays) == (NEW, True)
    rig.board.reset()
    assert rig.runs == NEW


@pytest.mark.parametrize("build", ["new", "old"])
@pytest.mark.parametrize("framing", ["console", "raw"])
def test_a_blank_part(make_rig: Callable[..., Rig], build: str, framing: str) -> None:
    """It sits in serial recovery, and so does it if it is only looked at."""
    rig = make_rig(profile={"framing": framing}, blank=True, build=build, framing=framing)
    seen = rig.probe()
    assert seen is not None
    assert seen.state is State.BOOTLOADER
    rig.flash()
    assert rig.runs == NEW


@pytest.mark.parametrize("build", ["new", "old"])
def test_by_way_of_recovery(make_rig: Callable[..., Rig], build: str) -> None:
    rig = make_rig(profile={"recovery": True}, build=build)
    rig.flash()
    assert rig.runs == NEW
    assert rig.device.loader.pairs[0].secondary.is_blank()


@pytest.mark.parametrize("rate", [9_600, 1_000_000])
def test_recovery_at_a_bit_rate_of_its_own(make_rig: Callable[..., Rig], rate: int) -> None:
    """From the application into recovery and back, and from recovery where it is found."""
    rig = make_rig(profile={"recovery": True, "recovery_baudrate": rate}, recovery_baudrate=rate)
    rig.flash()
    assert (rig.runs, rig.port.baudrate) == (NEW, 115_200)
    rig = make_rig(profile={"recovery_baudrate": rate}, blank=True, recovery_baudrate=rate)
    seen = rig.probe()
    assert seen is not None
    assert (seen.state, rig.port.baudrate) == (State.BOOTLOADER, 115_200)
    rig.flash()
    assert (rig.runs, rig.port.baudrate) == (NEW, 115_200)


def test_a_bit_rate_of_recovery_that_the_port_cannot_do(make_rig: Callable[..., Rig]) -> None:
    """Found while the application runs: nothing has asked the part to restart."""
    rig = make_rig(profile={"recovery": True, "recovery_baudrate": 9_600}, recovery_baudrate=9_600)
    set_line = rig.port.set_line

    def limited(*, baudrate: int | None = None, parity: str | None = None) -> bool:
        if baudrate == 9_600:
            raise SerialSettings("the port can't do 9600 bit/s")
        return set_line(baudrate=baudrate, parity=parity)

    rig.port.set_line = limited  # type: ignore[method-assign]
    with pytest.raises(SerialSettings):
        rig.flash()
    assert rig.runs == OLD


def test_a_part_that_stays_in_recovery_at_its_own_bit_rate_is_not_mute(make_rig: Callable[..., Rig]) -> None:
    """What it was given is not signed as it wants: it stays in recovery after its reset, where it answers at another rate."""
    rig = make_rig(profile={"recovery": True, "recovery_baudrate": 9_600}, recovery_baudrate=9_600)
    rig.device.loader.boot = lambda: None  # type: ignore[method-assign]
    with pytest.raises(VerifyMismatch, match="stays in serial recovery"):
        rig.flash(attempts=1)


def test_without_confirming(make_rig: Callable[..., Rig]) -> None:
    """The next reset brings the old one back."""
    rig = make_rig(profile={"confirm": False})
    rig.flash()
    assert (rig.runs, rig.stays) == (NEW, False)
    rig.board.reset()
    assert rig.runs == OLD


def test_again(make_rig: Callable[..., Rig]) -> None:
    """Nothing is sent of what runs already."""
    rig = make_rig()
    rig.flash()
    programs, starts = rig.device.flash.programs, rig.board.starts
    rig.flash()
    assert (rig.device.flash.programs, rig.board.starts) == (programs, starts)


def test_there_and_back(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    for version in (NEW, OLD, "3.0.0", NEW):
        rig.flash(rig.image(version))
        assert (rig.runs, rig.stays) == (version, True)


class TestLeftByOthers:
    """Whatever somebody left in the slots, the wanted image runs afterwards, and stays."""

    def pair(self, rig: Rig) -> Any:
        return rig.device.loader.pairs[0]

    @pytest.mark.parametrize("version", [NEW, "1.9.0"])
    def test_an_image_that_waits(self, make_rig: Callable[..., Rig], version: str) -> None:
        rig = make_rig()
        pair = self.pair(rig)
        rig.device.flash.load(pair.secondary.start, rig.image(version))
        pair.set_next(pair.secondary, active=False, confirm=False)
        rig.flash()
        assert (rig.runs, rig.stays) == (NEW, True)

    @pytest.mark.parametrize("version", [NEW, "1.9.0"])
    def test_an_image_on_trial(self, make_rig: Callable[..., Rig], version: str) -> None:
        rig = make_rig(profile={"confirm": False})
        rig.flash(rig.image(version))
        rig.profile = rig.profile.model_copy(update={"confirm": True})
        rig.flash()
        assert (rig.runs, rig.stays) == (NEW, True)

    def test_half_an_upload(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        new = rig.image(NEW)
        rig.device.flash.load(self.pair(rig).secondary.start, new[:700])
        rig.flash()
        assert rig.runs == NEW

    def test_an_image_with_the_right_records_and_the_wrong_bytes(self, make_rig: Callable[..., Rig]) -> None:
        """The application knows it by its records alone, so it is not sent; MCUboot refuses it, and then it is."""
        rig = make_rig()
        spoiled = bytearray(rig.image(NEW))
        spoiled[600] ^= 4
        rig.device.flash.load(self.pair(rig).secondary.start, bytes(spoiled))
        rig.flash()
        assert (rig.runs, rig.stays) == (NEW, True)

    def test_a_torn_wish(self, make_rig: Callable[..., Rig]) -> None:
        """The part erases the slot whose trailer it can't make sense of; the image is uploaded again."""
        rig = make_rig()
        pair = self.pair(rig)
        rig.device.flash.load(pair.secondary.start, rig.image(NEW))
        end = pair.secondary.start + pair.secondary.size
        rig.device.flash.load(end - 16, b"\x77\xc2\x95\xf3" + b"\xff" * 12)
        rig.flash()
        assert (rig.runs, rig.stays) == (NEW, True)


class TestRefusals:
    """Nothing of the part is changed by what can't be."""

    def unchanged(self, rig: Rig, data: bytes, kind: type[Exception]) -> None:
        operations = rig.device.supply.operations
        with pytest.raises(kind):
            rig.flash(data)
        assert rig.device.supply.operations == operations
        assert rig.runs == OLD

    def test_another_layout(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"run_address": 0x1000})
        self.unchanged(rig, image(NEW, start=0x40000), ImageWrongPart)

    def test_a_lower_version(self, make_rig: Callable[..., Rig]) -> None:
        self.unchanged(make_rig(no_downgrade=True), make_rig().image("0.9.0"), ImageWrongPart)

    def test_a_lower_version_where_the_higher_one_runs(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig("acme-h3")
        self.unchanged(rig, rig.image("0.9.0"), ImageWrongPart)

    def test_a_list_of_images_that_does_not_fit_the_buffer(self, make_rig: Callable[..., Rig]) -> None:
        """The application of 96 bytes can't tell what it runs. Serial recovery, with a buffer of its own, can."""
        rig = make_rig(buf_size=96)
        self.unchanged(rig, rig.image(NEW), Unsupported)
        rig.profile = rig.profile.model_copy(update={"recovery": True})
        rig.flash()
        assert rig.runs == NEW

    def test_too_large(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        self.unchanged(rig, rig.image(NEW, size=7200), ImageTooLarge)

    def test_mute(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"answer": 0.1}, mute=True)
        with pytest.raises(NoResponse):
            rig.flash()
        assert rig.probe() is None


class TestFailures:
    def test_an_image_that_crashes(self, make_rig: Callable[..., Rig]) -> None:
        """Whole, and for another layout, which nothing showed: the next reset brings the old one back."""
        rig = make_rig(profile={"swap": 1.0, "answer": 0.2})
        with pytest.raises(RebootFailed) as raised:
            rig.flash(image(NEW, start=0x40000))
        assert "brings the old one back" in str(raised.value.remedy)
        assert f"it held in slot 0 {OLD} and in slot 1 {NEW}" in str(raised.value)
        assert rig.board.stage is Stage.HUNG
        rig.board.reset()
        assert rig.runs == OLD

    @pytest.mark.parametrize(("run_address", "log"), [(None, "none"), (None, "lines"), (0x40000, "none")])
    def test_the_error_names_what_was_not_checked(
        self, make_rig: Callable[..., Rig], run_address: int | None, log: str
    ) -> None:
        """Where a program starts, and the key that has an image for another address refused before it is sent."""
        rig = make_rig(profile={"swap": 1.0, "answer": 0.2, "run_address": run_address}, log=log)
        events: list[ev.Event] = []
        with pytest.raises(RebootFailed) as raised:
            rig.flash(image(NEW, start=0x40000), context=RunContext(events.append))
        said = str(raised.value.remedy)
        assert ("program starts at 0x00040" in said) == ("set run_address" in said) == (run_address is None)
        (planned,) = [event for event in events if isinstance(event, ev.Planned)]
        assert ("run_address is not set" in planned.unchecked) == (run_address is None)

    @pytest.mark.parametrize("recovery", [False, True])
    def test_an_image_that_its_bootloader_says_to_have_started_elsewhere(
        self, make_rig: Callable[..., Rig], recovery: bool
    ) -> None:
        """Nobody waits for the time of a swap."""
        rig = make_rig(profile={"swap": 120.0, "recovery": recovery}, log="lines")
        began = clock.monotonic()
        with pytest.raises(RebootFailed, match=r"started the image at 0x1000 .*starts at 0x00040") as raised:
            rig.flash(image(NEW, start=0x40000))
        left = raised.value.left
        assert left is not None
        assert (left.boots, left.verified) == (False, True)
        assert clock.monotonic() - began < 40
        assert ("brings the old one back" in str(raised.value.remedy)) is not recovery

    def test_an_image_that_starts_late_is_waited_for(
        self, make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An image that is linked for its slot may take all of its time."""
        rig = make_rig(profile={"swap": 60.0, "quiet": 0.02}, log="lines")
        run = rig.board._serve

        def serve_late(*items: Any, **keys: Any) -> None:
            if rig.runs == NEW:
                clock.sleep(30)
            run(*items, **keys)

        monkeypatch.setattr(rig.board, "_serve", serve_late)
        began = clock.monotonic()
        rig.flash()
        assert clock.monotonic() - began > 30

    def test_an_image_that_crashes_and_has_replaced_all(self, make_rig: Callable[..., Rig]) -> None:
        """Serial recovery wrote it over the only slot that starts: nothing is promised to come back."""
        rig = make_rig(profile={"swap": 1.0, "answer": 0.2}, blank=True)
        with pytest.raises(RebootFailed) as raised:
            rig.flash(image(NEW, start=0x40000))
        assert "no other one is there" in str(raised.value.remedy)
        assert "brings the old one back" not in str(raised.value.remedy)

    def test_a_bootloader_that_starts_nothing(self, make_rig: Callable[..., Rig]) -> None:
        """Its log says so, and nobody waits for the time of a swap."""
        rig = make_rig(profile={"recovery": True}, log="lines")
        rig.device.loader.boot = lambda: None  # type: ignore[method-assign]
        rig.board._build = replace(rig.board._build, recovery_wait=0.5)
        began = clock.monotonic()

        def without_recovery(event: ev.Event) -> None:
            if isinstance(event, ev.PhaseStarted) and event.phase is ev.Phase.BOOT:
                rig.board._build = replace(rig.board._build, recovery=False)

        with pytest.raises(RebootFailed, match="Unable to find bootable image") as raised:
            rig.flash(context=RunContext(without_recovery))
        assert raised.value.left is not None
        assert raised.value.left.boots is False
        assert clock.monotonic() - began < rig.profile.swap / 2

    def test_with_a_watchdog(self, make_rig: Callable[..., Rig]) -> None:
        """The part itself goes back, and that is reported."""
        rig = make_rig(watchdog=1.0)
        with pytest.raises(VerifyMismatch, match=r"1\.0\.0"):
            rig.flash(image(NEW, start=0x40000))
        assert rig.runs == OLD
        rig.flash()
        assert rig.runs == NEW


def is_reset(sent: bytes) -> bool:
    """Whether a line is the request to restart (op 2, group 0, command 5; "SMP over console")."""
    if not sent.startswith(b"\x06\x09"):
        return False
    header = base64.b64decode(sent[2:].strip())[2:10]
    return (header[0] & 7, header[4:6], header[7]) == (2, b"\0\0", 5)


class TestLostResets:
    """The request to restart into the new image is lost on its way to the part."""

    def losing(self, rig: Rig, count: int) -> list[bytes]:
        send = rig.wire.host.send
        lost: list[bytes] = []

        def sent(data: bytes, at: float | None = None) -> None:
            if is_reset(data) and len(lost) < count:
                lost.append(data)
            else:
                send(data, at)

        rig.wire.host.send = sent  # type: ignore[method-assign]
        return lost

    @pytest.mark.parametrize("count", [1, 2])
    def test_it_is_told_again(self, make_rig: Callable[..., Rig], count: int) -> None:
        rig = make_rig()
        lost = self.losing(rig, count)
        rig.flash()
        assert len(lost) == count
        assert (rig.runs, rig.stays) == (NEW, True)

    def test_into_recovery(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig(profile={"recovery": True})
        lost = self.losing(rig, 1)
        rig.flash()
        assert len(lost) == 1
        assert (rig.runs, rig.stays) == (NEW, True)

    def test_not_for_ever(self, make_rig: Callable[..., Rig]) -> None:
        rig = make_rig()
        lost = self.losing(rig, 100)
        with pytest.raises(VerifyMismatch):
            rig.flash()
        assert len(lost) == 3
        assert rig.runs == OLD


def test_what_it_is_asked(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(buf_size=512, buf_count=3)
    before = rig.device.supply.operations
    seen = rig.probe()
    assert seen is not None
    assert seen.state is State.RUNNING
    assert (seen.identity.version, seen.identity.part, seen.identity.bootloader) == (OLD, "acme_s1", "MCUboot")
    assert seen.identity.details["name"] == "imu"
    assert seen.identity.details["buffers"] == "3 x 512"
    assert rig.image(OLD)[-32:].hex() in seen.identity.details["slot_0"]
    assert rig.device.supply.operations == before
