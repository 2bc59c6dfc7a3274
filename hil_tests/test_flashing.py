"""The way that an update goes when nothing is in its way: flash, verify, read back, downgrade, the same again."""

from __future__ import annotations

import pytest
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import VerifyMismatch
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.flashers.flasher import Capability
from proxyflash.flashers.memory import Range
from proxyflash.hil_tests.boot_session import RUNNING, bootloader, running
from proxyflash.hil_tests.firmware import Firmware, TestImage
from proxyflash.hil_tests.measurements import Measurements

pytestmark = pytest.mark.destructive


def flashed(component: BenchComponent, release: TestImage) -> list[ev.Event]:
    """The events of its flash; it runs then."""
    told: list[ev.Event] = []
    result = component.flash(release.image, context=RunContext(told.append))
    assert result is not None
    assert result.verified
    assert result.component == component.name
    if result.version is not None and release.version:
        assert result.version == release.version
    running(component, release.version)
    return told


def test_an_update_is_written_verified_and_runs(
    component: BenchComponent, firmware: Firmware, measurements: Measurements
) -> None:
    flashed(component, firmware.old)
    told = flashed(component, firmware.new)
    phases = [event for event in told if isinstance(event, ev.PhaseFinished)]
    assert [event.phase for event in phases][-2:] == [Phase.VERIFY, Phase.BOOT]
    for event in phases:
        measurements.add(event.phase.value, event.seconds, "s", low=0)
    written = [event for event in told if isinstance(event, ev.Progress) and event.phase is Phase.WRITE]
    assert written
    assert written[-1].done == written[-1].total
    assert [event.done for event in written] == sorted(event.done for event in written)


def test_a_downgrade_runs(component: BenchComponent, firmware: Firmware) -> None:
    flashed(component, firmware.new)
    flashed(component, firmware.old)


def test_the_same_image_again_writes_nothing(component: BenchComponent, firmware: Firmware) -> None:
    """A part that can't be compared, or has a slot to fill, is written whole, and runs it all the same."""
    release = firmware.new
    flashed(component, release)
    with bootloader(component) as session:
        tells = session.tells
        session.programmer.start()
    running(component)
    result = component.flash(release.image)
    assert result is not None
    assert result.verified
    if tells:
        assert (result.erased_bytes, result.written_bytes) == (0, 0)
    else:
        assert result.written_bytes >= release.image.size
    running(component, release.version)


def test_what_it_holds_is_the_image(component: BenchComponent, firmware: Firmware) -> None:
    """Verified by the part's own means, and read back where it lets itself be read."""
    old, new = firmware.old, firmware.new
    flashed(component, new)
    with bootloader(component) as session:
        programmer = session.programmer
        assert session.holds(new.image)
        if session.capabilities & Capability.READ:
            image = new.image.at(session.region.start) if new.image.relocatable else new.image
            compared = programmer.memory_map().compared(image.segments)
            read = programmer.read([Range(segment.address, segment.size) for segment in compared])
            assert [bytes(piece.data) for piece in read] == [bytes(segment.data) for segment in compared]
        programmer.start()
    running(component, new.version)
    with bootloader(component) as session:
        if session.is_silent:
            assert session.holds(old.image)
        else:
            with pytest.raises(VerifyMismatch):
                session.programmer.verify(old.image)
        session.programmer.release()
    running(component, new.version)


def test_what_was_written_does_not_run_until_it_is_booted(component: BenchComponent, firmware: Firmware) -> None:
    """The part waits in its bootloader. One with a slot for it runs the old release beside it, and the same command, which
    sends nothing again, has it started."""
    release = firmware.new
    beside = component.entry.flasher.runs_while_written(component.entry.profile)
    flashed(component, firmware.old)
    result = component.flash(release.image, boot=False)
    assert result is not None
    assert not result.booted
    assert result.version is None
    if component.can_be_asked:
        found = component.look()
        if beside:
            assert found.presence in RUNNING
            assert found.version == firmware.old.version
        else:
            assert found.presence not in RUNNING
    if beside:
        assert component.flash(release.image, expect_version=release.version) is not None
        return
    with bootloader(component) as session:
        component.start(session.programmer, expect_version=release.version or None)
    running(component, release.version)


def test_a_plan_that_is_declined_changes_nothing(component: BenchComponent, firmware: Firmware) -> None:
    flashed(component, firmware.old)
    told: list[ev.Event] = []
    with component.programmer(RunContext(told.append)) as programmer:
        assert not programmer.plan(firmware.new.image).nothing_to_do
    assert not [event for event in told if isinstance(event, ev.PhaseStarted) and event.phase is Phase.ERASE]
    running(component, firmware.old.version)
    with bootloader(component) as session:
        assert session.holds(firmware.old.image)
        session.programmer.start()
    running(component, firmware.old.version)
