"""DfuSe memory layouts: UM0391, 10.3.2, and strings as real devices give them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.dfu.dfuse_layout import parse_layout
from proxyflash.flashers.errors import ProtocolError
from proxyflash.flashers.memory import Erase, EraseRun, Range, Region

K, M = 1 << 10, 1 << 20


def runs(*sizes: tuple[int, int]) -> tuple[EraseRun, ...]:
    return tuple(EraseRun(count, size) for count, size in sizes)


@pytest.mark.parametrize(
    ("name", "start", "units"),
    [
        # STM32F405/407, 1 MiB.
        (
            "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
            0x08000000,
            runs((4, 16 * K), (1, 64 * K), (7, 128 * K)),
        ),
        # STM32F105/107.
        ("@Internal Flash  /0x08000000/128*002Kg", 0x08000000, runs((128, 2 * K))),
        # STM32H743.
        ("@Internal Flash   /0x08000000/16*128Kg", 0x08000000, runs((16, 128 * K))),
        # STM32L476.
        ("@Internal Flash  /0x08000000/512*0002Kg", 0x08000000, runs((512, 2 * K))),
        # STM32F042, UM0391's own: unit "B" and " " are bytes.
        ("@Internal Flash /0x08000000/032*0001Kg", 0x08000000, runs((32, K))),
        ("@NOR Flash /0x64000000/256*64Kg", 0x64000000, runs((256, 64 * K))),
        ("@SPI Flash : M25P64/0x00000000/128*64Kg", 0, runs((128, 64 * K))),
        ("@Large/0x90000000/016*001Mg", 0x90000000, runs((16, M))),
        ("@Bytes/0x10/02*016Bg,1*8 g,1*4g", 0x10, runs((2, 16), (1, 8), (1, 4))),
    ],
)
def test_flash(name: str, start: int, units: tuple[EraseRun, ...]) -> None:
    (region,) = parse_layout(name, 8)
    assert (region.start, region.units) == (start, units)
    assert region.size == sum(run.count * run.size for run in units)
    assert (region.readable, region.writable, region.erase) == (True, True, Erase.BY_UNIT)
    assert (region.head is not None) == (start == 0x08000000)
    assert region.write_alignment == 8


def test_erase_units_are_where_the_reference_manual_has_them() -> None:
    """RM0090, table 5: sectors 0 to 11 of the STM32F40x."""
    (region,) = parse_layout("@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg", 4)
    assert [unit.start for unit in region.erase_units(region.start, region.end)] == [
        0x08000000, 0x08004000, 0x08008000, 0x0800C000, 0x08010000, 0x08020000, 0x08040000, 0x08060000, 0x08080000,
        0x080A0000, 0x080C0000, 0x080E0000,
    ]  # fmt: skip
    assert [*region.erase_units(0x0800FFFF, 0x08010001)] == [Range(0x0800C000, 16 * K), Range(0x08010000, 64 * K)]


@pytest.mark.parametrize(
    ("name", "start", "size"),
    [
        ("@Option Bytes  /0x1FFFC000/01*016 e", 0x1FFFC000, 16),
        ("@OTP Memory /0x1FFF7800/01*512 e,01*016 e", 0x1FFF7800, 528),
        ("@Device Feature/0xFFFF0000/01*004 e", 0xFFFF0000, 4),
    ],
)
def test_what_is_written_without_erasing(name: str, start: int, size: int) -> None:
    (region,) = parse_layout(name, 1)
    assert (region.start, region.size) == (start, size)
    assert (region.readable, region.writable, region.erase) == (True, True, Erase.NEVER)


@pytest.mark.parametrize(
    ("letter", "readable", "erasable", "writable"),
    [
        # UM0391, 10.3.2: a readable, b erasable, c both, d writable, e readable and writable, f erasable and writable, g all.
        ("a", True, False, False),
        ("b", False, True, False),
        ("c", True, True, False),
        ("d", False, False, True),
        ("e", True, False, True),
        ("f", False, True, True),
        ("g", True, True, True),
    ],
)
def test_letters(letter: str, readable: bool, erasable: bool, writable: bool) -> None:
    (region,) = parse_layout(f"@Flash/0x08000000/1*1K{letter}", 1)
    assert (region.readable, region.erase is Erase.BY_UNIT, region.writable) == (readable, erasable, writable)


def test_a_bootloader_in_the_first_sectors_is_a_region_of_its_own() -> None:
    name = "@Internal Flash  /0x08000000/03*016Ka,01*016Kg,01*064Kg,07*128Kg"
    boot, rest = parse_layout(name, 4)
    assert (boot.start, boot.end, boot.writable, boot.readable) == (0x08000000, 0x0800C000, False, True)
    assert (rest.start, rest.units) == (0x0800C000, runs((1, 16 * K), (1, 64 * K), (7, 128 * K)))
    assert rest.writable
    assert rest.head is None


def test_several_memories_in_one_name() -> None:
    """UM0391, 10.3.2: each with its address."""
    first, second = parse_layout("@Dual/0x08000000/02*128Kg/0x08100000/01*016Kg,01*016Ka", 4)[:2]
    assert (first.start, first.end) == (0x08000000, 0x08040000)
    assert (second.start, second.end) == (0x08100000, 0x08104000)
    assert [region.name for region in (first, second)] == ["Dual", "Dual"]


def test_memories_that_touch_and_take_the_same_are_one() -> None:
    (region,) = parse_layout("@Flash/0x08000000/1*16Kg/0x08004000/1*64Kg", 4)
    assert region.units == runs((1, 16 * K), (1, 64 * K))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@Internal Flash",
        "@Internal Flash/",
        "@Internal Flash/0x08000000",
        "@Internal Flash/0x08000000/",
        "@Internal Flash/0x08000000/04*016K",
        "@Internal Flash/0x08000000/04*016Kh",
        "@Internal Flash/0x08000000/04*016Gg",
        "@Internal Flash/0x08000000/00*016Kg",
        "@Internal Flash/0x08000000/04*000Kg",
        "@Internal Flash/0x08000000/04x016Kg",
        "@Internal Flash/0x08000000/-1*016Kg",
        "@Internal Flash/0x08000000/04*016Kg,",
        "@Internal Flash/-0x08000000/04*016Kg",
        "@Internal Flash/0x0800_0000/04*016Kg",
        "@Internal Flash/flash/04*016Kg",
        "@Internal Flash/0x100000000/01*016Kg",
        "@Internal Flash/0xFFFFF000/02*004Kg",
        "@Internal Flash/0x08000000/999999*999999Mg",
        "@Internal Flash/0x08000000/٤*016Kg",
        "@Internal Flash/0x08000000/04*016Kg/0x90000000",
        "@Internal Flash/0x08000000/04*016Kg/0x08001000/01*016Ka",
    ],
)
def test_no_layout(name: str) -> None:
    with pytest.raises(ProtocolError, match="memory layout"):
        parse_layout(name, 1)


LAYOUTS = st.from_regex(
    r"@[A-Za-z ]{0,9}(/0x[0-9A-F]{1,9}/[0-9]{1,4}\*[0-9]{1,4}[ BKM]?[a-h](,[0-9]{1,3}\*[0-9]{1,3}[KM]g){0,3}){1,3}",
    fullmatch=True,
)


@given(st.one_of(st.text(max_size=126), st.text(alphabet="@/0x189AF*,KMB ag", max_size=60), LAYOUTS))
@settings(max_examples=300, deadline=None)
def test_any_name_is_a_layout_or_confused(name: str) -> None:
    try:
        regions = parse_layout(name, 8)
    except ProtocolError:
        return
    assert regions
    for region in regions:
        assert isinstance(region, Region)
        assert 0 <= region.start < region.end <= 1 << 32
        assert region.size == sum(run.count * run.size for run in region.units) > 0


def test_a_name_that_no_descriptor_holds_is_refused_before_it_is_taken_apart() -> None:
    name = "@Flash/0x08000000/" + ",".join(["1*1 g", "1*1 a"] * 4000)
    with pytest.raises(ProtocolError, match=f"has {len(name):,} characters") as raised:
        parse_layout(name, 4)
    assert len(raised.value.cause) < 200
