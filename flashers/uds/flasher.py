"""UDS: ECUs that are programmed by diagnostic services over ISO-TP on CAN and CAN FD.

After ISO 14229-1:2020: RoutineControl (14.2), ReadMemoryByAddress (11.3), and the programming sequence of clause 16.
Where makers differ, the profile says how. Here is the order of things: `connection` has the session, `fitting` the image,
`transfer` downloads and uploads, `judging` the ECU's checks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ...transports.can.bus import CanBus
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError
from ...transports.isotp.opening import Addressing
from ...transports.outside import Outside
from ..errors import (
    ImageWrongPart,
    OperationFailed,
    ProfileWrong,
    ProtocolError,
    RebootFailed,
    Unsupported,
)
from ..flasher import Capability, Identity, MemoryBootloader, ProbeResult, Target
from ..image import FirmwareImage, Segment
from ..memory import MemoryMap, Range
from .client import Broadcast, PduChannel
from .codec import SILENCES, Service
from .connection import NOT_DONE, Connection
from .discovery import SIGHT_RUN_ON
from .driver import DriverLoader
from .files import IMAGE, FilesOfProfile, files_named
from .fitting import check_all_covered, fitted, merged
from .functional import FunctionalRequests
from .identity import merge, probed
from .judging import Judge
from .keys import key_files, keys_of
from .parameters import Subject, encoded
from .profile import UdsAddress, UdsProfile
from .sequence import REGION, Words
from .session import client_over
from .transfer import Transfers
from .two_addresses import opened
from .version import told_in_session

if TYPE_CHECKING:
    from ..describing import Describer


OTHER_LENGTH = 16
"""Bytes by which two requests of ReadMemoryByAddress differ; addresses stay aligned to it."""


class UdsFlasher(MemoryBootloader):
    """One ECU. The fingerprint is written before the first erase, not at `connect`, which changes nothing."""

    protocol: ClassVar[str] = "uds"
    bus_kind: ClassVar[str] = "can"
    probes_application: ClassVar[bool] = True
    silences = SILENCES
    Address = UdsAddress
    Profile = UdsProfile

    def __init__(
        self,
        channel: PduChannel,
        profile: UdsProfile,
        broadcast: Broadcast | None = None,
        outside: Outside | None = None,
    ) -> None:
        """Raises what `check_profile` raises. `outside`: records keys, or replays them."""
        self._connection = Connection(channel, profile, broadcast, outside)
        self._files = FilesOfProfile(profile)
        self._profile = profile
        self._order = profile.sequence
        self._transfers = Transfers(self._connection)
        self._judge = Judge(self._connection, self._files, self._bring_driver)
        self._prepared = False
        self._driver = DriverLoader(self._connection, self._files, self._transfers)
        self._judged = False
        self._unended = False
        """Whether something was erased or written, and the steps at the order's end were not done since."""
        self._fitted: Sequence[Segment] = ()
        """What of the last image goes into the ECU's memory."""

    @classmethod
    def attach(cls, bus: CanBus, address: UdsAddress, profile: UdsProfile) -> Self:
        cls.check_address(address, profile)
        functional = address.functional_id()
        channel = opened(bus, address, profile)
        broadcast = FunctionalRequests(bus, functional, profile.iso_tp) if profile.functional and functional else None
        try:
            made = cls(channel, profile, broadcast, bus.outside)
        except ProxyflashError:
            channel.close()
            raise
        made._connection.asks_classic = bus.fd and not profile.iso_tp.options().sends_fd
        return made

    @classmethod
    def describer(cls, name: str, address: UdsAddress, profile: UdsProfile) -> Describer:
        from .describe import UdsDescriber

        isotp, *boot = address.every_isotp()
        targets = None
        if isotp.addressing is Addressing.EXTENDED and isotp.target is not None and isotp.source is not None:
            targets = isotp.target, isotp.source
        return UdsDescriber(name, *isotp.ids(), address.functional_id(), targets, [item.ids() for item in boot])

    @classmethod
    def probe(
        cls, bus: CanBus, address: UdsAddress, profile: UdsProfile, *, active: bool, deadline: Deadline | float
    ) -> ProbeResult | None:
        deadline = Deadline.of(deadline)
        channel = opened(bus, address, profile, Deadline(deadline.at + SIGHT_RUN_ON))
        client = client_over(channel, profile)
        try:
            keys = keys_of(profile, bus.outside) if profile.identifiers.version_after else {}
            return probed(
                client, profile, deadline, lambda active: told_in_session(client, profile, keys, deadline, active)
            )
        finally:
            client.close()

    @classmethod
    def unjudged(cls, profile: UdsProfile) -> UdsProfile:
        return profile.model_copy(update={"routines": profile.routines.model_copy(update={"dependencies": "none"})})

    @classmethod
    def wrong_key(cls, profile: UdsProfile) -> UdsProfile | None:
        if profile.security.key == "none":
            return None
        wrong = profile.security.model_copy(update={"key": "xor", "secret": b"\x01\x02\x03\x04", "library": None})
        return profile.model_copy(update={"security": wrong})

    @classmethod
    def surprises(cls, profile: UdsProfile, bus: Mapping[str, Any]) -> Iterator[str]:
        if bus.get("fd") and profile.iso_tp.fd is None and profile.iso_tp.tx_dl == 8:
            yield (
                "on a CAN FD bus it is asked in classic frames; if it hears CAN FD frames only, set iso_tp = {tx_dl = 64}, "
                "or iso_tp = {fd = true} for frames of 8 bytes"
            )

    @classmethod
    def files_named(cls, profile: UdsProfile) -> Iterator[Path]:
        yield from files_named(profile)
        yield from key_files(profile)

    @classmethod
    def check_profile(cls, profile: UdsProfile) -> None:
        keys_of(profile, None)
        FilesOfProfile(profile)

    @classmethod
    def check_address(cls, address: UdsAddress, profile: UdsProfile) -> None:
        if profile.functional and address.functional_id() is None:
            raise ProfileWrong("functional = true in the profile needs the address's functional id")

    @classmethod
    def readback_unavailable_reason(cls, profile: UdsProfile) -> str:
        if profile.read == "none":
            return "no backup: set read in its profile if the ECU lets its memory be read"
        if profile.driver is not None and (not profile.driver.file or profile.driver.file.startswith(IMAGE)):
            return "the flash driver comes with the image, and what is read back has none (driver.file)"
        return ""

    @property
    def unreadable(self) -> str:
        unread = self._profile.read == "none"
        return (
            "the profile does not say how the ECU's memory is read: set read, if the ECU lets it be read"
            if unread
            else ""
        )

    def look(self) -> Identity | None:
        """Where memory can't be read, nothing that planning needs is in the ECU: its application goes on."""
        if self._profile.read != "none":
            return None
        self._connection.begin()
        awake, active = self._connection.wake()
        if not awake:
            return None
        self._set_capabilities()
        return self._connection.told(active).identity

    def connect(self) -> Identity:
        self._transfers.give_up()
        self._connection.client.let_session_go()
        self._connection.client.repeated = 0
        self._connection.begin()
        self._prepared = False
        self._driver.loaded = False
        self._judge.unjudged = []
        self._judged = False
        identity = merge(self._connection.enter(), self._connection.told(self._profile.sessions.programming).identity)
        self._set_capabilities()
        return identity

    def _set_capabilities(self) -> None:
        self.capabilities = Capability.BOOT
        checks = isinstance(self._profile.routines.check, int) and "check" in self._order.words
        if checks or self._profile.transfer_exit_answer:
            self.capabilities |= Capability.CHECK
        if self._profile.read != "none":
            self.capabilities |= Capability.READ

    def leave(self) -> None:
        self._connection.leave(resets=self._driver.loaded)

    def abandon(self) -> None:
        self._transfers.give_up()
        if self._driver.loaded:
            self.leave()
        else:
            self._connection.abandon()

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        return self._profile.memory_map()

    def fit(self, image: FirmwareImage) -> FirmwareImage:
        """The image without the flash driver, which is kept; by id, each region's part of it as one segment."""
        placed = fitted(self._files.keep(image), self._profile)
        self._fitted = placed.segments
        return placed

    def turns(
        self, erase: Sequence[Range], writes: Sequence[Segment]
    ) -> Iterator[tuple[Sequence[Range], Sequence[Segment]]]:
        if erase or writes:
            self._prepare(writes)
            yield from self._turns(self._order.body, erase, writes)

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        routines = self._profile.routines
        if not isinstance(routines.erase, int):
            return
        if routines.erase_all:
            try:
                check_all_covered(self.memory_map(), [Segment(item.start, bytes(1)) for item in ranges])
            except ImageWrongPart as error:
                raise Unsupported(str(error.cause), remedy="Erase all of its memories.") from error
        self._prepare()
        done = 0
        calls = merged(ranges, self.memory_map()) if routines.merge_erase else ranges
        for item in calls:
            if not done or not routines.erase_all:
                subject = Subject(item.start, item.size, id=self._profile.region_id(item.start))
                parameters = encoded(routines.erase_parameters, self._profile, subject)
                status = self._connection.run_routine(routines.erase, parameters)
                if not routines.passes(status):
                    raise OperationFailed(
                        f"erasing {item} failed (routine 0x{routines.erase:04X}: {status.hex(' ').upper()})"
                    )
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        self._prepare()
        self._judge.unjudged.append(segment)
        region = self._profile.region_at(segment.address)
        yield from self._transfers.download(
            self._files.subject(segment),
            self._profile.data_format if region is None or region.data_format is None else region.data_format,
            announced=(region.announce if region is not None else None) or segment.size,
            alignment=region.write_alignment if region is not None else 1,
            bears_a_reset=self._bears_a_reset,
        )

    def read(self, start: int, size: int) -> Iterator[bytes]:
        if self._profile.read == "upload":
            return self._transfers.upload(start, size, bears_a_reset=self._bears_a_reset)
        return self._read_memory(start, size)

    @property
    def _bears_a_reset(self) -> bool:
        return len(self._judge.unjudged) < 2 and not self._driver.loaded

    def judge(self, segments: Sequence[Segment]) -> str:
        """Raises Unsupported where only an answer to RequestTransferExit would show what the ECU holds, and nothing was sent."""
        said = self._end_order(segments)
        if not said and self._profile.transfer_exit_answer:
            raise Unsupported(
                "the part says what it holds only at the end of a download",
                remedy="Set read in its profile if its memory can be read back.",
            )
        return said

    def _end_order(self, segments: Sequence[Segment]) -> str:
        """Does what the order has after the last download; how that shows what the ECU holds, in words.

        The fingerprint and the maker's own steps at the order's end are done only after something was changed: who but
        verifies changes nothing.
        """
        said = []
        if self._profile.transfer_exit_answer and self._judge.unjudged:
            said.append("the part's answer to RequestTransferExit")
        checks = self._order.checks_in_turns
        if checks and not self._judge.unjudged:
            self._judge.check(segments)
        for word in self._order.end:
            if word == "check":
                self._judge.check(segments)
                checks = True
            elif word == "dependencies":
                self._judge.check_dependencies()
            elif self._unended or not self._changes(word):
                self._take_step(word, segments)
        routines = self._profile.routines
        if checks and isinstance(routines.check, int):
            said.append(f"routine 0x{routines.check:04X} by the part")
        if "dependencies" in self._order.end and isinstance(routines.dependencies, int):
            said.append(f"dependencies by 0x{routines.dependencies:04X}")
        self._judge.unjudged = []
        self._judged = True
        self._unended = False
        return ", ".join(said)

    def start_application(self) -> None:
        """An ECU starts only what its own routines accepted, so those that `judge` did not call are called first.

        Raises RebootFailed where they did not accept what it holds, and it stays in its bootloader.
        """
        self._transfers.give_up()
        fault: ProxyflashError | None = None
        if self._judge.unjudged:
            self._end_order(sorted(self._judge.unjudged, key=lambda segment: segment.address))
        elif not self._judged:
            fault = self._end_what_was_cut()
        self._connection.start_application(after=bool(self._fitted))
        if fault is not None and not self._connection.runs():
            raise RebootFailed(
                f"the ECU stays in its bootloader; before its reset: {fault.cause}",
                remedy="Flash its image again, with --full.",
            ).answers() from fault
        self._unended = False

    def _end_what_was_cut(self) -> ProxyflashError | None:
        """After an interruption the image may be whole, and only the order's end be missing. If more is missing, nothing is done.

        Of one whose application ran, or that no image was brought to, only the dependencies are asked. What failed last;
        None: nothing did, or what failed first does not count.
        """
        fault: ProxyflashError | None = None
        if self._fitted and (self._unended or not self._connection.ran):
            self._unended = True
            try:
                self._end_order(self._fitted)
            except ProxyflashError as error:
                fault = error
        asks = isinstance(self._profile.routines.dependencies, int) and "dependencies" in self._order.words
        if not self._judged and asks:
            try:
                self._judge.check_dependencies(brings_driver=False)
                fault = None
            except ProxyflashError as error:
                fault = error
        return fault

    def close(self) -> None:
        try:
            self._transfers.give_up()
        finally:
            with suppress(TransportError):
                self._connection.client.close()

    def _prepare(self, writes: Sequence[Segment] = ()) -> None:
        """What comes between the key and the first erase, once: fingerprint, flash driver, the maker's own steps."""
        self._unended = True
        if self._prepared:
            return
        for word in self._order.prepare:
            if word == "driver":
                self._driver.load(bears_a_reset=self._bears_a_reset)
            else:
                self._take_step(word, writes)
        self._prepared = True

    def _bring_driver(self) -> bool:
        """Loads the flash driver for a check that is offered only while it runs; False where there is none, or it is there.

        An ECU that takes the driver only after the steps before it gets those too, where only the order's end is missing. What
        comes after the driver may erase, and so may a step of the maker's own where no other one does: it is not done.
        """
        order, own_steps = self._order.prepare, self._profile.own_steps
        if self._driver.loaded or self._profile.driver is None or "driver" not in order:
            return False
        try:
            self._driver.load(bears_a_reset=self._bears_a_reset)
        except NOT_DONE:
            before = order[: order.index("driver")]
            erases = isinstance(self._profile.routines.erase, int) and "erase" in self._order.words
            own = [own_steps[word] for word in before if word in own_steps]
            if not self._unended or self._prepared or (not erases and any(step.may_erase for step in own)):
                raise
            for word in before:
                self._take_step(word, self._fitted)
            self._driver.load(bears_a_reset=self._bears_a_reset)
        return True

    def _turns(
        self, words: Words, erase: Sequence[Range], writes: Sequence[Segment]
    ) -> Iterator[tuple[Sequence[Range], Sequence[Segment]]]:
        for word in words:
            if isinstance(word, str):
                if word == "erase":
                    yield erase, ()
                elif word == "download":
                    yield (), writes
                elif word == "check":
                    self._judge.check(writes)
                else:
                    self._take_step(word, writes)
            elif word[0] == REGION:
                for region in self._profile.memory:
                    end = region.start + region.size
                    units = [item for item in erase if region.start <= item.start < end]
                    segments = [item for item in writes if region.start <= item.address < end]
                    if units or segments:
                        yield from self._turns(word[1:], units, segments)
            else:
                for segment in writes:
                    yield from self._turns(word[1:], (), (segment,))

    def _changes(self, word: str) -> bool:
        """Whether this step at the order's end may change the ECU."""
        step = self._profile.own_steps.get(word)
        return word == "fingerprint" if step is None else not step.only_enters

    def _take_step(self, word: str, segments: Sequence[Segment] = ()) -> None:
        if word == "dependencies":
            self._judge.check_dependencies()
            return
        subject = Subject()
        if segments:
            data = b"".join(bytes(item.data) for item in segments)
            subject = replace(self._files.subject(segments[0]), size=len(data), data=data)
        before = self.changed_in_turns
        self.changed_in_turns = before or (word in self._profile.own_steps and self._changes(word))
        try:
            self._connection.take_step(word, subject)
        except NOT_DONE:
            self.changed_in_turns = before
            raise

    def _read_memory(self, start: int, size: int) -> Iterator[bytes]:
        """An answer says nothing of its address. So no request is as long as the one before: an answer that came twice is not
        taken for the next one's."""
        step = self._profile.read_block
        address, length = start, 0
        while left := start + size - address:
            length, before = min(step, left), length
            length -= OTHER_LENGTH if length == before and length > OTHER_LENGTH else 0
            where = encoded(("alfi", "address", "size"), self._profile, Subject(address, length))
            data = self._connection.request(bytes((Service.READ_MEMORY_BY_ADDRESS,)) + where)
            if len(data) != length:
                raise ProtocolError(f"the part was asked for {length} bytes at 0x{address:08X}, and sent {len(data)}")
            yield data
            address += length
