"""What a bench file says of an ECU that is flashed by UDS: its address, and its maker's variations as data.

After ISO 14229-1:2020 (services, routine and data identifiers: annexes C and F), ISO 14229-2:2021 (timings) and
ISO 15765-2:2016, 10.3 (addressing). The rule: every key of the profile has the value that the standards or common
practice give, so that a profile names only what its maker does differently. All times are in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, get_args

from ...transports.can.bus import CanId
from ...transports.isotp.channel import N_BS_SECONDS, N_CR_SECONDS
from ...transports.isotp.opening import Addressing, IsoTpAddress, IsoTpOptions
from ..errors import ProfileWrong
from ..flasher import Address
from ..keys.settings import BenchPath, Hex, KeyLibrary, KeyName, check_source, from_hex
from ..memory import Erase, MemoryMap, Region, Watch, Write, uniform
from ..settings import SECRET, After, Before, Field, Settings, bench_folder, in_words
from .sequence import STANDARD, Order, flat, parse, with_heads

Byte = Annotated[int, Field(ge=0, le=0xFF)]
Word = Annotated[int, Field(ge=0, le=0xFFFF)]
ArbitrationId = Annotated[int, Field(ge=0, le=0x1FFFFFFF)]
Seconds = Annotated[float, Field(gt=0, le=3600)]
RoutineId = Word | Literal["none"]
ParameterName = Literal[
    "alfi",
    "address",
    "size",
    "region",
    "signature",
    "crc32",
    "crc32-mpeg2",
    "crc16",
    "crc16-xmodem",
    "crc16-x25",
    "crc16-arc",
]
"""A part of a request's parameters that the bootloader's class fills in, big endian.

"alfi": the addressAndLengthFormatIdentifier; "address" and "size": as wide as `address_length` and `size_length` say;
"region": the memory region's `id`, 1 byte; "signature": what the region's `signature` file holds; the checksums: see
`checksums`."""


Parameter = Annotated[
    ParameterName | Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{2}( ?[0-9A-Fa-f]{2})*$")],
    in_words(
        f"one of {', '.join(map(repr, get_args(ParameterName)))}, or bytes in hexadecimal, such as '01'", always=True
    ),
]
"""A name, or literal bytes."""
BlockParameter = Literal["data", "length"] | Parameter
DATE_PARTS = {"{YYYY}": "%Y", "{YY}": "%y", "{MM}": "%m", "{DD}": "%d", "{hh}": "%H", "{mm}": "%M", "{ss}": "%S"}
"""Parts of the host's date and time in data, and how `strftime` calls them: two digits are one byte (BCD)."""


def _dated(value: object) -> object:
    """Hexadecimal digits, and parts of a date. Raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("it takes hexadecimal bytes in quotes, two digits each, such as 'DE AD BE EF'")
    digits = value
    for part in DATE_PARTS:
        digits = digits.replace(part, "00" * (len(part) // 2 - 1))
    if "{" in digits or "}" in digits:
        raise ValueError(f"it takes hexadecimal bytes, and of the date {', '.join(DATE_PARTS)}")
    from_hex(digits)
    return value


Dated = Annotated[str, Before(_dated)]
"""Bytes in hexadecimal, in which parts of the date stand for their digits."""


def _two_bytes(value: bytes) -> bytes:
    if len(value) != 2:
        raise ValueError("it takes two bytes, controlType and communicationType, such as '03 01'")
    return value


def _reset_type(value: int) -> int:
    if not value & 0x7F:
        raise ValueError("it takes a resetType, such as 0x01 (hardReset), or 0x81 (without an answer)")
    return value


class UdsAddress(Address):
    """Where the ECU listens and answers."""

    example = "request=ID"

    addressing: Addressing = Addressing.NORMAL
    """ISO-TP addressing. `"normal"`: by `request` and `response`. `"normal-fixed"`: 29-bit ids that follow from
    `target` and `source`. `"extended"`: with an address byte in each frame; for mixed addressing, give the address
    extension as `target` and `source`."""
    request: ArbitrationId | None = None
    """CAN id that the ECU listens to. Needed, except for normal-fixed addressing."""
    response: ArbitrationId | None = None
    """CAN id with which the ECU answers. Default: `request` + 8."""
    extended_ids: bool | None = None
    """Whether the ids have 29 bits. Default: ids above 0x7FF have 29 bits."""
    target: Byte | None = None
    """The ECU's address byte. Needed for normal-fixed and extended addressing."""
    source: Byte = 0xF1
    """The address byte of this tester."""
    boot_request: ArbitrationId | None = None
    """CAN id that the ECU's bootloader listens to, where that is another id than `request`. Not for normal-fixed addressing."""
    boot_response: ArbitrationId | None = None
    """CAN id with which the ECU's bootloader answers. Default: `boot_request` + 8."""
    functional: ArbitrationId | None = None
    """CAN id that all ECUs listen to. Default: 0x7DF for 11-bit ids, 0x18DB33xx for normal-fixed addressing. Not for
    extended addressing."""

    def check_together(self) -> None:
        fixed = self.addressing is Addressing.NORMAL_FIXED
        if self.addressing is not Addressing.NORMAL and self.target is None:
            raise ValueError(f"{self.addressing} addressing needs target")
        if fixed:
            self._derive("request", 0x18DA0000 | (self.target or 0) << 8 | self.source)
            self._derive("response", 0x18DA0000 | self.source << 8 | (self.target or 0))
            self._derive("functional", self.functional or 0x18DB3300 | self.source)
        elif self.request is None:
            raise ValueError("request is missing: the CAN id that the ECU listens to")
        elif self.response is None:
            object.__setattr__(self, "response", self.request + 8)
        if self.addressing is Addressing.NORMAL and self.response == self.request:
            raise ValueError(f"request and response are one id, 0x{self.request:X}; an ECU answers with another id")
        self._check_boot(fixed=fixed)
        if self.addressing is Addressing.NORMAL and self.functional is None and not self._wide(self.request):
            object.__setattr__(self, "functional", 0x7DF)
        if self.addressing is Addressing.EXTENDED and self.functional is not None:
            raise ValueError("functional requests are for normal and normal-fixed addressing")
        ids = (self.request, self.response, self.functional, self.boot_request, self.boot_response)
        if self.extended_ids is False and any(self._above(i) for i in ids):
            raise ValueError("extended_ids is false, but an id has more than 11 bits")

    def _check_boot(self, *, fixed: bool) -> None:
        if self.boot_request is None:
            if self.boot_response is not None:
                raise ValueError("boot_response needs boot_request: the CAN id that the bootloader listens to")
            return
        if fixed:
            raise ValueError("boot_request is not for normal-fixed addressing")
        if self.boot_response is None:
            object.__setattr__(self, "boot_response", self.boot_request + 8)
        if self.boot_response in (self.boot_request, self.request):
            raise ValueError(f"boot_response is 0x{self.boot_response:X}, an id that is listened to")
        if (self.boot_request, self.boot_response) == (self.request, self.response):
            raise ValueError("boot_request and boot_response are request and response: leave them out")

    def _derive(self, key: str, value: int) -> None:
        """Sets what follows from other keys; the model is frozen, so past its own setter."""
        if getattr(self, key) not in (None, value):
            raise ValueError(f"{key} follows from target and source: 0x{value:08X}")
        object.__setattr__(self, key, value)

    @staticmethod
    def _above(value: int | None) -> bool:
        return value is not None and value > 0x7FF

    def _wide(self, value: int | None) -> bool:
        return self._above(value) if self.extended_ids is None else self.extended_ids

    def _id(self, value: int | None) -> CanId | None:
        return None if value is None else CanId(value, self._wide(value))

    def label(self) -> str:
        return f"0x{self.request:X}/0x{self.response:X}"

    def isotp(self) -> IsoTpAddress:
        return IsoTpAddress(self.addressing, self._id(self.request), self._id(self.response), self.target, self.source)

    def every_isotp(self) -> tuple[IsoTpAddress, ...]:
        """The application's, and the bootloader's where that is another one."""
        here = self.isotp()
        if self.boot_request is None:
            return (here,)
        ids = self._id(self.boot_request), self._id(self.boot_response)
        return here, IsoTpAddress(self.addressing, *ids, self.target, self.source)

    def functional_id(self) -> CanId | None:
        return self._id(self.functional)


class MemoryRegion(Settings):
    """One memory of the ECU."""

    name: str = "flash"
    """Name of the memory, for messages."""
    start: int = Field(ge=0)
    """First address of the memory."""
    size: int = Field(gt=0)
    """Bytes of the memory."""
    erase_unit: int | None = Field(default=None, gt=0)
    """Bytes of an erase unit. Default: the ECU erases the memory only as a whole. The same holds if
    `routines.erase_parameters` has no `"address"`."""
    write_alignment: int = Field(default=1, gt=0)
    """Bytes to which each write is aligned and filled up: a power of two."""
    erased_value: Byte = 0xFF
    """The value of an erased byte."""
    id: Byte = 0
    """The maker's number of the memory, for the parameter `"region"` and for `address_by = "id"`."""
    data_format: Byte | None = None
    """dataFormatIdentifier of this memory. Default: the profile's `data_format`."""
    announce: int | None = Field(default=None, gt=0)
    """Bytes that RequestDownload announces, for a compressed image whose unpacked size the ECU wants. The memory is
    then erased as a whole. Default: the bytes that are sent."""
    signature: BenchPath = ""
    """File with the bytes of the parameter `"signature"`, 65,536 bytes at most. Relative paths start at the bench
    file's folder. `{image}` stands for the image's path without its ending: `"{image}.sig"`. An update refuses a name
    with `{image}`, because its manifest does not cover that file."""

    def check_together(self) -> None:
        unit = self.erase_unit or self.size
        if self.size % unit:
            raise ValueError(f"size is not a multiple of erase_unit ({self.size} and {unit})")
        if self.write_alignment & (self.write_alignment - 1) or unit % self.write_alignment:
            raise ValueError("write_alignment must be a power of two that divides the erase unit")
        if self.start % self.write_alignment:
            raise ValueError("start must be a multiple of write_alignment")
        if self.announce and self.erase_unit:
            raise ValueError("announce is for a region that is erased as a whole: leave erase_unit out")


class FlashDriver(Settings):
    """A program that the ECU gets into its RAM before the first erase: a flash driver, or a secondary bootloader.

    It is downloaded, then checked, then started.
    """

    file: BenchPath = ""
    """The driver's firmware file. Relative paths start at the bench file's folder. `{image}` at the start stands for
    the image's path without its ending: `"{image}-driver.hex"`. "": the driver is in the image, at its addresses."""
    start: int = Field(ge=0)
    """First address of the driver's RAM."""
    size: int = Field(gt=0, le=1 << 24)
    """Bytes of the driver's RAM."""
    id: Byte = 0
    """The maker's number of the driver, like the number of a memory."""
    data_format: Byte = 0x00
    """dataFormatIdentifier of the driver."""
    check: RoutineId = "none"
    """Identifier of the routine that checks the driver. With `"address"` in its parameters the routine is called for
    each segment, else once."""
    check_parameters: tuple[Parameter, ...] = ("crc32",)
    """Parameters of the check routine."""
    check_answer: tuple[Parameter, ...] = ()
    """What the check routine has to answer, as in `routines`."""
    run: RoutineId = "none"
    """Identifier of the routine that starts the driver."""
    run_parameters: tuple[Parameter, ...] = ("address",)
    """Parameters of the routine that starts the driver. `"address"` is the entry point of the file, else the start of
    its first segment."""
    signature: BenchPath = ""
    """File with the bytes of `"signature"` in these parameters."""


class Sessions(Settings):
    """Session types of DiagnosticSessionControl."""

    default: Byte = 0x01
    """Number of the default session."""
    programming: Byte = 0x02
    """Number of the programming session."""
    extended: Byte = 0x03
    """Number of the extended session."""


class Security(Settings):
    """SecurityAccess."""

    _folder = ""
    level: int = Field(default=0x01, ge=0x01, le=0x7D)
    """The odd sub-function that asks for the seed."""
    key: KeyName = "none"
    """How the key is computed from the seed. `"none"`: no security access. `"xor"`: each byte of the seed with the
    byte of `secret`, repeated. `"library"`: by the shared library of `library`. `"package.module:function"`: by a
    Python function that is called with `(seed: bytes, secret: bytes, level: int)` and returns bytes; its module is a
    file in the bench file's folder or an installed one."""
    secret: Annotated[Hex, SECRET] = b""
    """Secret bytes that the key is computed with."""
    library: KeyLibrary | None = None
    """The maker's shared library that computes the key."""
    request_data: Hex = b""
    """Bytes after the sub-function that asks for the seed (securityAccessDataRecord)."""
    wait: float = Field(default=12.0, ge=0, le=3600)
    """Seconds to wait out a delay of the ECU after a start or after wrong keys (NRC 0x37). 0.0: the delay is reported
    at once. Many ECUs have a delay of 10 s after each start (ISO 14229-1:2020, 10.4)."""

    @property
    def folder(self) -> str:
        """The bench file's folder, where the module of a key function may lie; "": there is no bench file."""
        return self._folder

    def check_together(self) -> None:
        object.__setattr__(self, "_folder", str(bench_folder() or ""))
        if not self.level & 1:
            raise ValueError("level must be odd: the sub-function that asks for the seed")
        check_source(self, self.secret)


class Routines(Settings):
    """Routine identifiers (`"none"`: the ECU has no such routine), and what their requests carry."""

    erase: RoutineId = 0xFF00
    """Identifier of the erase routine."""
    erase_parameters: tuple[Parameter, ...] = ("alfi", "address", "size")
    """Parameters of the erase routine."""
    merge_erase: bool = False
    """Whether one call may erase several erase units that follow each other."""
    erase_all: bool = False
    """Whether one call erases all memories at once. An image without bytes for one of the memories is then refused."""
    check: RoutineId = 0x0202
    """Identifier of the routine that checks what was written. With `"address"` in its parameters the routine is
    called for each segment, else for each memory."""
    check_parameters: tuple[Parameter, ...] = ("crc32",)
    """Parameters of the check routine."""
    check_answer: tuple[Parameter, ...] = ()
    """What the status record of the check routine has to be, such as `["crc32"]` for an ECU that answers with its
    checksum. Default: its last byte has to be `passed`."""
    dependencies: RoutineId = 0xFF01
    """Identifier of the routine that checks programming dependencies, called after `check`."""
    preconditions: RoutineId = 0x0203
    """Identifier of the routine that checks programming preconditions. An ECU without this routine is programmed all
    the same."""
    passed: Byte = 0x00
    """Last byte of a status record that means success. A response without a status record means success too."""
    poll: bool = False
    """Whether a routine goes on after the answer to its start. Its result is then requested, as `poll_by` says, until the
    routine has ended. Not for `preconditions`."""
    poll_by: Literal["results", "start"] = "results"
    """With `poll`: what asks for the result. `"results"`: requestRoutineResults (31 03). `"start"`: the same startRoutine (31 01)
    again, whose answer has the routine's status each time."""
    running: Byte = 0x01
    """With `poll`: last byte of the result while the routine runs."""

    def passes(self, status: bytes, wanted: bytes | None = None) -> bool:
        """Whether a routine that answered with this status record succeeded. `wanted`: what the record has to be."""
        return status == wanted if wanted is not None else not status or status[-1] == self.passed


class OwnStep(Settings):
    """A step of the maker's own, which `order` calls by its name. It has one of `session`, `level`, `routine`, `write`
    and `request`.
    """

    name: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=64),
        in_words("of lower-case letters (a to z), digits and '-', and begin with a letter or a digit"),
    ]
    """Name of the step in `order`: lower-case letters, digits and dashes."""
    session: Byte | None = None
    """DiagnosticSessionControl: the session to enter."""
    level: int | None = Field(default=None, ge=0x01, le=0x7D)
    """SecurityAccess: the odd level. The other keys of `security` hold, except those given here."""
    key: KeyName | None = None
    """How the key is computed at this level, as in `security`."""
    secret: Annotated[Hex | None, SECRET] = None
    """Secret bytes for the key at this level."""
    request_data: Hex | None = None
    """Bytes after the sub-function that asks for the seed."""
    routine: Word | None = None
    """RoutineControl, startRoutine: the routine's identifier. The last byte of the status record must be
    `routines.passed`."""
    parameters: tuple[Parameter, ...] = ()
    """Parameters of the routine. Address, size and checksums are those of the region or segment for which the step is
    done."""
    write: Word | None = None
    """WriteDataByIdentifier: the identifier."""
    data: Dated = ""
    """Bytes to write. Parts of the date as in `fingerprint`."""
    request: Hex = b""
    """Bytes of any other request. The ECU must give a positive response."""
    optional: bool = False
    """Whether the ECU may refuse the step."""
    functional: bool = False
    """Whether the step goes to all ECUs of the bus; for `session` and `request`. The profile needs `functional`."""

    @property
    def only_enters(self) -> bool:
        """Whether it enters a session or unlocks the ECU, and changes nothing."""
        return self.session is not None or self.level is not None

    @property
    def may_erase(self) -> bool:
        """Whether only its maker knows what it does."""
        return self.routine is not None or bool(self.request)

    def check_together(self) -> None:
        things = [key for key in ("session", "level", "routine", "write") if getattr(self, key) is not None]
        things += ["request"] if self.request else []
        if len(things) != 1:
            raise ValueError("it takes one of session, level, routine, write and request")
        for key, owner in (("parameters", "routine"), ("data", "write"), ("key", "level"), ("secret", "level"),
                           ("request_data", "level")):  # fmt: skip
            if key in self.model_fields_set and owner not in things:
                raise ValueError(f"{key} goes with {owner}")
        if self.functional and things[0] not in ("session", "request"):
            raise ValueError("functional goes with session or request")
        if self.functional and len(self.request) > 7:
            raise ValueError("a functional request has 7 bytes at most: it has to fit one frame")
        if "write" in things and not self.data:
            raise ValueError("write needs data")
        if self.level is not None and not self.level & 1:
            raise ValueError("level must be odd: the sub-function that asks for the seed")


class Fingerprint(Settings):
    """Who programmed it, when: written to an identifier, by default before the first erase."""

    identifier: Word = 0xF15A
    """Data identifier that is written."""
    data: Dated
    """Bytes of the fingerprint. `{YY}`, `{MM}` and `{DD}` stand for the host's date when the ECU is connected, `{hh}`, `{mm}` and
    `{ss}` for its time of day, each one byte in BCD; `{YYYY}` is two bytes: `"{YY}{MM}{DD} C0 FF EE"`."""


class Identifiers(Settings):
    """Data identifiers that tell who the ECU is (ISO 14229-1, C.1)."""

    version: tuple[Word, ...] = (0xF189, 0xF195)
    """Data identifiers of the application's version. The first identifier that the ECU answers counts."""
    version_after: tuple[str, ...] = ()
    """Steps for an application that refuses its version in the default session: `"extended"`, `"key"`, and those of `steps` that
    enter a session or unlock. They are taken whenever the version is asked for, by `scan` and `info` too: a wrong key counts each
    time. Afterwards the ECU is asked for its default session. Example: `["extended"]`."""
    serial: Word = 0xF18C
    """Data identifier of the serial number."""
    supplier: Word = 0xF18A
    """Data identifier of the supplier."""
    hardware: Word = 0xF191
    """Data identifier of the hardware number."""
    system: Word = 0xF197
    """Data identifier of the system name."""
    bootloader: Word = 0xF180
    """Data identifier of the bootloader's version."""
    session: Word = 0xF186
    """Data identifier of the active session."""


class Timings(Settings):
    """Time limits."""

    p2: Seconds = 0.05
    """Seconds until an answer (P2). A longer P2 that the ECU reports holds instead."""
    p2_star: Seconds = 5.0
    """Seconds until an answer after "response pending" (P2*). A longer P2* that the ECU reports holds instead."""
    s3: Seconds = 5.0
    """Seconds without a request after which the ECU falls back to its default session."""
    latency: Seconds = 0.2
    """Seconds that the wire, the adapter and this host may add to P2, P2*, N_Bs and N_Cr."""
    reset_gap: Seconds = 5.0
    """Seconds that the ECU may stay silent while it resets."""
    settle: float = Field(default=0.0, ge=0, le=60)
    """Seconds for which nothing is asked after a change of the session. It has to be shorter than `s3`."""
    knock: Seconds = 0.02
    """Seconds between two requests of `stay_in_boot`."""
    erase: Seconds = 300.0
    """Seconds that one erase or check routine may stay pending."""
    pending: Seconds = 60.0
    """Seconds that any other request may stay pending."""
    retries: int = Field(default=3, ge=0, le=100)
    """How often a request whose response was lost is sent again."""

    def check_together(self) -> None:
        if self.settle >= self.s3:
            raise ValueError(f"settle ({self.settle:g} s) has to be shorter than s3 ({self.s3:g} s)")


class IsoTp(Settings):
    """ISO-TP settings; see IsoTpOptions."""

    block_size: Byte = 0
    """Frames that the ECU may send between two flow control frames. 0: no limit."""
    st_min: Byte = 0
    """Least time between two frames of the ECU: 0x00 to 0x7F are milliseconds, 0xF1 to 0xF9 are 100 to 900
    microseconds."""
    padding: Byte | Literal["none"] = 0xCC
    """Byte that fills up frames. `"none"`: frames are not filled up."""
    tx_dl: Literal[8, 12, 16, 20, 24, 32, 48, 64] = 8
    """Most bytes of a frame that is sent (TX_DL of ISO 15765-2). More than 8 need a CAN FD bus."""
    fd: bool | None = None
    """`true`: send CAN FD frames, also with `tx_dl = 8`; needs a CAN FD bus. Default: frames of up to 8 bytes are
    classic CAN frames, also on a CAN FD bus."""
    squash_st_min: bool = False
    """Whether to ignore the ECU's own st_min."""
    backend: Literal["user", "kernel"] = "user"
    """`"user"`: ISO-TP in this process. `"kernel"`: the kernel's ISO-TP socket, on socketcan only."""

    def options(self, latency: float = 0.0) -> IsoTpOptions:
        """`latency`: seconds that are added to what ISO 15765-2 gives N_Bs and N_Cr."""
        return IsoTpOptions(
            block_size=self.block_size,
            st_min=self.st_min,
            padding=self.padding_byte,
            tx_dl=self.tx_dl,
            fd=self.fd,
            squash_st_min=self.squash_st_min,
            n_bs_timeout=N_BS_SECONDS + latency,
            n_cr_timeout=N_CR_SECONDS + latency,
            backend=self.backend,
        )

    def check_together(self) -> None:
        if self.fd is False and self.tx_dl > 8:
            raise ValueError(f"tx_dl = {self.tx_dl} is for CAN FD frames: leave fd or tx_dl out")

    @property
    def padding_byte(self) -> int | None:
        return self.padding if isinstance(self.padding, int) else None


class UdsProfile(Settings):
    """How a maker's ECU differs from the standards."""

    part: str = ""
    """The system name (F197) or the hardware number (F191) that the ECU must report. "": anything."""
    memory: tuple[MemoryRegion, ...] = ()
    """The memories of the ECU. Needed to flash."""
    address_length: int = Field(default=4, ge=1, le=5)
    """Bytes of an address in requests."""
    size_length: int = Field(default=4, ge=1, le=4)
    """Bytes of a size in requests."""
    address_by: Literal["memory", "id"] = "memory"
    """What requests give as address: `"memory"` the memory's address, `"id"` the memory's `id` (a block number). By
    id, a memory is downloaded from its start on as one segment; gaps are filled with `erased_value`."""
    data_format: Byte = 0x00
    """dataFormatIdentifier: high nibble compression, low nibble encryption, by the maker's numbers. The image is sent
    as it is; it must be compressed or encrypted already."""
    block_limit: int = Field(default=4095, ge=3)
    """Longest TransferData request in bytes, its identifier and counter included, if the ECU allows longer ones. Given
    here, it holds also for an ECU that names no length. Beyond 4095 ISO-TP needs its 32-bit length, which many ECUs
    announce and do not have."""
    download_parameters: tuple[Parameter, ...] = ("alfi", "address", "size")
    """Parameters of RequestDownload behind the dataFormatIdentifier."""
    block: tuple[BlockParameter, ...] = ("data",)
    """What TransferData carries behind its counter: `"data"`, and before and after it what the ECU wants of each block.
    `"address"` and `"size"` are those of the block's data, `"length"` its size in 1 byte. A checksum goes over the whole request
    up to there, its service identifier included: `["address", "data", "length", "crc16-x25"]`."""
    block_answer: Hex = b""
    """Bytes with which the ECU has to answer a block, behind the block's counter: `"02"`. Default: they are not looked at."""
    transfer_exit: tuple[Parameter, ...] = ()
    """Parameters of RequestTransferExit, as in `routines`."""
    transfer_exit_answer: tuple[Parameter, ...] = ()
    """What the answer to RequestTransferExit has to carry, such as `["crc32"]` for an ECU that answers with the checksum of what
    it received. Default: it is not looked at."""
    read: Literal["none", "memory", "upload"] = "none"
    """How memory is read back: `"none"` not at all, `"memory"` by ReadMemoryByAddress, `"upload"` by RequestUpload."""
    read_block: int = Field(default=256, ge=1, le=4094)
    """Bytes that one ReadMemoryByAddress requests. Every second request is 16 bytes shorter, so that an answer that comes twice
    is noticed."""
    sessions: Sessions = Sessions()
    """Session numbers of DiagnosticSessionControl."""
    security: Security = Security()
    """SecurityAccess."""
    routines: Routines = Routines()
    """Routine identifiers, and the parameters of the routines."""
    driver: FlashDriver | None = None
    """The flash driver or secondary bootloader that the ECU needs in its RAM."""
    order: Annotated[tuple[str | tuple[str | tuple[str, ...], ...], ...], After(with_heads)] = STANDARD  # type: ignore[assignment]
    """The steps of a programming session, in their order: the words of the default, and the names of `steps`. A list
    in the list is done for one memory, or one segment, after the other; memories in the order in which `memory` lists
    them. What comes after `"reset"` is asked of the application that was started: `"extended"`, `"key"`, and steps of
    your own."""
    steps: tuple[OwnStep, ...] = ()
    """Steps of the maker's own."""
    fingerprint: Fingerprint | None = None
    """What the step `"fingerprint"` writes."""
    identifiers: Identifiers = Identifiers()
    """Data identifiers that identify the ECU."""
    running_when: Literal["version", "session"] = "version"
    """How a running application is recognised: by the answer to its `"version"`, which a bootloader does not give, or by the
    active `"session"` alone."""
    dtc_control: bool = True
    """Whether ControlDTCSetting is sent around programming."""
    communication_control: bool = True
    """Whether CommunicationControl is sent around programming."""
    communication_off: Annotated[Hex, After(_two_bytes)] = Field(default_factory=lambda: b"\x03\x01")
    """What CommunicationControl carries before programming: controlType and communicationType. Default: `"03 01"`, neither
    receives nor sends normal messages. Afterwards communication is turned on again (00) for the same type."""
    reset: Annotated[Byte, After(_reset_type)] = 0x01
    """Sub-function of ECUReset: 0x01 hardReset, 0x03 softReset. With the bit 0x80 (0x81) no answer is asked for."""
    functional: bool = False
    """Whether the steps around programming, and TesterPresent, go to all ECUs of the bus, so that they keep quiet.
    Needs an address with a functional id."""
    stay_in_boot: bool = False
    """Whether the ECU enters its bootloader only by requests that reach it while it starts."""
    timings: Timings = Timings()
    """Time limits."""
    iso_tp: IsoTp = IsoTp()
    """ISO-TP settings."""

    def check_together(self) -> None:
        regions = sorted(self.memory, key=lambda region: region.start)
        for low, high in pairwise(regions):
            if low.start + low.size > high.start:
                raise ValueError(f"memory regions {low.name!r} and {high.name!r} overlap")
        by_id = self.address_by == "id"
        if by_id and len({region.id for region in regions}) < len(regions):
            raise ValueError('address_by = "id" needs an id of its own for each memory region')
        if not by_id and regions and (regions[-1].start + regions[-1].size) > 1 << 8 * self.address_length:
            raise ValueError(f"memory {regions[-1].name!r} ends beyond {self.address_length} bytes of address")
        for region in regions:
            if max(region.size, region.announce or 0) >> 8 * self.size_length:
                raise ValueError(f"the size of memory {region.name!r} does not fit {self.size_length} bytes of size")
        if self.block.count("data") != 1:
            raise ValueError("block needs 'data' once")
        if self.routines.poll and self.routines.running == self.routines.passed:
            raise ValueError("routines.running and routines.passed are the same")
        erase_all, names = self.routines.erase_all, set(self.routines.erase_parameters)
        if len(regions) > 1 and not erase_all and not {"address", "region"} & names:
            raise ValueError(
                "several memory regions need an address or a region in routines.erase_parameters, or routines.erase_all"
            )
        if len(regions) > 1 and erase_all and self.read != "none":
            raise ValueError("what is erased at once is not compared region by region: leave read or erase_all out")
        self._check_order()

    def _check_order(self) -> None:
        if len(self.own_steps) < len(self.steps):
            raise ValueError("two steps have the same name")
        words = self.sequence.words
        if self.driver is not None:
            self._driver_holds(self.driver, words)
        for key, word, given in (
            ("security.key", "key", self.security.key != "none"), ("fingerprint", "fingerprint", bool(self.fingerprint))
        ):  # fmt: skip
            if given and word not in words:
                raise ValueError(f"{key} is set, and the order has no {word!r}")
        for step in self.steps:
            if step.level is not None:
                self.access(step)
            if step.functional and not self.functional:
                raise ValueError(f"step {step.name!r} goes to all ECUs, and functional of the profile is false")
        entering = ["extended", "key", *(name for name, step in self.own_steps.items() if step.only_enters)]
        for word in self.identifiers.version_after:
            if word not in entering:
                raise ValueError(f"identifiers.version_after has {word!r}, which is none of {', '.join(entering)}")
        if self.routines.erase_all and any("erase" in flat((word,)) for word in self.sequence.body if word != "erase"):
            raise ValueError("with routines.erase_all, 'erase' goes into no list of the order")
        if "signature" in self._parameters_used() and not all(region.signature for region in self.memory):
            raise ValueError('the parameter "signature" needs a signature in each memory region')
        if self.read != "none" and self.address_by == "id":
            raise ValueError("memory is read by its addresses, not by ids: leave read or address_by out")
        if self.read != "none" and any(region.announce for region in self.memory):
            raise ValueError("what is read back is not what is sent where a region has announce: leave read out")

    def _driver_holds(self, driver: FlashDriver, words: frozenset[str]) -> None:
        if "driver" not in words:
            raise ValueError("driver is set, and the order has no 'driver'")
        if self.address_by == "memory" and driver.start + driver.size > 1 << 8 * self.address_length:
            raise ValueError(f"driver ends beyond {self.address_length} bytes of address")
        for region in self.memory:
            if driver.start < region.start + region.size and region.start < driver.start + driver.size:
                raise ValueError(f"driver and memory region {region.name!r} overlap")
        used = (*driver.check_parameters, *driver.check_answer, *driver.run_parameters)
        if "signature" in used and not driver.signature:
            raise ValueError('the parameter "signature" needs driver.signature')

    def _parameters_used(self) -> Iterator[str]:
        yield from (*self.download_parameters, *self.block, *self.transfer_exit, *self.transfer_exit_answer)
        yield from self.routines.erase_parameters
        yield from self.routines.check_parameters
        yield from self.routines.check_answer
        for step in self.steps:
            yield from step.parameters

    @property
    def sequence(self) -> Order:
        """The order, taken apart."""
        entering = [name for name, step in self.own_steps.items() if step.only_enters]
        return parse(self.order, list(self.own_steps), entering)

    @property
    def own_steps(self) -> dict[str, OwnStep]:
        return {step.name: step for step in self.steps}

    def access(self, step: OwnStep) -> Security:
        """What a step of the maker's own with a level unlocks by."""
        own = {key: getattr(step, key) for key in ("level", "key", "secret", "request_data")}
        given = {key: value for key, value in own.items() if value is not None}
        if given.get("key", "library") != "library":
            given["library"] = None
        folder = Path(self.security.folder) if self.security.folder else None
        return Security.model_validate(self.security.model_dump() | given, folder=folder)

    def memory_map(self) -> MemoryMap:
        """Raises ProfileWrong when the profile names no memory."""
        if not self.memory:
            raise ProfileWrong(
                "the profile names no memory",
                remedy="Add memory = [{start = ..., size = ..., erase_unit = ...}] to the component's profile; a target takes it "
                "by --profile FILE.",
            )
        ordered = sorted(self.memory, key=lambda item: item.start)
        return MemoryMap(tuple(self._region(item) for item in ordered))

    def _region(self, item: MemoryRegion) -> Region:
        by_address = (
            "address" in self.routines.erase_parameters and self.address_by == "memory" and not self.routines.erase_all
        )
        erases = isinstance(self.routines.erase, int) and "erase" in self.sequence.words
        return uniform(
            item.name,
            item.start,
            item.size,
            (item.erase_unit if by_address else None) or item.size,
            write_alignment=item.write_alignment,
            erased_value=item.erased_value,
            readable=self.read != "none",
            watch=Watch.FIRST if self.read == "memory" else Watch.NO,
            erase=Erase.BY_UNIT if erases else Erase.NEVER,
            write=Write.WHOLE_SEGMENTS,
        )

    def region_at(self, address: int) -> MemoryRegion | None:
        """The region that holds this address."""
        return next((item for item in self.memory if item.start <= address < item.start + item.size), None)

    def region_id(self, address: int) -> int:
        """The maker's number of the region that holds this address."""
        region = self.region_at(address)
        return region.id if region is not None else 0
