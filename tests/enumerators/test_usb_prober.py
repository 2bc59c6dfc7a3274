"""What is found on USB: components of the file, and devices that it does not mention, as lines that work once they are pasted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.benchfile import schema as benchfile
from proxyflash.enumerators.benchfile.schema import BenchFile, BusSpec
from proxyflash.enumerators.component import Unlisted
from proxyflash.enumerators.probers.usb import UsbProber
from proxyflash.flashers.flasher import State
from proxyflash.flashers.programmer import Programmer
from proxyflash.tests.flashers.dfu_lab import F405, NEW, OLD, PARTS, SLOT, Lab, Part
from proxyflash.transports.deadline import Deadline

BUS = '[bus.usb]\nkind = "usb"\n'


class Scanned(Lab):
    """A laboratory with a prober."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.prober = UsbProber("usb", BusSpec(kind="usb"), self.bus)

    def file(self, *components: str) -> BenchFile:
        path = self.folder / "bench.toml"
        path.write_text("\n\n".join([BUS, *components]), encoding="utf-8")
        return benchfile.load(path)

    def component(self, address: str) -> benchfile.BenchEntry:
        lines = f'[[component]]\nname = "it"\nbus = "usb"\nprotocol = "dfu"\naddress = {{{address}}}'
        return self.file(lines).entries["it"]

    def unlisted(self, *entries: benchfile.BenchEntry) -> list[Unlisted]:
        return self.prober.unlisted(entries, Deadline.after(5))

    def flash_entry(self, entry: benchfile.BenchEntry, part: Part) -> None:
        profile = entry.profile.model_copy(update={"reenumerate": 1.0, "slot_size": 0x20000})
        flasher = entry.flasher.attach(self.bus, entry.address, profile)
        programmer = Programmer(flasher, "it")
        programmer.flash(programmer.plan(part.image()))
        flasher.close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Scanned]:
    lab = Scanned(tmp_path)
    yield lab
    lab.close()


SLOT_IDS = "vendor_id = 0x1209, product_id = 0xDF01"
RUNNING = "runtime_vendor_id = 0x1209, runtime_product_id = 1"


def test_running_in_its_bootloader_and_absent(lab: Scanned) -> None:
    entry = lab.component(f"{SLOT_IDS}, {RUNNING}")
    device = lab.add(SLOT, serial="77")
    seen = lab.prober.probe(entry, Deadline.after(5))
    assert seen is not None
    assert (seen.state, seen.identity.serial, seen.identity.version) == (State.RUNNING, "77", OLD)
    assert device.application_version == OLD
    device.supply.off()
    assert lab.prober.probe(entry, Deadline.after(5)) is None
    assert lab.prober.can_tell(entry)
    device._options = type(device._options)(boot="dfu")
    device.supply.on()
    seen = lab.prober.probe(entry, Deadline.after(5))
    assert seen is not None
    assert (seen.state, seen.identity.version) == (State.BOOTLOADER, "")


def test_without_ids_of_the_application_it_can_not_be_told(lab: Scanned) -> None:
    """It is never said to be absent while it may be running."""
    entry = lab.component(SLOT_IDS)
    lab.add(SLOT)
    assert lab.prober.probe(entry, Deadline.after(5)) is None
    assert not lab.prober.can_tell(entry)
    assert lab.prober.can_tell(lab.component(f"{SLOT_IDS}, runtime_product_id = 1"))


@pytest.mark.parametrize("boot", ["application", "dfu"])
@pytest.mark.parametrize("part", PARTS.values(), ids=lambda part: part.name)
def test_lines_that_are_pasted_work(lab: Scanned, part: Part, boot: str) -> None:
    device = lab.add(part, serial='S"7', boot=boot)
    (found,) = lab.unlisted()
    assert found.title.startswith("dfu 1209:0001" if boot == "application" else f"dfu {part.vendor_id:04x}:")
    (entry,) = lab.file(found.lines).entries.values()
    assert lab.unlisted(entry) == []
    seen = lab.prober.probe(entry, Deadline.after(5))
    assert seen is not None
    assert seen.state is (State.RUNNING if boot == "application" else State.BOOTLOADER)
    device._options = type(device._options)()
    lab.flash_entry(entry, part)
    assert device.application_version == NEW


def test_pasted_lines_also_find_the_part_in_its_bootloader(lab: Scanned) -> None:
    """After an update that was cut: it sits in DFU mode, with ids that nobody has named."""
    device = lab.add(F405)
    (found,) = lab.unlisted()
    (entry,) = lab.file(found.lines).entries.values()
    device.flash.load(0x08000000, b"\xff" * 1024)
    device.supply.off()
    device.supply.on()
    seen = lab.prober.probe(entry, Deadline.after(5))
    assert seen is not None
    assert seen.state is State.BOOTLOADER
    assert lab.unlisted(entry) == []
    lab.flash_entry(entry, F405)
    assert device.application_version == NEW


def test_two_alike_get_lines_of_their_own(lab: Scanned) -> None:
    lab.add(SLOT, serial="A", boot="dfu")
    lab.add(SLOT, serial="A", boot="dfu")
    lab.add(SLOT, serial="B", boot="dfu")
    found = lab.unlisted()
    assert [line.lines.splitlines()[-1].rpartition(", ")[2] for line in found] == [
        'port = "1-1"}',
        'port = "1-2"}',
        'serial = "B"}',
    ]


@pytest.mark.parametrize(
    ("address", "listed"),
    [
        (f"{SLOT_IDS}, {RUNNING}", True),
        (f"{SLOT_IDS}, runtime_product_id = 1", True),
        (f'{SLOT_IDS}, {RUNNING}, serial = "A"', True),
        (f'{SLOT_IDS}, {RUNNING}, serial = "B"', False),
        (f'{SLOT_IDS}, {RUNNING}, port = "1-2"', False),
        (SLOT_IDS, False),
        ('vendor_id = 0xFFFF, product_id = 0xFFFF, port = "1-1"', True),
        (f"vendor_id = 0x0483, product_id = 0xDF11, {RUNNING}", True),
    ],
)
def test_what_a_component_claims(lab: Scanned, address: str, listed: bool) -> None:
    lab.add(SLOT, serial="A")
    assert (lab.unlisted(lab.component(address)) == []) == listed


def test_what_has_no_dfu_interface_is_left_alone(lab: Scanned) -> None:
    from dataclasses import replace

    lab.add(SLOT)
    function = lab.wire.ports[0].function
    assert function is not None
    hid: Any = tuple(replace(item, class_code=0x03) for item in function.descriptors.interfaces)
    function.descriptors = replace(function.descriptors, interfaces=hid)
    assert lab.unlisted() == []
