"""What must not be flashed is refused before anything is erased, and the part runs on what it ran."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    ImageMisplaced,
    ImageTooLarge,
    ImageWrongPart,
    PartError,
    PartProtected,
    PartRefused,
    PartWrongMode,
    SecurityDenied,
    WrongPart,
)
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.flashers.flasher import Target
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import Programmer
from proxyflash.hil_tests.boot_session import bootloader, running
from proxyflash.hil_tests.firmware import Firmware
from proxyflash.transports.errors import ProxyflashError

# Destructive: if it is not refused, the part is written to.
pytestmark = pytest.mark.destructive

PROTECTED = Path(__file__).parent / "benches" / "protected.toml"
FOREIGN: Target = {"vendor_id": 0xF055, "product_id": 0x0001, "machine": "none"}
"""What a file says of its part that is true of no part."""
LOCKS: dict[str, type[PartError] | tuple[type[PartError], ...]] = {
    "not-ready": (PartWrongMode, PartRefused),
    "locked-session": (PartWrongMode, PartRefused),
    "read-protected": PartProtected,
    "write-protected": PartProtected,
    "read-protected-usb": PartProtected,
}


def refused(
    component: BenchComponent,
    image: FirmwareImage,
    error: type[ProxyflashError] | tuple[type[ProxyflashError], ...],
    profile: object = None,
) -> ProxyflashError:
    """Flashed as by the command; that must fail so, without an erase, and leave the part running what it ran."""
    __tracebackhide__ = True
    before = running(component)
    told: list[ev.Event] = []
    transport = component.bench.transport(component.entry.spec.bus)
    entry = component.entry
    flasher = entry.flasher.attach(transport, entry.address, profile or entry.profile)
    programmer = Programmer(flasher, component.name, RunContext(told.append))
    try:
        with pytest.raises(error) as caught:
            component.carry_out(programmer, programmer.plan(image))
    finally:
        flasher.close()
    assert caught.value.component == component.name
    assert caught.value.cause
    assert not any(isinstance(event, ev.Progress) and event.phase in (Phase.ERASE, Phase.WRITE) for event in told)
    after = running(component, before.version)
    assert (after.id, after.version) == (before.id, before.version)
    return caught.value


def holds_it_still(component: BenchComponent, image: FirmwareImage) -> None:
    """All of it, not only what makes it run."""
    with bootloader(component) as session:
        assert session.holds(image)
        session.programmer.start()
    running(component)


def test_a_part_of_another_family(component: BenchComponent, firmware: Firmware) -> None:
    """The bench file names another part than the one here."""
    component.flash(firmware.old.image)
    profile = component.entry.profile.model_copy(update={"part": "No such part"})
    refused(component, firmware.new.image, WrongPart, profile)
    holds_it_still(component, firmware.old.image)


@pytest.mark.parametrize("more", [1, pytest.param(4096, marks=pytest.mark.slow)])
def test_an_image_that_is_too_large(component: BenchComponent, firmware: Firmware, more: int) -> None:
    component.flash(firmware.old.image)
    with bootloader(component) as session:
        region = session.region
        session.programmer.start()
    data = bytes(firmware.new.image.segments[0].data)
    filled = data + b"\x5a" * (region.size + more - len(data))
    large = FirmwareImage((Segment(region.start, filled),), "bin", "large", target=firmware.new.image.target)
    refused(component, large, ImageTooLarge)
    relocatable = replace(large, segments=(Segment(0, filled),), relocatable=True)
    refused(component, relocatable, ImageTooLarge)
    holds_it_still(component, firmware.old.image)


def test_an_image_for_another_place(component: BenchComponent, firmware: Firmware) -> None:
    """Its last byte lies behind the memory, or it lies elsewhere altogether."""
    component.flash(firmware.old.image)
    with bootloader(component) as session:
        regions = session.memory.regions
        session.programmer.start()
    far = max(region.end for region in regions) + 0x100
    image = FirmwareImage((Segment(far, b"\x5a" * 64),), "bin", "far", target=firmware.new.image.target)
    refused(component, image, ImageMisplaced)
    holds_it_still(component, firmware.old.image)


def test_a_file_for_another_device(component: BenchComponent, firmware: Firmware) -> None:
    """A DFU file's suffix names the device that it is for, an ELF file its processor."""
    with bootloader(component) as session:
        refuses = session.refuses(FOREIGN)
        session.programmer.start()
    running(component)
    if not refuses:
        pytest.skip(f"'{component.name}' does not look at what a file says of its part")
    component.flash(firmware.old.image)
    good = firmware.new.image
    bad = FirmwareImage(good.segments, good.format, "other", target=FOREIGN, relocatable=good.relocatable)
    refused(component, bad, ImageWrongPart)
    holds_it_still(component, firmware.old.image)


def test_a_key_that_is_wrong(component: BenchComponent, firmware: Firmware) -> None:
    """And the next command has the right one."""
    profile = component.entry.flasher.wrong_key(component.entry.profile)
    if profile is None:
        pytest.skip(f"'{component.name}' asks for no key")
    component.flash(firmware.old.image)
    refused(component, firmware.new.image, SecurityDenied, profile)
    component.flash(firmware.new.image)
    running(component, firmware.new.version)


@pytest.mark.parametrize("name", LOCKS)
def test_a_part_that_is_protected(name: str, tmp_path: Path) -> None:
    """No bench has parts for that alone, and none to lock for a test: these are emulated on any bench."""
    with Bench.open(PROTECTED, state=tmp_path) as bench:
        component = bench.component(name)
        before = (PROTECTED.parent / str(component.entry.spec.emulated["firmware"])).read_bytes()
        changed = bytearray(before)
        changed[-1] ^= 0x5A
        image = FirmwareImage((Segment(0, bytes(changed)),), "bin", "new", relocatable=True)
        error = refused(component, image, LOCKS[name])
        assert error.remedy or error.exit_status
