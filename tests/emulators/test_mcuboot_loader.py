"""The emulated MCUboot: which image runs after a reset, by docs/design.md of MCUboot, and after a cut at any operation."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.flash import NorFlash
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.emulators.mcuboot.image import BadImage
from proxyflash.emulators.mcuboot.loader import Mcuboot, Mode, Pair, Swap, TrailerBad
from proxyflash.emulators.mcuboot.slot import Flag, Slot
from proxyflash.emulators.smp.part import parts
from proxyflash.emulators.supply import PowerLost, Supply


def image(version: str, size: int = 450) -> bytes:
    numbers = [int(part) for part in version.split(".")]
    firmware = version.encode() * (size // len(version))
    return mcuboot_image.make(firmware, (numbers[0], numbers[1], numbers[2], 0), header_size=32)


OLD, NEW = image("1.0.0", 450), image("2.1.0", 800)


class Part:
    """A part's flash with its loader, and nothing around it."""

    def __init__(self, name: str = "acme-s1", mode: Mode = Mode.SWAP, *, no_downgrade: bool = False) -> None:
        self.supply = Supply()
        part = parts()[name]
        self.flash = part.make_flash(self.supply, None, lambda seconds: None)
        self.loader = part.make_loader(self.flash, mode, no_downgrade=no_downgrade)
        self.pair = self.loader.pairs[0]

    def put(self, place: int, data: bytes, number: int = 0) -> None:
        self.flash.load(self.loader.pairs[number].slots[place].start, data)

    def wish(self, *, confirm: bool = False) -> None:
        self.pair.set_next(self.pair.secondary, active=False, confirm=confirm)

    def confirm(self) -> None:
        self.pair.set_next(self.pair.primary, active=True, confirm=True)

    def boot(self) -> str:
        """Resets it until the supply stays; the version that runs, "" for none."""
        while True:
            try:
                booted = self.loader.boot()
                return "" if booted is None else booted[1].version_text
            except PowerLost:
                self.supply.on()

    def holds(self, place: int) -> str:
        whole = self.pair.slots[place].whole_image()
        return "" if whole is None else whole.version_text


def both(mode: Mode = Mode.SWAP) -> Part:
    part = Part(mode=mode)
    part.put(0, OLD)
    part.put(1, NEW)
    return part


class TestImage:
    """The image format, field by field as docs/design.md has it."""

    def by_hand(self, *, protected: bytes = b"", records: bytes | None = None) -> bytes:
        firmware = bytes(range(200))
        run = struct.pack("<HH", 0x6908, 4 + len(protected)) + protected if protected else b""
        head = struct.pack("<IIHHIIBBHII", 0x96F3B83D, 0, 32, len(run), 200, 0, 1, 2, 3, 4, 0)
        hashed = head + firmware + run
        found = struct.pack("<BBH", 0x10, 0, 32) + hashlib.sha256(hashed).digest() if records is None else records
        return hashed + struct.pack("<HH", 0x6907, 4 + len(found)) + found

    def read(self, data: bytes) -> mcuboot_image.Image:
        part = Part()
        part.put(1, data)
        return part.pair.secondary.image()

    def test_fields(self) -> None:
        found = self.read(self.by_hand())
        assert found.version == (1, 2, 3, 4)
        assert found.version_text == "1.2.3.4"
        assert found.size == 32 + 200 + 4 + 36

    def test_protected_records_are_hashed(self) -> None:
        data = bytearray(self.by_hand(protected=struct.pack("<BBH", 0x50, 0, 4) + b"\1\0\0\0"))
        part = Part()
        part.put(1, bytes(data))
        assert part.holds(1) == "1.2.3.4"
        data[32 + 200 + 4 + 4] ^= 1
        part.put(1, bytes(data))
        assert part.holds(1) == ""

    @pytest.mark.parametrize("at", [20, 40, 31 + 200])
    def test_a_changed_bit_is_seen(self, at: int) -> None:
        data = bytearray(self.by_hand())
        data[at] ^= 0x10
        part = Part()
        part.put(1, bytes(data))
        assert part.holds(1) == ""

    @pytest.mark.parametrize(
        ("records", "reason"),
        [
            (b"", "no hash"),
            (struct.pack("<BBH", 0x10, 0, 31) + bytes(31), "no hash"),
            ((struct.pack("<BBH", 0x10, 0, 32) + bytes(32)) * 2, "hashes"),
        ],
    )
    def test_records_that_are_none(self, records: bytes, reason: str) -> None:
        with pytest.raises(BadImage, match=reason):
            self.read(self.by_hand(records=records))

    def test_a_blank_slot(self) -> None:
        with pytest.raises(BadImage, match="none"):
            Part().pair.secondary.image()

    @given(st.binary(max_size=300), st.integers(0, 260))
    @settings(max_examples=200, deadline=None)
    def test_anything_may_be_there(self, noise: bytes, at: int) -> None:
        part = Part()
        part.put(1, self.by_hand())
        part.flash.load(part.pair.secondary.start + at, noise)
        part.holds(1)
        part.boot()


class TestTrailer:
    """docs/design.md, "Image Trailer": where what lies, and what it means."""

    def test_where_the_magic_lies(self) -> None:
        part = both()
        part.wish()
        end = part.pair.secondary.start + part.pair.secondary.size
        assert part.flash.read(end - 16, 16).hex() == "77c295f3" + "60d2ef7f" + "3552500f" + "2cb67980"

    @pytest.mark.parametrize(
        ("primary", "secondary", "swap"),
        [
            ("", "", Swap.NONE),
            ("", "magic", Swap.TEST),
            ("", "magic ok", Swap.PERM),
            ("magic done ok", "magic", Swap.TEST),
            ("magic done", "magic ok", Swap.PERM),
            ("magic done", "", Swap.REVERT),
            ("magic done ok", "", Swap.NONE),
            ("done", "", Swap.NONE),
        ],
    )
    def test_swap_types(self, primary: str, secondary: str, swap: Swap) -> None:
        part = both()
        for slot, words in ((part.pair.primary, primary), (part.pair.secondary, secondary)):
            writers = {"magic": slot.set_magic, "ok": slot.set_image_ok, "done": slot.set_copy_done}
            for word in words.split():
                writers[word]()
        assert part.pair.swap() is swap

    def test_a_torn_magic_costs_the_slot(self) -> None:
        """bootutil's boot_set_next: a trailer that is neither blank nor right is erased, with its slot."""
        part = both()
        slot = part.pair.secondary
        part.supply.cut_at(1)
        with pytest.raises(PowerLost):
            part.wish()
        part.supply.on()
        assert slot.magic is Flag.BAD
        assert part.boot() == "1.0.0"
        with pytest.raises(TrailerBad):
            part.wish()
        assert slot.is_blank()

    @pytest.mark.parametrize("name", parts())
    def test_images_end_before_it(self, name: str) -> None:
        part = Part(name)
        for slot in part.pair.slots:
            assert 0 < slot.room < slot.size
            start, size = slot.sectors[-1]
            assert start + size == slot.start + slot.room


class TestSwap:
    def test_without_a_wish_nothing_happens(self) -> None:
        part = both()
        assert (part.boot(), part.flash.erases) == ("1.0.0", 0)

    def test_tried_and_reverted(self) -> None:
        part = both()
        part.wish()
        assert part.boot() == "2.1.0"
        assert part.pair.swap() is Swap.REVERT
        assert part.boot() == "1.0.0"
        assert part.holds(1) == "2.1.0"
        assert part.boot() == "1.0.0"

    def test_tried_and_confirmed(self) -> None:
        part = both()
        part.wish()
        part.boot()
        part.confirm()
        assert [part.boot(), part.boot()] == ["2.1.0", "2.1.0"]
        assert part.holds(1) == "1.0.0"

    def test_for_good_at_once(self) -> None:
        part = both()
        part.wish(confirm=True)
        assert [part.boot(), part.boot()] == ["2.1.0", "2.1.0"]

    def test_there_and_back_many_times(self) -> None:
        part = both()
        for _ in range(3):
            part.wish()
            assert [part.boot(), part.boot()] == ["2.1.0", "1.0.0"]
        part.wish(confirm=True)
        assert [part.boot(), part.boot()] == ["2.1.0", "2.1.0"]
        part.wish()
        assert [part.boot(), part.boot()] == ["1.0.0", "2.1.0"]

    def test_an_image_that_is_not_whole_is_refused_once(self) -> None:
        part = both()
        part.flash.load(part.pair.secondary.start + 300, b"\0\0")
        part.wish()
        assert part.boot() == "1.0.0"
        assert part.pair.swap() is Swap.NONE
        assert part.pair.secondary.read(0, 4) == b"\xff" * 4

    def test_what_a_trial_would_go_back_to_is_gone(self) -> None:
        """The image on trial stays."""
        part = both()
        part.wish()
        part.boot()
        part.flash.load(part.pair.secondary.start + 300, bytes(8))
        assert [part.boot(), part.boot()] == ["2.1.0", "2.1.0"]

    def test_a_lower_version(self) -> None:
        for no_downgrade, runs in ((False, "1.0.0"), (True, "2.1.0")):
            part = Part(no_downgrade=no_downgrade)
            part.put(0, NEW)
            part.put(1, OLD)
            part.wish(confirm=True)
            assert part.boot() == runs

    def test_nothing_can_be_booted(self) -> None:
        part = Part()
        assert part.boot() == ""
        part.put(1, NEW)
        assert part.boot() == ""
        part.wish()
        assert part.boot() == "2.1.0"

    def test_two_images(self) -> None:
        part = Part("acme-d2")
        for number in (0, 1):
            part.put(0, OLD, number)
            part.put(1, NEW, number)
        second = part.loader.pairs[1]
        second.set_next(second.secondary, active=False, confirm=True)
        assert part.boot() == "1.0.0"
        whole = second.primary.whole_image()
        assert whole is not None
        assert whole.version_text == "2.1.0"


class TestOtherModes:
    def test_overwritten(self) -> None:
        part = both(Mode.OVERWRITE)
        part.wish()
        assert [part.boot(), part.boot()] == ["2.1.0", "2.1.0"]
        assert part.pair.swap() is Swap.NONE

    def test_the_higher_version_runs(self) -> None:
        part = both(Mode.HIGHEST)
        assert part.boot() == "2.1.0"
        part.put(1, image("0.9.9"))
        assert part.boot() == "1.0.0"
        part.put(0, bytes(64))
        assert part.boot() == "0.9.9"
        assert part.flash.erases == 0


def operations(of: Callable[[Part], object], make: Callable[[], Part]) -> int:
    part = make()
    before = part.supply.operations
    of(part)
    return part.supply.operations - before


def tried() -> Part:
    part = both()
    part.wish()
    part.boot()
    return part


def wished(*, confirm: bool = False, mode: Mode = Mode.SWAP) -> Part:
    part = both(mode)
    part.wish(confirm=confirm)
    return part


class TestCuts:
    """A cut at every flash operation: both images stay whole, and the swap ends as it would have."""

    @pytest.mark.parametrize(
        ("make", "runs", "then"),
        [
            (wished, "2.1.0", Swap.REVERT),
            (lambda: wished(confirm=True), "2.1.0", Swap.NONE),
            (tried, "1.0.0", Swap.NONE),
        ],
        ids=["test", "permanent", "revert"],
    )
    def test_a_swap(self, make: Callable[[], Part], runs: str, then: Swap) -> None:
        count = operations(Part.boot, make)
        assert count > 150
        for operation in range(1, count + 1):
            part = make()
            part.supply.cut_at(operation)
            assert part.boot() == runs, operation
            assert {part.holds(0), part.holds(1)} == {"1.0.0", "2.1.0"}, operation
            assert part.pair.swap() is then, operation

    def test_an_overwrite(self) -> None:
        def make() -> Part:
            return wished(mode=Mode.OVERWRITE)

        for operation in range(1, operations(Part.boot, make) + 1):
            part = make()
            part.supply.cut_at(operation)
            assert part.boot() == "2.1.0", operation
            assert part.pair.swap() is Swap.NONE, operation

    def test_a_refusal(self) -> None:
        def make() -> Part:
            part = wished()
            part.flash.load(part.pair.secondary.start + 300, b"\0\0")
            return part

        for operation in range(1, operations(Part.boot, make) + 1):
            part = make()
            part.supply.cut_at(operation)
            assert [part.boot(), part.boot()] == ["1.0.0", "1.0.0"], operation

    def test_a_wish(self) -> None:
        """It counts or it doesn't; afterwards a new upload and a new wish work."""
        for operation in range(1, operations(lambda part: part.wish(confirm=True), both) + 1):
            part = both()
            part.supply.cut_at(operation)
            with pytest.raises(PowerLost):
                part.wish(confirm=True)
            part.supply.on()
            assert part.boot() in ("1.0.0", "2.1.0")
            assert part.boot() in ("1.0.0", "2.1.0")

    def test_a_confirmation(self) -> None:
        """The image on trial runs and stays, or the old one comes back."""
        part = tried()
        part.supply.cut_at(1)
        with pytest.raises(PowerLost):
            part.confirm()
        part.supply.on()
        runs = part.boot()
        assert runs in ("1.0.0", "2.1.0")
        assert part.boot() == runs

    @given(st.lists(st.integers(1, 250), min_size=2, max_size=6), st.booleans())
    @settings(max_examples=100, deadline=None)
    def test_many_cuts_in_a_row(self, cuts: list[int], confirm: bool) -> None:
        part = wished(confirm=confirm)
        for cut in cuts:
            part.supply.cut_at(cut)
            try:
                part.loader.boot()
            except PowerLost:
                part.supply.on()
                continue
            assert part.holds(0) in ("1.0.0", "2.1.0")
        part.supply.cut_at(None)
        assert part.boot() in ("1.0.0", "2.1.0")
        assert {part.holds(0), part.holds(1)} == {"1.0.0", "2.1.0"}


def test_a_slot_of_whole_sectors() -> None:
    flash = NorFlash(0, [(4, 512)], Supply())
    for start, size in ((100, 512), (0, 700)):
        with pytest.raises(ValueError, match="within a sector"):
            Slot(flash, start, size)


def test_pairs_have_slots_of_one_layout() -> None:
    """A sector changes places with the one of the same number."""
    for name in parts():
        part = Part(name)
        assert isinstance(part.loader, Mcuboot)
        for pair in part.loader.pairs:
            assert isinstance(pair, Pair)
            sizes = [[size for _, size in slot.sectors] for slot in pair.slots]
            assert sizes[0] == sizes[1]
            assert max(sizes[0]) <= part.flash.end - parts()[name].scratch
