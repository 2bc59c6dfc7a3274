"""`Flasher`: the one interface to a bootloader. One class, in one file, for each bootloader protocol.

The rule that keeps it simple: a flasher knows one bootloader's protocol and nothing of images, plans, files, events or
components; the engine (`programmer`) knows those and nothing of protocols. Windowing, pipelining and the smallest safe
retry (one request, one block) live inside the flasher. Cancelling, progress and pacing live outside, at the yields of
its generators: between two yields a flasher does one unit that the part can stop after.

What a flasher can't do it says by `capabilities`, not by failing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from ..transports.deadline import Deadline
from .errors import VerifyMismatch
from .image import Segment
from .memory import MemoryMap, Range


class Capability(Flag):
    """What a connected bootloader can do. Flags of one part, known once `connect` has returned."""

    NONE = 0
    READ = auto()
    """`read` works."""
    DIGEST = auto()
    """`digest` works: the part computes a checksum over any range."""
    CHECK = auto()
    """`check` gives a verdict without reading back, by a way of the protocol's own."""
    BOOT = auto()
    """`boot` starts the application; without it the application needs a reset by hand."""


@dataclass(frozen=True, slots=True)
class Digest:
    """A checksum that the part computed over a range. `compute` gives the same over the bytes the range should hold."""

    name: str
    value: int
    compute: Callable[[bytes], int]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a part says it is. "" where it doesn't say.

    `part`: the family or type ("STM32F405xx"). `serial`: unique to the part. `version`: the application's;
    `bootloader`: the bootloader's. `details`: what else is known, by the protocol's own names, for a person to read.
    """

    part: str = ""
    serial: str = ""
    version: str = ""
    bootloader: str = ""
    manufacturer: str = ""
    details: Mapping[str, str] = field(default_factory=dict)


class State(StrEnum):
    """Where a part is found."""

    RUNNING = "ok"
    BOOTLOADER = "bootloader"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A part that answered an enumerator's question, without being disturbed."""

    state: State
    identity: Identity


@dataclass(frozen=True, slots=True)
class Discovered:
    """A part that the bench file doesn't name.

    `title`: who it is, for a person. `name`: one that it could have in the file. `address`: the keys and values of its
    address there, in TOML.
    """

    title: str
    name: str
    address: str


class Settings(BaseModel):
    """Base of what the bench file says of one protocol: unknown keys are refused, values are not coerced loosely."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class _Secret:
    """See SECRET."""


SECRET = _Secret()
"""Marks a field of a protocol's settings that recordings leave out: `pin: Annotated[str, SECRET]`."""


class Flasher(ABC):
    """One bootloader at the other end of an open wire.

    Every method raises a TransportError when the wire fails and a PartError when the part does; after either the
    flasher may be used again from `connect` on, which first brings the bootloader back into step.
    """

    protocol: ClassVar[str]
    """The name in the bench file and in the entry points, such as "stm32-uart"."""
    bus_kind: ClassVar[str]
    """The kind of bus that it runs over: "can", "serial", "usb" or "udp"."""
    Address: ClassVar[type[Settings]]
    """What the component's `address` table holds."""
    Profile: ClassVar[type[Settings]]
    """What the component's `profile` table holds: a maker's variations, as data. Every key has a default."""

    answers_running: ClassVar[bool] = False
    """Whether the running application answers `sight` too, on a wire that nobody else may be asked on."""

    capabilities: Capability = Capability.NONE

    @classmethod
    @abstractmethod
    def attach(cls, bus: Any, address: Any, profile: Any) -> Self:
        """A flasher for the part at `address` of an open bus: a CanBus, SerialPort, UsbBus or UdpSocket, as `bus_kind`
        says.

        Sends nothing. `address` and `profile` are instances of this class's `Address` and `Profile`.
        """

    @classmethod
    def sight(cls, bus: Any, address: Any, profile: Any, *, active: bool, deadline: Deadline) -> Sighting | None:
        """Asks the part at `address` who it is, without disturbing its work; None when nothing answers.

        With `active` the flasher may also send what only a bootloader understands, on a wire that the bench file
        allows it for. Never puts a running application into its bootloader.
        """
        return None

    @classmethod
    def can_tell(cls, address: Any) -> bool:
        """Whether `sight` can see a part at this address while its application runs; if not, silence says nothing."""
        return True

    @classmethod
    def harmed_by(cls, question: bytes) -> str:
        """What the bootloader would do if the application's question came to it; "": nothing lasting.

        For bootloaders that listen on the application's line and take single letters for commands.
        """
        return ""

    @classmethod
    def unreadable(cls, profile: Any) -> str:
        """Why the memory of a part with this profile can't be read; "": nothing is known against it. Sends nothing."""
        return ""

    @abstractmethod
    def connect(self) -> Identity:
        """Enters the bootloader if need be, synchronises, reads who it is. May be called again after a failure.

        Raises PartMute when nothing answers, PartWrongMode when it can't be brought into its bootloader,
        PartWrongFamily when the profile names another part.
        """

    @abstractmethod
    def memory_map(self) -> MemoryMap:
        """What memory this part has. Connected only."""

    def verify_target(self, target: Mapping[str, int | str]) -> None:  # noqa: B027 - most files tell nothing
        """Compares what an image file says of its part (`FirmwareImage.target`) with the connected part.

        Called before `memory_map`, which it may narrow to the memory that the file names. Raises ImageWrongPart when
        they contradict each other. The default accepts everything.
        """

    @abstractmethod
    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """Erases whole erase units in the order given; yields bytes erased so far."""

    @abstractmethod
    def write(self, segment: Segment) -> Iterator[int]:
        """Writes one segment to erased memory; yields bytes the part has ACKNOWLEDGED so far.

        Start and end lie on the region's write alignment.
        """

    def read(self, start: int, size: int) -> Iterator[bytes]:
        """Reads memory in order, in pieces of the protocol's own size. With Capability.READ only."""
        raise NotImplementedError

    def digest(self, start: int, size: int) -> Digest | None:
        """The part's own checksum over a range; None where it can't for this range. With Capability.DIGEST only."""
        return None

    def check(self, segments: Sequence[Segment]) -> str:
        """Has the part judge what it holds; returns how, in words ("routine 0x0202 by the part").

        `segments` is the whole image. With Capability.CHECK only. Raises VerifyMismatch when the part disagrees.
        """
        raise NotImplementedError

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """About how long erasing and writing that much takes, from the wire and the part; None if not known."""
        return None

    @abstractmethod
    def boot(self) -> None:
        """Leaves the bootloader and starts the application; confirms it where the protocol can."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of the wire's resources that this flasher took. Never raises; sends nothing that changes the part."""


class Discovery(ABC):
    """Finds the parts of one protocol on a bus whose address nobody told.

    Its entry point, in the group proxyflash.discoveries, is called KIND.PROTOCOL by the kind of bus ("can.uds"), so that
    a scan imports what its buses need and nothing else.
    """

    protocol: ClassVar[str]
    """As the flasher's."""

    @classmethod
    @abstractmethod
    def discover(
        cls, bus: Any, listed: Sequence[Settings], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        """The parts on the bus that speak this protocol and are at none of the addresses that the bench file has.

        Without `active` nothing is sent to who is not listed. Never puts a running application into its bootloader.
        Raises TransportError.
        """


def compare_digest(digest: Digest, segment: Segment) -> None:
    """Raises VerifyMismatch unless the part's digest is the one of the segment's bytes."""
    wanted = digest.compute(bytes(segment.data))
    if wanted != digest.value:
        raise VerifyMismatch(
            f"{digest.name} of {Range(segment.address, segment.size)} is 0x{digest.value:08X} on the part, "
            f"0x{wanted:08X} in the image"
        )
