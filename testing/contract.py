"""The tests that every bootloader passes: `MemoryContract` for addressed memory, `SlotContract` for whole images.

The part is emulated; the flasher, the engine and the wires are the real ones. All runs on simulated time. After
whatever happens to an update the part runs all of the old firmware, all of the new one, or sits in its bootloader, and
the same command again ends with all of the new one.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ..emulators.faults import FaultPlan
from ..enumerators.bench import Bench
from ..enumerators.component import Presence
from ..flashers import events as ev
from ..flashers.errors import (
    Cancelled,
    ImageError,
    ImageWrongPart,
    NoResponse,
    PartWrongMode,
    RebootFailed,
    Unsupported,
    VerifyMismatch,
    VersionMismatch,
    WrongPart,
)
from ..flashers.events import RunContext
from ..flashers.image import FirmwareImage, Segment
from ..transports import clock
from ..transports.errors import AdapterAbsent, AdapterGone, ProxyflashError
from ..transports.simulated_clock import SimulatedClock
from .cuts import How, Planned, Stopper, WireCut
from .part import NEW, OLD, Part
from .rig import Rig, settled
from .thinning import Sweep, spread

LIMIT = 86_400.0
"""Simulated seconds of one test: beyond them something ticks for ever while the rest waits."""
LAST = (ev.Phase.VERIFY, ev.Phase.BOOT)
"""The phases after the last write: an engine that is asked to stop there may as well finish."""
FIRST_CUTS = 20
"""First interruptions of an update that is interrupted twice."""
MANY_CUTS = 8
"""How often an update is interrupted twice without --every-cut."""
MANY_STOPS = 60
"""Cuts after which the next command is stopped before it erases anything."""
FAULTY_UNITS = 20
"""Units of the wire of which one is faulty, and updates on a wire where any unit may be."""
KEPT_CHANGED = "an erase unit in which the image has nothing was changed"
ADAPTER_GONE = (AdapterGone, AdapterAbsent, NoResponse, PartWrongMode, RebootFailed)
"""What a command without its adapter ends with: the last three where a part is waited for that brings its adapter along,
or an application."""
GIVEN_UP = 30.0
"""Seconds after which a command without its adapter has ended."""
VAGUE = ("E-FAILED", "E-TRANSPORT", "E-PART", "E-IMAGE")
"""Codes of errors that tell nobody what to do."""


class Contract(Part):
    """What holds for every bootloader."""

    faults: ClassVar[tuple[str, ...]] = ("drop", "duplicate", "corrupt", "delay")
    """What a unit of the wire may suffer without more harm than an error: leave out `corrupt` if the protocol has no
    checksum."""
    guards: ClassVar[bool] = True
    """Whether a unit that suffers so changes no erase unit in which the image has nothing: what is left of a message that
    no checksum guards may be another command."""
    tells: ClassVar[bool] = True
    """Whether the part can be asked what it holds, so that what is there is not written again."""
    verifies: ClassVar[bool] = True
    """Whether the `verify` command works: the part can be asked later, too, whether it holds an image."""
    foreign_profile: ClassVar[Mapping[str, Any]] = {"part": "No such part"}
    """Keys of a profile that names another part than the rig's. {}: no profile does."""
    foreign_target: ClassVar[Mapping[str, int | str]] = {}
    """What an image file says of its part (`FirmwareImage.target`) that contradicts this part. {}: no file does."""

    @pytest.fixture(autouse=True)
    def _on_simulated_time(self) -> Iterator[None]:
        """The clock of a test that runs on simulated time already goes on."""
        if clock.current().is_simulated:
            yield
        else:
            with clock.use(SimulatedClock(limit=LIMIT)):
                yield

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """pytest's hook for the tests of a class."""
        if "fault" in metafunc.fixturenames:
            metafunc.parametrize("fault", self.faults)
        if "foreign" in metafunc.fixturenames:
            said = {"profile": self.foreign_profile, "file": self.foreign_target}
            metafunc.parametrize("foreign", [name for name, keys in said.items() if keys])

    # Interruptions.

    @pytest.mark.parametrize("pace", [0, 1])
    def test_an_update_that_nothing_interrupts(self, pace: int, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path, pace=pace)
        with rig.powered() as bench:
            rig.ends_with_the_new_image(bench)

    @pytest.mark.parametrize(("pace", "share"), [(0, 0), (0, 1), (1, 0)])
    def test_supply_lost_at_each_flash_operation(
        self, pace: int, share: int, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        rig = Rig(self, tmp_path, pace=pace)
        last = rig.course().operations
        assert last > 8, "the emulated part counts the operations of its flash by Supply.operation"
        operations = self._affordable(range(1, last + 1)[share :: 1 if pace else 2], pace)
        sweep = Sweep(request, operations, 6, "supply lost at flash operation")
        for operation in sweep:
            with sweep.at(operation), rig.powered() as bench:
                supply = bench.emulated_device("part").supply
                supply.cut_at(operation)
                assert rig.error(bench) is not None, "the flash succeeded on a part without supply"
                assert not supply.is_on
                supply.on()
                rig.ends_well(bench)

    @pytest.mark.parametrize("pace", [0, 1])
    @pytest.mark.parametrize("how", ["cancel", "cut"])
    def test_stopped_at_each_event(self, how: str, pace: int, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """Asked to stop, or without supply, at the first, second, ... event of the engine, thus at each yield."""
        rig = self._rig(tmp_path, pace=pace, is_short=bool(pace))
        last = rig.course().yields
        assert last > 8
        sweep = Sweep(request, self._affordable(range(1, last + 1), pace), 6, f"{how} at event")
        for count in sweep:
            with sweep.at(count), rig.powered() as bench:
                device = bench.emulated_device("part")
                stopper = Stopper(device if how == "cut" else None, count)
                before = device.supply.operations
                error = rig.error(bench, context=RunContext(stopper, stopper.is_asked))
                assert stopper.seen >= count
                if error is None:
                    # What is asked for or cut there comes too late: nothing was left to be stopped, or to be asked.
                    assert stopper.phase is ev.Phase.BOOT if how == "cut" else stopper.phase in LAST
                elif how == "cancel":
                    assert isinstance(error, Cancelled)
                device.supply.on()
                if device.supply.operations == before:
                    # A bootloader that was sent some of an image, and has written none, may wait for the rest.
                    stays = stopper.phase is ev.Phase.WRITE or (self.may_stay and how == "cut")
                    assert settled(bench) in ((OLD, None) if stays else (OLD,))
                rig.ends_well(bench)

    @pytest.mark.parametrize("how", How)
    @pytest.mark.parametrize("pace", [0, 1])
    def test_interrupted_at_the_units_of_the_wire(
        self, pace: int, how: How, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        """Each CAN frame, each control transfer; of each write on a serial line as many bytes as `each` says."""
        rig = self._rig(tmp_path, pace=pace, is_short=True)
        units = rig.course().units(self.each, f"{self.protocol} {how} {pace}")
        sweep = Sweep(request, self._affordable(units, pace), 6, f"{how} at unit")
        for unit in sweep:
            with sweep.at(unit), rig.powered() as bench:
                cut = WireCut.at(bench, unit, how)
                error = rig.error(bench)
                assert cut.is_done
                if how is How.UNPLUGGED and error is not None:
                    assert isinstance(error, ADAPTER_GONE), f"without its adapter the flash ended with {error!r}"
                    assert clock.monotonic() - cut.happened < GIVEN_UP, "a command without its adapter went on"
                cut.mend()
                rig.ends_well(bench)

    def test_interrupted_twice(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """The command that repeats an interrupted one is interrupted too, in another way."""
        rig = self._rig(tmp_path, is_short=True)
        whole = rig.course()
        operations = spread(range(1, whole.operations + 1), FIRST_CUTS)
        cases = [(operation, how) for how in How for operation in operations]
        sweep = Sweep(request, range(1, len(cases) + 1), MANY_CUTS, "interrupted twice, case")
        seconds = 0
        for case in sweep:
            operation, how = cases[case - 1]
            chosen = random.Random(f"{self.protocol} {case}")
            with sweep.at(case), rig.powered() as bench:
                device = bench.emulated_device("part")
                device.supply.cut_at(operation)
                assert rig.error(bench) is not None
                device.supply.on()
                assert settled(bench) in (OLD, NEW, None)
                self.by_hand(device)
                cut = WireCut.at(bench, chosen.choice(chosen.choice(whole.writes)), how)
                rig.error(bench)
                seconds += cut.is_done
                cut.mend()
                rig.ends_well(bench)
        # What the first command has written need not be sent again, so some commands are over before the second cut. Of a
        # few cases, as a small share of the sweep has them, all may be such.
        if len(sweep.chosen) >= MANY_CUTS:
            assert seconds > len(sweep.chosen) / 4

    def test_stopped_before_the_first_erase_after_a_cut(self, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """A host that loses its adapter says nothing more: the part waits for the rest of what it was sent, and is not started
        by the next command, which is stopped before it erases anything."""
        rig = self._rig(tmp_path, is_short=True)
        units = rig.course().units(self.each, f"{self.protocol} stopped after a cut")
        sweep = Sweep(request, spread(units, MANY_STOPS), 12, "stopped before the first erase after a cut at unit")
        for unit in sweep:
            with sweep.at(unit), rig.powered() as bench:
                cut = WireCut.at(bench, unit, How.UNPLUGGED)
                rig.error(bench)
                cut.mend()
                self.by_hand(bench.emulated_device("part"))
                planned = Planned()
                error = rig.error(bench, context=RunContext(planned, planned.is_asked))
                assert error is None or isinstance(error, Cancelled)
                rig.ends_well(bench)

    # Faults of the wire.

    def test_a_unit_of_the_wire_is_faulty(self, fault: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
        """One frame, byte or control transfer is lost, doubled, garbled or late."""
        rig = self._rig(tmp_path, is_short=True)
        units = [unit for write in rig.course().writes for unit in write]
        sweep = Sweep(request, spread(units, FAULTY_UNITS), 6, f"{fault} at unit")
        for unit in sweep:
            with sweep.at(unit), rig.powered() as bench:
                first = bench.emulated_wire("b").faults.units + unit
                self._on_a_faulty_wire(rig, bench, FaultPlan(first=first, last=first, seed=unit, **{fault: 1.0}))  # type: ignore[arg-type]

    def test_any_unit_of_the_wire_may_be_faulty(
        self, fault: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        rig = self._rig(tmp_path, is_short=True)
        chance = 2.0 / sum(map(len, rig.course().writes))
        sweep = Sweep(request, range(1, FAULTY_UNITS + 1), 6, f"{fault} on the wire, seed")
        for seed in sweep:
            with sweep.at(seed), rig.powered() as bench:
                self._on_a_faulty_wire(rig, bench, FaultPlan(seed=seed, **{fault: chance}))  # type: ignore[arg-type]

    def _on_a_faulty_wire(self, rig: Rig, bench: Bench, plan: FaultPlan) -> None:
        """The new image, or an error that says what to do; on a whole wire the same command then ends with the image."""
        kept = self._kept(rig, bench)
        faults = bench.emulated_wire("b").faults
        faults.restart(replace(plan, delay_seconds=0.03))
        error = rig.error(bench)
        faults.plan = FaultPlan()
        if error is None:
            assert rig.holds_the_new_image(bench)
        else:
            assert error.code not in VAGUE
            assert error.cause
        rig.ends_well(bench)
        flash = bench.emulated_device("part").flash
        is_kept = all(flash.read(address, len(data)) == data for address, data in kept.items())
        assert is_kept or not self.guards, KEPT_CHANGED

    def test_a_part_without_a_firmware_gets_its_first_one(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.blank() as bench:
            rig.ends_with_the_new_image(bench)

    # What is verified.

    def test_verifying_looks_at_the_part(self, tmp_path: Path) -> None:
        """A second command verifies the image, and finds a single byte that has changed."""
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            rig.ends_with_the_new_image(bench)
            assert self._verified(rig, bench, rig.image) == self.verifies
            assert not self._verified(rig, bench, rig.old_image), "another image than the part's was verified"
            settled(bench)
            flash = bench.emulated_device("part").flash
            last = rig.start + len(rig.new) - 1
            flash.load(last, bytes((flash.read(last, 1)[0] ^ 0x5A,)))
            assert not self._verified(rig, bench, rig.image), "a changed byte was not noticed"

    def _verified(self, rig: Rig, bench: Bench, image: FirmwareImage) -> bool:
        try:
            return bool(rig.verify(bench, image))
        except (VerifyMismatch, Unsupported):
            return False

    def test_a_byte_that_the_flash_does_not_take_is_noticed(self, tmp_path: Path) -> None:
        """No update is reported as done that the part does not hold."""
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            flash, program = device.flash, device.flash.program
            bad = next(rig.start + at for at in range(len(rig.new) // 2, len(rig.new)) if rig.new[at])

            def wears_out(address: int, data: bytes) -> None:
                program(address, data)
                if address <= bad < address + len(data):
                    flash.load(bad, b"\0")

            flash.program = wears_out  # type: ignore[method-assign]
            error = rig.error(bench)
            assert error is not None, "the flash succeeded"
            if self.verifies:
                assert not isinstance(error, (RebootFailed, VersionMismatch)), (
                    "not verified before the application started"
                )
            flash.program = program  # type: ignore[method-assign]
            device.supply.off()
            device.supply.on()
            settled(bench)
            rig.ends_with_the_new_image(bench)

    def test_what_the_part_holds_is_not_written_again(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            supply = bench.emulated_device("part").supply
            rig.ends_with_the_new_image(bench)
            before = supply.operations
            rig.ends_with_the_new_image(bench)
            assert (supply.operations == before) == self.tells

    # What is refused: nothing is erased, and the part runs what it ran.

    def test_an_image_that_is_too_large_is_refused(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            flash = bench.emulated_device("part").flash
            data = rig.new + b"\x5a" * (flash.end - rig.start + 1 - len(rig.new))
            start = 0 if self.relocatable else rig.start
            large = replace(rig.image, segments=(Segment(start, data),))
            self._refused(rig, bench, large, ImageError)

    def test_an_image_for_another_part_is_refused(self, foreign: str, tmp_path: Path) -> None:
        is_file = foreign == "file"
        rig = Rig(self, tmp_path, profile=None if is_file else self.foreign_profile)
        with rig.powered() as bench:
            image = replace(rig.image, target=self.foreign_target) if is_file else rig.image
            self._refused(rig, bench, image, ImageWrongPart if is_file else WrongPart)

    def _refused(
        self,
        rig: Rig,
        bench: Bench,
        image: FirmwareImage,
        wanted: type[ProxyflashError],
    ) -> None:
        device = bench.emulated_device("part")
        before, operations = device.flash.read(device.flash.base, device.flash.size), device.supply.operations
        error = rig.error(bench, image)
        assert device.supply.operations == operations, "something was erased or written before the image was refused"
        assert isinstance(error, wanted), f"the flash ended with {error!r}"
        assert error.component == "part"
        assert error.cause
        assert device.flash.read(device.flash.base, device.flash.size) == before
        assert settled(bench) == OLD, "the part does not run what it ran"

    # What is only looked at is left as it was found.

    def test_a_part_that_is_looked_at_runs_on(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            operations = device.supply.operations
            for _ in range(2):
                found = bench.component("part").look()
                assert found.presence in (Presence.OK, Presence.UNKNOWN)
                assert device.application_version == OLD
            assert [component.name for component in bench.scan().components] == ["part"]
            assert device.application_version == OLD
            assert device.supply.operations == operations

    def test_a_part_that_a_plan_was_made_for_runs_again(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            operations = device.supply.operations
            assert rig.plan(bench).image.size == rig.image.size
            assert device.supply.operations == operations
            assert settled(bench) == OLD

    def test_a_part_in_its_bootloader_is_left_there(self, tmp_path: Path) -> None:
        """Looking at a part starts no application, and so a command that broke off is seen for what it is."""
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            rig.connect(bench)
            found = device.application_version
            assert found in (None, OLD)
            bench.component("part").look()
            assert device.application_version == found

    # Helpers.

    def _rig(self, folder: Path, *, pace: int = 0, is_short: bool = False) -> Rig:
        return Rig(self, folder, pace=pace, size=self.sizes.short if is_short else None)

    def _kept(self, rig: Rig, bench: Bench) -> Mapping[int, bytes]:
        """What is in the flash, by its address, that an update does not change."""
        return {}

    def _affordable(self, places: Sequence[int], pace: int) -> Sequence[int]:
        return spread(places, self.paced) if pace else places


class MemoryContract(Contract):
    """A bootloader of addressed memory: erase units that are erased and written, and read back or summed up."""

    def test_a_misplaced_image_is_refused(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            end = bench.emulated_device("part").flash.end
            # Bytes that begin within the memory and end behind it, and bytes outside of it.
            for start in (end - 16, end + 0x100):
                image = replace(rig.image, segments=(Segment(start, b"\x5a" * 64),), relocatable=False)
                self._refused(rig, bench, image, ImageError)

    def test_only_the_erase_units_of_the_image_change(self, tmp_path: Path) -> None:
        rig = Rig(self, tmp_path)
        with rig.powered() as bench:
            kept = self._kept(rig, bench)
            rig.ends_with_the_new_image(bench)
            flash = bench.emulated_device("part").flash
            assert all(flash.read(address, len(data)) == data for address, data in kept.items()), KEPT_CHANGED

    def _kept(self, rig: Rig, bench: Bench) -> Mapping[int, bytes]:
        """Bytes in the erase unit behind those of the images, and at the flash's end."""
        flash = bench.emulated_device("part").flash
        unit, size = flash.unit_of(rig.start + max(len(rig.new), rig.part.sizes.old) - 1)
        kept = dict.fromkeys((unit + size, flash.end - 64), b"\xc3" * 64)
        for address, data in kept.items():
            flash.load(address, data)
        return kept

    def test_an_interrupted_update_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """The erase units that are whole are not written again."""
        with (rig := Rig(self, tmp_path)).powered() as bench:
            _, unit = bench.emulated_device("part").flash.unit_of(rig.start)
        rig = Rig(self, tmp_path, size=max(3 * unit, self.sizes.new))
        with rig.powered() as bench:
            supply = bench.emulated_device("part").supply
            before = supply.operations
            written = rig.flash(bench).written_bytes
            operations = supply.operations - before
        with rig.powered() as bench:
            supply = bench.emulated_device("part").supply
            supply.cut_at(operations * 3 // 4)
            assert rig.error(bench) is not None
            supply.on()
            settled(bench)
            again = rig.ends_with_the_new_image(bench).written_bytes
            assert again < written if self.tells else again == written


class SlotContract(Contract):
    """A bootloader that takes whole images and puts them where it chooses."""

    relocatable = True
