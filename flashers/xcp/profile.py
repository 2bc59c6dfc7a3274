"""What a bench file says of a component that speaks XCP: its address, and what the slave does not report."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from ..can.question import ArbitrationId, CanVersion, QuestionAddress
from ..errors import ProfileWrong
from ..flasher import Address
from ..keys.settings import Hex, KeyLibrary, KeyName, check_source
from ..memory import MemoryMap, Range, Region
from ..memory_runs import MemoryRun, check_apart, listed, regions
from ..serial.profile import SerialProfile
from ..settings import SECRET, Before, Field, Settings, bench_folder

if TYPE_CHECKING:
    from ...transports.can.bus import CanId

EXAMPLE = "[{start = 0x08006000, size = 0x1A000, erase_unit = 0x2000}]"
Byte = Annotated[int, Field(ge=0, le=0xFF)]
OPENBLT_BLOCK = 512
"""Bytes that OpenBLT collects before it programs them (FLASH_WRITE_BLOCK_SIZE of most of its ports)."""
CHECKSUM_BYTES = 4


class XcpCanAddress(QuestionAddress):
    """Under which arbitration ids the slave takes commands and answers, and how its application is asked for its version."""

    example = "request=ID&response=REPLY"

    request: ArbitrationId | None = None
    """CAN id that the slave listens to (CAN_ID_MASTER of an A2L file, OpenBLT: 0x667). Needed unless `broadcast` is given."""
    response: ArbitrationId
    """CAN id with which the slave answers (CAN_ID_SLAVE of an A2L file, OpenBLT: 0x7E1)."""
    broadcast: ArbitrationId | None = None
    """CAN id that all slaves of the bus listen to (CAN_ID_BROADCAST of an A2L file). Without `request` the slave is asked there
    for the id that it listens to (GET_SLAVE_ID)."""
    extended_ids: bool | None = None
    """Whether the ids of the slave have 29 bits. Default: ids above 0x7FF have 29 bits."""
    version_request: ArbitrationId | None = None
    """Arbitration id under which the application takes the question for its version (`version` of the profile). Without it the
    application is not asked for its version."""
    version_response: ArbitrationId | None = None
    """Arbitration id of the answer to that question."""

    def check_together(self) -> None:
        super().check_together()
        if self.request is None and self.broadcast is None:
            raise ValueError("request is missing: the CAN id that the slave listens to; or give broadcast")
        if self.response in (self.request, self.broadcast):
            raise ValueError(f"the slave answers under 0x{self.response:X}, and does not listen to the same id")
        if self.extended_ids is False and max(self.request or 0, self.response, self.broadcast or 0) > 0x7FF:
            raise ValueError("extended_ids is false, but an id has more than 11 bits")

    def label(self) -> str:
        asked = self.request if self.request is not None else self.broadcast
        return f"0x{asked:X}/0x{self.response:X}"

    def can_id(self, value: int) -> CanId:
        from ...transports.can.bus import CanId

        return CanId(value, value > 0x7FF if self.extended_ids is None else self.extended_ids)


class XcpUartAddress(Address):
    """The serial bus is the address: one slave is on it."""


class XcpKeyLibrary(KeyLibrary):
    """A shared library that makes keys. It is called in a process of its own, which may crash or hang."""

    call: Literal["GenerateKeyEx", "GenerateKeyExOpt", "XCP_ComputeKeyFromSeed"] = "XCP_ComputeKeyFromSeed"
    """The library's function: `"XCP_ComputeKeyFromSeed"` (ASAM XCP), `"GenerateKeyEx"` or `"GenerateKeyExOpt"`."""


class XcpSecurity(Settings):
    """Seed and key of the resource PGM."""

    _folder = ""
    key: KeyName = "none"
    """How the key is computed from the seed. `"none"`: the part wants no key. `"xor"`: each byte of the seed with the
    byte of `secret`, repeated. `"library"`: by the shared library of `library`. `"package.module:function"`: by a
    Python function that is called with `(seed: bytes, secret: bytes, level: int)` and returns bytes; the level is 0x10, the
    resource PGM; its module is a file in the bench file's folder or an installed one."""
    secret: Annotated[Hex, SECRET] = b""
    """Secret bytes that the key is computed with."""
    library: XcpKeyLibrary | None = None
    """The maker's shared library that computes the key."""

    @property
    def folder(self) -> str:
        """The bench file's folder, where the module of a key function may lie; "": there is no bench file."""
        return self._folder

    def check_together(self) -> None:
        object.__setattr__(self, "_folder", str(bench_folder() or ""))
        check_source(self, self.secret)


class XcpTimings(Settings):
    """Time limits in seconds. EV_CMD_PENDING begins a time limit again."""

    answer: float = Field(default=1.0, gt=0, le=60)
    """Until the answer to a request (t1)."""
    erase: float = Field(default=10.0, gt=0, le=600)
    """Until the answer to the erase of one erase unit (t4)."""
    write: float = Field(default=1.0, gt=0, le=60)
    """Until the answer to a packet or block of data, and to the end of a segment (t5)."""
    connect: float = Field(default=0.02, gt=0, le=60)
    """Between two CONNECT, while none is answered (t6)."""
    start: float = Field(default=3.0, gt=0, le=600)
    """How long CONNECT is repeated. The running application may restart into its bootloader at the first CONNECT, and a
    person may have to reset the part."""


class XcpProfile(Settings):
    """What the slave does not report of its part, and what a maker's slave does differently."""

    loader: Literal["xcp", "openblt"] = "xcp"
    """`"openblt"`: the bootloader OpenBLT: data is collected in blocks, the last of which are written at the end, and
    the application restarts into it at CONNECT. `"xcp"`: a slave as ASAM's document has it."""
    memory: Annotated[tuple[MemoryRun, ...], Before(lambda value: listed(value, EXAMPLE))] = ()
    """The memory that the slave programs, as a list of runs of erase units. The slave does not report it. With OpenBLT: what
    its `flashLayout` lists."""
    write_alignment: int | None = Field(default=None, gt=0, le=0x10000)
    """Bytes to which each write is aligned and filled up: a power of two. Default: 512 with OpenBLT, whose blocks are that
    large; else 1."""
    erased_value: Byte = 0xFF
    """The value of an erased byte."""
    extension: Byte = 0
    """Address extension of SET_MTA."""
    mode: Byte = 0
    """Mode of CONNECT: 0 is the normal one; OpenBLT behind a gateway takes its node id."""
    part: str = ""
    """A piece of the text that GET_ID answers. Another part is refused."""
    checksum_offset: int | None = Field(default=None, ge=0, le=0xFFFC)
    """Where in the memory the bootloader writes 4 bytes of its own, from the memory's start: OpenBLT's checksum
    (BOOT_FLASH_VECTOR_TABLE_CS_OFFSET, such as 0x150 for an STM32F1). These bytes are not compared. Default: all bytes
    are compared."""
    functional: int | None = Field(default=None, ge=1, le=0xFFFF_FFFF)
    """Areas to erase by PROGRAM_CLEAR in functional mode, such as 0x02 (all code areas), instead of by address. Goes with a
    memory of one erase unit."""
    verify_type: int | None = Field(default=None, ge=0, le=0xFFFF)
    """Type of PROGRAM_VERIFY, by which the slave checks what was programmed, such as 0x0001 (code area). Default: PROGRAM_VERIFY
    is not sent."""
    read: bool | None = None
    """Whether the memory is read to compare it. Default: where its first bytes can be read and are not all 0; some
    slaves answer zeros instead of refusing."""
    security: XcpSecurity = XcpSecurity()
    """Seed and key of the resource PGM."""
    timings: XcpTimings = XcpTimings()
    """Time limits."""

    def check_together(self) -> None:
        check_apart(self.memory)
        grain = self.grain
        if grain & (grain - 1):
            raise ValueError("write_alignment is a power of two")
        if any(run.erase_unit % grain or run.start % grain for run in self.memory):
            raise ValueError(f"start and erase_unit of memory are multiples of write_alignment, {grain}")
        if self.functional is not None and (len(self.memory) != 1 or self.memory[0].size != self.memory[0].erase_unit):
            raise ValueError("functional goes with a memory of one run with one erase unit, which is erased as a whole")

    @property
    def is_openblt(self) -> bool:
        return self.loader == "openblt"

    @property
    def grain(self) -> int:
        return self.write_alignment or (OPENBLT_BLOCK if self.is_openblt else 1)

    def memory_map(self, granularity: int = 1) -> MemoryMap:
        """Raises ProfileWrong when the profile names no memory."""
        if not self.memory:
            raise ProfileWrong(
                "the profile names no memory",
                remedy=f"Add memory = {EXAMPLE} with the part's erase units to the component's profile; a target takes it by "
                "--profile FILE.",
            )
        facts: dict[str, Any] = {
            "write_alignment": max(self.grain, granularity),
            "erased_value": self.erased_value,
        }
        found = regions(self.memory, **facts)
        return MemoryMap(tuple(self._with_own(region, found[0]) for region in found))

    def _with_own(self, region: Region, first: Region) -> Region:
        if self.checksum_offset is None or region is not first:
            return region
        return replace(region, own=(Range(region.start + self.checksum_offset, CHECKSUM_BYTES),))


class XcpCanProfile(XcpProfile):
    """What the slave does not report of its part, and what a maker's slave does differently."""

    fd: bool | None = None
    """Whether packets go in CAN FD frames. Default: as the bus."""
    pad: bool = False
    """Whether each classic frame is filled up to 8 bytes (MAX_DLC_REQUIRED of an A2L file)."""
    version: CanVersion = CanVersion()
    """How the application is asked for its version."""


class XcpUartProfile(XcpProfile, SerialProfile):
    """What the slave does not report of its part, and how packets go over a serial line."""

    checksum: bool = False
    """Whether each packet ends with a byte that is the sum of the bytes before it (OpenBLT: BOOT_COM_RS232_CS_TYPE 1)."""
    enter: str = ""
    """Text that makes the application start its bootloader. "": nothing is sent but CONNECT."""
    app_baudrate: int | None = Field(default=None, gt=0)
    """Bit rate of the application, in bit/s. Default: the bus's `baudrate`."""
    settle: float = Field(default=0.1, ge=0, le=5)
    """Seconds that the bootloader has to start after `enter`."""
