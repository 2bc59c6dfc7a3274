"""`Programmer`: the engine that every bootloader shares. Plans, erases, writes, verifies, boots, for one component.

It never trusts what it remembers of a part. Every attempt, the first as well as one after a cut, begins by asking the
part what it holds, and plans from the answer. Everything is checked before the first erase; until then a failure leaves
the part running what it ran before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

from ..transports import clock
from ..transports.deadline import Deadline
from ..transports.errors import Framing, ProxyflashError, UsbStall, WireTimeout
from . import events as ev
from . import plan as planning
from .errors import (
    Cancelled,
    NotBack,
    PartConfused,
    PartFailed,
    PartMute,
    PartProtected,
    PartRefused,
    PartWrongMode,
    SecurityDenied,
    Unsupported,
    VerifyMismatch,
    VersionMismatch,
)
from .events import Phase
from .flasher import Capability, Flasher, Identity, compare_digest
from .image import FirmwareImage, Segment
from .memory import MemoryMap, Range

SAMPLE = 64
"""Bytes read of an erase unit to see whether reading the rest of it may be worth while."""
MISSES = 4
"""So many units in a row that differ, and the rest is taken to differ too."""
TRANSIENT = (WireTimeout, Framing, UsbStall, PartConfused, PartFailed, PartMute, PartRefused, VerifyMismatch)
"""Failures after which connecting, comparing and going on may help."""
REFUSALS = (PartProtected, PartRefused, PartWrongMode, SecurityDenied, Unsupported)
"""Answers by which a part says that it did not do what was asked."""

T = TypeVar("T")

VersionQuestion = Callable[[Deadline], str | None]
"""Asks the running application for its version, by the deadline; None when it doesn't answer, "" if it can't tell."""


@dataclass(frozen=True, slots=True)
class FlashResult:
    """What became of one flash. `verified` says how, "" if verification was turned off.

    `version` is what the application reported after the boot; None when there is no way to ask it.
    """

    component: str
    identity: Identity
    erased_bytes: int
    written_bytes: int
    verified: str
    version: str | None
    booted: bool
    seconds: float


class Programmer:
    """Programs one part through its flasher.

    `component`: the name that events and errors carry. `on_event`: told of everything. `cancelled`: asked at every
    yield of the flasher; true stops there, with Cancelled. `attempts`: how often the part is tried when it or the wire
    fails in a way that may pass.
    """

    def __init__(
        self,
        flasher: Flasher,
        component: str,
        *,
        on_event: ev.EventSink = ev.ignore,
        cancelled: Callable[[], bool] = lambda: False,
        attempts: int = 3,
    ) -> None:
        self.flasher = flasher
        self.component = component
        self.on_event = on_event
        self.cancelled = cancelled
        self.attempts = attempts
        self.identity = Identity()
        self.connected = False
        self.touched = False
        """Whether anything of the part's memory was changed, or may have been."""

    def connect(self) -> Identity:
        """Brings the part into its bootloader."""
        with self._named():
            if not self.connected:
                self._check_cancelled()
                with self._phase(Phase.CONNECT):
                    self.identity = self.flasher.connect()
                self.connected = True
            return self.identity

    def memory_map(self) -> MemoryMap:
        self.connect()
        with self._named():
            return self.flasher.memory_map()

    def plan(self, image: FirmwareImage, *, compare: bool = True) -> planning.FlashPlan:
        """Checks the image against the part and works out what is to be done; changes nothing of the part's memory.

        `compare`: ask the part what it holds already. A failure leaves the part running what it ran before.
        """
        with self._named(), self._left_as_it_was():
            return self._attempt(lambda: self._plan(image, compare=compare), Phase.PLAN)

    def _plan(self, image: FirmwareImage, *, compare: bool) -> planning.FlashPlan:
        self.connect()
        self.flasher.verify_target(image.target)
        memory = self.flasher.memory_map()
        placed = planning.place(image, memory)
        present = self._present(placed, memory) if compare else []
        plan = planning.make(placed, memory, present)
        self.on_event(
            ev.Planned(
                self.component,
                image_bytes=placed.size,
                memory_bytes=plan.memory_bytes,
                erase_units=len(plan.erase),
                erase_bytes=plan.erase_bytes,
                write_bytes=plan.write_bytes,
                blank_bytes=plan.blank_bytes,
                present_bytes=plan.present_bytes,
                seconds=self.flasher.seconds_for(plan.erase, plan.write_bytes),
            )
        )
        return plan

    def flash(
        self,
        plan: planning.FlashPlan,
        *,
        verify: bool = True,
        boot: bool = True,
        ask_version: VersionQuestion | None = None,
        expect_version: str | None = None,
        boot_seconds: float = 10.0,
    ) -> FlashResult:
        """Carries out a plan; after a failure that may pass it connects again, asks what the part holds, and goes on.

        `boot_seconds`: how long the application has to answer after the boot. Raises VerifyMismatch, NotBack,
        VersionMismatch, Cancelled, and what the flasher and its wire raise.
        """
        began = clock.monotonic()
        with self._named(), self._left_as_it_was():
            image = plan.image
            current: planning.FlashPlan | None = plan
            erased = written = 0

            def once() -> str:
                nonlocal current, erased, written
                todo = current or self._plan(image, compare=True)
                current = None
                self.connect()
                self._check_cancelled()
                erased += self._erase(todo.erase)
                written += self._write(todo.writes)
                return self._verify(todo) if verify else ""

            verified = self._attempt(once, Phase.WRITE)
            version = self._boot(ask_version, expect_version, boot_seconds) if boot else None
            return FlashResult(
                self.component, self.identity, erased, written, verified, version, boot, clock.monotonic() - began
            )

    def verify(self, image: FirmwareImage) -> str:
        """Compares what the part holds with the image; how, in words. Raises VerifyMismatch."""
        with self._named(), self._left_as_it_was():
            self.connect()
            self.flasher.verify_target(image.target)
            memory = self.flasher.memory_map()
            placed = planning.place(image, memory)
            return self._attempt(
                lambda: self._verify(planning.FlashPlan(placed, 0, (), ())),
                Phase.VERIFY,
                without=(VerifyMismatch,),
            )

    def read(self, ranges: Sequence[Range]) -> list[Segment]:
        """Reads memory. Raises Unsupported where the part can't."""
        with self._named(), self._left_as_it_was():
            self.connect()
            self._require(Capability.READ, "read its memory")
            total = sum(item.size for item in ranges)
            found = []
            done = 0
            with self._phase(Phase.READ, total):
                for item in ranges:
                    data = bytearray()
                    for piece in self.flasher.read(item.start, item.size):
                        data += piece
                        done += len(piece)
                        self._progress(Phase.READ, done, total)
                    _check_complete(len(data), item)
                    found.append(Segment(item.start, bytes(data)))
            return found

    def erase(self, ranges: Sequence[Range]) -> int:
        """Erases the units that the ranges touch; bytes erased."""
        with self._named(), self._left_as_it_was():
            self.connect()
            memory = self.flasher.memory_map()
            units: dict[int, Range] = {}
            for item in ranges:
                region = memory.region_of(item.start)
                if region is None or region.self_erasing or item.end > region.end:
                    raise Unsupported(f"{item} is no memory of this part that can be erased")
                units |= {unit.start: unit for unit in region.erase_units(item.start, item.end)}
            return self._erase(tuple(units[start] for start in sorted(units)))

    def boot(
        self,
        ask_version: VersionQuestion | None = None,
        expect_version: str | None = None,
        boot_seconds: float = 10.0,
    ) -> str | None:
        """Starts the application and asks for its version."""
        with self._named():
            self.connect()
            return self._boot(ask_version, expect_version, boot_seconds)

    def release(self) -> None:
        """Lets the part run its application again, if it was only looked at. Never raises."""
        if self.connected and not self.touched and self.flasher.capabilities & Capability.BOOT:
            self.connected = False
            with suppress(ProxyflashError):
                self.flasher.boot()

    def _present(self, image: FirmwareImage, memory: MemoryMap) -> list[Range]:
        """The units that hold what the image has for them already."""
        capabilities = self.flasher.capabilities
        if not capabilities & (Capability.DIGEST | Capability.READ):
            return []
        units = planning.units_of(image, memory)
        total = sum(unit.size for _, unit in units)
        found = []
        done = misses = 0
        with self._phase(Phase.COMPARE, total):
            # The first unit is written last, so after a cut it is the one that tells least: ask for it last.
            for region, unit in units[1:] + units[:1]:
                parts = list(image.within(unit.start, unit.end))
                if capabilities & Capability.DIGEST:
                    same = all(self._digest_equal(part) for part in parts)
                else:
                    same = region.readable and misses < MISSES and self._read_equal(parts)
                misses = 0 if same else misses + 1
                if same:
                    found.append(unit)
                done += unit.size
                self._progress(Phase.COMPARE, done, total)
        return found

    def _digest_equal(self, part: Segment) -> bool:
        digest = self.flasher.digest(part.address, part.size)
        if digest is None:
            return bool(self.flasher.capabilities & Capability.READ) and self._read_equal([part])
        return digest.value == digest.compute(bytes(part.data))

    def _read_equal(self, parts: Sequence[Segment]) -> bool:
        for part in parts:
            sample = min(SAMPLE, part.size)
            if not self._holds(part.slice(part.address, part.address + sample)):
                return False
        return all(self._holds(part.slice(part.address + SAMPLE, part.end)) for part in parts if part.size > SAMPLE)

    def _holds(self, part: Segment) -> bool:
        offset = 0
        view = memoryview(part.data)
        for piece in self.flasher.read(part.address, part.size):
            if view[offset : offset + len(piece)] != piece:
                return False
            offset += len(piece)
            self._check_cancelled()
        return offset == part.size

    def _erase(self, units: Sequence[Range]) -> int:
        if not units:
            return 0
        total = sum(unit.size for unit in units)
        before, acknowledged = self.touched, False
        with self._phase(Phase.ERASE, total):
            self.touched = True
            try:
                for done in self.flasher.erase(units):
                    acknowledged = True
                    self._progress(Phase.ERASE, done, total)
            except REFUSALS:
                # What the part refuses it has not done; anything else may have happened all the same.
                self.touched = before or acknowledged
                raise
        return total

    def _write(self, segments: Sequence[Segment]) -> int:
        if not segments:
            return 0
        total = sum(segment.size for segment in segments)
        before = 0
        with self._phase(Phase.WRITE, total):
            self.touched = True
            for segment in segments:
                for done in self.flasher.write(segment):
                    self._progress(Phase.WRITE, before + done, total)
                before += segment.size
        return total

    def _verify(self, plan: planning.FlashPlan) -> str:
        """How it was verified; what was read and compared for the plan is not read again."""
        capabilities = self.flasher.capabilities
        parts = list(plan.unproven())
        total = sum(part.size for part in parts)
        with self._phase(Phase.VERIFY, total) as finish:
            self._check_cancelled()
            if not parts:
                # A part's own check may be one of its last download, and that may have been another image.
                method = self._method_of_comparing()
            elif capabilities & Capability.CHECK:
                method = self.flasher.check(plan.image.segments)
            elif not capabilities & (Capability.DIGEST | Capability.READ):
                raise Unsupported("this part gives no way to verify what it holds")
            else:
                method = self._verify_parts(parts, total)
            finish(method)
        return method

    def _method_of_comparing(self) -> str:
        by_part = self.flasher.capabilities & Capability.DIGEST
        return "checksum by the part" if by_part else "read back"

    def _verify_parts(self, parts: Sequence[Segment], total: int) -> str:
        done = 0
        method = "read back"
        for part in parts:
            digest = None
            if self.flasher.capabilities & Capability.DIGEST:
                digest = self.flasher.digest(part.address, part.size)
            if digest is not None:
                compare_digest(digest, part)
                method = f"{digest.name} by the part"
                done += part.size
                self._progress(Phase.VERIFY, done, total)
                continue
            self._require(Capability.READ, "verify what it holds")
            done = self._compare_back(part, done, total)
        return method

    def _compare_back(self, part: Segment, done: int, total: int) -> int:
        view = memoryview(part.data)
        offset = 0
        for piece in self.flasher.read(part.address, part.size):
            wanted = view[offset : offset + len(piece)]
            if wanted != piece:
                index = next(i for i, (a, b) in enumerate(zip(wanted, piece, strict=False)) if a != b)
                address = part.address + offset + index
                raise VerifyMismatch(
                    f"at 0x{address:08X} the part holds 0x{piece[index]:02X}, the image has 0x{wanted[index]:02X}"
                )
            offset += len(piece)
            self._progress(Phase.VERIFY, done + offset, total)
        _check_complete(offset, Range(part.address, part.size))
        return done + offset

    def _boot(self, ask: VersionQuestion | None, expect: str | None, seconds: float) -> str | None:
        if not self.flasher.capabilities & Capability.BOOT:
            return None
        with self._phase(Phase.BOOT) as finish:
            self.flasher.boot()
            self.connected = False
            if ask is None:
                return None
            version = ask(Deadline.after(seconds))
            if version is None:
                raise NotBack(f"the application did not answer within {seconds:g} s after the boot")
            if expect is not None and version != expect:
                raise VersionMismatch(f"the application reports version {version or 'unknown'}, wanted {expect}")
            finish(version)
            return version

    def _attempt(self, action: Callable[[], T], phase: Phase, without: tuple[type[Exception], ...] = ()) -> T:
        """Does `action`, up to `attempts` times where the failure may pass; connects anew before each further time."""
        for attempt in range(1, self.attempts + 1):
            try:
                return action()
            except TRANSIENT as error:
                absent = isinstance(error, PartMute) and not self.touched
                if attempt == self.attempts or absent or isinstance(error, without):
                    raise
                self.connected = False
                self.on_event(
                    ev.Retrying(self.component, phase, attempt + 1, self.attempts, error.code, str(error.cause))
                )
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _require(self, capability: Capability, what: str) -> None:
        if not self.flasher.capabilities & capability:
            raise Unsupported(f"this part can't {what}")

    def _progress(self, phase: Phase, done: int, total: int) -> None:
        self.on_event(ev.Progress(self.component, phase, done, total))
        self._check_cancelled()

    def _check_cancelled(self) -> None:
        if not self.cancelled():
            return
        if self.touched:
            raise Cancelled(
                "stopped on request; the part stays in its bootloader until its image is whole",
                touched=True,
                remedy="Run the same command again: it goes on with what is missing.",
            )
        raise Cancelled("stopped on request before anything was erased", touched=False)

    @contextmanager
    def _phase(self, phase: Phase, total: int = 0) -> Iterator[Callable[[str], None]]:
        began = clock.monotonic()
        detail = ""

        def finish(text: str) -> None:
            nonlocal detail
            detail = text

        self.on_event(ev.PhaseStarted(self.component, phase, total))
        yield finish
        self.on_event(ev.PhaseFinished(self.component, phase, total, clock.monotonic() - began, detail))

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except ProxyflashError as error:
            error.component = error.component or self.component
            raise

    @contextmanager
    def _left_as_it_was(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.release()
            raise


def _check_complete(count: int, wanted: Range) -> None:
    if count != wanted.size:
        raise PartConfused(f"the part sent {count:,} of the {wanted.size:,} bytes of {wanted}")
