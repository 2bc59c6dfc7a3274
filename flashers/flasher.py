"""The interfaces to a bootloader: what every one has, and the two ways in which a part takes an image.

Every protocol has a `Bootloader`: into the bootloader, who it is, out again. A `MemoryBootloader` has addressed
memory, a `SlotBootloader` takes whole images. One class for each protocol.

The rule that keeps it simple: a bootloader's class knows its protocol and nothing of images, plans, files, events or
components; the engine (`programmer`) knows those and nothing of protocols. Windowing, pipelining and the smallest safe
retry (one request, one block) live inside. Cancelling, progress and pacing live outside, at the yields of the
generators: between two yields one unit is done that the part can stop after.

What a part can't do is said by `capabilities`, not by failing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Flag, StrEnum, auto
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from ..transports.deadline import Deadline
from .errors import USUAL_SILENCES, Meaning, Step, Unsupported, VerifyMismatch
from .image import FirmwareImage, Segment
from .memory import MemoryMap, Range
from .settings import Settings

if TYPE_CHECKING:
    from .describing import Describer

Target = Mapping[str, int | str]
"""What an image file says of its part (`FirmwareImage.target`)."""


class Capability(Flag):
    """What a connected bootloader can do. Flags of one part, known once `connect` has returned."""

    NONE = 0
    READ = auto()
    """`read` works."""
    DIGEST = auto()
    """`digest` works: the part computes a checksum over any range."""
    CHECK = auto()
    """`judge` or `verdict` compares without reading back, by a way of the protocol's own."""
    BOOT = auto()
    """`start_application` works; without it the application needs a reset by hand."""


class Digest(NamedTuple):
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
class ProbeResult:
    """A part that answered an enumerator's question, without being disturbed."""

    state: State
    identity: Identity


class Discovered(NamedTuple):
    """A part that the bench file doesn't name.

    `title`: who it is, for a person. `name`: a possible name in the file. `address`: the keys and values of its
    address there, in TOML. `profile`: those of the profile that it can't be asked without.
    """

    title: str
    name: str
    address: str
    profile: str = ""


class Address(Settings):
    """Base of what a component's `address` table holds: where on its bus the part is."""

    example: ClassVar[str] = ""
    """The settings of a target that it can't do without, such as "request=ID"."""

    @property
    def serial_number(self) -> str:
        """The serial number that is part of the address; "": none is."""
        return ""

    def surprises(self) -> Iterator[str]:
        """What is likely not meant, and how it is written otherwise."""
        yield from ()

    def label(self) -> str:
        """The address for a person, short, such as "0x7E0/0x7E8"; "": the bus is the address."""
        return ""

    def means(self, found: object) -> bool:
        """Whether this is the address of what a discovery has found, in the words of its kind of bus (UsbInfo on USB).

        By this, one protocol's discovery leaves out the parts of another protocol.
        """
        return False


class Bootloader(ABC):
    """One bootloader at the other end of an open wire: what every one has.

    A subclass is a `MemoryBootloader` or a `SlotBootloader`. Where only the connected part shows which of the two it is,
    `access` gives that form of it.

    Every method raises a TransportError when the wire fails and a PartError when the part does; after either the
    bootloader may be used again from `connect` on, which first brings it back into step.
    """

    protocol: ClassVar[str]
    """The name in the bench file and in the entry points, such as "stm32-uart"."""
    other_names: ClassVar[Sequence[str]] = ()
    """What other tools and older documents call the protocol or its bootloaders, in lower case: these names correct a target."""
    bus_kind: ClassVar[str]
    """The kind of bus that it runs over: a name of the entry-point group proxyflash.transports, such as "can"."""
    bus_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that its bus has where the bench file gives none."""
    Address: ClassVar[type[Address]]
    """What the component's `address` table holds."""
    Profile: ClassVar[type[Settings]]
    """What the component's `profile` table holds: a maker's variations, as data. Every key has a default."""

    probes_application: ClassVar[bool] = False
    """Whether the running application answers `probe` too, on a wire that nobody else may be asked on."""
    probes_bootloader: ClassVar[bool] = True
    """Whether `probe` may ask the bootloader: what it would be asked by disturbs no application."""
    is_silent: ClassVar[bool] = False
    """Whether the bootloader reports nothing of its part and its memory: it judges a file just taken, and no other."""

    shares_bus: ClassVar[bool] = True
    """Whether several parts of a bus may be in their bootloaders at once: if not, an update works on one after the other."""

    silences: ClassVar[Mapping[Step, Meaning]] = USUAL_SILENCES
    """What it means that the part does not answer."""

    capabilities: Capability = Capability.NONE

    @property
    def unreadable(self) -> str:
        """Why this part's memory can't be read, as its protocol or its profile says before anything is sent; "": only the
        part knows."""
        return ""

    @property
    def rate(self) -> str:
        """The bit rate of the part's serial line, such as "115,200 bit/s"; "": it is on none."""
        return ""

    @classmethod
    @abstractmethod
    def attach(cls, bus: Any, address: Any, profile: Any) -> Self:
        """The bootloader of the part at `address` of an open bus, of the transport's class for `bus_kind`.

        Sends nothing. `address` and `profile` are instances of this class's `Address` and `Profile`.
        """

    @classmethod
    def probe(cls, bus: Any, address: Any, profile: Any, *, active: bool, deadline: Deadline) -> ProbeResult | None:
        """Asks the part at `address` who it is, without disturbing its work; None when nothing answers.

        With `active` it may also send what only a bootloader understands, on a wire that the bench file allows it for.
        Never puts a running application into its bootloader.
        """
        return None

    @classmethod
    def can_tell(cls, address: Any) -> bool:
        """Whether `probe` can see a part at this address while its application runs; if not, silence says nothing."""
        return True

    @classmethod
    def harmed_by(cls, question: bytes) -> str:
        """What the bootloader would do if the application's question came to it; "": nothing lasting.

        For bootloaders that listen on the application's line and take single letters for commands.
        """
        return ""

    @classmethod
    def surprises(cls, profile: Any, bus: Mapping[str, Any]) -> Iterator[str]:
        """What a part with this profile meets on a bus with these settings that is likely not meant, and how it is said
        otherwise. Sends nothing."""
        yield from ()

    @classmethod
    def readback_unavailable_reason(cls, profile: Any) -> str:
        """Why the memory of a part with this profile can't be read; "": nothing is known against it. Sends nothing."""
        return ""

    @classmethod
    def files_named(cls, profile: Any) -> Iterator[Path]:
        """The files that the profile names, or that it has code run from, but for those that go by an image's name."""
        yield from ()

    @classmethod  # noqa: B027 - most protocols name nothing
    def check_profile(cls, profile: Any) -> None:
        """Looks at what the profile names outside of the bench file: functions, libraries, files. Sends nothing.

        Raises ProfileWrong, and what reading a firmware file raises.
        """

    @classmethod  # noqa: B027 - most protocols have nothing to compare
    def check_address(cls, address: Any, profile: Any) -> None:
        """Compares the address with what the profile needs of it. Sends nothing. Raises ProfileWrong."""

    @classmethod
    def runs_while_written(cls, profile: Any) -> bool:
        """Whether the old application runs on beside the new one until that is booted."""
        return False

    @classmethod
    def describer(cls, name: str, address: Any, profile: Any) -> Describer | None:
        """What shows the messages of the component of this name in words, for people; None: they are shown as bytes."""
        return None

    @classmethod
    def unjudged(cls, profile: Any) -> Any:
        """The profile with which the part takes what it could not run, for tests that fill its memory."""
        return profile

    @classmethod
    def wrong_key(cls, profile: Any) -> Any | None:
        """The profile with a key that the part refuses, for tests; None: it asks for no key."""
        return None

    def look(self) -> Identity | None:
        """Who the part is, asked so that a running application feels nothing of it; None: only `connect` finds out.

        Then the capabilities and the memory map are known as after `connect`, and an image can be planned. Raises as `connect`.
        """
        return None

    @abstractmethod
    def connect(self) -> Identity:
        """Enters the bootloader if need be, synchronises, reads who it is. May be called again after a failure.

        Raises NoResponse when nothing answers, PartWrongMode when it can't be brought into its bootloader,
        WrongPart when the profile names another part.
        """

    @abstractmethod
    def access(self) -> MemoryAccess | SlotAccess:
        """How the connected part takes an image."""

    @abstractmethod
    def start_application(self) -> None:
        """Leaves the bootloader and starts the application. With Capability.BOOT only."""

    def leave(self) -> None:
        """Ends a connection in which nothing was changed: the part does again what it did before."""
        self.start_application()

    def abandon(self) -> None:
        """As `leave`, in the middle of `connect` or of a request: after Ctrl-C, say. The part may be on its way into its
        bootloader, or wait for the rest of a request. Raises as `leave`."""
        self.leave()

    @abstractmethod
    def close(self) -> None:
        """Lets go of the wire's resources that were taken. Never raises; sends nothing that changes the part."""


class MemoryAccess(ABC):
    """Addressed memory that is erased and written in pieces, in an order that the engine chooses."""

    changed_in_turns = False
    """Whether `turns` itself changed the part, or may have."""

    @abstractmethod
    def memory_map(self, target: Target | None = None) -> MemoryMap:
        """What memory this part has, for an image whose file says `target` of its part; None: for no image.

        Raises ImageWrongPart when they contradict each other; a target may name one of several memories.
        """

    def fit(self, image: FirmwareImage) -> FirmwareImage:
        """What of the image goes into the part's memory, in the form that the part takes.

        The rest is kept for use, such as a program for the part's RAM. Raises ImageError, ProfileWrong.
        """
        return image

    def turns(
        self, erase: Sequence[Range], writes: Sequence[Segment]
    ) -> Iterator[tuple[Sequence[Range], Sequence[Segment]]]:
        """The turns in which a plan is carried out: what is erased in each, and then written.

        What the part wants between two of them is done here, when the next one is asked for.
        """
        yield erase, writes

    def check_erase(self, ranges: Sequence[Range]) -> None:  # noqa: B027 - most bootloaders erase any
        """Looks whether the bootloader can erase these units in this order; sends nothing that changes the part.

        Raises Unsupported. Asked when a plan is made, and before the first erase.
        """

    def suspects(self, unit: Range) -> Sequence[int]:
        """Addresses of what erasing this unit takes instead, if the part's erase units are not those that a person described."""
        return ()

    @abstractmethod
    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """Erases whole erase units in the order given; yields bytes erased so far."""

    @abstractmethod
    def write(self, segment: Segment) -> Iterator[int]:
        """Writes one segment to erased memory; yields bytes the part has ACKNOWLEDGED so far.

        Start and end lie on the region's write alignment.
        """

    @abstractmethod
    def read(self, start: int, size: int) -> Iterator[bytes]:
        """Reads memory in order, in pieces of the protocol's own size. With Capability.READ only."""

    def digest(self, start: int, size: int) -> Digest | None:
        """The part's own checksum over a range; None where it can't for this range. With Capability.DIGEST only."""
        return None

    def judge(self, segments: Sequence[Segment]) -> str:
        """Has the part judge what it holds; returns how, in words ("routine 0x0202 by the part"), "" if it can't.

        `segments` is the whole image. With Capability.CHECK only. Raises VerifyMismatch when the part disagrees.
        """
        return ""

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        """About how long erasing and writing that much takes, from the wire and the part; None if not known."""
        return None


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a whole image goes. `size`: the most that it takes, in bytes. `target`: what a file with its contents says of its
    part. `unchecked`: what of the image is not held against the part before it is sent, for a person."""

    name: str
    size: int
    target: Target = field(default_factory=dict)
    unchecked: str = ""


class SlotAccess(ABC):
    """A slot that takes an image whole, from its first byte to its last, and erases itself for it."""

    @abstractmethod
    def slot(self, target: Target | None = None) -> Slot:
        """Where an image would go whose file says `target` of its part; None: one of which nothing is known yet.

        Raises ImageWrongPart when they contradict each other, Unsupported where the part takes no image.
        """

    def prepare(self, image: bytes) -> Iterator[str]:
        """Makes room for the image. Yields, before it does so, each thing that it does to the part ("erases slot 1")."""
        yield from ()

    @abstractmethod
    def upload(self, image: bytes) -> Iterator[int]:
        """Sends the image, or the rest that the part does not have yet; yields bytes the part has ACKNOWLEDGED so far."""

    @abstractmethod
    def verdict(self, image: bytes) -> str:
        """How it is known that the part holds this image, in words; "" where it can tell only after an upload.

        Raises VerifyMismatch when it holds another one.
        """

    def read(self, start: int, size: int) -> Iterator[bytes]:
        """Reads the slot in order. With Capability.READ only; raises Unsupported without."""
        raise Unsupported("this part can't read its memory")

    @abstractmethod
    def activate(self, image: bytes) -> None:
        """Starts the image that was uploaded, waits until it runs, and confirms it, as far as the protocol can.

        Raises RebootFailed when nothing runs then, VerifyMismatch when something else does.
        """

    def seconds_for(self, size: int) -> float | None:
        """About how long the upload of that many bytes takes; None if not known."""
        return None


class MemoryBootloader(Bootloader, MemoryAccess):
    """A bootloader for addressed memory."""

    def access(self) -> MemoryAccess:
        return self


class SlotBootloader(Bootloader, SlotAccess):
    """A bootloader for whole images."""

    def access(self) -> SlotAccess:
        return self


class Discovery(ABC):
    """Finds the parts of one protocol on a bus whose address nobody gave.

    Its entry point, in the group proxyflash.discoveries, is called KIND.PROTOCOL by the kind of bus ("can.uds"), so that
    a scan imports what its buses need and nothing else.
    """

    protocol: ClassVar[str]
    """As the flasher's."""
    listens: ClassVar[bool] = False
    """Whether it waits for what parts send unasked, and so comes last: a scan has one deadline."""
    alone: ClassVar[bool] = False
    """Whether it looks only on a bus that lists no component of another protocol, to whose parts its frames may mean something
    else."""

    @classmethod
    def describer(cls) -> Describer | None:
        """What shows the messages of the parts whose address nobody gave in words; None: they are shown as bytes."""
        return None

    @classmethod
    @abstractmethod
    def discover(cls, bus: Any, listed: Sequence[Address], *, active: bool, deadline: Deadline) -> Sequence[Discovered]:
        """The parts on the bus that speak this protocol and are at none of the addresses that the bench file has.

        Without `active` nothing is sent to who is not listed. Never puts a running application into its bootloader.
        Raises TransportError.
        """

    @classmethod
    def asked(cls, bus: Any, *, active: bool, found: int) -> str:
        """What `discover` has asked, in words; "": nothing. `found`: how many parts it found."""
        return ""


def compare_digest(digest: Digest, segment: Segment) -> None:
    """Raises VerifyMismatch unless the part's digest is the one of the segment's bytes."""
    wanted = digest.compute(bytes(segment.data))
    if wanted != digest.value:
        raise VerifyMismatch(
            f"{digest.name} of {Range(segment.address, segment.size)} is 0x{digest.value:08X} on the part, "
            f"0x{wanted:08X} in the image"
        )
