"""Flashing an ECU by UDS: ISO 14229-1:2020 over ISO-TP (ISO 15765-2), the sequence of its clause 16.3.

`uds_session` leads into the bootloader and out of it, `uds_client` carries one request, `uds_profile` has what makers
do differently. Here is what happens in between: erase, download, check. The rule: the ECU's answer is the only thing that
counts; a request whose answer got lost is sent again as it was, since an ECU takes a block with the counter of the last
one for a repetition (15.4.2.3.2).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from ..transports.can import CanBus, CanId
from ..transports.deadline import Deadline
from ..transports.errors import TransportError
from ..transports.isotp import IsoTpAddress, IsoTpChannel
from .base import Capability, Flasher, Identity, Sighting
from .errors import PartConfused, PartFailed, PartWrongFamily, VerifyMismatch
from .image import Segment
from .memory import MemoryMap, Range
from .uds_client import UdsClient
from .uds_codes import Nrc, Refusal, Service, decode
from .uds_identity import merge, read_identity, sighting
from .uds_identity import text as identifier_text
from .uds_profile import Parameter, UdsAddress, UdsProfile, key_function
from .uds_session import enter, post_programming, reset, routine_request

IDENTITY_SECONDS = 2.0
FUNCTIONAL_11_BIT = 0x7DF
RESPONSES_11_BIT = range(0x7E8, 0x7F0)
"""ISO 15765-4:2021, table 6: the functional request id, and the ids that ECUs answer under."""
SERIAL_NUMBER = b"\x22\xf1\x8c"


@dataclass(frozen=True, slots=True)
class Found:
    """An ECU that answered a functional request: the id that it answers under, and its serial number, "" if none."""

    response: int
    serial: str


class UdsFlasher(Flasher):
    """One ECU."""

    protocol = "uds"
    bus_kind = "can"
    Address = UdsAddress
    Profile = UdsProfile

    def __init__(self, client: UdsClient, profile: UdsProfile) -> None:
        self._client = client
        self._profile = profile
        self.capabilities = Capability.BOOT
        if profile.routines.check != "none":
            self.capabilities |= Capability.CHECK
        if profile.read != "none":
            self.capabilities |= Capability.READ

    @classmethod
    def attach(cls, bus: CanBus, address: UdsAddress, profile: UdsProfile) -> Self:
        return cls(_client(bus, address, profile), profile)

    @classmethod
    def sight(
        cls, bus: CanBus, address: UdsAddress, profile: UdsProfile, *, active: bool, deadline: Deadline
    ) -> Sighting | None:
        """Reads identifiers in the session that the ECU is in, and nothing else."""
        client = _client(bus, address, profile)
        try:
            return sighting(client, profile, deadline)
        finally:
            client.close()

    def connect(self) -> Identity:
        client, profile = self._client, self._profile
        key = key_function(profile.security.key)
        profile.memory_map()
        client.let_session_go()
        client.drain()
        before = read_identity(client, profile, Deadline.after(IDENTITY_SECONDS))
        if profile.part and before.part and profile.part not in (before.part, before.details.get("hardware")):
            raise PartWrongFamily(f"the part calls itself {before.part!r}, the profile wants {profile.part!r}")
        enter(client, profile, key)
        client.keep_session(profile.timings.s3)
        identity = merge(before, read_identity(client, profile, Deadline.after(IDENTITY_SECONDS)))
        if profile.part and profile.part not in (identity.part, identity.details.get("hardware")):
            raise PartWrongFamily(f"the part calls itself {identity.part!r}, the profile wants {profile.part!r}")
        return identity

    def memory_map(self) -> MemoryMap:
        return self._profile.memory_map()

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        routines = self._profile.routines
        assert routines.erase != "none", "a part without an erase routine has self-erasing memory"
        done = 0
        for item in _merged(ranges) if routines.merge_erase else ranges:
            parameters = self._parameters(routines.erase_parameters, item.start, item.size, b"")
            limit = self._profile.timings.erase
            answer = self._client.request(routine_request(routines.erase, parameters), limit=limit)
            if answer and answer[-1] != routines.passed:
                raise PartFailed(f"the part could not erase {item} (status {answer.hex(' ').upper()})")
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        retries = self._profile.timings.retries
        length = min(self._request_transfer(Service.REQUEST_DOWNLOAD, segment), self._profile.block_limit) - 2
        view = memoryview(segment.data)
        for number, offset in enumerate(range(0, len(view), length), 1):
            block = view[offset : offset + length]
            head = bytes((Service.TRANSFER_DATA, number & 0xFF))
            # A repetition that is refused by its counter was taken the first time.
            self._client.request(head + block, retries=retries, settled_by=Nrc.WRONG_BLOCK_SEQUENCE_COUNTER)
            yield offset + len(block)
        data = bytes(segment.data) if "crc32" in self._profile.transfer_exit else b""
        parameters = self._parameters(self._profile.transfer_exit, segment.address, segment.size, data)
        self._client.request(
            bytes((Service.REQUEST_TRANSFER_EXIT,)) + parameters, settled_by=Nrc.REQUEST_SEQUENCE_ERROR, retries=1
        )

    def read(self, start: int, size: int) -> Iterator[bytes]:
        if self._profile.read == "upload":
            yield from self._read_by_upload(start, size)
            return
        step = self._profile.read_block
        for offset in range(0, size, step):
            count = min(step, size - offset)
            request = bytes((Service.READ_MEMORY_BY_ADDRESS,)) + self._location(start + offset, count)
            data = self._client.request(request, retries=1)
            if len(data) != count:
                raise PartConfused(f"the part sent {len(data)} bytes of the {count} that were asked for")
            yield data

    def check(self, segments: Sequence[Segment]) -> str:
        routines = self._profile.routines
        assert routines.check != "none", "without a check routine there is no Capability.CHECK"
        names = routines.check_parameters
        groups = [[segment] for segment in segments] if "address" in names else self._by_region(segments)
        for group in groups:
            start, size = group[0].address, sum(segment.size for segment in group)
            data = b"".join(segment.data for segment in group)
            request = routine_request(routines.check, self._parameters(names, start, size, data))
            self._judged(request, f"the check routine 0x{routines.check:04X}")
        if routines.dependencies != "none":
            self._judged(routine_request(routines.dependencies), "the dependencies routine")
        return f"routine 0x{routines.check:04X} by the part"

    def boot(self) -> None:
        client, profile = self._client, self._profile
        client.let_session_go()
        reset(client, profile)
        post_programming(client, profile)

    def close(self) -> None:
        with suppress(TransportError):
            self._client.close()

    def _judged(self, request: bytes, what: str) -> None:
        answer = self._client.ask(request, limit=self._profile.timings.pending)
        if isinstance(answer, Refusal):
            error = answer.error()
            if answer.nrc in (Nrc.GENERAL_PROGRAMMING_FAILURE, Nrc.REQUEST_OUT_OF_RANGE, Nrc.CONDITIONS_NOT_CORRECT):
                raise VerifyMismatch(f"{what} does not agree: {error.cause}")
            raise error
        if answer and answer[-1] != self._profile.routines.passed:
            raise VerifyMismatch(f"{what} does not agree (status {answer.hex(' ').upper()})")

    def _by_region(self, segments: Sequence[Segment]) -> list[list[Segment]]:
        memory = self.memory_map()
        groups: dict[object, list[Segment]] = {}
        for segment in segments:
            groups.setdefault(memory.region_of(segment.address), []).append(segment)
        return list(groups.values())

    def _read_by_upload(self, start: int, size: int) -> Iterator[bytes]:
        self._request_transfer(Service.REQUEST_UPLOAD, Segment(start, bytes(size)))
        done, number = 0, 0
        while done < size:
            number += 1
            data = self._client.request(bytes((Service.TRANSFER_DATA, number & 0xFF)))
            if not data or done + len(data) > size:
                raise PartConfused(f"the part sent {len(data)} bytes where {size - done} were left")
            done += len(data)
            yield data
        self._client.request(bytes((Service.REQUEST_TRANSFER_EXIT,)))

    def _request_transfer(self, service: Service, segment: Segment) -> int:
        """RequestDownload or RequestUpload (15.2, 15.3); maxNumberOfBlockLength, with service id and counter."""
        location = self._location(segment.address, segment.size)
        answer = self._client.request(bytes((service, self._profile.data_format)) + location)
        count = answer[0] >> 4 if answer else 0
        length = int.from_bytes(answer[1 : 1 + count], "big")
        if not 1 <= count <= len(answer) - 1 or length < 3:
            raise PartConfused(f"the part accepts the transfer, but tells no block length ({answer.hex(' ').upper()})")
        return length

    def _location(self, address: int, size: int) -> bytes:
        """addressAndLengthFormatIdentifier, address and size (annex H)."""
        return self._parameters(("alfi", "address", "size"), address, size, b"")

    def _parameters(self, names: Sequence[Parameter], address: int, size: int, data: bytes) -> bytes:
        profile = self._profile
        parts = {
            "alfi": lambda: bytes((profile.size_length << 4 | profile.address_length,)),
            "address": lambda: address.to_bytes(profile.address_length, "big"),
            "size": lambda: size.to_bytes(profile.size_length, "big"),
            "crc32": lambda: zlib.crc32(data).to_bytes(4, "big"),
            "region": lambda: bytes((profile.region_id(address),)),
        }
        return b"".join(parts[name]() for name in names)


class _Broadcast:
    """Sends single frames to all ECUs (ISO 15765-2, 8.3: functional requests are single frames)."""

    def __init__(self, bus: CanBus, functional: CanId, padding: int | None) -> None:
        self._channel = bus.channel(functional, (), fd=False)
        self._padding = padding

    def send(self, pdu: bytes, deadline: Deadline) -> None:
        frame = bytes((len(pdu),)) + pdu
        if self._padding is not None:
            frame = frame.ljust(8, bytes((self._padding,)))
        self._channel.send(frame, deadline)

    def close(self) -> None:
        self._channel.close()


def _client(bus: CanBus, address: UdsAddress, profile: UdsProfile) -> UdsClient:
    options = profile.iso_tp.options()
    functional = address.functional_id()
    timings = profile.timings
    broadcast = None
    if profile.functional and functional is not None:
        broadcast = _Broadcast(bus, functional, profile.iso_tp.padding_byte)
    return UdsClient(
        IsoTpChannel.open(bus, address.isotp(), options),
        p2=timings.p2,
        p2_star=timings.p2_star,
        latency=timings.latency,
        pending=timings.pending,
        broadcast=broadcast,
    )


def _merged(ranges: Sequence[Range]) -> list[Range]:
    """Ranges that lie side by side, joined; in order of address."""
    found: list[Range] = []
    for item in sorted(ranges):
        if found and found[-1].end == item.start:
            found[-1] = Range(found[-1].start, found[-1].size + item.size)
        else:
            found.append(item)
    return found


def discover(bus: CanBus, *, deadline: Deadline) -> list[Found]:
    """The ECUs that answer a functional request for their serial number, with 11-bit ids.

    The request is one frame under 0x7DF. Collects until the deadline or 0.3 s of silence.
    """
    found: dict[int, Found] = {}
    listeners = {
        response: IsoTpChannel.open(bus, IsoTpAddress(request=CanId(response - 8), response=CanId(response)))
        for response in RESPONSES_11_BIT
    }
    broadcast = _Broadcast(bus, CanId(FUNCTIONAL_11_BIT), 0xCC)
    try:
        broadcast.send(SERIAL_NUMBER, deadline)
        for response, channel in listeners.items():
            with suppress(TransportError):
                answer = channel.recv(deadline.sooner(0.3 if not found else 0.05))
                if answer is not None:
                    value = decode(SERIAL_NUMBER, answer)
                    serial = identifier_text(value) if isinstance(value, bytes) else ""
                    found[response] = Found(response, serial)
    finally:
        broadcast.close()
        for channel in listeners.values():
            channel.close()
    return list(found.values())
