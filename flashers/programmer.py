"""`Programmer`: the engine that every bootloader shares. Plans, erases, writes, verifies, starts, for one component.

It never trusts what it remembers of a part. Every attempt, the first as well as one after a cut, begins by asking the
part what it holds, and plans from the answer. Everything is checked before the first erase; until then a failure leaves
the part running what it ran before. How an image gets into a part is a strategy's: `memory_strategy` for addressed
memory, `slot_strategy` for whole images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self, TypeVar

from ..transports import clock
from ..transports.errors import ExitStatus, Framing, Left, ProxyflashError, UsbStall, WireTimeout
from . import events as ev
from .errors import (
    WHOLE_AND_SILENT,
    Cancelled,
    Meaning,
    NoResponse,
    OperationFailed,
    PartError,
    PartRefused,
    PartWrongMode,
    ProtocolError,
    RebootFailed,
    Step,
    Unsupported,
    VerifyMismatch,
    VersionMismatch,
    WrongLayout,
    fell_silent,
)
from .events import QUIET, Phase, RunContext
from .flasher import Bootloader, Capability, Identity, MemoryAccess, SlotBootloader
from .image import FirmwareImage, Segment, join
from .memory import MemoryMap, Range
from .memory_strategy import MemoryStrategy
from .plan import FlashPlan
from .reporter import Reporter
from .slot_strategy import UNTOLD, SlotStrategy, unerasable
from .strategy import Strategy

TRANSIENT = (Framing, UsbStall, ProtocolError, OperationFailed, PartRefused, VerifyMismatch)
"""Failures after which connecting, comparing and going on may help, where the error itself does not say."""
SILENT = (WireTimeout, NoResponse)
"""Failures of which the bootloader's table of silences says it."""
MISMATCHES = 1
"""After this number of mismatches another attempt follows, for a block may have been lost. After one more none follows."""
PASSES = (Meaning.LOST, Meaning.BUSY)
STEPS = {Phase.ERASE: Step.ERASE, Phase.WRITE: Step.WRITE}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FlashResult:
    """What became of one flash. `verified` says how, "" if verification was turned off.

    The bytes are those that the part has acknowledged, in all `attempts` together. `version`: as the application reported
    it after the start; None when it was not asked.
    """

    component: str
    identity: Identity
    erased_bytes: int
    written_bytes: int
    verified: str
    version: str | None
    booted: bool
    seconds: float
    attempts: int = 1


class Programmer:
    """Programs one part through its bootloader. As a context manager it closes that at the end, and leaves a part that was
    only looked at as it was found.

    `component`: the name that events and errors carry. `attempts`: how often the part is tried when it or the wire fails
    in a way that may pass. `starts_again`: whether a part that was only looked at is started. `runs_on`: whether the old
    application runs on until the new one is whole. `default_rate`: what a plan and a silent part's error say of a bit rate
    that nobody gave.
    """

    def __init__(
        self,
        bootloader: Bootloader,
        component: str,
        context: RunContext = QUIET,
        *,
        attempts: int = 3,
        starts_again: bool = True,
        runs_on: bool = False,
        default_rate: str = "",
    ) -> None:
        self.bootloader = bootloader
        self.component = component
        self.attempts = attempts
        self.starts_again = starts_again
        self.runs_on = runs_on
        self.default_rate = default_rate
        self.reporter = Reporter(component, context)
        self.identity = Identity()
        self.connected = False
        self._looked = False
        self._has_answered = self._was_connected = False
        self._context = context
        self._starts_first = starts_again
        self._has_ended = False
        """Whether the last flash ended well: the next plan knows nothing of it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            self.release(amid=kind is not None and not issubclass(kind, ProxyflashError))
        finally:
            self.bootloader.close()

    @property
    def touched(self) -> bool:
        """Whether anything of the part's memory was changed, or may have been."""
        return self.reporter.touched

    def look(self) -> Identity:
        """Who the part is. It is brought into its bootloader only where planning needs it."""
        with self._telling():
            if not (self.connected or self._looked):
                self.reporter.check_cancelled()
                found = self.bootloader.look()
                if found is None:
                    return self.connect()
                self.identity, self._looked = found, True
                self._has_answered = True
            return self.identity

    def connect(self) -> Identity:
        """Brings the part into its bootloader."""
        with self._telling():
            if not self.connected:
                self.reporter.check_cancelled()
                with self.reporter.phase(Phase.CONNECT):
                    try:
                        self.identity = self.bootloader.connect()
                    except ProxyflashError:
                        raise  # The bootloader has left the part as it was found.
                    except BaseException:
                        self._let_go(self.bootloader.abandon)
                        raise
                self.connected = self._has_answered = self._was_connected = True
            return self.identity

    def find(self) -> Identity:
        """As `connect`, tried again after a failure that may pass. Raises NoResponse."""
        with self._telling(), self._left_as_it_was():
            return self._attempt(self.connect, Phase.CONNECT)

    def memory_map(self) -> MemoryMap:
        """The part's memory; a slot is a region that nothing but an upload erases."""
        with self._telling():
            return self._strategy(looking=True).memory_map()

    def plan(self, image: FirmwareImage, *, compare: bool = True) -> FlashPlan:
        """Checks the image against the part and works out what is to be done; changes nothing of the part's memory.

        `compare`: ask the part what it holds already. A failure leaves the part running what it ran before.
        """
        self._forget_what_ended()
        with self._telling(), self._left_as_it_was():
            return self._attempt(lambda: self._plan(image, compare=compare), Phase.PLAN)

    def flash(self, plan: FlashPlan, *, verify: bool = True, boot: bool = True) -> FlashResult:
        """Carries out a plan; after a failure that may pass it connects again, asks what the part holds, and goes on.

        `boot`: then starts the application; without it the part stays in its bootloader, and `start` or `starting` may
        come next. Raises VerifyMismatch, RebootFailed, Cancelled, and what the bootloader and its wire raise.
        """
        began = clock.monotonic()
        self._has_ended = False
        with self._telling(), self._left_as_it_was():
            image, found = plan.image, self.reporter
            current: FlashPlan | None = plan
            found.attempts, erased, written = 0, found.erased, found.written

            def once() -> str:
                nonlocal current
                todo = current or self._plan(image, compare=True)
                current = None
                strategy = self._strategy()
                found.check_cancelled()
                if verify:
                    strategy.check_verifiable()
                found.attempts, found.verified = found.attempts + 1, False
                erased_before, written_before = found.erased, found.written
                erased_now, written_now = strategy.write(todo)
                found.erased, found.written = erased_before + erased_now, written_before + written_now
                return strategy.verify(todo) if verify else ""

            verified = self._attempt(once, Phase.WRITE)
            found.verified = bool(verified)
            self.starts_again = False
            booted = boot and self.start(plan)
            self._has_ended = True
            return FlashResult(
                self.component,
                self.identity,
                found.erased - erased,
                found.written - written,
                verified,
                None,
                booted,
                clock.monotonic() - began,
                found.attempts,
            )

    def start(self, plan: FlashPlan | None = None) -> bool:
        """Starts what the plan has brought; None: whatever the part holds. False where the part has no command for it.

        Raises RebootFailed where nothing runs then, VerifyMismatch where something else does, as far as the protocol shows it.
        """
        with self.starting(plan) as started:
            return started is not None

    @contextmanager
    def starting(self, plan: FlashPlan | None = None) -> Iterator[Callable[[str], None] | None]:
        """Starts the application, in a phase that goes on until the block ends, for who asks it something.

        A text given to what it yields is reported at the phase's end. None where the part has no command to start.
        """
        with self._telling():
            strategy = self._strategy()
            if not self.bootloader.capabilities & Capability.BOOT:
                yield None
                return
            with self.reporter.phase(Phase.BOOT) as finish:
                strategy.start(plan)
                self.connected = False
                yield finish

    def verify(self, image: FirmwareImage) -> str:
        """Compares what the part holds with the image; how, in words. Raises VerifyMismatch, Unsupported."""
        with self._telling(), self._left_as_it_was():
            if self.bootloader.is_silent and not self.connected:
                raise Unsupported(UNTOLD)  # Known beforehand: the part's work is not disturbed for it.
            placed = self._strategy().place(image)
            return self._attempt(
                lambda: self._strategy().verify(FlashPlan(placed, 0, (), ())), Phase.VERIFY, without=(VerifyMismatch,)
            )

    def refuse_unreadable(self) -> None:
        """Raises Unsupported for a part whose memory can't be read, as far as that is known beforehand. Sends nothing."""
        if reason := self.bootloader.unreadable:
            raise Unsupported(reason)

    def read(self, ranges: Sequence[Range]) -> list[Segment]:
        """Reads memory. Raises Unsupported where the part can't."""
        with self._telling(), self._left_as_it_was():
            self.refuse_unreadable()
            return self._attempt(lambda: self._strategy().read(ranges), Phase.READ)

    def read_replaced(self, image: FirmwareImage) -> tuple[tuple[Segment, ...], str]:
        """What the image would replace, which is all of the erase units that it touches; and why that can't be read, ""
        if it can. Raises what the part has against the image.
        """
        with self._telling(), self._left_as_it_was():
            strategy = self._strategy(looking=True)
            ranges, reason = strategy.replaced(strategy.place(image))
            if reason:
                return (), reason
            return join(self._attempt(lambda: self._strategy().read(ranges), Phase.READ)), reason

    def refuse_unerasable(self) -> None:
        """Raises Unsupported for a part that takes whole images alone, as far as that is known beforehand. Sends nothing."""
        if isinstance(self.bootloader, SlotBootloader):
            raise unerasable()

    def erase(self, ranges: Sequence[Range]) -> int:
        """Erases the units that the ranges touch; bytes erased."""
        with self._telling(), self._left_as_it_was():
            self.refuse_unerasable()
            return self._strategy().erase(ranges)

    def release(self, *, amid: bool = False) -> None:
        """Lets the part run its application again, if it was only looked at. `amid`: something other than an error came in
        between, such as Ctrl-C. Never raises a ProxyflashError."""
        if not (self.connected and self.bootloader.capabilities & Capability.BOOT):
            return
        if amid:
            self._let_go(self.bootloader.abandon)
            return
        try:
            self._let_go(self.bootloader.leave)
        except BaseException:
            self._let_go(self.bootloader.abandon)
            raise

    def _let_go(self, leave: Callable[[], None]) -> None:
        if self.starts_again and not self.touched:
            self.connected = False
            with suppress(ProxyflashError):
                leave()

    def _strategy(self, *, looking: bool = False) -> Strategy:
        """For the part as it is found now: not all protocols tell before they are connected how they take an image.

        `looking`: for what asks nothing of the part's memory unless it is connected.
        """
        if looking:
            self.look()
        else:
            self.connect()
        access = self.bootloader.access()
        if isinstance(access, MemoryAccess):
            return MemoryStrategy(self.bootloader, access, self.reporter)
        return SlotStrategy(self.bootloader, access, self.reporter)

    def _forget_what_ended(self) -> None:
        """Forgets a flash that ended well. A part that was started since is started again after a plan that fails."""
        if self._has_ended:
            self._has_ended = self._looked = False
            self.reporter = Reporter(self.component, self._context)
            self.starts_again = self._starts_first and not self.connected

    def _plan(self, image: FirmwareImage, *, compare: bool) -> FlashPlan:
        strategy = self._strategy(looking=True)
        self.reporter.enter(Phase.PLAN)
        plan = strategy.plan(image, compare=compare)
        self.reporter.tell(
            ev.Planned(
                self.component,
                image_bytes=plan.image.size,
                memory_bytes=plan.memory_bytes,
                erase_units=len(plan.erased),
                erase_bytes=plan.erased_bytes,
                write_bytes=plan.write_bytes,
                blank_bytes=plan.blank_bytes,
                present_bytes=plan.present_bytes,
                replaces=plan.replaces,
                seconds=strategy.seconds_for(plan),
                left_out=plan.image.left_out,
                rate=self.bootloader.rate,
                default_rate=self.default_rate,
                unchecked=plan.unchecked,
                layout=plan.layout,
            )
        )
        return plan

    def _attempt(self, action: Callable[[], T], phase: Phase, without: tuple[type[Exception], ...] = ()) -> T:
        """Does `action`, up to `attempts` times where the failure may pass; connects again before each further time."""
        attempt, mismatches = 1, 0
        while True:
            try:
                return action()
            except ProxyflashError as error:
                mismatches += isinstance(error, VerifyMismatch)
                spent = attempt >= self.attempts or mismatches > MISMATCHES
                if spent or isinstance(error, without) or not self._may_pass(error):
                    raise
                attempt += 1
                self.connected = False
                self.reporter.tell(
                    ev.Retrying(self.component, phase, attempt, self.attempts, error.code, str(error.cause))
                )

    def _may_pass(self, error: ProxyflashError) -> bool:
        if isinstance(error, PartError) and error.passes is not None:
            return error.passes
        if not isinstance(error, SILENT):
            return isinstance(error, TRANSIENT) or (self._was_connected and isinstance(error, PartWrongMode))
        step = STEPS.get(self.reporter.current, Step.QUESTION)
        if isinstance(error, NoResponse) and not (self.touched or self._has_answered):
            step = Step.CONNECT
        return self.bootloader.silences[step] in PASSES

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """An error of the block gets the component's name, and how it was left."""
        try:
            yield
        except ProxyflashError as error:
            error.named(self.component)
            if error.left is None and error.is_of_a_part:
                error.left = self._left(error)
                error.exit_status = _exit_status(error, error.left)
            if isinstance(error, NoResponse) and self._has_answered and not error.passes:
                raise fell_silent(error) from error
            if isinstance(error, NoResponse) and not self.touched and self.default_rate not in error.remedy:
                raise error.advised((f"Note that {self.default_rate}. ", *error.advice)) from error
            is_silent = isinstance(error, RebootFailed) and error.boots is None
            if is_silent and self.reporter.verified and error.advice == RebootFailed("").advice:
                raise error.advised(WHOLE_AND_SILENT) from error
            raise

    def _left(self, error: ProxyflashError) -> Left:
        found = self.reporter
        boots: bool | None = None
        if isinstance(error, RebootFailed | VersionMismatch) and found.current is Phase.BOOT:
            boots = error.boots if isinstance(error, RebootFailed) else True
        elif found.touched and found.current in (Phase.ERASE, Phase.WRITE):
            boots = True if self.runs_on else False if found.headless else None
        return Left(
            found.current.value,
            found.touched,
            found.erased,
            found.written,
            boots,
            verified=found.verified,
            attempts=max(1, found.attempts),
        )

    @contextmanager
    def _left_as_it_was(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self.release(amid=not isinstance(error, ProxyflashError))
            raise


def _exit_status(error: ProxyflashError, left: Left) -> ExitStatus:
    """A part that was changed and isn't whole has another status than an absent part, whatever kept it from being whole.

    After a WrongLayout the same command would erase on beyond the plan, and see nothing of it.
    """
    amid = left.phase in (Phase.ERASE, Phase.WRITE)
    passes = amid or error.exit_status in (ExitStatus.ABSENT, ExitStatus.FAILED)
    return (
        ExitStatus.RESUMABLE
        if left.touched and passes and not isinstance(error, Cancelled | WrongLayout)
        else error.exit_status
    )
