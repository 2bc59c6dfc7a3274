"""UDS: ECUs that are programmed by diagnostic services over ISO-TP on CAN and CAN FD.

After ISO 14229-1:2020: RoutineControl (14.2), RequestDownload, RequestUpload, TransferData, RequestTransferExit (clause
15), ReadMemoryByAddress (11.3), and the programming sequence of clause 16. Where makers differ, the profile says how.

The rule: the ECU judges what it holds. Segments are downloaded whole, its own routines check them, and a transfer that
broke off starts anew: UDS has no way to go on with one. The smallest unit that is sent again is one block, under the
same counter, which an ECU that has it acknowledges without writing it again. A refusal is for good or not: `Meaning` of
the code says which, and of what may be lost the ECU is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Self

from ...transports.can.bus import CanBus
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError, TransportError
from ...transports.isotp.opening import IsoTpChannel
from ...transports.outside import Outside
from ..errors import (
    ImageWrongPart,
    NoResponse,
    OperationFailed,
    PartError,
    PartRefused,
    PartWrongMode,
    ProfileWrong,
    ProtocolError,
    SecurityDenied,
    Unsupported,
    VerifyMismatch,
    WrongPart,
)
from ..flasher import Capability, Identity, MemoryBootloader, ProbeResult, Target
from ..image import FirmwareImage, Segment, join
from ..memory import MemoryMap, Range
from . import session as uds_session
from .client import LOST, Broadcast, PduChannel
from .codec import OPEN_TRANSFER, Meaning, NegativeResponse, Nrc, Service
from .discovery import SIGHT_RUN_ON
from .files import IMAGE, FilesOfProfile
from .functional import FunctionalRequests
from .identity import Told, merge, probed, read_identity, runs
from .keys import keys_of
from .parameters import Subject, encoded
from .profile import UdsAddress, UdsProfile
from .sequence import REGION, Words
from .session import NOTHING, client_over

_VERDICTS = (
    Nrc.GENERAL_REJECT,
    Nrc.CONDITIONS_NOT_CORRECT,
    Nrc.FAILURE_PREVENTS_EXECUTION_OF_REQUESTED_ACTION,
    Nrc.GENERAL_PROGRAMMING_FAILURE,
)
"""Refusals by which a check routine finds fault with what the ECU holds; the others find it with the request."""
_WANTS_A_DOWNLOAD = (Nrc.CONDITIONS_NOT_CORRECT, Nrc.REQUEST_SEQUENCE_ERROR)
"""Refusals of a check routine that has nothing to check."""
_NOT_DONE = (PartRefused, PartWrongMode, SecurityDenied, Unsupported)
"""Refusals by which an ECU says that it did nothing."""
_OF_THE_TRANSFER = (Nrc.REQUEST_SEQUENCE_ERROR, Nrc.TRANSFER_DATA_SUSPENDED, Nrc.WRONG_BLOCK_SEQUENCE_COUNTER)
"""Refusals by which a transfer is lost, whatever became of the session."""
_LOST_REMEDY = "Session, unlock or transfer were lost. Run the same command again."
_HELD_OPEN = (
    "If an earlier download was interrupted, the ECU still holds it open, also after RequestTransferExit, a reset and S3: "
    "cut its supply for some seconds, then run the same command again. If not:"
)
_S3_TIMES = 1.5
"""So many times S3 a session is left alone that has to run out: the ECU's clock is not ours."""
LONGEST_S3 = 60.0
"""Seconds that a session is left alone at most."""


_CLASSIC = (
    "The bus is CAN FD, and the ECU is asked in classic frames: set iso_tp = {tx_dl = 64} in its profile if it hears CAN FD "
    "frames only. If not: is it powered and wired, and its address right? Run: proxyflash scan"
)


class UdsFlasher(MemoryBootloader):
    """One ECU. The fingerprint is written before the first erase, not at `connect`, which changes nothing."""

    protocol: ClassVar[str] = "uds"
    bus_kind: ClassVar[str] = "can"
    probes_application: ClassVar[bool] = True
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
        self._keys = keys_of(profile, outside)
        self._files = FilesOfProfile(profile)
        self._profile = profile
        self._order = profile.sequence
        self._client = client_over(channel, profile, broadcast)
        self._asks_classic = False
        """Whether it is asked in classic frames on a CAN FD bus."""
        self._prepared = False
        self._has_driver = False
        self._unjudged: list[Segment] = []
        """What was written and the ECU's routines have not checked yet."""
        self._judged = False
        self._unended = False
        """Whether something was erased or written, and the steps at the order's end were not done since."""
        self._fitted: Sequence[Segment] = ()
        """What of the last image goes into the ECU's memory."""
        self._ran = False
        """Whether an application was seen to run, as far as the ECU tells."""
        self._found: bool | None = None
        """Whether the part was found in its bootloader; None: not known yet."""
        self._refused: tuple[bytes, int] | None = None
        """The last request that was refused, and how: what is refused twice alike is refused for good."""
        self._is_held_open = False
        """Whether the ECU refused a transfer though all was done that ends one."""

    @classmethod
    def attach(cls, bus: CanBus, address: UdsAddress, profile: UdsProfile) -> Self:
        functional = address.functional_id()
        if profile.functional and functional is None:
            raise ProfileWrong("functional = true in the profile needs the address's functional id")
        channel = IsoTpChannel.open(bus, address.isotp(), profile.iso_tp.options())
        broadcast = FunctionalRequests(bus, functional, profile.iso_tp) if profile.functional and functional else None
        try:
            made = cls(channel, profile, broadcast, bus.outside)
        except ProxyflashError:
            channel.close()
            raise
        made._asks_classic = bus.fd and profile.iso_tp.tx_dl == 8
        return made

    @classmethod
    def probe(
        cls, bus: CanBus, address: UdsAddress, profile: UdsProfile, *, active: bool, deadline: Deadline
    ) -> ProbeResult | None:
        channel = IsoTpChannel.open(bus, address.isotp(), profile.iso_tp.options())
        channel.latest = Deadline(deadline.at + SIGHT_RUN_ON)
        client = client_over(channel, profile)
        try:
            return probed(client, profile, deadline)
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
        if bus.get("fd") and profile.iso_tp.tx_dl == 8:
            yield "on a CAN FD bus it is asked in classic frames; if it hears CAN FD frames only, set iso_tp = {tx_dl = 64}"

    @classmethod
    def check_profile(cls, profile: UdsProfile) -> None:
        keys_of(profile, None)
        FilesOfProfile(profile)

    @classmethod
    def readback_unavailable_reason(cls, profile: UdsProfile) -> str:
        if profile.read == "none":
            return "the profile has no way to read its memory (read)"
        if profile.driver is not None and (not profile.driver.file or profile.driver.file.startswith(IMAGE)):
            return "the flash driver comes with the image, and what is read back has none (driver.file)"
        return ""

    def look(self) -> Identity | None:
        """Where memory can't be read, nothing that planning needs is in the ECU: its application goes on."""
        if self._profile.read != "none":
            return None
        self._client.drain()
        self._client.heard = False
        awake, _ = self._wake()
        if not awake:
            return None
        self._set_capabilities()
        return self._told().identity

    def connect(self) -> Identity:
        self._client.let_session_go()
        self._client.drain()
        self._client.heard = False
        self._prepared = False
        self._has_driver = False
        self._unjudged = []
        self._judged = False
        identity = merge(self._enter(), self._told().identity)
        self._set_capabilities()
        return identity

    def _set_capabilities(self) -> None:
        self.capabilities = Capability.BOOT
        if isinstance(self._profile.routines.check, int) and "check" in self._order.words:
            self.capabilities |= Capability.CHECK
        if self._profile.read != "none":
            self.capabilities |= Capability.READ

    def leave(self) -> None:
        """An ECU that was found in its bootloader stays there; its session runs out as it would have."""
        self._client.let_session_go()
        if not self._found:
            uds_session.start_application(self._client, self._profile)

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        return self._profile.memory_map()

    def fit(self, image: FirmwareImage) -> FirmwareImage:
        """The image without the flash driver, which is kept; by id, each region's part of it as one segment."""
        image = self._files.keep(image)
        placed = image.at(self.memory_map().regions[0].start) if image.relocatable and image.segments else image
        self._check_packed(placed)
        if self._profile.address_by == "id":
            placed = self._joined(placed)
        if self._profile.routines.erase_all:
            self._check_all_covered(placed.segments)
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
                self._check_all_covered([Segment(item.start, bytes(1)) for item in ranges])
            except ImageWrongPart as error:
                raise Unsupported(str(error.cause), remedy="Erase all of its memories.") from error
        self._prepare()
        done = 0
        calls = _merged(ranges, self.memory_map()) if routines.merge_erase else ranges
        for item in calls:
            if not done or not routines.erase_all:
                parameters = self._parameters(routines.erase_parameters, item.start, item.size)
                status = self._start(routines.erase, parameters)
                if status and status[-1] != routines.passed:
                    raise OperationFailed(
                        f"erasing {item} failed (routine 0x{routines.erase:04X}: {status.hex(' ').upper()})"
                    )
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        self._prepare()
        self._unjudged.append(segment)
        subject = self._subject(segment)
        region = self._profile.region_at(segment.address)
        yield from self._download(
            subject,
            self._profile.data_format if region is None or region.data_format is None else region.data_format,
            (region.announce if region is not None else None) or segment.size,
            region.write_alignment if region is not None else 1,
        )

    def read(self, start: int, size: int) -> Iterator[bytes]:
        return self._upload(start, size) if self._profile.read == "upload" else self._read_memory(start, size)

    def judge(self, segments: Sequence[Segment]) -> str:
        """Steps that change the ECU are done only after something was changed: who but verifies changes nothing."""
        return self._judge(segments, own_steps=self._unended)

    def _judge(self, segments: Sequence[Segment], *, own_steps: bool) -> str:
        """`own_steps`: does the fingerprint and the maker's own steps too, where the order has them at its end."""
        said = []
        checks = self._order.checks_in_turns
        if checks and not self._unjudged:
            self._check(segments)
        for word in self._order.end:
            if word == "check":
                self._check(segments)
                checks = True
            elif word == "dependencies":
                self._check_dependencies()
            elif own_steps or not self._changes(word):
                self._take_step(word, segments)
        routines = self._profile.routines
        if checks and isinstance(routines.check, int):
            said.append(f"routine 0x{routines.check:04X} by the part")
        if "dependencies" in self._order.end and isinstance(routines.dependencies, int):
            said.append(f"dependencies by 0x{routines.dependencies:04X}")
        self._unjudged = []
        self._judged = True
        self._unended = False
        return ", ".join(said)

    def start_application(self) -> None:
        """An ECU starts only what its own routines accepted, so those that `judge` did not call are called first."""
        if self._unjudged:
            self.judge(sorted(self._unjudged, key=lambda segment: segment.address))
        elif not self._judged:
            self._end_what_was_cut()
        self._client.let_session_go()
        uds_session.start_application(self._client, self._profile)
        self._found = None
        self._unended = False

    def _end_what_was_cut(self) -> None:
        """An image that a cut left whole may lack nothing but the order's end. An ECU that lacks more it does not change.

        Of one whose application ran, or that no image was brought to, only the dependencies are asked.
        """
        if self._fitted and (self._unended or not self._ran):
            with suppress(ProxyflashError):
                self._judge(self._fitted, own_steps=True)
        if not self._judged and "dependencies" in self._order.words:
            with suppress(ProxyflashError):
                self._check_dependencies()

    def close(self) -> None:
        with suppress(TransportError):
            self._client.close()

    def _wake(self) -> tuple[bool, int | None]:
        """See `session.wake`. Raises NoResponse."""
        try:
            return uds_session.wake(self._client, self._profile)
        except NoResponse as error:
            if not self._asks_classic:
                raise
            raise error.advised(_CLASSIC) from error

    def _enter(self) -> Identity:
        """Into the programming session, with its key; who it said it was before."""
        awake, session = self._wake()
        told = self._told() if awake else Told()
        if self._found is None:
            self._found = awake and not runs(self._profile, session, told)
            self._ran = awake and not self._found and self._profile.running_when == "version"
        is_elsewhere = awake and session != self._profile.sessions.programming
        try:
            if is_elsewhere:
                uds_session.prepare(self._client, self._profile, self._keys)
            uds_session.enter_programming(self._client, self._profile, self._keys)
        except ProxyflashError:
            self._client.let_session_go()
            if is_elsewhere:
                uds_session.leave_programming(self._client, self._profile)
            raise
        self._client.keep_session(self._profile.timings.s3)
        return told.identity

    def _told(self) -> Told:
        """Who it says it is, now. Raises WrongPart, NoResponse where it must tell and does not answer."""
        told = read_identity(self._client, self._profile, Deadline.after(self._profile.timings.pending))
        wanted, identifiers = self._profile.part, self._profile.identifiers
        names = [name for key in ("system", "hardware") if (name := told.identity.details.get(key))]
        if wanted and names and wanted not in names:
            raise WrongPart(f"the profile is for {wanted}, but the part says that it is {' / '.join(names)}")
        if wanted and not names and told.lost & {identifiers.system, identifiers.hardware}:
            raise NoResponse(f"the part did not answer whether it is {wanted}").passing(True)
        return told

    def _prepare(self, writes: Sequence[Segment] = ()) -> None:
        """What comes between the key and the first erase, once: fingerprint, flash driver, the maker's own steps."""
        self._unended = True
        if self._prepared:
            return
        for word in self._order.prepare:
            if word == "driver":
                self._load_driver()
            else:
                self._take_step(word, writes)
        self._prepared = True

    def _load_driver(self) -> None:
        """Downloads the flash driver, has the ECU check it, and starts it."""
        driver = self._profile.driver
        if driver is None:
            return
        segments = self._files.driver()
        signature = self._files.signature(driver.signature)
        subjects = [Subject(item.address, item.size, bytes(item.data), driver.id, signature) for item in segments]
        for subject in subjects:
            for _ in self._download(subject, driver.data_format, subject.size, 1):
                pass
            self._has_driver = True
        if isinstance(driver.check, int):
            data = b"".join(subject.data for subject in subjects)
            whole = replace(subjects[0], size=len(data), data=data)
            for subject in subjects if "address" in driver.check_parameters else [whole]:
                self._call_check(driver.check, encoded(driver.check_parameters, self._profile, subject))
        if isinstance(driver.run, int):
            first = replace(subjects[0], address=self._files.driver_entry)
            status = self._start(driver.run, encoded(driver.run_parameters, self._profile, first))
            if status and status[-1] != self._profile.routines.passed:
                raise OperationFailed(
                    f"the part did not start the flash driver (routine 0x{driver.run:04X}: {status.hex(' ').upper()})",
                    remedy="Does driver of its profile hold: its file, its addresses, its routines?",
                )

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
                    self._check(writes)
                else:
                    self._take_step(word, writes)
            elif word[0] == REGION:
                for region in self.memory_map().regions:
                    units = [item for item in erase if region.start <= item.start < region.end]
                    segments = [item for item in writes if region.start <= item.address < region.end]
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
            self._check_dependencies()
            return
        subject = NOTHING
        if segments:
            data = b"".join(bytes(item.data) for item in segments)
            subject = replace(self._subject(segments[0]), size=len(data), data=data)
        before = self.changed_in_turns
        self.changed_in_turns = before or (word in self._profile.own_steps and self._changes(word))
        try:
            uds_session.take_step(self._client, self._profile, self._keys, word, subject, self._request)
        except _NOT_DONE:
            self.changed_in_turns = before
            raise

    def _joined(self, image: FirmwareImage) -> FirmwareImage:
        """Each region's part of the image as one segment from the region's start on. Raises ImageWrongPart."""
        joined = []
        for region in self.memory_map().regions:
            parts = list(image.within(region.start, region.end))
            if not parts:
                continue
            size = parts[-1].end - region.start
            joined.append(Segment(region.start, image.read(region.start, size, region.erased_value)))
        within = sum(
            part.size for region in self.memory_map().regions for part in image.within(region.start, region.end)
        )
        # What lies outside of all regions is refused as it is.
        return replace(image, segments=join(joined)) if within == image.size else image

    def _check_packed(self, image: FirmwareImage) -> None:
        """Raises ImageWrongPart where compressed bytes are not one piece from the region's start on."""
        for region in self._profile.memory:
            parts = list(image.within(region.start, region.start + region.size))
            if region.announce and parts and (len(parts) > 1 or parts[0].address != region.start):
                raise ImageWrongPart(
                    f"the image has more than one piece for {region.name}, or none at 0x{region.start:08X}; the ECU takes "
                    "its compressed bytes (announce) as one piece from there on",
                    remedy="Is it the right file? See what it holds: proxyflash image FILE",
                )

    def _check_all_covered(self, segments: Sequence[Segment]) -> None:
        """Raises ImageWrongPart where one erase takes more than is named."""
        for region in self.memory_map().regions:
            if not any(item.address < region.end and item.end > region.start for item in segments):
                raise ImageWrongPart(
                    f"this part erases all its memories at once (routines.erase_all), and there is nothing for "
                    f"{region.name}",
                    remedy="Take an image for all of them.",
                )

    def _start(self, routine: int, parameters: bytes = b"") -> bytes:
        """The routine's status record. Raises what a negative response is mapped to."""
        return self._request(uds_session.routine_request(routine, parameters), limit=self._profile.timings.erase)

    def _call_check(self, routine: int, parameters: bytes = b"") -> None:
        request = uds_session.routine_request(routine, parameters)
        timings = self._profile.timings
        answer = self._client.ask(request, limit=timings.erase, retries=timings.retries)
        if isinstance(answer, NegativeResponse):
            if not self._unjudged and answer.nrc in _WANTS_A_DOWNLOAD:
                raise Unsupported(
                    f"{answer.error().cause}; it checks only what was just downloaded",
                    remedy="Set read in its profile if its memory can be read back.",
                )
            raise VerifyMismatch(answer.error().cause) if answer.nrc in _VERDICTS else self._refusal(answer)
        if answer and answer[-1] != self._profile.routines.passed:
            raise VerifyMismatch(
                f"routine 0x{routine:04X} of the part says that it does not hold the image ({answer.hex(' ').upper()})"
            )

    def _check(self, segments: Sequence[Segment]) -> None:
        """Calls the check routine for them, if there is one. Raises VerifyMismatch."""
        routine = self._profile.routines.check
        if isinstance(routine, int):
            for parameters in self._check_parameters(segments):
                self._call_check(routine, parameters)

    def _check_dependencies(self) -> None:
        routine = self._profile.routines.dependencies
        if isinstance(routine, int):
            self._call_check(routine)

    def _check_parameters(self, segments: Sequence[Segment]) -> Iterator[bytes]:
        """The parameters of each call of the check routine. CRCs go over what was downloaded, with its padding."""
        names = self._profile.routines.check_parameters
        for region in self.memory_map().regions:
            inside = [
                item.slice(max(item.address, region.start), min(item.end, region.end)).padded(
                    region.write_alignment, region.erased_value
                )
                for item in segments
                if item.address < region.end and item.end > region.start
            ]
            if not inside:
                continue
            if "address" in names:
                for item in inside:
                    yield encoded(names, self._profile, self._subject(item))
            else:
                data = b"".join(item.data for item in inside)
                yield encoded(names, self._profile, replace(self._subject(inside[0]), size=len(data), data=data))

    def _subject(self, segment: Segment) -> Subject:
        region = self._profile.region_at(segment.address)
        signature = self._files.signature(region.signature) if region is not None else b""
        return Subject(
            segment.address, segment.size, bytes(segment.data), self._profile.region_id(segment.address), signature
        )

    def _parameters(self, names: Sequence[str], address: int, size: int) -> bytes:
        return encoded(names, self._profile, Subject(address, size, id=self._profile.region_id(address)))

    def _download(self, subject: Subject, data_format: int, announced: int, alignment: int) -> Iterator[int]:
        """Yields bytes that the ECU has acknowledged so far."""
        where = encoded(("alfi", "address", "size"), self._profile, replace(subject, size=announced))
        block = self._request_transfer(Service.REQUEST_DOWNLOAD, data_format, where)
        step = max(block // alignment * alignment, min(block, alignment))
        view = memoryview(subject.data)
        counter = 1
        try:
            for start in range(0, subject.size, step):
                piece = view[start : start + step]
                # An ECU that refuses the repeated block may have the first one, or a part of it: all begins anew.
                self._request(bytes((Service.TRANSFER_DATA, counter)) + piece)
                counter = (counter + 1) & 0xFF
                yield start + len(piece)
        except (GeneratorExit, KeyboardInterrupt):
            self._give_up_transfer()
            raise
        self._end_transfer(encoded(self._profile.transfer_exit, self._profile, subject))

    def _request_transfer(self, service: Service, data_format: int, where: bytes) -> int:
        """How many bytes of data one TransferData takes: maxNumberOfBlockLength counts its identifier and counter too."""
        answer = self._open(bytes((service, data_format)) + where)
        width = answer[0] >> 4 if answer else 0
        longest = int.from_bytes(answer[1 : 1 + width], "big")
        if not width or len(answer) < 1 + width or longest < 3:
            raise ProtocolError(f"the part gives no usable maxNumberOfBlockLength ({answer[:12].hex(' ').upper()})")
        return min(longest, self._profile.block_limit) - 2

    def _open(self, request: bytes) -> bytes:
        """Asks for a transfer. One that the ECU holds open, of a tester that was killed, is ended first.

        By what makers use: RequestTransferExit; a reset; a session that runs out. What the ECU refuses after a reset may be
        refused because of the reset, so the engine begins anew once before it is for good.
        """
        timings = self._profile.timings
        refusals = OPEN_TRANSFER if request[0] == Service.REQUEST_DOWNLOAD else {Nrc.CONDITIONS_NOT_CORRECT}
        # An ECU that was reset may have forgotten the segments before this one, and has no flash driver any more.
        is_first = len(self._unjudged) < 2 and not self._has_driver
        answer = self._client.ask(request, limit=timings.erase, retries=timings.retries)
        if not isinstance(answer, NegativeResponse) or answer.nrc not in refusals:
            return self._opened(answer)
        self._exit_transfer()
        answer = self._client.ask(request, limit=timings.erase, retries=timings.retries)
        for end in (self._restart, self._outwait_session) if is_first and not self._is_held_open else ():
            if isinstance(answer, NegativeResponse) and answer.nrc in refusals:
                end()
                answer = self._client.ask(request, limit=timings.erase, retries=timings.retries)
        if not isinstance(answer, NegativeResponse):
            return self._opened(answer)
        error = answer.error()
        if not isinstance(error, PartError):
            raise error
        if is_first:
            error.passes, self._is_held_open = not self._is_held_open, True
        else:
            error.passes = True
        if answer.nrc not in refusals:
            raise error
        raise error.advised(f"{_HELD_OPEN} {error.remedy}")

    def _opened(self, answer: bytes | NegativeResponse) -> bytes:
        if isinstance(answer, NegativeResponse):
            raise self._refusal(answer)
        self._is_held_open = False
        return answer

    def _exit_transfer(self) -> None:
        """An ECU that refuses it, as the transfer isn't complete, may have ended it all the same."""
        self._client.ask(bytes((Service.REQUEST_TRANSFER_EXIT,)), retries=1)

    def _restart(self) -> None:
        self._client.let_session_go()
        with suppress(PartError):
            uds_session.restart(self._client, self._profile)
        self._enter()

    def _outwait_session(self) -> None:
        self._client.let_session_go()
        self._client.linger(min(self._profile.timings.s3 * _S3_TIMES, LONGEST_S3))
        self._enter()

    def _give_up_transfer(self) -> None:
        """Leaves the ECU without an open transfer. Never raises."""
        with suppress(ProxyflashError):
            if isinstance(self._client.ask(bytes((Service.REQUEST_TRANSFER_EXIT,))), NegativeResponse):
                self._client.ask(uds_session.HARD_RESET)

    def _request(self, request: bytes, *, limit: float | None = None) -> bytes:
        """What follows the head of the positive response. Raises what a negative response is here."""
        answer = self._client.ask(request, limit=limit, retries=self._profile.timings.retries)
        if isinstance(answer, NegativeResponse):
            raise self._refusal(answer)
        if request[0] == Service.TRANSFER_DATA:
            self._refused = None
        return answer

    def _refusal(self, answer: NegativeResponse) -> ProxyflashError:
        """The error that a refusal amid programming is, with whether it passes: where the ECU may have lost its session or
        its unlock, it is asked."""
        error = answer.error()
        if answer.meaning not in (Meaning.LOST, Meaning.NOT_HERE):
            return error
        refused = (answer.request, answer.nrc)
        lost = refused != self._refused or answer.request[0] == Service.TRANSFER_DATA
        self._refused = refused
        if lost and answer.nrc not in _OF_THE_TRANSFER:
            with suppress(*LOST):
                seed = answer.meaning is Meaning.LOST
                lost = not uds_session.is_unlocked(self._client, self._profile, self._keys, seed=seed)
        if not isinstance(error, PartError):
            return PartWrongMode(error.cause, remedy=_LOST_REMEDY).passing(True) if lost else error
        error.passes = lost
        return error.advised(_LOST_REMEDY) if lost else error

    def _end_transfer(self, parameters: bytes = b"") -> None:
        timings = self._profile.timings
        answer = self._client.ask(
            bytes((Service.REQUEST_TRANSFER_EXIT,)) + parameters,
            limit=timings.erase,
            retries=timings.retries,
            settled_by=Nrc.REQUEST_SEQUENCE_ERROR,
        )
        if isinstance(answer, NegativeResponse):
            raise self._refusal(answer)

    def _read_memory(self, start: int, size: int) -> Iterator[bytes]:
        step = self._profile.read_block
        for address in range(start, start + size, step):
            length = min(step, start + size - address)
            where = self._parameters(("alfi", "address", "size"), address, length)
            data = self._request(bytes((Service.READ_MEMORY_BY_ADDRESS,)) + where)
            if len(data) != length:
                raise ProtocolError(f"the part was asked for {length} bytes at 0x{address:08X}, and sent {len(data)}")
            yield data

    def _upload(self, start: int, size: int) -> Iterator[bytes]:
        where = self._parameters(("alfi", "address", "size"), start, size)
        self._request_transfer(Service.REQUEST_UPLOAD, self._profile.data_format, where)
        left, counter = size, 1
        try:
            while left:
                data = self._request(bytes((Service.TRANSFER_DATA, counter)))
                if not 0 < len(data) <= left:
                    raise ProtocolError(f"the part was to upload {left} more bytes, and sent {len(data)}")
                left -= len(data)
                counter = (counter + 1) & 0xFF
                yield data
        finally:
            # Whoever reads may have seen enough; the ECU must still be told. A transfer that is not complete many end
            # only by a new session.
            with suppress(ProxyflashError):
                if not left:
                    self._end_transfer()
                elif isinstance(self._client.ask(bytes((Service.REQUEST_TRANSFER_EXIT,))), NegativeResponse):
                    uds_session.enter_programming(self._client, self._profile, self._keys)


def _merged(ranges: Sequence[Range], memory: MemoryMap) -> Iterator[Range]:
    """Ranges that lie side by side in one region become one."""
    run: Range | None = None
    for item in ranges:
        if run is not None and run.end == item.start and memory.region_of(run.start) is memory.region_of(item.start):
            run = Range(run.start, run.size + item.size)
            continue
        if run is not None:
            yield run
        run = item
    if run is not None:
        yield run
