"""The engine, over a flasher that is nothing but a NOR flash: the same rules, no wire."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, Self

import pytest
from proxyflash.emulators.flash import NorFlash
from proxyflash.emulators.supply import PowerLost, Supply
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    USUAL_SILENCES,
    Cancelled,
    ImageMisplaced,
    ImageTooLarge,
    Meaning,
    NoResponse,
    OperationFailed,
    PartProtected,
    PartRefused,
    ProtocolError,
    RebootFailed,
    Step,
    Unsupported,
    VerifyMismatch,
)
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.flasher import Address, Capability, Digest, Identity, MemoryBootloader, Target
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.memory import Beside, Head, MemoryMap, Range, Region, uniform
from proxyflash.flashers.programmer import Programmer
from proxyflash.flashers.settings import Settings
from proxyflash.transports.errors import ExitStatus, ProxyflashError, SerialGone, SerialTimeout

UNIT = 512
UNITS = 6
BLOCK = 128


class NorFlasher(MemoryBootloader):
    """A bootloader that is a memory. `fail`: called before each block is written."""

    protocol = "nor"
    bus_kind = "none"
    Address = Address
    Profile = Settings

    def __init__(self, flash: NorFlash, capabilities: Capability) -> None:
        self.flash = flash
        self.capabilities = capabilities
        self.fail: Callable[[], None] = lambda: None
        self.calls: list[str] = []

    @classmethod
    def attach(cls, bus: Any, address: Any, profile: Any) -> Self:
        raise NotImplementedError

    def connect(self) -> Identity:
        self.calls.append("connect")
        if not self.flash.supply.is_on:
            raise NoResponse("no answer")
        return Identity(part="NOR")

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        return MemoryMap((uniform("flash", 0, UNIT * UNITS, UNIT, write_alignment=4),))

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        done = 0
        for item in ranges:
            self.flash.erase(item.start)
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        for offset in range(0, segment.size, BLOCK):
            self.fail()
            data = bytes(segment.data[offset : offset + BLOCK])
            self.flash.program(segment.address + offset, data)
            yield offset + len(data)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        self.calls.append(f"read {start} {size}")
        for offset in range(0, size, BLOCK):
            yield self.flash.read(start + offset, min(BLOCK, size - offset))

    def digest(self, start: int, size: int) -> Digest | None:
        self.calls.append("digest")
        return Digest("CRC-32", zlib.crc32(self.flash.read(start, size)), zlib.crc32)

    def start_application(self) -> None:
        self.calls.append("boot")

    def close(self) -> None:
        pass


def content(seed: int, size: int = 2300) -> bytes:
    return bytes((i * 37 + seed * 11 + i // 256) % 251 for i in range(size))


def image(seed: int, size: int = 2300) -> FirmwareImage:
    return FirmwareImage((Segment(0, content(seed, size)),), "bin")


class Bench:
    """A part with an old image, a programmer, and what it said."""

    def __init__(self, capabilities: Capability = Capability.READ | Capability.BOOT) -> None:
        self.supply = Supply()
        self.flash = NorFlash(0, [(UNITS, UNIT)], self.supply, program_unit=4)
        self.flash.load(0, content(1))
        self.flasher = NorFlasher(self.flash, capabilities)
        self.events: list[ev.Event] = []
        self.stop = False

    def programmer(self) -> Programmer:
        return Programmer(self.flasher, "imu", RunContext(self.events.append, lambda: self.stop))

    def flash_image(self, wanted: FirmwareImage, **options: Any) -> Any:
        programmer = self.programmer()
        return programmer.flash(programmer.plan(wanted), **options)

    def holds(self, wanted: FirmwareImage) -> bool:
        return all(self.flash.read(s.address, s.size) == bytes(s.data) for s in wanted.segments)


@pytest.mark.parametrize(
    ("capabilities", "method"),
    [
        (Capability.READ | Capability.BOOT, "read back"),
        (Capability.DIGEST | Capability.BOOT, "CRC-32 by the part"),
    ],
)
def test_flashes_verifies_and_boots(capabilities: Capability, method: str) -> None:
    bench = Bench(capabilities)
    result = bench.flash_image(image(2))
    assert bench.holds(image(2))
    assert result.verified == method
    assert result.booted
    assert bench.flasher.calls[-1] == "boot"
    phases = [event.phase for event in bench.events if isinstance(event, ev.PhaseStarted)]
    assert phases == ["connect", "compare", "erase", "write", "verify", "boot"]


@pytest.mark.parametrize("capability", [Capability.READ, Capability.DIGEST])
def test_the_same_image_again_changes_nothing(capability: Capability) -> None:
    bench = Bench(capability | Capability.BOOT)
    result = bench.flash_image(image(1))
    assert (result.erased_bytes, result.written_bytes) == (0, 0)
    assert bench.supply.operations == 0
    assert result.verified


def test_what_differs_in_one_unit_costs_that_unit_and_the_head() -> None:
    bench = Bench(Capability.DIGEST)
    wanted = bytearray(content(1))
    wanted[3 * UNIT] ^= 1
    bench.flash_image(FirmwareImage((Segment(0, bytes(wanted)),), "bin"))
    assert bench.flash.erases == 2


def test_comparing_by_reading_gives_up_early_on_a_part_that_holds_something_else() -> None:
    bench = Bench()
    bench.programmer().plan(image(2, UNIT * UNITS))
    assert len([call for call in bench.flasher.calls if call.startswith("read")]) == 4


def test_progress_ends_at_the_total_and_never_goes_back() -> None:
    bench = Bench()
    bench.flash_image(image(2))
    for phase in (ev.Phase.ERASE, ev.Phase.WRITE, ev.Phase.VERIFY):
        steps = [event for event in bench.events if isinstance(event, ev.Progress) and event.phase is phase]
        assert [step.done for step in steps] == sorted(step.done for step in steps)
        assert steps[-1].done == steps[-1].total


def test_a_refused_image_touches_nothing_and_the_application_runs_again() -> None:
    bench = Bench()
    with pytest.raises(ImageTooLarge) as caught:
        bench.programmer().plan(image(2, UNIT * UNITS + 1))
    assert caught.value.component == "imu"
    assert bench.supply.operations == 0
    assert bench.flasher.calls[-1] == "boot"


def test_a_passing_fault_is_tried_again_and_goes_on_with_what_is_missing() -> None:
    bench = Bench()
    faults = iter([None] * 10 + [SerialTimeout("no answer within 1 s")])

    def fail() -> None:
        error = next(faults, None)
        if error is not None:
            raise error

    bench.flasher.fail = fail
    result = bench.flash_image(image(2))
    assert bench.holds(image(2))
    assert result.verified
    retries = [event for event in bench.events if isinstance(event, ev.Retrying)]
    assert [(retry.code, retry.attempt) for retry in retries] == [("E-SERIAL-TIMEOUT", 2)]


def test_a_lasting_fault_ends_after_three_attempts() -> None:
    bench = Bench()

    def fail() -> None:
        raise OperationFailed("programming failed")

    bench.flasher.fail = fail
    with pytest.raises(OperationFailed):
        bench.flash_image(image(2))
    assert bench.flasher.calls.count("connect") == 3
    assert "boot" not in bench.flasher.calls


def test_an_unplugged_adapter_is_not_tried_again() -> None:
    bench = Bench()

    def fail() -> None:
        raise SerialGone("unplugged")

    bench.flasher.fail = fail
    with pytest.raises(SerialGone):
        bench.flash_image(image(2))
    assert bench.flasher.calls.count("connect") == 1


def test_a_memory_that_lies_is_a_failed_flash() -> None:
    bench = Bench()
    programmer = bench.programmer()
    plan = programmer.plan(image(2))
    good = bench.flash.read

    def lie(address: int, size: int) -> bytes:
        data = bytearray(good(address, size))
        if address <= 1000 < address + size:
            data[1000 - address] ^= 0x10
        return bytes(data)

    bench.flash.read = lie  # type: ignore[method-assign]
    with pytest.raises(VerifyMismatch, match="0x000003E8") as caught:
        programmer.flash(plan)
    assert caught.value.exit_status == ExitStatus.VERIFY
    assert "boot" not in bench.flasher.calls
    # A block may have been lost: it is tried once again, and no third time.
    assert caught.value.left is not None
    assert caught.value.left.attempts == bench.flasher.calls.count("connect") == 2
    assert " written in 2 attempts; " in str(caught.value)


def test_bytes_are_those_of_all_attempts() -> None:
    """The first attempt ends during the write: what it wrote counts, and is not written again."""
    bench = Bench()
    blocks = itertools.count(1)

    def fail() -> None:
        if next(blocks) == 3:
            raise SerialTimeout("mute")

    bench.flasher.fail = fail
    result = bench.flash_image(image(2))
    assert (result.attempts, bench.holds(image(2))) == (2, True)
    assert result.erased_bytes > image(2).size
    assert bench.flash_image(image(3)).attempts == 1


@pytest.mark.parametrize(
    ("answers", "boots", "advice"), [(True, False, "what state"), (False, None, "Is its supply on")]
)
def test_a_part_that_does_not_start(answers: bool, boots: bool | None, advice: str) -> None:
    """A part that answers from its bootloader does not boot; a silent one may be without its supply."""
    bench = Bench()
    programmer = bench.programmer()
    plan = programmer.plan(image(2))
    programmer.flash(plan, boot=False)
    error = RebootFailed("not there")
    with pytest.raises(RebootFailed) as caught, programmer.starting(plan):
        raise error.answers() if answers else error
    left = caught.value.left
    assert left is not None
    assert (left.boots, left.verified, left.phase) == (boots, True, "boot")
    assert advice in caught.value.remedy


@pytest.mark.parametrize("boots", [True, False])
def test_a_plan_after_a_whole_flash_knows_nothing_of_it(boots: bool) -> None:
    """Its error says that nothing was changed, and a part that ran the application runs it again."""
    bench = Bench()
    with bench.programmer() as programmer:
        programmer.flash(programmer.plan(image(2)), boot=boots)
        before = bench.supply.operations
        with pytest.raises(ImageTooLarge) as caught:
            programmer.plan(image(3, UNIT * UNITS + 4))
        left = caught.value.left
        assert left is not None
        assert (left.touched, left.written_bytes, left.erased_bytes, left.verified) == (False, 0, 0, False)
        assert bench.supply.operations == before
        assert bench.flasher.calls.count("boot") == 2 * boots


def test_a_plan_after_a_failed_flash_remembers_it() -> None:
    bench = Bench()
    programmer = bench.programmer()

    def fail() -> None:
        raise PartRefused("no").passing(False)

    bench.flasher.fail = fail
    plan = programmer.plan(image(2))
    with pytest.raises(PartRefused):
        programmer.flash(plan)
    with pytest.raises(ImageTooLarge) as caught:
        programmer.plan(image(3, UNIT * UNITS + 4))
    assert caught.value.left is not None
    assert caught.value.left.touched


def test_without_verification_none_is_claimed() -> None:
    assert Bench().flash_image(image(2), verify=False).verified == ""


def test_a_part_that_can_not_be_verified_says_so() -> None:
    with pytest.raises(Unsupported, match="no way to verify"):
        Bench(Capability.BOOT).flash_image(image(2))


def test_cancelling_before_the_erase_leaves_the_part_as_it_was() -> None:
    bench = Bench()
    bench.stop = True
    with pytest.raises(Cancelled) as caught:
        bench.flash_image(image(2))
    assert caught.value.exit_status == ExitStatus.INTERRUPTED
    assert bench.holds(image(1))


def test_cancelled_at_every_yield_the_same_command_ends_well() -> None:
    """Stops at the first, second, ... event of a changing phase; each time a second run completes."""
    stopped = 0
    for count in range(1, 200):
        bench = Bench()
        seen = 0

        def watch(event: ev.Event, bench: Bench = bench, count: int = count) -> None:
            nonlocal seen
            if isinstance(event, ev.Progress):
                seen += 1
                bench.stop = seen >= count

        programmer = Programmer(bench.flasher, "imu", RunContext(watch, lambda bench=bench: bench.stop))  # type: ignore[misc]
        try:
            programmer.flash(programmer.plan(image(2)))
            break
        except Cancelled as error:
            stopped += 1
            touched = error.touched
        assert touched == (bench.supply.operations > 0)
        assert touched or bench.holds(image(1))
        bench.stop = False
        bench.flash_image(image(2))
        assert bench.holds(image(2))
    assert stopped > 30


@pytest.mark.parametrize("capability", [Capability.READ, Capability.DIGEST])
def test_cut_at_every_flash_operation_the_part_never_boots_a_mixture(capability: Capability) -> None:
    """The head of the image is there only while all of it is: before the first erase, or after the last write."""
    cuts = 0
    for operation in range(1, 2000):
        bench = Bench(capability)
        bench.supply.cut_at(operation)
        try:
            bench.flash_image(image(2))
            break
        except PowerLost:
            cuts += 1
        head = bench.flash.read(0, 8)
        whole = bench.holds(image(1)) or bench.holds(image(2))
        assert whole or head not in (content(1)[:8], content(2)[:8])
        bench.supply.on()
        bench.flash_image(image(2))
        assert bench.holds(image(2))
    assert cuts > 500


def test_what_was_written_before_a_cut_is_not_written_again() -> None:
    bench = Bench(Capability.DIGEST)
    bench.supply.cut_at(400)
    with pytest.raises(PowerLost):
        bench.flash_image(image(2))
    bench.supply.on()
    programmer = bench.programmer()
    assert programmer.plan(image(2)).present_bytes >= 2 * UNIT


def test_reading_erasing_and_comparing() -> None:
    bench = Bench()
    assert bench.programmer().verify(image(1)) == "read back"
    with pytest.raises(VerifyMismatch):
        bench.programmer().verify(image(2))
    assert bytes(bench.programmer().read([Range(10, 300)])[0].data) == content(1)[10:310]
    assert bench.programmer().erase([Range(UNIT + 5, 1)]) == UNIT
    assert bench.flash.read(UNIT, UNIT) == b"\xff" * UNIT
    with pytest.raises(Unsupported):
        bench.programmer().erase([Range(UNIT * UNITS, 1)])


def test_a_read_that_ends_early_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(Capability.READ | Capability.BOOT)
    wanted = image(1)
    bench.programmer().verify(wanted)
    whole = bench.flasher.read
    monkeypatch.setattr(bench.flasher, "read", lambda start, size: list(whole(start, size))[:-1])
    with pytest.raises(ProtocolError, match="of the"):
        bench.programmer().verify(wanted)
    with pytest.raises(ProtocolError, match="of the"):
        bench.programmer().read([Range(0, UNIT)])


def test_what_the_part_gives_no_checksum_of_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(Capability.DIGEST | Capability.READ | Capability.BOOT)
    monkeypatch.setattr(bench.flasher, "digest", lambda start, size: None)
    assert bench.programmer().plan(image(1)).nothing_to_do
    assert not bench.programmer().plan(image(2)).nothing_to_do
    bench.flasher.capabilities = Capability.DIGEST | Capability.BOOT
    assert not bench.programmer().plan(image(1)).nothing_to_do


@pytest.mark.parametrize("acknowledged", [0, 1])
def test_a_refused_erase_leaves_the_application_running(acknowledged: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the part refuses it has not done. Once a unit is erased, its application is not started again."""
    bench = Bench(Capability.READ | Capability.BOOT)
    whole = bench.flasher.erase

    def refused(ranges: Sequence[Range]) -> Iterator[int]:
        yield from itertools.islice(whole(ranges), acknowledged)
        raise PartProtected("write protection")

    monkeypatch.setattr(bench.flasher, "erase", refused)
    with pytest.raises(PartProtected):
        bench.flash_image(image(2))
    assert ("boot" in bench.flasher.calls) == (acknowledged == 0)
    assert bench.holds(image(1)) == (acknowledged == 0)


def test_what_an_image_replaces_is_read_or_said_to_be_unreadable() -> None:
    bench = Bench()
    segments, reason = bench.programmer().read_replaced(image(2, UNIT + 1))
    assert reason == ""
    assert [(segment.address, bytes(segment.data)) for segment in segments] == [(0, bench.flash.read(0, 2 * UNIT))]
    bench.flasher.capabilities = Capability.DIGEST | Capability.BOOT
    assert bench.programmer().read_replaced(image(2)) == ((), "the part does not let its memory be read")


def test_what_the_part_has_against_an_image_is_no_reason_to_go_on_without_a_backup(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(target: Target | None = None) -> MemoryMap:
        raise Unsupported("the part's application takes no images")

    bench = Bench()
    monkeypatch.setattr(bench.flasher, "memory_map", refuses)
    with pytest.raises(Unsupported, match="takes no images"):
        bench.programmer().read_replaced(image(2))


@pytest.mark.parametrize("capability", [Capability.READ, Capability.READ | Capability.DIGEST])
@pytest.mark.parametrize("refusal", [PartProtected, PartRefused, Unsupported])
def test_what_the_part_refuses_to_read_is_not_told_to_be_different(
    capability: Capability, refusal: type[ProxyflashError], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(capability)

    def refuse(start: int, size: int) -> Any:
        raise refusal("not there")

    monkeypatch.setattr(bench.flasher, "read", refuse)
    monkeypatch.setattr(bench.flasher, "digest", refuse)
    memory = MemoryMap(bench.flasher.memory_map().regions, (Beside("option bytes", 0x1000, 16, readable=True),))
    monkeypatch.setattr(bench.flasher, "memory_map", lambda target=None: memory)
    wanted = FirmwareImage((Segment(0, content(2)), Segment(0x1000, b"\xa5")), "bin")
    with pytest.raises(ImageMisplaced, match="which may not be written; what the part holds there can't be read"):
        bench.programmer().plan(wanted)


class Start(Head):
    def check(self, image: FirmwareImage, region: Region) -> None:
        pass


def config_below(start: int, head: Head | None) -> MemoryMap:
    """A memory of one unit, and another one from `start` on."""
    return MemoryMap(
        (uniform("config", 0, start, UNIT), uniform("flash", start, UNIT * UNITS - start, UNIT, head=head))
    )


@pytest.mark.parametrize(
    ("address", "memory", "acknowledged", "boots"),
    [
        (0, None, 0, None),
        (0, None, 1, False),
        # 16 bytes of configuration, far from where the processor starts.
        (4 * UNIT, None, 0, None),
        (4 * UNIT, None, 1, None),
        # Where a head is known, no other region's start counts.
        (0, config_below(UNIT, Start()), 1, None),
        (0, config_below(UNIT, None), 1, False),
        (UNIT, config_below(UNIT, Start()), 1, False),
    ],
)
@pytest.mark.parametrize("phase", ["erase", "write"])
def test_a_part_whose_start_is_not_erased_may_boot(
    address: int,
    memory: MemoryMap | None,
    acknowledged: int,
    boots: bool | None,
    phase: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The adapter is pulled at the first erase, after it, or at the first write."""
    bench = Bench()
    if memory is not None:
        monkeypatch.setattr(bench.flasher, "memory_map", lambda target=None: memory)
    whole = bench.flasher.erase

    def gone() -> None:
        raise SerialGone("unplugged")

    def pulled(ranges: Sequence[Range]) -> Iterator[int]:
        yield from itertools.islice(whole(ranges), acknowledged)
        gone()

    if phase == "erase" or not acknowledged:
        monkeypatch.setattr(bench.flasher, "erase", pulled)
    else:
        bench.flasher.fail = gone
    with pytest.raises(SerialGone) as caught:
        bench.flash_image(FirmwareImage((Segment(address, b"configuration..."),), "bin"))
    left = caught.value.left
    assert left is not None
    assert (left.touched, left.erased_bytes, left.boots) == (True, acknowledged * UNIT, boots)


def test_what_a_first_attempt_erased_is_still_gone_in_the_next_one() -> None:
    """The wire fails during the write, and the part is away when it is asked again."""
    bench = Bench()

    def fail() -> None:
        bench.supply.off()
        raise SerialTimeout("mute")

    bench.flasher.fail = fail
    with pytest.raises(NoResponse) as caught:
        bench.flash_image(image(2))
    assert bench.flasher.calls.count("connect") == 3
    assert caught.value.left is not None
    assert caught.value.left.boots is False


def test_a_start_that_is_there_again_may_boot() -> None:
    """Of two memories the first is whole, and the adapter is pulled at the second one's first write."""
    bench = Bench()
    memory = config_below(4 * UNIT, None)
    bench.flasher.memory_map = lambda target=None: memory  # type: ignore[method-assign]
    wanted = FirmwareImage((Segment(0, content(2, UNIT)), Segment(5 * UNIT, b"configuration...")), "bin")
    blocks = itertools.count(1)

    def fail() -> None:
        # The first memory's: all but its first bytes, and these.
        if next(blocks) > UNIT // BLOCK + 1:
            raise SerialGone("unplugged")

    bench.flasher.fail = fail
    with pytest.raises(SerialGone) as caught:
        bench.flash_image(wanted)
    assert bench.holds(image(2, UNIT))
    assert caught.value.left is not None
    assert caught.value.left.boots is None


def test_a_part_that_has_answered_is_not_absent() -> None:
    """It falls silent while it is compared: it is connected again, and what is said of it is not a wrong setting."""
    bench = Bench(Capability.READ | Capability.BOOT)
    programmer = bench.programmer()
    programmer.connect()
    programmer.connected = False
    bench.supply.off()
    with pytest.raises(NoResponse) as caught:
        programmer.plan(image(2))
    assert bench.flasher.calls.count("connect") == 4
    assert caught.value.exit_status is ExitStatus.FAILED
    assert "address right" not in caught.value.remedy


@pytest.mark.parametrize("meaning", Meaning)
def test_the_table_of_silences_is_asked(meaning: Meaning) -> None:
    """A silence during the write is followed by another attempt where the bootloader's table says that it passes."""
    bench = Bench()
    silences = iter([SerialTimeout("mute")])

    def fail() -> None:
        for silence in silences:
            raise silence

    bench.flasher.fail = fail
    bench.flasher.silences = {**USUAL_SILENCES, Step.WRITE: meaning}  # type: ignore[misc]
    passes = meaning in (Meaning.LOST, Meaning.BUSY)
    with nullcontext() if passes else pytest.raises(SerialTimeout):
        bench.flash_image(image(2))
    assert bench.holds(image(2)) == passes


def test_a_loss_while_reading_passes() -> None:
    bench = Bench()
    reading, losses = bench.flasher.read, iter([SerialTimeout("mute"), SerialTimeout("mute")])

    def read(start: int, size: int) -> Iterator[bytes]:
        for loss in losses:
            raise loss
        return reading(start, size)

    bench.flasher.read = read  # type: ignore[method-assign]
    (segment,) = bench.programmer().read([Range(0, 300)])
    assert bytes(segment.data) == content(1)[:300]
    assert bench.flasher.calls.count("connect") == 3
