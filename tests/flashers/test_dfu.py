"""`DfuFlasher` against every emulated part, through pyusb and the real engine: what works, and what each failure is."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.dfu import device as emulated
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.dfu.states import State as BState
from proxyflash.emulators.usb.device import UsbFunction
from proxyflash.emulators.usb.wire import Port
from proxyflash.flashers.dfu import entry
from proxyflash.flashers.dfu.codec import DfuState
from proxyflash.flashers.dfu.flasher import DfuFlasher
from proxyflash.flashers.dfu.profile import DfuAddress, DfuProfile
from proxyflash.flashers.errors import (
    ImageMisplaced,
    ImageWrongPart,
    NoResponse,
    OperationFailed,
    PartProtected,
    PartRefused,
    PartWrongMode,
    ProtocolError,
    RebootFailed,
    VerifyMismatch,
    WrongLayout,
    WrongPart,
)
from proxyflash.flashers.flasher import State
from proxyflash.flashers.formats import load
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.memory import Range
from proxyflash.flashers.programmer import Programmer
from proxyflash.tests.flashers.dfu_lab import (
    BLIND,
    F105,
    F405,
    NEW,
    OLD,
    PARTS,
    READ,
    RESIDENT,
    SLOT,
    WAITING,
    Answering,
    Lab,
    Part,
    Recorder,
    memory,
    slot,
)
from proxyflash.tests.flashers.doing import Doing
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError, UsbAmbiguous, UsbStall
from proxyflash.transports.usb import claims
from proxyflash.transports.usb.bus import UsbMatch
from pydantic import ValidationError


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@pytest.fixture(params=PARTS.values(), ids=lambda part: part.name)
def part(request: pytest.FixtureRequest) -> Part:
    found: Part = request.param
    return found


# Every part: from the running old application to the running new one.


def test_write_verify_boot(lab: Lab, part: Part) -> None:
    device = lab.add(part)
    assert device.application_version == OLD
    result = lab.flash(part)
    assert device.application_version == NEW
    assert device.flash.read(part.start, 5000) == part.firmware(NEW)
    assert result.booted
    assert result.verified == ("read back" if part.can & READ else "manifestation by the part")


def test_every_row_is_tried() -> None:
    assert set(emulated.parts()) == set(PARTS)


def test_capabilities_are_those_of_the_descriptor(lab: Lab, part: Part) -> None:
    lab.add(part)
    flasher = lab.flasher(part)
    flasher.connect()
    assert flasher.capabilities == part.can


@pytest.mark.parametrize("part", [F405, F105, RESIDENT, SLOT], ids=lambda part: part.name)
def test_read_back_is_what_the_part_holds(lab: Lab, part: Part) -> None:
    lab.add(part)
    # Not at a block's start, and of no block's size: the last piece is a short one.
    (segment,) = lab.programmer(part).read([Range(part.start + 24, 4321)])
    assert segment == Segment(part.start + 24, part.firmware(OLD)[24 : 24 + 4321])


def test_an_application_that_was_only_looked_at_runs_again(lab: Lab, part: Part) -> None:
    device = lab.add(part)
    programmer = lab.programmer(part)
    programmer.connect()
    assert device.application_version is None
    programmer.release()
    assert device.application_version == OLD


def test_what_is_there_is_not_written_again(lab: Lab) -> None:
    device = lab.add(F405)
    lab.flash(F405)
    before = device.flash.erases, device.flash.programs
    result = lab.flash(F405)
    assert (result.erased_bytes, result.written_bytes) == (0, 0)
    assert (device.flash.erases, device.flash.programs) == before


def test_only_touched_sectors_are_erased(lab: Lab) -> None:
    device = lab.add(F405)
    lab.flash(F405, F405.image(size=0x4000 + 1))
    assert device.flash.erases == 2


def test_all_of_the_flash_is_erased_by_one_command(lab: Lab) -> None:
    device = lab.add(F405)
    seen = Recorder(lab)
    programmer = lab.programmer(F405)
    assert programmer.erase([Range(0x08000000, 0x100000)]) == 0x100000
    assert device.flash.read(0x08000000, 0x100000) == b"\xff" * 0x100000
    # AN2662, 4.5.3: one byte, no address.
    assert seen.downloads.count(b"\x41") == 1
    assert not any(data[:1] == b"\x41" and len(data) > 1 for data in seen.downloads)


def test_without_mass_erase_each_sector_is_erased(lab: Lab) -> None:
    device = lab.add(F405)
    seen = Recorder(lab)
    lab.programmer(F405, profile={"mass_erase": False}).erase([Range(0x08000000, 0x100000)])
    assert device.flash.read(0x08000000, 0x100000) == b"\xff" * 0x100000
    # AN2662, 4.5.3: 0x41 and the sector's address, lowest byte first. The sectors are DS8626's.
    starts = [*range(0x08000000, 0x08010000, 0x4000), 0x08010000, *range(0x08020000, 0x08100000, 0x20000)]
    assert [data for data in seen.downloads if data[:1] == b"\x41"] == [
        b"\x41" + struct.pack("<I", start) for start in starts
    ]


def test_a_bootloader_in_the_flash_is_left_alone(lab: Lab) -> None:
    device = lab.add(RESIDENT)
    device.flash.load(0x08000000, bytes(range(256)) * 0xC0)
    with pytest.raises(ImageMisplaced, match="may not be written"):
        lab.flash(RESIDENT, FirmwareImage((Segment(0x08008000, b"12345678"),), "bin"))
    lab.flash(RESIDENT)
    assert device.flash.read(0x08000000, 0xC000) == bytes(range(256)) * 0xC0


# Blocks.


def test_dfuse_blocks_are_counted_from_two_and_a_short_one_is_pointed_at(lab: Lab) -> None:
    """AN2662, 4.4.1: address = (block - 2) * length of the data + pointer; so the length may not change on the way."""
    lab.add(F105, old=b"", boot="dfu")
    seen = Recorder(lab)
    flasher = lab.flasher(F105)
    flasher.connect()
    assert [*memory(flasher).erase([Range(0x08000000, 2048), Range(0x08000800, 2048), Range(0x08001000, 2048)])][
        -1
    ] == 6144
    del seen.downloads[:], seen.blocks[:]
    assert [*memory(flasher).write(Segment(0x08000000, b"\x5a" * (2 * 2048 + 16)))] == [2048, 4096, 4112]
    assert seen.blocks == [0, 2, 3, 0, 2]
    assert seen.downloads[0] == bytes.fromhex("21 00 00 00 08")
    assert seen.downloads[3] == bytes.fromhex("21 00 10 00 08")
    assert lab.devices[0].flash.read(0x08000000, 4112) == b"\x5a" * 4112


TINY = {"transfer_size": 8, "restart": 0.0, "will_detach": True}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts with blocks of 8 bytes, whose block numbers end at half a megabyte."""
    rows = emulated.parts()
    slot = {**rows["slot-dfu"], **TINY, "sectors": [[10, 0x10000, 0.0, "g"]]}
    dfuse = {**rows["stm32f105-dfu"], **TINY, "sectors": [[10, 0x10000, 0.0, "g"]]}
    monkeypatch.setitem(rows, "slot-dfu", slot)
    monkeypatch.setitem(rows, "stm32f105-dfu", dfuse)


@pytest.mark.usefixtures("tiny")
def test_block_numbers_wrap_in_a_slot(lab: Lab) -> None:
    """DFU 1.1, 6.1.1: wBlockNum counts blocks and wraps from 65535 to 0."""
    device = lab.add(SLOT, old=b"", boot="dfu")
    seen = Recorder(lab)
    flasher = lab.flasher(SLOT, profile={"slot_size": 0xA0000})
    flasher.connect()
    firmware = SLOT.firmware(NEW, 65538 * 8)
    assert [*slot(flasher).upload(firmware)][-1] == len(firmware)
    assert device.flash.read(0, len(firmware)) == firmware
    # The empty block that ends the transfer is a block as well.
    assert seen.blocks[65534:] == [65534, 65535, 0, 1, 2]
    assert b"".join(slot(flasher).read(65535 * 8, 24)) == firmware[65535 * 8 :]


@pytest.mark.usefixtures("tiny")
def test_dfuse_sets_the_address_anew_where_block_numbers_end(lab: Lab) -> None:
    device = lab.add(F105, old=b"", boot="dfu")
    seen = Recorder(lab)
    flasher = lab.flasher(F105)
    flasher.connect()
    size = (65536 - 2) * 8 + 16
    firmware = F105.firmware(NEW, size)
    assert [*memory(flasher).write(Segment(0x08000000, firmware))][-1] == size
    assert device.flash.read(0x08000000, size) == firmware
    assert seen.blocks[-4:] == [65535, 0, 2, 3]
    assert b"".join(memory(flasher).read(0x08000000 + 65533 * 8, 24)) == firmware[65533 * 8 :]


class TestWrongLayouts:
    """A device with pages of 1 KiB whose name announces others."""

    runs = ({"start": 0x0800_0000, "size": 0x2_0000, "erase_unit": 1024},)

    @pytest.fixture
    def liar(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def make(layout: str, **facts: Any) -> None:
            rows = emulated.parts()
            row = {**rows[F105.name], "sectors": [[128, 1024, 0.03, "g"]], "layout": layout, **facts}
            monkeypatch.setitem(rows, F105.name, row)

        return make

    @staticmethod
    def erase_units(flasher: DfuFlasher) -> list[tuple[int, int]]:
        (region,) = memory(flasher).memory_map().regions
        return [(run.count, run.size) for run in region.units]

    @pytest.mark.parametrize(
        ("serial", "pages"),
        [("3CBJ", 128), ("3C8J", 64), ("3C6J", 32), ("3C4J", 16), (b"3CBJ".decode("utf-16-le"), 128), ("X", 256)],
    )
    def test_a_gd32vf103(self, lab: Lab, liar: Callable[..., None], serial: str, pages: int) -> None:
        """dfu-util's quirks.c: it says 2 KiB pages, and its serial number is not UTF-16; "X" is a device nobody knows."""
        liar("@Internal Flash  /0x08000000/256*002Kg", vendor_id=0x28E9, product_id=0x0189)
        lab.add(F105, dfu_serial=serial, boot="dfu")
        part = replace(F105, vendor_id=0x28E9, product_id=0x0189)
        flasher = lab.flasher(part)
        flasher.connect()
        assert self.erase_units(flasher) == [(pages, 2048 if serial == "X" else 1024)]

    def test_the_profile_goes_before_the_device(self, lab: Lab, liar: Callable[..., None]) -> None:
        liar("@Internal Flash  /0x08000000/064*002Kg")
        device = lab.add(F105)
        device.flash.load(0x0800_1800, b"KEEP")
        lab.flash(F105, profile={"memory": self.runs})
        assert device.application_version == NEW
        assert device.flash.read(0x0800_1800, 4) == b"KEEP"

    def test_a_wrong_one_ends_after_the_first_erase(self, lab: Lab, liar: Callable[..., None]) -> None:
        """The device has the 2 KiB that it announces; the profile knows it better, and is wrong."""
        liar("@Internal Flash  /0x08000000/064*002Kg", sectors=[[64, 2048, 0.03, "g"]])
        device = lab.add(F105, boot="dfu")
        device.flash.load(0x0800_0000, b"\x5a" * 0x4000)
        with pytest.raises(WrongLayout, match="has also erased what lay at 0x08000400"):
            lab.flash(F105, profile={"memory": self.runs})
        assert device.flash.read(0x0800_0000, 0x4000) == b"\xff" * 2048 + b"\x5a" * 0x3800

    def test_no_mass_erase_by_another_layout(self, lab: Lab, liar: Callable[..., None]) -> None:
        liar("@Internal Flash  /0x08000000/064*002Kg")
        device = lab.add(F105, boot="dfu")
        device.flash.load(0x0801_0000, b"KEEP")
        half = ({**self.runs[0], "size": 0x1_0000},)
        with lab.programmer(F105, profile={"memory": half}) as programmer:
            programmer.erase([Range(0x0800_0000, 0x1_0000)])
        assert device.flash.read(0x0801_0000, 4) == b"KEEP"

    def test_a_maple_is_no_dfuse_device(self, lab: Lab, liar: Callable[..., None]) -> None:
        """dfu-util's quirks.c, FORCE_DFU11."""
        liar("@Flash/0x08005000/1*1Kg", vendor_id=0x1EAF, product_id=0x0003, bcd_device=0x0200)
        lab.add(F105, boot="dfu")
        flasher = lab.flasher(replace(F105, vendor_id=0x1EAF, product_id=0x0003))
        flasher.connect()
        assert slot(flasher).slot().name == "slot"

    @pytest.mark.parametrize(
        ("profile", "why"),
        [
            ({"memory": {"size": 1024}}, r"memory = \[\{start"),
            ({"memory": (runs[0], runs[0])}, "overlap"),
            ({"memory": ({**runs[0], "erase_unit": 1000},)}, "not a multiple of erase_unit"),
            ({"memory": ({**runs[0], "start": 4},)}, "multiples of write_alignment"),
            ({"transfer_size": 8192}, "less than or equal to 4096"),
            ({"transfer_size": 12}, "multiple of 8"),
            ({"transfer_size": 24, "write_alignment": 16}, "not a multiple of write_alignment"),
        ],
    )
    def test_can_not_be(self, profile: dict[str, Any], why: str) -> None:
        with pytest.raises(ValidationError, match=why):
            DfuProfile.model_validate(profile)


def test_a_plan_for_a_slot_says_that_its_contents_go(lab: Lab) -> None:
    lab.add(SLOT)
    with lab.programmer(SLOT) as programmer:
        plan = programmer.plan(SLOT.image())
    assert (plan.erased_bytes, plan.replaces) == (0, "the slot")


@pytest.mark.parametrize(("size", "most"), [(8192, 4096), (65535, 4096), (4096, 4096), (8192, 512), (2048, 512)])
@pytest.mark.parametrize("part", [SLOT, WAITING, F105], ids=lambda part: part.name)
def test_transfers_are_no_longer_than_libusb_takes(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, part: Part, size: int, most: int
) -> None:
    """libusb's os/linux_usbfs.h: MAX_CTRL_BUFFER_LENGTH is 4096. A device may say more (DFU 1.1, 4.1.3)."""
    rows = emulated.parts()
    monkeypatch.setitem(rows, part.name, {**rows[part.name], "transfer_size": size})
    device = lab.add(part)
    seen = Recorder(lab)
    lab.flash(part, part.image(size=18_000), profile={} if most == 4096 else {"transfer_size": most})
    assert device.application_version == NEW
    assert max(map(len, seen.downloads)) == min(size, most)


@pytest.mark.parametrize("part", [SLOT, F105], ids=lambda part: part.name)
def test_an_upload_that_ends_early_is_no_reading(lab: Lab, part: Part) -> None:
    lab.add(part, boot="dfu")
    flasher = lab.flasher(part)
    flasher.connect()
    Answering(lab, {2: lambda answer: answer[:100]})
    with pytest.raises(ProtocolError, match="100"):
        b"".join(flasher.access().read(part.start, 3000))


# Waiting.


@pytest.fixture
def paced() -> Iterator[Lab]:
    lab = Lab(pace=1.0)
    yield lab
    lab.close()


def test_poll_timeouts_are_waited_out(paced: Lab) -> None:
    """A device that stalls a GETSTATUS that comes too early (DFU 1.1, A.2.5) is never asked too early."""
    device = paced.add(F105, early="stall")
    result = paced.flash(F105, profile={"reenumerate": 10.0})
    assert device.application_version == NEW
    # 3 pages of 2048 bytes at 30 ms: PM0075's typical 20 to 40 ms.
    assert result.seconds >= 3 * 0.03


def test_a_device_that_is_asked_too_early_and_says_so_only_by_being_busy(lab: Lab) -> None:
    device = lab.add(SLOT, early="stall")
    lab.flash(SLOT)
    assert device.application_version == NEW


def test_work_that_takes_for_ever_is_an_error(lab: Lab) -> None:
    device = lab.add(F405)
    programmer = lab.programmer(F405, profile={"work": 0.2})
    plan = programmer.plan(F405.image())
    status = bytes([0, 10, 0, 0, BState.DNBUSY, 0])
    Answering(lab, {3: lambda answer: status})
    with pytest.raises(ProtocolError, match=r"dfuDNBUSY for 0\.2 s"):
        programmer.flash(plan)
    assert device.application_version is None


# What the status means.

MEANING = {
    # bStatus (DFU 1.1, 6.1.2): on a DFU 1.1 device, on a DfuSe device.
    0x01: (ImageWrongPart, PartRefused),
    0x02: (ImageWrongPart, ImageWrongPart),
    0x03: (OperationFailed, OperationFailed),
    0x04: (OperationFailed, OperationFailed),
    0x05: (OperationFailed, OperationFailed),
    0x06: (OperationFailed, OperationFailed),
    0x07: (VerifyMismatch, VerifyMismatch),
    0x08: (PartRefused, PartRefused),
    0x09: (PartRefused, PartRefused),
    0x0A: (VerifyMismatch, VerifyMismatch),
    0x0B: (PartProtected, PartProtected),
    0x0C: (OperationFailed, OperationFailed),
    0x0D: (OperationFailed, OperationFailed),
    0x0E: (OperationFailed, OperationFailed),
    0x0F: (PartRefused, PartRefused),
}


@pytest.mark.parametrize("status", MEANING)
@pytest.mark.parametrize("part", [SLOT, F105], ids=["dfu", "dfuse"])
def test_each_status_is_an_error_of_its_own(lab: Lab, part: Part, status: int) -> None:
    lab.add(part, boot="dfu", fail_at=2, fail_with=status)
    flasher = lab.flasher(part)
    flasher.connect()
    firmware = part.firmware(NEW)
    working = slot(flasher).upload(firmware) if part is SLOT else memory(flasher).write(Segment(part.start, firmware))
    with pytest.raises(ProxyflashError) as caught:
        for _ in working:
            pass
    assert type(caught.value) is MEANING[status][part is F105]
    # It names the status as the standard does, and the device is idle again.
    assert "err" in caught.value.cause
    assert lab.devices[0].state is BState.IDLE


@pytest.mark.parametrize("part", [F405, SLOT], ids=lambda part: part.name)
def test_a_failure_that_passes_is_tried_again(lab: Lab, part: Part) -> None:
    device = lab.add(part, fail_at=3, fail_with=0x06)
    lab.flash(part)
    assert device.application_version == NEW


# Protections.


def test_read_protection_is_seen_before_anything_is_erased(lab: Lab) -> None:
    device = lab.add(F405, rdp=True)
    with pytest.raises(PartProtected, match="errVENDOR") as caught:
        lab.flash(F405)
    assert "erases" in caught.value.remedy
    assert device.flash.erases == 0
    assert device.application_version == OLD


@pytest.mark.parametrize("what", ["erase", "write", "read"])
def test_read_protection_forbids_all(lab: Lab, what: str) -> None:
    lab.add(F405, rdp=True)
    flasher = lab.flasher(F405)
    flasher.connect()
    actions: dict[str, Callable[[], Any]] = {
        "erase": lambda: [*memory(flasher).erase([Range(0x08000000, 0x4000)])],
        "write": lambda: [*memory(flasher).write(Segment(0x08000000, bytes(16)))],
        "read": lambda: [*memory(flasher).read(0x08000000, 16)],
    }
    with pytest.raises(PartProtected):
        actions[what]()


def test_a_write_protected_sector_is_found_by_verifying(lab: Lab) -> None:
    """AN2662, 4.5.3: no error is returned there."""
    device = lab.add(F405, write_protected=[0])
    with pytest.raises(VerifyMismatch):
        lab.flash(F405)
    assert device.flash.erases == 0


# Manifestation.


@pytest.mark.parametrize("part", [SLOT, WAITING, BLIND], ids=lambda part: part.name)
def test_the_part_refuses_what_is_no_firmware(lab: Lab, part: Part) -> None:
    device = lab.add(part)
    with pytest.raises(VerifyMismatch):
        lab.flash(part, FirmwareImage((Segment(0, bytes(range(256)) * 8),), "bin", relocatable=True))
    assert device.application_version is None
    lab.flash(part)
    assert device.application_version == NEW


def test_the_part_says_that_there_must_be_more(lab: Lab) -> None:
    """A.2.6: an empty download that the device does not take for the end."""
    lab.add(SLOT)
    short = SLOT.firmware(NEW)[:3000]
    with pytest.raises(PartRefused, match="errNOTDONE"):
        lab.flash(SLOT, FirmwareImage((Segment(0, short),), "bin", relocatable=True))


@pytest.mark.parametrize("part", [WAITING, BLIND], ids=lambda part: part.name)
def test_a_part_that_comes_back_in_its_bootloader_has_refused(lab: Lab, part: Part) -> None:
    """It is not tolerant: whether it took the firmware shows in what it starts."""
    device = lab.add(part)
    programmer = lab.programmer(part, profile={"reenumerate": 0.1})
    plan = programmer.plan(part.image())
    device._options = emulated.DfuOptions(boot="dfu")
    with pytest.raises(VerifyMismatch, match="in DFU mode again"):
        programmer.flash(plan)


def test_a_part_left_waiting_for_its_reset_is_reset(lab: Lab) -> None:
    """An earlier session ended between manifestation and reset (state 8, which answers nothing)."""
    device = lab.add(WAITING)
    flasher = lab.flasher(WAITING)
    flasher.connect()
    link = flasher._session.link
    firmware = WAITING.firmware(OLD, 600)
    for block, offset in enumerate(range(0, 600, 512)):
        link.download(block, firmware[offset : offset + 512], "")
        link.settle("", (DfuState.dfuDNLOAD_IDLE,))
    link.download(2, b"", "")
    link.status()
    with pytest.raises(UsbStall):
        link.status()
    assert device.state is BState.MANIFEST_WAIT_RESET
    flasher.close()
    lab.flash(WAITING)
    assert device.application_version == NEW


def test_a_part_with_no_whole_firmware_says_so_and_is_flashed(lab: Lab) -> None:
    device = lab.add(SLOT, old=b"")
    assert device.state is BState.ERROR
    lab.flash(SLOT)
    assert device.application_version == NEW


# Booting.


def test_an_address_with_the_ids_of_the_application(lab: Lab) -> None:
    """DFU 1.1, 4.2.1: in DFU mode a device may have another product id. The line that is shown works."""
    device = lab.add(SLOT)
    ids: dict[str, Any] = {"vendor_id": 0x1209, "product_id": 1, "runtime_vendor_id": None, "runtime_product_id": None}
    with pytest.raises(PartWrongMode, match="1209:0001 are the ids of its running application") as caught:
        lab.flash(SLOT, **ids)
    assert "Write it as dfu:1209:df01?runtime_vendor_id=0x1209&runtime_product_id=0x0001, or" in caught.value.remedy
    assert device.application_version == OLD
    lab.flash(SLOT, vendor_id=0x1209, product_id=0xDF01, runtime_vendor_id=0x1209, runtime_product_id=0x0001)
    assert device.application_version == NEW


def test_a_lost_detach(lab: Lab) -> None:
    """The application runs on, and no id is wrong: it is detached again."""
    device = lab.add(SLOT)
    passed_on, losses = lab.wire.control, iter([b""])

    def control(port: Any, function: Any, setup: bytes, data: bytes) -> bytes:
        lost = next(losses, None) if setup[:2] == b"\x21\x00" else None
        return passed_on(port, function, setup, data) if lost is None else lost

    lab.wire.control = control  # type: ignore[method-assign]
    lab.flash(SLOT)
    assert device.application_version == NEW


def test_not_back(lab: Lab) -> None:
    """Its boot pin is held: it starts its bootloader again."""
    lab.add(F405, boot="dfu")
    with pytest.raises(RebootFailed, match="in DFU mode again") as raised:
        lab.flash(F405)
    assert "boot pin or button still held" in str(raised.value.remedy)


def test_an_application_of_which_nothing_is_known(lab: Lab) -> None:
    device = lab.add(F405, old=b"")
    flasher = lab.flasher(F405, runtime_vendor_id=None, runtime_product_id=None)
    programmer = Programmer(flasher, "part")
    programmer.flash(programmer.plan(F405.image()))
    assert device.application_version == NEW


# Which file for which part, which memory.


@pytest.mark.parametrize(
    "target",
    [
        {},
        {"vendor_id": 0x1209, "product_id": 0xDF01},
        {"vendor_id": 0x1209, "product_id": 1},  # those of the application
        {"vendor_id": 0x1209},
        {"product_id": 0xDF01},
        {"vendor_id": 0x1209, "product_id": 0xDF01, "device": 0x0100},
    ],
)
def test_a_suffix_for_this_part(lab: Lab, target: dict[str, Any]) -> None:
    device = lab.add(SLOT)
    lab.flash(SLOT, SLOT.image(**target))
    assert device.application_version == NEW


@pytest.mark.parametrize(
    "target",
    [
        {"vendor_id": 0x0483, "product_id": 0xDF01},
        {"vendor_id": 0x1209, "product_id": 0xDF02},
        {"vendor_id": 0x0483},
        {"product_id": 2},
    ],
)
def test_a_suffix_for_another_part(lab: Lab, target: dict[str, Any]) -> None:
    device = lab.add(SLOT)
    with pytest.raises(ImageWrongPart, match="suffix"):
        lab.flash(SLOT, SLOT.image(**target))
    assert device.flash.erases == 0
    assert device.application_version == OLD


def test_a_dfuse_file_for_another_alternate_setting_goes_to_its_memory(lab: Lab) -> None:
    device = lab.add(F405)
    otp = FirmwareImage((Segment(0x1FFF7800, b"calibration!"),), "dfuse", target={"alt_setting": 2})
    flasher = lab.flasher(F405)
    flasher.connect()
    memory(flasher).memory_map(otp.target)
    assert [region.name for region in memory(flasher).memory_map().regions] == ["OTP Memory"]
    assert [*memory(flasher).write(otp.segments[0])] == [12]
    assert b"".join(memory(flasher).read(0x1FFF7800, 12)) == b"calibration!"
    flasher.start_application()
    assert device.application_version == OLD
    assert device.flash.erases == device.flash.programs == 0


def test_what_was_read_can_be_written_back(lab: Lab) -> None:
    """All that is read belongs to what may be written: no option bytes among it."""
    device = lab.add(F405)
    programmer = lab.programmer(F405)
    regions = programmer.memory_map().regions
    backup = FirmwareImage(tuple(programmer.read([Range(item.start, item.size) for item in regions])), "hex")
    programmer.release()
    assert sum(segment.size for segment in backup.segments) == 0x100000
    lab.flash(F405)
    lab.flash(F405, backup)
    assert device.application_version == OLD


def test_the_alternate_setting_of_the_address(lab: Lab) -> None:
    device = lab.add(F405)
    programmer = lab.programmer(F405, alt=2)
    assert [region.name for region in programmer.memory_map().regions] == ["OTP Memory"]
    programmer.release()
    assert device.application_version == OLD
    with pytest.raises(ImageMisplaced):
        lab.flash(F405, alt=2)


def test_an_alternate_setting_that_is_not_there(lab: Lab) -> None:
    device = lab.add(F405)
    with pytest.raises(ImageWrongPart, match=r"alternate setting 7, the device has 0, 1, 2, 3"):
        lab.flash(F405, F405.image(alt_setting=7))
    assert device.application_version == OLD


@pytest.mark.parametrize(
    ("address", "target"),
    [(0x1FFFC000, {}), (0x1FFFC000, {"alt_setting": 0}), (0x08000000, {"alt_setting": 2}), (0x20000000, {})],
)
def test_an_image_that_lies_in_another_memory_is_refused(lab: Lab, address: int, target: dict[str, int]) -> None:
    device = lab.add(F405)
    image = FirmwareImage((Segment(address, bytes(16)),), "dfuse", target=target)
    with pytest.raises(ImageMisplaced):
        lab.flash(F405, image)
    assert device.flash.erases == 0
    assert device.application_version == OLD


def test_a_dfuse_file_is_not_for_a_slot(lab: Lab) -> None:
    device = lab.add(SLOT)
    image = FirmwareImage((Segment(0x08000000, F405.firmware(NEW)),), "dfuse", target={"alt_setting": 0})
    with pytest.raises(ImageMisplaced):
        lab.flash(SLOT, image)
    assert device.application_version == OLD


def test_the_address_names_no_alternate_setting_of_the_part(lab: Lab) -> None:
    device = lab.add(F405)
    with pytest.raises(PartWrongMode, match="no alternate setting 9; it has: 0 '@Internal Flash"):
        lab.programmer(F405, alt=9).connect()
    assert device.application_version == OLD


def test_another_part_than_the_profile_names(lab: Lab) -> None:
    device = lab.add(F405)
    with pytest.raises(WrongPart, match="STM32  BOOTLOADER"):
        lab.flash(F405, profile={"part": "STM32H7"})
    assert device.application_version == OLD


def dfuse_file(alternate: int, address: int, data: bytes) -> bytes:
    """UM0391, 2: prefix, one target with one element, suffix."""
    element = struct.pack("<II", address, len(data)) + data
    target = struct.pack("<6sBI255sII", b"Target", alternate, 1, b"ST...", len(element), 1) + element
    prefix = struct.pack("<5sBIB", b"DfuSe", 1, 11 + len(target), 1)
    suffix = struct.pack("<4H3sB", 0xFFFF, 0xDF11, 0x0483, 0x011A, b"UFD", 16)
    body = prefix + target + suffix
    return body + struct.pack("<I", zlib.crc32(body) ^ 0xFFFFFFFF)


def test_a_dfuse_file(lab: Lab, tmp_path: Path) -> None:
    device = lab.add(F405)
    file = tmp_path / "new.dfu"
    file.write_bytes(dfuse_file(0, 0x08000000, F405.firmware(NEW)))
    lab.flash(F405, load(file))
    assert device.application_version == NEW
    file.write_bytes(dfuse_file(2, 0x1FFF7810, b"calibrated"))
    flasher = lab.flasher(F405)
    programmer = Programmer(flasher, "part")
    image = load(file)
    result = programmer.flash(programmer.plan(image), boot=False)
    assert (result.erased_bytes, result.verified) == (0, "read back")
    assert b"".join(memory(flasher).read(0x1FFF7810, 10)) == b"calibrated"
    file.write_bytes(dfuse_file(1, 0x08000000, F405.firmware(OLD)))
    with pytest.raises(ImageMisplaced):
        programmer.plan(load(file))


def test_a_file_with_a_suffix(lab: Lab, tmp_path: Path) -> None:
    """DFU 1.1, appendix B: bcdDevice, idProduct, idVendor, bcdDFU, "UFD", bLength, dwCRC."""
    device = lab.add(SLOT)
    file = tmp_path / "new.dfu"
    for product, refused in ((0xDF02, True), (0xDF01, False)):
        body = SLOT.firmware(NEW) + struct.pack("<4H3sB", 0xFFFF, product, 0x1209, 0x0100, b"UFD", 16)
        file.write_bytes(body + struct.pack("<I", zlib.crc32(body) ^ 0xFFFFFFFF))
        with pytest.raises(ImageWrongPart) if refused else nullcontext():
            lab.flash(SLOT, load(file))
        assert device.application_version == (OLD if refused else NEW)


# Which device.


def test_nothing_there(lab: Lab) -> None:
    with pytest.raises(NoResponse, match="0483:df11 or 1209:0001"):
        lab.flash(F405)


def test_two_alike_are_told_apart_by_what_the_error_says(lab: Lab) -> None:
    one, two = lab.add(SLOT, serial="A"), lab.add(SLOT, serial="B")
    with pytest.raises(UsbAmbiguous) as caught:
        lab.flash(SLOT)
    assert 'serial = "A" or serial = "B"' in caught.value.remedy
    lab.flash(SLOT, serial="B")
    assert (one.application_version, two.application_version) == (OLD, NEW)


def test_two_alike_with_one_serial_number(lab: Lab) -> None:
    one, two = lab.add(SLOT, serial="A"), lab.add(SLOT, serial="A")
    with pytest.raises(UsbAmbiguous) as caught:
        lab.flash(SLOT, serial="A")
    assert 'port = "1-1" or port = "1-2"' in caught.value.remedy
    lab.flash(SLOT, port="1-2")
    assert (one.application_version, two.application_version) == (OLD, NEW)


def test_a_part_is_followed_by_its_port(lab: Lab) -> None:
    """Another part sits in DFU mode already; the part with the named serial number is detached, and written."""
    other, meant = lab.add(SLOT, serial="A", boot="dfu"), lab.add(SLOT, serial="B")
    lab.flash(SLOT, serial="B")
    assert meant.application_version == NEW
    assert other.state is BState.IDLE
    assert other.flash.erases == 0


def test_a_serial_number_that_is_another_one_in_dfu_mode(lab: Lab) -> None:
    other, meant = lab.add(F405, serial="A", dfu_serial="3251"), lab.add(F405, serial="B", dfu_serial="3252")
    lab.flash(F405, serial="B")
    assert (other.application_version, meant.application_version) == (OLD, NEW)


def test_one_in_dfu_mode_is_not_guessed_to_be_the_one_that_is_meant(lab: Lab) -> None:
    """It may be the equal one beside it that another process is about to flash."""
    devices = [lab.add(SLOT, boot="dfu"), lab.add(SLOT)]
    with pytest.raises(UsbAmbiguous, match=r"2 USB devices are 1209:df01 or 1209:0001: .* at port 1-1, .* at port 1-2"):
        lab.flash(SLOT)
    assert devices[1].application_version == OLD


@pytest.mark.parametrize(("part", "resets"), [(F405, 0), (SLOT, 1)], ids=["will detach", "waits for a reset"])
def test_only_a_part_that_waits_for_it_is_reset(lab: Lab, part: Part, resets: int) -> None:
    """DFU 1.1, 5.1 and table 4.2: bitWillDetach."""
    lab.add(part)
    seen: list[object] = []
    passed_on = lab.backend.reset_device

    def reset(handle: Any) -> None:
        seen.append(handle)
        passed_on(handle)

    lab.backend.reset_device = reset  # type: ignore[method-assign, assignment]
    lab.programmer(part).connect()
    assert len(seen) == resets


def test_any_ids_at_a_port(lab: Lab) -> None:
    device = lab.add(SLOT)
    lab.flash(SLOT, vendor_id=0xFFFF, product_id=0xFFFF, port="1-1")
    assert device.application_version == NEW
    with pytest.raises(NoResponse):
        lab.flash(SLOT, vendor_id=0xFFFF, product_id=0xFFFF, port="1-2")
    with pytest.raises(NoResponse):
        # It runs, and what runs has other ids.
        lab.flash(SLOT, vendor_id=0xFFFF, product_id=0xFFFF, port="1-1", runtime_product_id=2)
    with pytest.raises(ValueError, match="port"):
        DfuAddress(vendor_id=0xFFFF, product_id=0xFFFF)


def test_the_ids_of_dfu_mode_are_not_those_of_the_address(lab: Lab) -> None:
    lab.add(SLOT)
    with pytest.raises(PartWrongMode, match=r"no 1209:dead.* came back within 1 s; there is 1209:df01"):
        lab.flash(SLOT, product_id=0xDEAD)


class TestAnotherPort:
    """A virtual machine that a device is handed to again plugs it in wherever there is room."""

    def moving(self, lab: Lab, **settings: Any) -> DfuDevice:
        device = lab.add(SLOT, **settings)
        plug = lab.wire.plug

        def elsewhere(port: Port, function: UsbFunction) -> None:
            if port is device._port:
                device._port = port = lab.wire.new_port()
            plug(port, function)

        lab.wire.plug = elsewhere  # type: ignore[method-assign]
        return device

    @pytest.mark.parametrize("dfu_serial", ["", "ROM1"], ids=["by its serial number", "as the only one"])
    def test_it_is_found_there(self, lab: Lab, dfu_serial: str) -> None:
        other = lab.add(SLOT, serial="B2")
        device = self.moving(lab, serial="A1", dfu_serial=dfu_serial)
        lab.flash(SLOT, serial="A1")
        assert (device.application_version, other.application_version) == (NEW, OLD)

    def test_of_two_that_came_neither_is_taken(self, lab: Lab) -> None:
        self.moving(lab, serial="A1", dfu_serial="ROM1")
        plug = lab.wire.plug

        def with_another(port: Port, function: UsbFunction) -> None:
            plug(port, function)
            lab.wire.plug = plug  # type: ignore[method-assign]
            lab.add(SLOT, serial="B2", boot="dfu")

        lab.wire.plug = with_another  # type: ignore[method-assign]
        with pytest.raises(
            PartWrongMode, match=r"; there is 1209:df01 at port 1-2, serial ROM1, 1209:df01 at port 1-3"
        ):
            lab.flash(SLOT, serial="A1")

    @pytest.mark.parametrize("told", [True, False], ids=["the same ids in both modes", "no ids of its application"])
    def test_one_that_is_there_in_dfu_mode_again_runs_nothing(self, lab: Lab, told: bool) -> None:
        self.moving(lab, boot="dfu")
        vendor, product = (SLOT.vendor_id, SLOT.product_id) if told else (None, None)
        with pytest.raises(RebootFailed, match="in DFU mode again"):
            lab.flash(SLOT, runtime_vendor_id=vendor, runtime_product_id=product)

    def test_one_whose_application_runs_on_there(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        device = self.moving(lab, vendor_id=SLOT.vendor_id, product_id=SLOT.product_id)
        restart = device._restart
        monkeypatch.setattr(device, "_restart", lambda dfu: restart(dfu=False))
        with pytest.raises(PartWrongMode, match="came back within 1 s"):
            lab.flash(SLOT, runtime_vendor_id=None, runtime_product_id=None)

    def test_another_one_of_the_same_serial_number(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        """Both are known by their ports, and leave at the same time: the first one back is not taken for the other."""
        lab.add(SLOT, serial="0001")
        second = lab.add(SLOT, serial="0001", boot="dfu")
        lab.bus.open_device(UsbMatch(port=f"1-{second._port.number}")).close()
        monkeypatch.setattr(lab.bus, "ports", lambda: frozenset())
        address = DfuAddress(**{**SLOT.address, "port": "1-1"})
        [info] = lab.bus.list(address.runtime())
        assert not entry._elsewhere(lab.bus, address, info, (), in_dfu_mode=True)

    @pytest.mark.parametrize("serial", ["", "0001"], ids=["no serial number", "the same serial number"])
    def test_the_first_that_comes_may_be_another_one_that_is_away(self, lab: Lab, serial: str) -> None:
        second = lab.add(SLOT, serial=serial)
        lab.bus.open_device(UsbMatch(port=f"1-{second._port.number}")).close()
        lab.wire.unplug(second._port)
        self.moving(lab, serial=serial)
        with pytest.raises(PartWrongMode, match="came back within 1 s"):
            lab.flash(SLOT)

    def test_the_first_that_comes_may_be_another_process_s(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moving(lab, serial="")
        monkeypatch.setattr(lab.bus, "_of_this_host", True)
        monkeypatch.setattr(claims, "of_others", lambda: [claims.Claimed("1-7", frozenset())])
        with pytest.raises(PartWrongMode, match="came back within 1 s"):
            lab.flash(SLOT)

    def test_two_that_leave_one_after_the_other_are_found(self, lab: Lab) -> None:
        devices = [self.moving(lab, serial=serial, dfu_serial="ROM1") for serial in ("A1", "B2")]
        for serial in ("A1", "B2"):
            lab.flash(SLOT, serial=serial)
        assert [device.application_version for device in devices] == [NEW, NEW]

    def test_a_message_names_where_such_devices_are(self, lab: Lab) -> None:
        lab.add(SLOT, serial="B2")
        with pytest.raises(NoResponse, match=r"; there is 1209:0001 at port 1-1, serial B2"):
            lab.flash(SLOT, serial="A1")


def test_the_same_ids_in_both_modes(lab: Lab) -> None:
    device = lab.add(SLOT, vendor_id=0x1209, product_id=0xDF01)
    lab.flash(SLOT, runtime_vendor_id=None, runtime_product_id=None)
    assert device.application_version == NEW


def test_a_running_part_without_a_dfu_interface(lab: Lab) -> None:
    """It can't be detached; it is named all the same."""
    device = lab.add(SLOT)
    function = lab.wire.ports[0].function
    assert function is not None
    hid = tuple(replace(item, class_code=0x03) for item in function.descriptors.interfaces)
    function.descriptors = replace(function.descriptors, interfaces=hid)
    with pytest.raises(PartWrongMode, match="no DFU interface"):
        lab.flash(SLOT)
    assert device.application_version == OLD


@pytest.mark.parametrize("part", [F405, SLOT], ids=lambda part: part.name)
def test_the_dfu_interface_of_a_composite_device(lab: Lab, part: Part) -> None:
    """wIndex is the number of the DFU interface (table 3.2), which need not be 0."""
    device = lab.add(part, runtime_interface=2)
    lab.flash(part)
    assert device.application_version == NEW


def test_parts_that_are_flashed_at_the_same_time(paced: Lab) -> None:
    """On one bus, at true times, by threads of their own: each is followed by its own port."""
    devices = [paced.add(SLOT, serial=serial) for serial in "ABC"]
    profile = {"reenumerate": 30.0, "slot_size": 0x20000}
    flashing = [Doing(partial(paced.flash, SLOT, serial=serial, profile=profile)) for serial in "ABC"]
    results = [doing.result(100) for doing in flashing]
    assert [result.verified for result in results] == ["read back"] * 3
    assert [device.application_version for device in devices] == [NEW] * 3


# Seeing without disturbing.


def test_sight(lab: Lab, part: Part) -> None:
    def probe() -> Any:
        return DfuFlasher.probe(
            lab.bus, DfuAddress(**part.address), DfuProfile(), active=False, deadline=Deadline.after(1)
        )

    assert probe() is None
    device = lab.add(part, serial="77")
    seen = probe()
    assert (seen.state, seen.identity.version, seen.identity.serial) == (State.RUNNING, OLD, "77")
    flasher = lab.flasher(part)
    flasher.connect()
    flasher.close()
    seen = probe()
    assert (seen.state, seen.identity.version, seen.identity.part) == (State.BOOTLOADER, "", device._part["product"])
    assert seen.identity.bootloader == ("22.0.0" if part.vendor_id == 0x0483 else "1.0.0")


def test_sight_of_two_alike_tells_what_both_have(lab: Lab) -> None:
    lab.add(SLOT, serial="A")
    lab.add(SLOT, serial="B", old=SLOT.firmware("1.0.0"))
    seen = DfuFlasher.probe(lab.bus, DfuAddress(**SLOT.address), DfuProfile(), active=False, deadline=Deadline.after(1))
    assert seen is not None
    assert (seen.identity.serial, seen.identity.version) == ("", "")
    assert seen.identity.details["ports"] == "1-1, 1-2"
