"""`Rig`: a bench with one emulated part, and updates of that part, through the real flasher and wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..enumerators.bench import Bench
from ..flashers.events import RunContext
from ..flashers.image import FirmwareImage
from ..flashers.plan import FlashPlan
from ..flashers.programmer import FlashResult
from ..transports.errors import ProxyflashError
from .cuts import Course, Stopper, WireCut
from .part import NEW, OLD, Part


class Rig:
    """A folder with the bench file and the firmware; each `powered` starts from a part that runs the old firmware.

    `pace`: 1 is that of real wires and parts, 0 takes no time. `size`: bytes of the new firmware, by default as the
    part says. `profile`: keys that replace those of the part's profile.
    """

    def __init__(
        self,
        part: Part,
        folder: Path,
        *,
        pace: int = 0,
        size: int | None = None,
        profile: Mapping[str, Any] | None = None,
    ) -> None:
        self.part = part
        self.folder = folder
        file = folder / "bench.toml"
        file.write_text(part.bench_file(pace=0))
        with self._open() as bench:
            device = bench.emulated_device("part")
            self.start = device.application_start
            (folder / "old.bin").write_bytes(part.firmware(device, OLD, part.sizes.old))
            self.new = part.firmware(device, NEW, size or part.sizes.new)
        (folder / "new.bin").write_bytes(self.new)
        self.image = part.image(folder / "new.bin", self.start)
        self.old_image = part.image(folder / "old.bin", self.start)
        file.write_text(part.bench_file(pace=pace, firmware="old.bin", profile=profile or {}))

    def _open(self) -> Bench:
        """With a new part: nothing is left of what an earlier one held."""
        state = self.folder / "state"
        for path in state.rglob("*"):
            if path.is_file():
                path.unlink()
        return Bench.open(self.folder / "bench.toml", state=state)

    @contextmanager
    def powered(self) -> Iterator[Bench]:
        """A new part, which holds and runs the old firmware."""
        with self._open() as bench:
            device = bench.emulated_device("part")
            assert settled(bench) == OLD
            assert device.application_version == OLD
            yield bench

    @contextmanager
    def blank(self) -> Iterator[Bench]:
        """A new part that holds no firmware yet."""
        file = self.folder / "bench.toml"
        text = file.read_text()
        file.write_text(self.part.bench_file(pace=0))
        try:
            with self._open() as bench:
                assert settled(bench) is None
                yield bench
        finally:
            file.write_text(text)

    def flash(self, bench: Bench, image: FirmwareImage | None = None, **keys: Any) -> FlashResult:
        """Flashes the new image, or another one. Raises what the flash raises."""
        return bench.component("part").flash(image or self.image, **keys)

    def error(self, bench: Bench, image: FirmwareImage | None = None, **keys: Any) -> ProxyflashError | None:
        """What a flash ended with; None: the flash succeeded."""
        try:
            self.flash(bench, image, **keys)
        except ProxyflashError as error:
            return error
        return None

    def plan(self, bench: Bench) -> FlashPlan:
        """What would be done; the part is let go of again."""
        with bench.component("part").programmer() as programmer:
            return programmer.plan(self.image)

    def connect(self, bench: Bench) -> None:
        """Brings the part into its bootloader, and leaves it there."""
        with bench.component("part").programmer(starts_again=False) as programmer:
            programmer.connect()

    def verify(self, bench: Bench, image: FirmwareImage) -> str:
        """How it was verified that the part holds the image. Raises VerifyMismatch, Unsupported."""
        with bench.component("part").programmer() as programmer:
            return programmer.verify(image)

    def ends_well(self, bench: Bench) -> None:
        """The part has all of an image or sits in its bootloader; the same command again brings the new image."""
        assert settled(bench) in (OLD, NEW, None)
        self.ends_with_the_new_image(bench)

    def ends_with_the_new_image(self, bench: Bench) -> FlashResult:
        """A flash, after which the part runs the new image and holds all of it."""
        device = bench.emulated_device("part")
        self.part.by_hand(device)
        result = self.flash(bench, expect_version=NEW)
        assert result.version == NEW
        assert device.application_version == NEW
        assert self.holds_the_new_image(bench)
        return result

    def holds_the_new_image(self, bench: Bench) -> bool:
        return bench.emulated_device("part").flash.read(self.start, len(self.new)) == self.new

    def course(self) -> Course:
        """How this update goes."""
        with self.powered() as bench:
            wire = bench.emulated_wire("b")
            supply = bench.emulated_device("part").supply
            seen = Stopper(None, 0)
            units, operations = wire.faults.units, supply.operations
            writes: list[range] = []
            kind = WireCut.KINDS[bench.file.spec.bus["b"].kind]
            kind.watch(wire, lambda before, after: writes.append(range(before - units + 1, after - units + 1)))
            self.flash(bench, context=RunContext(seen))
            each = tuple(range(unit, unit + 1) for unit in range(1, wire.faults.units - units + 1))
            return Course(supply.operations - operations, seen.seen, tuple(filter(None, writes)) or each)


def settled(bench: Bench) -> str | None:
    """The version that the part runs once it has started; None: it sits in its bootloader."""
    component, device = bench.component("part"), bench.emulated_device("part")
    device.settle()
    if component.can_be_asked and device.application_version:
        return component.await_version()
    return device.application_version
