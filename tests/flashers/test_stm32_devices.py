"""What is known of STM32 parts, held against stm32flash's own knowledge and against the reference manuals.

stm32flash is asked by a loader, played by hand on a pseudo-terminal, that has one product id after the other, and prints
the flash and its first sectors. (stm32loader: tests/emulators/test_stm32_peers.py.) What it has no row for, and the sectors
that follow the first ones, are held against FACTS.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import tty
from itertools import groupby
from operator import itemgetter
from typing import ClassVar

import pytest
from proxyflash.emulators.stm32.part import parts
from proxyflash.flashers.memory import EraseRun, MemoryMap, Range
from proxyflash.flashers.stm32.codec import MassErase
from proxyflash.flashers.stm32.erase_plan import chunks, erasures
from proxyflash.flashers.stm32.parts import FLASH_START, Stm32Family, families
from proxyflash.flashers.stm32.profile import Stm32Profile
from pydantic import ValidationError

FAMILIES = families()
KNOWN_TO_STM32FLASH = frozenset(
    (
        *range(0x410, 0x41A), *range(0x420, 0x424), 0x425, *range(0x427, 0x42A), *range(0x430, 0x43A),
        0x440, 0x441, 0x442, *range(0x444, 0x44A), *range(0x450, 0x453), *range(0x456, 0x459), *range(0x460, 0x465),
        *range(0x466, 0x46A), 0x470, 0x479, 0x641, 0x9A8, 0x9B0,
    )
)  # fmt: skip
"""What stm32flash 0.7 (Debian) has a row for."""

FACTS = {
    "STM32C0": "443: 16x2  453: 16x2  44C: 32x2  493: 64x2  44D: 128x2",
    "STM32C5": "44E: 64x8  44F: 32x8  45A: 128x8",
    "STM32F0": "440: 64x1  442: 128x2  444: 32x1  445: 32x1  448: 64x2",
    "STM32F1": "410: 128x1  412: 32x1  414: 256x2  418: 128x2  420: 128x1  428: 256x2  430: 512x2",
    "STM32F2": "411: 4x16 1x64 7x128",
    "STM32F3": "422: 128x2  432: 128x2  438: 32x2  439: 32x2  446: 256x2",
    "STM32F4": "413: 4x16 1x64 7x128  419: 4x16 1x64 7x128 4x16 1x64 7x128  421: 4x16 1x64 3x128  423: 4x16 1x64 1x128"
    "  431: 4x16 1x64 3x128  433: 4x16 1x64 3x128  434: 4x16 1x64 7x128 4x16 1x64 7x128  441: 4x16 1x64 7x128"
    "  458: 4x16 1x64  463: 4x16 1x64 11x128",
    "STM32F7": "449: 4x32 1x128 3x256  451: 4x32 1x128 7x256  452: 4x16 1x64 3x128",
    "STM32G0": "456: 32x2  460: 64x2  466: 32x2  467: 256x2",
    "STM32G4": "468: 64x2  469: 256x2  479: 256x2",
    "STM32H5": "474: 16x8  478: 64x8  47A: 512x8  47C: 128x8  484: 256x8",
    "STM32H7": "450: 16x128  480: 256x8  483: 8x128  485: 8x8",
    "STM32L0": "417: 512x.125  425: 256x.125  447: 1536x.125  457: 128x.125",
    "STM32L1": "416: 512x.25  427: 1024x.25  429: 512x.25  436: 1536x.25  437: 2048x.25",
    "STM32L4": "415: 512x2  435: 128x2  461: 512x2  462: 256x2  464: 64x2  470: 512x4  471: 256x4",
    "STM32L5": "472: 256x2",
    "STM32U0": "459: 32x2  489: 128x2",
    "STM32U3": "42A: 512x4  454: 256x4",
    "STM32U5": "455: 64x8  476: 512x8  481: 512x8  482: 256x8",
    "STM32WB": "494: 160x2  495: 256x4",
    "STM32WBA": "492: 128x8  4B0: 256x8",
    "STM32WL": "497: 128x2",
}
"""Product ids and the erase units of the largest part as delivered, COUNTxKIBIBYTES, as OpenOCD, ST's OpenOCD,
stm32-data and, for the C5, stlink have them (write protection of two pages by each of 32 bits a bank, in ST's driver of the
C5A3, says 8 KiB too, stm32-data 2). All begin at 0x08000000. Not read from AN2606 itself, whose tables were not at hand."""


@pytest.fixture(params=sorted(FAMILIES), ids=lambda product: f"0x{product:03X}")
def family(request: pytest.FixtureRequest) -> Stm32Family:
    return FAMILIES[request.param]


class Answering:
    """A loader that says who it is, and nothing else, on a pseudo-terminal."""

    def __init__(self, product: int) -> None:
        self._answers = {
            b"\x7f": b"\x79",
            b"\x00\xff": bytes.fromhex("79 0b 31 00 01 02 11 21 31 44 63 73 82 92 79"),
            b"\x01\xfe": bytes.fromhex("79 31 00 00 79"),
            b"\x02\xfd": b"\x79\x01" + product.to_bytes(2, "big") + b"\x79",
        }
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        heard = b""
        while True:
            heard += os.read(self._master, 64)
            if b"\0end" in heard:
                return
            answer = self._answers.get(heard)
            if answer is not None:
                os.write(self._master, answer)
                heard = b""

    def close(self) -> None:
        os.write(self._slave, b"\0end")
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)


@pytest.mark.real_time("stm32flash is a program of its own")
class TestAgainstStm32flash:
    @pytest.fixture
    def told(self, family: Stm32Family) -> str:
        program = shutil.which("stm32flash")
        if program is None:
            pytest.skip("stm32flash is not installed: apt-get install stm32flash")
        loader = Answering(family.product_id)
        done = subprocess.run([program, "-m", "8n1", loader.path], capture_output=True, text=True, timeout=60)
        loader.close()
        return done.stdout + done.stderr

    def test_flash_and_first_sectors(self, family: Stm32Family, told: str) -> None:
        known = re.search(r"Flash *: Up to (\d+)KiB \(size first sector: (\d+)x(\d+)\)", told)
        assert (known is not None) == (family.product_id in KNOWN_TO_STM32FLASH), told
        if known is None:
            return
        # Its count is of sectors under one write protection, which nothing here uses.
        size, _, sector = (int(text) for text in known.groups())
        if family.product_id == 0x470:
            # It has 1 MiB of 2 KiB pages; RM0432, 3.3.1, and OpenOCD have 2 MiB, of 4 KiB pages in two banks.
            assert (size, sector) == (1024, 2048)
            return
        assert (family.flash, family.sectors[0][1]) == (size * 1024, sector)


class TestEachFamily:
    def test_the_sectors_cover_the_flash(self, family: Stm32Family) -> None:
        regions = family.regions()
        assert sum(region.size for region in regions) == family.flash
        assert regions[0].start == FLASH_START
        assert family.flash % family.sectors[0][1] == 0

    def test_numbers_make_sense(self, family: Stm32Family) -> None:
        region = family.regions()[0]
        assert region.write_alignment & (region.write_alignment - 1) == 0
        assert region.write_alignment >= 4
        assert family.block % region.write_alignment == 0
        assert all(size % family.block == 0 or size == family.block for _, size in family.sectors)
        assert family.erased in (0x00, 0xFF)
        assert 0 < family.erase_seconds <= family.mass_seconds
        # In system memory, engineering bytes or the OTP area; none of a part that only stm32flash knows.
        places = (range(0x08FFF800, 0x08FFF900), range(0x0BF90000, 0x0BFA1000), range(0x1FF00000, 0x20000000))
        if family.product_id < 0x600:
            assert any(family.uid in place for place in places)
            assert family.size == 0 or any(family.size in place for place in places)
        assert family.uid % family.registers_from + family.uid_words[-1] + 4 <= 256
        assert family.size % family.registers_from + 2 <= 256

    def test_page_numbers_count_on(self, family: Stm32Family) -> None:
        numbers = family.page_numbers()
        assert sorted(numbers.values()) == list(range(len(numbers)))
        assert [numbers[start] for start in sorted(numbers)] == list(range(len(numbers)))

    def test_low_power_families_have_no_mass_erase_and_erase_to_zero(self, family: Stm32Family) -> None:
        """RM0377 and RM0038, flash chapters; AN3155, 3.8, for L0 and L1."""
        low_power = family.name.startswith(("STM32L0", "STM32L1"))
        assert family.mass != low_power
        assert (family.erased == 0) == low_power

    def test_smaller_parts(self, family: Stm32Family) -> None:
        for share in (2, 4):
            size = family.flash // share
            if size % family.sectors[0][1] == 0 and size >= family.sectors[0][1]:
                covered = sum(region.size for region in family.regions(size))
                assert size <= covered < size + max(unit for _, unit in family.sectors)


def test_every_known_product_id_is_there() -> None:
    listed = {int(found, 16) for facts in FACTS.values() for found in re.findall(r"(\w+):", facts)}
    assert set(FAMILIES) == listed | KNOWN_TO_STM32FLASH


@pytest.mark.parametrize("line", FACTS)
def test_sizes_and_sectors(line: str) -> None:
    for product, units in re.findall(r"(\w{3}):((?: [0-9]+x[0-9.]+)+)", FACTS[line]):
        family = FAMILIES[int(product, 16)]
        assert family.name.startswith(line)
        runs = [(int(count), int(float(size) * 1024)) for count, size in re.findall(r"(\d+)x([0-9.]+)", units)]
        found = [(run.count, run.size) for region in family.regions() for run in region.units]
        assert (product, merged(found)) == (product, merged(runs))


def merged(runs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Runs of one size, one after the other, as one."""
    return [(sum(run[0] for run in group), size) for size, group in groupby(runs, itemgetter(1))]


class TestLayoutsByOption:
    """RM0410 (nDBANK), RM0440 and RM0432 (DBANK): one bank or two, with other sectors."""

    @pytest.mark.parametrize(
        ("product", "word", "runs"),
        [
            (0x451, 1 << 13, [(4, 0x8000), (1, 0x20000), (7, 0x40000)]),
            (0x451, 0, [(4, 0x4000), (1, 0x10000), (7, 0x20000)] * 2),
            (0x469, 1 << 22, [(256, 2048)]),
            (0x469, 0, [(128, 4096)]),
            (0x470, 1 << 22, [(512, 4096)]),
            (0x470, 0, [(256, 8192)]),
            (0x471, 0, [(128, 8192)]),
        ],
    )
    def test_sectors(self, product: int, word: int, runs: list[tuple[int, int]]) -> None:
        (region,) = FAMILIES[product].by_option(word).regions()
        assert merged([(run.count, run.size) for run in region.units]) == merged(runs)

    def test_one_bank_has_no_bank_erase(self) -> None:
        assert FAMILIES[0x469].bank(1) is not None
        assert FAMILIES[0x469].by_option(0).bank(1) is None


@pytest.mark.parametrize("name", parts())
def test_each_emulated_part_is_of_a_known_family_with_the_same_facts(name: str) -> None:
    """Both sides were written from the documents by themselves: they check each other."""
    part = parts()[name]
    family = FAMILIES[part.product_id]
    size = sum(count * unit for count, unit in part.units)
    assert [unit for region in family.regions(size) for unit in [(run.count, run.size) for run in region.units]] == [
        (count, unit) for count, unit in part.units
    ]
    assert family.erased == part.erased
    assert family.write % part.program_unit == 0
    assert family.mass == (part.mass_erase is not None)
    assert [family.uid + word for word in family.uid_words] == list(part.uid)
    assert family.size == part.flash_size
    assert family.registers_from >= part.read_alignment
    assert (family.banks == 2) == (part.banks == 2 and part.mass_erase is not None)


class TestGeometry:
    """Against the reference manuals' tables of the flash."""

    @pytest.mark.parametrize(
        ("product", "address", "number"),
        [
            (0x413, 0x08010000, 4),  # RM0090, table 5.
            (0x413, 0x080E0000, 11),
            (0x419, 0x08100000, 12),  # RM0090, table 6.
            (0x419, 0x08110000, 16),
            (0x419, 0x081E0000, 23),
            (0x449, 0x08020000, 4),  # RM0385: four of 32 KiB, one of 128, three of 256.
            (0x449, 0x080C0000, 7),
            (0x450, 0x08100000, 8),  # RM0433, table 17: sector 0 of bank 2.
            (0x415, 0x08080000, 256),  # RM0351, table 7: page 256 begins bank 2.
            (0x410, 0x0801FC00, 127),  # RM0008, table 5.
            (0x447, 0x0802FF80, 1535),
        ],
    )
    def test_numbers_of_sectors(self, product: int, address: int, number: int) -> None:
        assert FAMILIES[product].page_numbers()[address] == number

    @pytest.mark.parametrize("product", [0x415, 0x419, 0x430, 0x450, 0x461, 0x469])
    def test_banks_are_halves_of_the_largest_part(self, product: int) -> None:
        family = FAMILIES[product]
        first, second = family.bank(1), family.bank(2)
        assert first == Range(FLASH_START, family.flash // 2)
        assert second == Range(FLASH_START + family.flash // 2, family.flash // 2)

    @pytest.mark.parametrize("product", [0x415, 0x419, 0x469])
    def test_no_bank_is_known_of_a_smaller_part(self, product: int) -> None:
        """By an option it may be one bank."""
        family = FAMILIES[product]
        assert family.bank(1, family.flash // 2) is None

    @pytest.mark.parametrize("product", [0x410, 0x413, 0x447, 0x460])
    def test_others_have_none(self, product: int) -> None:
        assert FAMILIES[product].bank(1) is None

    def test_the_h743_with_half_of_the_flash(self) -> None:
        """RM0433, table 17: its second bank begins at 0x08100000 too."""
        family = FAMILIES[0x450]
        assert [(region.start, region.size) for region in family.regions(0x100000)] == [
            (0x08000000, 0x80000), (0x08100000, 0x80000),
        ]  # fmt: skip
        assert family.bank(2, 0x100000) == Range(0x08100000, 0x80000)
        assert [region.size for region in family.regions(0x20000)] == [0x20000]


class TestErasures:
    """Which commands erase what."""

    family = FAMILIES[0x450]
    memory = MemoryMap(family.regions())
    units = tuple(memory.regions[0].erase_units(FLASH_START, FLASH_START + 0x200000))
    banks: ClassVar = {
        MassErase.BANK_1: Range(FLASH_START, 0x100000),
        MassErase.BANK_2: Range(FLASH_START + 0x100000, 0x100000),
    }

    def test_what_holds_the_first_comes_first(self) -> None:
        wanted = [self.units[8], *self.units[:2], *self.units[9:]]
        found = list(erasures(wanted, self.memory, self.banks, mass=True))
        assert found == [(MassErase.BANK_2, list(self.units[8:])), (None, list(self.units[:2]))]

    def test_both_banks_are_all(self) -> None:
        assert list(erasures(self.units, self.memory, self.banks, mass=True)) == [(MassErase.ALL, self.units)]
        found = list(erasures(self.units, self.memory, self.banks, mass=False))
        assert [what for what, _ in found] == [MassErase.BANK_1, MassErase.BANK_2]

    def test_no_unit_is_lost_or_doubled(self) -> None:
        for missing in range(len(self.units)):
            wanted = self.units[:missing] + self.units[missing + 1 :]
            found = [unit for _, units in erasures(wanted, self.memory, self.banks, mass=True) for unit in units]
            assert tuple(sorted(found)) == wanted

    @pytest.mark.parametrize("count", [1, 3, 100])
    def test_the_first_page_alone(self, count: int) -> None:
        found = list(chunks(self.units, count))
        assert len(found[0]) == 1
        assert max(len(chunk) for chunk in found) <= count
        assert tuple(unit for chunk in found for unit in chunk) == self.units


RUN = {"start": FLASH_START, "size": 1024, "erase_unit": 256}


class TestMemoryByHand:
    @pytest.mark.parametrize(
        ("memory", "why"),
        [
            ({"size": 1024, "erase_unit": 256}, r"memory = \[\{start = 0x0800_0000"),
            ([RUN | {"size": 1000}], "not a multiple of erase_unit"),
            ([RUN | {"size": 0}], "greater than 0"),
            ([RUN | {"erase_unit": 0}], "greater than 0"),
            ([RUN | {"write_alignment": 12}], "not a power of two"),
            ([RUN | {"start": FLASH_START + 4}], "multiples of write_alignment"),
            ([RUN | {"erased_value": 256}], "less than or equal to 255"),
            ([{"size": 1024, "erase_unit": 256}], "Field required"),
            ([RUN, RUN | {"start": FLASH_START + 768}], "overlap"),
            ([RUN | {"start": FLASH_START + 1024}], "needs number"),
            ([RUN, RUN | {"start": FLASH_START + 2048}], "needs number"),
            ([RUN, RUN | {"start": FLASH_START + 1024, "number": 3}], "the same number"),
            ([RUN | {"number": 0xFFEF}], "the same number, or one above"),
            ([RUN | {"start": 0xFFFF_FF00}], "beyond 32 bits"),
            ([RUN | {"size": 0x100_0000, "erase_unit": 16}], "more than"),
        ],
    )
    def test_can_not_be(self, memory: object, why: str) -> None:
        with pytest.raises(ValidationError, match=why):
            Stm32Profile.model_validate({"memory": memory})

    def test_runs_are_numbered_on(self) -> None:
        """RM0430, table 5: sectors 4 and 5 of an STM32F413 begin at 0x08010000 and 0x08020000, sector 15 at 0x08160000."""
        runs = [(0x0802_0000, 0x16_0000, 0x2_0000), (0x0800_0000, 0x1_0000, 0x4000), (0x0801_0000, 0x1_0000, 0x1_0000)]
        keys = ("start", "size", "erase_unit")
        profile = Stm32Profile.model_validate({"memory": [dict(zip(keys, run, strict=True)) for run in runs]})
        known = FAMILIES[0x463]
        memory = profile.memory_map()
        assert memory is not None
        (region,) = memory.regions
        assert (region.start, region.size, list(region.units)) == (
            FLASH_START, known.flash, [EraseRun(4, 0x4000), EraseRun(1, 0x10000), EraseRun(11, 0x20000)],
        )  # fmt: skip
        assert profile.numbers() == known.page_numbers()
        assert profile.numbers()[0x0816_0000] == 15

    def test_a_second_bank_beyond_a_gap(self) -> None:
        profile = Stm32Profile.model_validate({"memory": [RUN, RUN | {"start": 0x0810_0000, "number": 8}]})
        assert profile.numbers()[0x0810_0000] == 8
        memory = profile.memory_map()
        assert memory is not None
        assert [region.start for region in memory.regions] == [FLASH_START, 0x0810_0000]
