"""`LoopBoot`: the bootloader of parts on a ring."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from proxyflash.flashers.errors import NoResponse, WrongPart
from proxyflash.flashers.flasher import (
    Address,
    Capability,
    Digest,
    Identity,
    MemoryBootloader,
    ProbeResult,
    State,
    Target,
)
from proxyflash.flashers.image import Segment
from proxyflash.flashers.memory import MemoryMap, Range, uniform
from proxyflash.flashers.settings import Field, Settings
from proxyflash.transports.deadline import Deadline

from .codec import Command, answer, is_whole, request
from .transport import LoopBus

BLOCK = 64
"""Bytes of a write, and of a read."""
TRIES = 3


class LoopAddress(Address):
    """`node`: the part's place in the ring."""

    node: int = Field(ge=0, le=255)

    def label(self) -> str:
        return f"node {self.node}"


class LoopProfile(Settings):
    """`part`: what the part's name must contain, "" for any. `answer`: seconds that a part has for an answer."""

    part: str = ""
    answer: float = Field(default=1.0, gt=0, le=10)


class LoopClient:
    """Asks one node. Each command may be sent again: what was done is then answered as done."""

    def __init__(self, bus: LoopBus, node: int, seconds: float) -> None:
        self.bus = bus
        self.node = node
        self.seconds = seconds

    def ask(self, command: Command, payload: bytes = b"", *, tries: int = TRIES) -> bytes:
        """Raises NoResponse, PartRefused, ProtocolError, LoopGone."""
        for _ in range(tries):
            frame = self.bus.exchange(self.node, request(command, payload), Deadline.after(self.seconds))
            if frame is not None and is_whole(frame):
                return answer(command, frame)
        raise NoResponse(f"node {self.node} of {self.bus.name} does not answer {command.name}")

    def hello(self, *, tries: int = TRIES) -> ProbeResult:
        """Who it is; asked of a running application as well. Raises as `ask`."""
        told = self.ask(Command.HELLO, tries=tries)
        part, serial, version = told[1:].decode("ascii", "replace").split(";")
        state = State.BOOTLOADER if told[0] else State.RUNNING
        return ProbeResult(state, Identity(part, serial, version, manufacturer="Loop"))


class LoopBoot(MemoryBootloader):
    """One part."""

    protocol: ClassVar[str] = "loop-boot"
    bus_kind: ClassVar[str] = "loop"
    Address = LoopAddress
    Profile = LoopProfile
    capabilities = Capability.READ | Capability.DIGEST | Capability.BOOT

    def __init__(self, client: LoopClient, profile: LoopProfile) -> None:
        self._client = client
        self._profile = profile

    @classmethod
    def attach(cls, bus: LoopBus, address: LoopAddress, profile: LoopProfile) -> Self:
        return cls(LoopClient(bus, address.node, profile.answer), profile)

    @classmethod
    def probe(
        cls, bus: LoopBus, address: LoopAddress, profile: LoopProfile, *, active: bool, deadline: Deadline
    ) -> ProbeResult | None:
        try:
            return LoopClient(bus, address.node, min(profile.answer, deadline.remaining)).hello()
        except NoResponse:
            return None

    def connect(self) -> Identity:
        found = self._client.hello().identity
        if self._profile.part not in found.part:
            raise WrongPart(f"the profile names {self._profile.part!r}, and {found.part!r} answers")
        self._client.ask(Command.ENTER)
        return found

    def memory_map(self, target: Target | None = None) -> MemoryMap:
        return MemoryMap((uniform("flash", 0x1000, 0x10000, 0x400, write_alignment=4),))

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        done = 0
        for item in ranges:
            self._client.ask(Command.ERASE, struct.pack(">I", item.start))
            done += item.size
            yield done

    def write(self, segment: Segment) -> Iterator[int]:
        for offset in range(0, segment.size, BLOCK):
            data = bytes(segment.data[offset : offset + BLOCK])
            self._client.ask(Command.WRITE, struct.pack(">I", segment.address + offset) + data)
            yield offset + len(data)

    def read(self, start: int, size: int) -> Iterator[bytes]:
        for offset in range(0, size, BLOCK):
            count = min(BLOCK, size - offset)
            yield self._client.ask(Command.READ, struct.pack(">IB", start + offset, count))

    def digest(self, start: int, size: int) -> Digest | None:
        told = self._client.ask(Command.CRC, struct.pack(">II", start, size))
        return Digest("CRC-32", int.from_bytes(told, "big"), zlib.crc32)

    def start_application(self) -> None:
        self._client.ask(Command.START)

    def close(self) -> None:
        pass
