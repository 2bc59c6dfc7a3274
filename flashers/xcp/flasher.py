"""XCP: what its protocols have in common: a session, the resource PGM unlocked, the memory that is programmed.

PROGRAM_START is sent before the first erase, so that a part which is only looked at is not brought into programming. The MTA
moves on with each element: after anything went wrong it is set again, and the same packet or block is sent again.

OpenBLT collects what it is sent in blocks, and programs a block when data for another one comes. The block with the vector table
it programs at PROGRAM with 0 elements, and before the last other block. So that block is pushed out before: data for a
blank block of an erased unit follows it, where there is one. OpenBLT then adds its checksum to the vector table, by which it
knows that there is an application.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from ..errors import (
    Meaning,
    NoResponse,
    PartError,
    ProtocolError,
    SecurityDenied,
    Step,
    Unsupported,
    VerifyMismatch,
    WrongPart,
    silence,
)
from ..flasher import Capability, Digest, Identity, MemoryBootloader, Target
from ..image import Segment
from ..keys.making import KeyFunction, key_file, key_for, recorded_keys
from ..memory import MemoryMap, Range
from . import codec
from .client import LOST, TRIES, WANTS_KEY, Client, SlaveError, as_part_error
from .codec import PGM, SILENCES, Command, Connected, Err, Programming
from .profile import XcpProfile

T = TypeVar("T")
LONGEST_NAME = 255
REFUSAL_SECONDS = 0.1
"""How long OpenBLT has to refuse PROGRAM_RESET."""
PROBED = 64
"""Bytes at the start of a memory by which it is seen whether it can be read."""
LEAST_BLOCK = 64
"""Bytes that a slave computes a checksum over, at least; else it computes none."""
RESET_IT = "If only a reset starts its bootloader, reset it while CONNECT is repeated (start of timings)."
GET_IDS = (0, 1)
"""Types of GET_ID: a text, the name of the A2L file."""


class XcpMemory(MemoryBootloader):
    """A subclass reaches the slave, and has `_client` and `_profile`."""

    silences = SILENCES
    _client: Client
    _profile: XcpProfile
    _key: KeyFunction | None = None
    _found: bool | None = None
    """Whether the slave has answered the first CONNECT; None: not known yet."""
    _session: Connected | None = None
    _programming: Programming | None = None
    _mta: int | None = None
    """Where the next data of UPLOAD or PROGRAM goes, in bytes; None: not known."""
    _has_no_max = False
    """Whether the slave has no PROGRAM_MAX."""
    _unended = False
    """Whether whole segments were sent, and their end was not."""
    _unverified = False
    _changed = False
    """Whether the part was brought into programming, and may hold half an image."""
    _awaits_head = False
    """Whether OpenBLT's block with the vector table is still to come."""
    _most_summed: int | None = None
    """Bytes that BUILD_CHECKSUM takes, at most."""
    _blank: int | None = None
    """Where a blank block of an erased unit is, for OpenBLT."""

    @classmethod
    def files_named(cls, profile: XcpProfile) -> Iterator[Path]:
        yield from filter(None, (key_file(profile.security),))

    @classmethod
    def check_profile(cls, profile: XcpProfile) -> None:
        recorded_keys(profile.security, None)

    @classmethod
    def wrong_key(cls, profile: XcpProfile) -> XcpProfile | None:
        if profile.security.key == "none":
            return None
        wrong = profile.security.model_copy(update={"key": "xor", "secret": b"\x01\x02\x03\x04", "library": None})
        return profile.model_copy(update={"security": wrong})

    @property
    def _head(self) -> int:
        return self.memory_map().regions[0].start

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        return self._profile.memory_map(self._session.granularity if self._session else 1)

    # What the engine asks for.

    def turns(
        self, erase: Sequence[Range], writes: Sequence[Segment]
    ) -> Iterator[tuple[Sequence[Range], Sequence[Segment]]]:
        if self._profile.is_openblt:
            self._blank = _blank_block(erase, writes, self._profile.grain)
            self._awaits_head = any(part.address == self._head for part in writes)
        yield erase, writes

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        self._begin()
        done = 0
        for unit in ranges:
            self._clear(unit)
            done += unit.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        self._begin()
        self._unended = False
        is_head = segment.address == self._head
        if is_head and self._blank is not None:
            self._send(self._blank, bytes((self._profile.erased_value,)) * self._known.granularity, by_max=False)
        done, data = 0, bytes(segment.data)
        while done < len(data):
            for size, by_max in self._pieces(len(data) - done):
                if not self._send(segment.address + done, data[done : done + size], by_max=by_max):
                    break
                done += size
                yield done
        self._awaits_head = self._awaits_head and not is_head
        # OpenBLT may still have a block with a vector table of an earlier attempt.
        self._unended, self._unverified = not self._awaits_head, True
        if not self._profile.is_openblt:
            self._end()

    def read(self, start: int, size: int) -> Iterator[bytes]:
        self._settle()
        session = self._known
        grain, most = session.granularity, min(session.upload_elements, 255)
        at, end = start - start % grain, start + size
        while at < end:
            count = min(most, -(-(end - at) // grain))
            piece = self._at(at, lambda count=count: self._uploaded(count))  # type: ignore[misc]
            self._mta = at + len(piece)
            yield piece[max(0, start - at) : end - at]
            at += len(piece)

    def digest(self, start: int, size: int) -> Digest | None:
        self._settle()
        grain = self._known.granularity
        if start % grain or size % grain or not size:
            return None
        found = self._sums(start, size)
        if not all(item.proves for _, item in found):
            return None
        pieces = [(length, item.compute) for length, item in found if item.compute is not None]
        value = int.from_bytes(b"".join(item.value.to_bytes(4) for _, item in found))

        def compute(data: bytes) -> int:
            made, at = b"", 0
            for length, each in pieces:
                made += each(data[at : at + length]).to_bytes(4)
                at += length
            return int.from_bytes(made)

        return Digest(found[0][1].name, value, compute)

    def judge(self, segments: Sequence[Segment]) -> str:
        """By the slave's sums, where its memory can't be read: better than nothing."""
        self._settle()
        name = ""
        for part in self.memory_map().compared(segments):
            at = part.address
            for length, item in self._sums(part.address, part.size):
                if item.compute is not None and item.compute(bytes(part.slice(at, at + length).data)) != item.value:
                    raise VerifyMismatch(f"{item.name} of {Range(at, length)} on the part is not that of the image")
                at, name = at + length, item.name
        return f"{name} by the part, a sum that does not notice bytes that changed places"

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """The wire's time for writing and reading back, and a tenth of the limit for erasing."""
        size = self._known.max_cto
        each = self._client.link.seconds(size) + self._client.link.seconds(1)
        return 2 * each * write_bytes / (size - 1) + len(erase) * self._profile.timings.erase / 10

    def start_application(self) -> None:
        self._settle()
        if not self._profile.is_openblt:
            self._begin()
        self._reset()

    def leave(self) -> None:
        """OpenBLT starts its application after a time, once nobody is connected; it is started at once where CONNECT had
        restarted it."""
        if self._profile.is_openblt and not self._found:
            with suppress(PartError):
                self._reset()
                return
        self._leave_session()

    def abandon(self) -> None:
        if self._found is False:
            with suppress(*LOST):
                self._connected()
        if self._session is not None:
            self.leave()

    def close(self) -> None:
        self._client.link.close()

    # For the subclasses.

    def _restarted(self) -> None:
        """PROGRAM_RESET was sent."""

    def _identified(self) -> Identity:
        """Of a slave that has answered CONNECT. What came may have been the answer to what another command has sent, and there
        may be answers to several CONNECT: SYNCH has an answer of its own. Raises PartError, TransportError."""
        self._client.synchronise()
        session = self._connected()
        details = {"protocol version": session.protocol, "packet": f"{session.max_cto} bytes"}
        return Identity(part=self._name(), details=details)

    def _accept(self, identity: Identity) -> None:
        """Raises WrongPart, SecurityDenied, Unsupported."""
        wanted = self._profile.part
        if wanted.lower() not in identity.part.lower():
            raise WrongPart(f"the part is {identity.part or 'without a name'}, the profile wants {wanted}")
        if not self._known.resources & PGM:
            raise Unsupported("the part has no resource PGM: it can't be programmed by XCP in this state")
        self._sure(self._unlock)
        self._look_at_memory()

    def _connected(self) -> Connected:
        """One CONNECT. Raises NoResponse, ProtocolError, TransportError."""
        self._session = self._programming = self._mta = None
        self._unended = self._unverified = False
        request = bytes((Command.CONNECT, self._profile.mode))
        seconds = self._profile.timings.connect if self._profile.is_openblt else None
        try:
            self._session = codec.connected(self._asked(request, seconds=seconds))
        except SlaveError as error:
            raise as_part_error(error) from error
        return self._session

    def _connects(self) -> bool:
        """Whether a slave answers CONNECT, and is in step then."""
        try:
            self._connected()
        except LOST:
            return False
        return True

    def _leave_session(self) -> None:
        """DISCONNECT: nothing was changed."""
        self._session = None
        with suppress(*LOST, SlaveError):
            self._asked(bytes((Command.DISCONNECT,)))

    def _reset(self) -> None:
        """PROGRAM_RESET. Raises PartError, TransportError."""
        self._session = self._programming = None
        # OpenBLT answers only where it refuses.
        seconds = REFUSAL_SECONDS if self._profile.is_openblt else None
        try:
            self._asked(bytes((Command.PROGRAM_RESET,)), seconds=seconds)
        except NoResponse:
            if SILENCES[Step.START] is not Meaning.DONE:
                raise
        except SlaveError as error:
            raise as_part_error(error) from error
        self._restarted()

    @property
    def _known(self) -> Connected:
        if self._session is None:
            raise silence(Meaning.LOST, f"the session with the part on {self._client.link.name} has ended")
        return self._session

    # Requests.

    def _asked(self, *packets: bytes, seconds: float | None = None, separation: float = 0.0) -> bytes:
        """The answer of the slave. Raises NoResponse, ProtocolError, SlaveError, TransportError."""
        return self._client.ask(*packets, seconds=seconds, separation=separation)

    def _sure(self, action: Callable[[], T], tries: int = TRIES) -> T:
        """What an action returns that may be repeated whole. Raises PartError, TransportError."""
        try:
            return self._client.again(action, tries)
        except SlaveError as error:
            raise as_part_error(error) from error

    def _at(self, address: int, action: Callable[[], T], tries: int = TRIES) -> T:
        """What an action returns that works at the MTA. The MTA is set where it isn't there yet, and before each repetition."""

        def act() -> T:
            if self._mta != address:
                session = self._known
                self._asked(session.mta(address // session.granularity, self._profile.extension))
            self._mta = None
            return action()

        return self._sure(act, tries)

    def _uploaded(self, count: int) -> bytes:
        return self._known.uploaded(self._asked(bytes((Command.UPLOAD, count))), count)

    def _begin(self) -> None:
        if self._programming is None:
            session = self._known
            answer = self._sure(lambda: self._asked(bytes((Command.PROGRAM_START,))))
            self._programming = codec.programming(answer, session.max_cto)
            self._changed = True

    def _clear(self, unit: Range) -> None:
        session, functional = self._known, self._profile.functional
        mode, number = (0, unit.size // session.granularity) if functional is None else (1, functional)
        request = bytes((Command.PROGRAM_CLEAR, mode, 0, 0)) + session.dword(number)
        self._at(unit.start, lambda: self._asked(request, seconds=self._profile.timings.erase))

    def _pieces(self, size: int) -> Iterator[tuple[int, bool]]:
        """The packets or blocks in which that many bytes go: how many bytes each has, and whether it is a PROGRAM_MAX."""
        assert self._programming is not None
        programming, grain = self._programming, self._known.granularity
        if programming.block_packets > 1 or self._has_no_max:
            each = programming.block_bytes(grain)
            yield from ((min(each, size - at), False) for at in range(0, size, each))
            return
        # First what is over, so that all that follows goes in packets of full length.
        most = programming.max_cto - grain
        over, each = size % most, programming.program_bytes(grain)
        yield from ((min(each, over - at), False) for at in range(0, over, each))
        yield from ((most, True) for _ in range(size // most))

    def _send(self, address: int, data: bytes, *, by_max: bool) -> bool:
        """Sends one of `_pieces`; False: the slave has no PROGRAM_MAX."""
        assert self._programming is not None
        programming, grain = self._programming, self._known.granularity
        if by_max:
            packets = [codec.program_max(data, grain)]
        else:
            packets = list(codec.block(data, programming.program_bytes(grain), grain))
        block = self._profile.grain
        # What OpenBLT has programmed it does not program again: the engine compares then, and erases before.
        once = self._profile.is_openblt and address // block != (address + len(data) - 1) // block
        try:
            self._at(address, lambda: self._sent(packets), tries=1 if once else TRIES)
        except PartError as error:
            if not by_max or number_of(error) != Err.CMD_UNKNOWN:
                raise
            self._has_no_max = True
            return False
        self._mta = address + len(data)
        return True

    def _sent(self, packets: Sequence[bytes]) -> bytes:
        assert self._programming is not None
        seconds, separation = self._profile.timings.write, self._programming.separation
        try:
            return self._asked(*packets, seconds=seconds, separation=separation)
        except SlaveError as error:
            # The slave says how many elements it still wants (part 2, PROGRAM_NEXT).
            rest = next((i for i, item in enumerate(packets) if i and error.data[:1] == item[1:2]), 0)
            if error.number != Err.SEQUENCE or not rest:
                raise
        return self._asked(*packets[rest:], seconds=seconds, separation=separation)

    def _end(self) -> None:
        """The end of the segment, or with OpenBLT of all: what it has collected is programmed."""
        if self._unended:
            self._unended, self._mta = False, None
            timings = self._profile.timings
            self._sure(lambda: self._asked(bytes((Command.PROGRAM, 0)), seconds=timings.write + timings.answer))

    def _settle(self) -> None:
        """All that was written is there, and the slave has checked it. Raises VerifyMismatch."""
        self._end()
        kind = self._profile.verify_type
        if self._unverified and kind is not None:
            session, seconds = self._known, self._profile.timings.erase
            request = bytes((Command.PROGRAM_VERIFY, 0)) + session.word(kind) + session.dword(0)
            try:
                self._sure(lambda: self._asked(request, seconds=seconds))
            except PartError as error:
                if number_of(error) in (Err.VERIFY, Err.GENERIC):
                    raise VerifyMismatch(error.cause) from error
                raise
        self._unverified = False

    def _sums(self, start: int, size: int) -> list[tuple[int, codec.Checksum]]:
        """The slave's checksums of a range, with the bytes of each. Raises Unsupported, PartError."""
        session, grain = self._known, self._known.granularity
        found: list[tuple[int, codec.Checksum]] = []
        at, seconds = start, self._profile.timings.erase

        def one(length: int) -> codec.Checksum:
            request = bytes((Command.BUILD_CHECKSUM, 0, 0, 0)) + session.dword(length // grain)
            return session.checksum(self._asked(request, seconds=seconds))

        while at < start + size:
            length = min(start + size - at, self._most_summed or size)
            try:
                found.append((length, self._at(at, lambda length=length: one(length))))  # type: ignore[misc]
            except PartError as error:
                cause = error.__cause__
                most = session.number(cause.data[2:6]) * grain if isinstance(cause, SlaveError) else 0
                if number_of(error) != Err.OUT_OF_RANGE or not 0 < most < length:
                    raise
                # The slave says how many elements it takes, at most (part 2, BUILD_CHECKSUM).
                self._most_summed = most
                continue
            at += length
        return found

    # Who it is, and what it lets be done.

    def _name(self) -> str:
        """The text that GET_ID answers; "": none."""
        for kind in GET_IDS:
            try:
                return self._client.again(lambda kind=kind: self._get_id(kind))  # type: ignore[misc]
            except SlaveError:
                continue
        return ""

    def _get_id(self, kind: int) -> str:
        session = self._known
        answer = self._asked(bytes((Command.GET_ID, kind)))
        if len(answer) < 8:
            raise ProtocolError(f"the answer to GET_ID has {len(answer)} bytes")
        size = session.number(answer[4:8])
        if size > LONGEST_NAME:
            return ""
        data = answer[8 : 8 + size]
        if not answer[1] & 1:
            data, grain = b"", session.granularity
            while len(data) < size:
                data += self._uploaded(min(session.upload_elements, -(-(size - len(data)) // grain)))
            self._mta = None
        return data[:size].rstrip(b"\0").decode("ascii", "replace")

    def _unlock(self) -> None:
        """Raises SecurityDenied, and what makes a key raises."""
        session, security = self._known, self._profile.security
        status = self._asked(bytes((Command.GET_STATUS,)))
        if len(status) < 3:
            raise ProtocolError(f"the answer to GET_STATUS has {len(status)} bytes")
        if not status[2] & PGM:
            return
        if self._key is None:
            raise SecurityDenied("the resource PGM is locked, and the profile has no key", remedy=WANTS_KEY).passing(
                False
            )
        seed = self._seed()
        if not any(seed):
            return  # It is unlocked already.
        key = key_for(self._key, security, seed, security.secret, PGM)
        most, left = session.max_cto - 2, PGM
        for at in range(0, len(key), most):
            request = bytes((Command.UNLOCK, len(key) - at)) + key[at : at + most]
            try:
                answer = self._asked(request)
            except SlaveError as error:
                raise SecurityDenied(f"{error.cause}: the key was not accepted").passing(False) from error
            left = answer[1] if len(answer) > 1 else PGM
        if left & PGM:
            raise SecurityDenied("the part has taken the key, and is still locked").passing(False)

    def _seed(self) -> bytes:
        answer = self._asked(bytes((Command.GET_SEED, 0, PGM)))
        size = answer[1] if len(answer) > 1 else 0
        seed = answer[2 : 2 + size]
        while len(seed) < size:
            answer = self._asked(bytes((Command.GET_SEED, 1, PGM)))
            if len(answer) < 3:
                raise ProtocolError("the part does not send the rest of its seed")
            seed += answer[2 : 2 + size - len(seed)]
        return seed

    def _look_at_memory(self) -> None:
        """Which of the ways to compare the memory work: sets `capabilities`."""
        memory = self.memory_map()
        self.capabilities = Capability.BOOT
        if self._profile.read if self._profile.read is not None else self._proves_reading(memory):
            self.capabilities |= Capability.READ
        if self._profile.is_openblt:
            # Its only checksum is a sum of bytes.
            return
        region = memory.regions[0]
        try:
            found = self._sums(region.start, min(LEAST_BLOCK, region.size))
        except (PartError, ProtocolError):
            return
        if all(item.proves for _, item in found):
            self.capabilities |= Capability.DIGEST
        elif not self.capabilities & Capability.READ and all(item.compute for _, item in found):
            self.capabilities |= Capability.CHECK

    def _proves_reading(self, memory: MemoryMap) -> bool:
        """Whether the memory can be read: a slave that does not want to be read may answer zeros."""
        for region in memory.regions:
            try:
                if any(b"".join(self.read(region.start, min(PROBED, region.size)))):
                    return True
            except PartError as error:
                if not isinstance(error.__cause__, SlaveError):
                    raise
                return False
        return False


def _blank_block(erase: Sequence[Range], writes: Sequence[Segment], block: int) -> int | None:
    """The start of the last block of the erased units that nothing is written to; None: there is none."""
    for unit in sorted(erase, reverse=True):
        for start in range(unit.end - block, unit.start - 1, -block):
            if not any(part.address < start + block and part.end > start for part in writes):
                return start
    return None


def number_of(error: PartError) -> int | None:
    """The number of the slave's error that this one was made of."""
    return error.__cause__.number if isinstance(error.__cause__, SlaveError) else None
