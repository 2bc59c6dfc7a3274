"""What a maker's ECU insists on beside the standard: an order of requests, blocks by number, a driver in RAM, two keys.

Data of the `emulated` table, under `maker`; written from ISO 14229-1:2020 and from what is publicly known of makers'
bootloaders, sharing nothing with the flasher. The rule: the ECU knows no list of steps. It knows, of a request, which
others it must have answered before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from ..keys import Range, Table
from .nrc import Nrc, RequestRefused
from .security import SecurityAccess


@dataclass(frozen=True, kw_only=True)
class Rule(Table):
    """A request that the ECU refuses until others were answered positively in this session."""

    request: bytes
    """The first bytes of the requests that the rule is for."""
    after: tuple[bytes, ...] = ()
    """The first bytes of the requests that must have been answered positively before."""
    since: bytes = b""
    """The first bytes of a request: each of `after` must have been answered since this request was answered last. While this
    request was not answered, the rule does not hold. "": since the begin of the session."""
    nrc: Annotated[int, Range(0, 0xFF)] = int(Nrc.REQUEST_SEQUENCE_ERROR)
    """Negative response code of the refusal."""
    functional: bool = False
    """Whether the request is refused also if it was not sent to all ECUs."""


@dataclass(frozen=True, kw_only=True)
class Maker(Table):
    """What an ECU's maker does otherwise."""

    rules: tuple[Rule, ...] = ()
    """The order that the ECU wants its requests in."""
    blocks: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Start and size of the memory that each block number stands for: `{"1" = [0x1_0000, 0x8000]}`. Requests then have a block
    number of one byte as their address."""
    ram: tuple[int, int] = (0, 0)
    """Start and size of the RAM that takes a flash driver."""
    erase: tuple[str, ...] = ("alfi", "address", "size")
    """The parameters of the erase routine, as words: bytes in hexadecimal, "alfi", "block", "address", "size", "crc32",
    "crc16", "signature"."""
    check: tuple[str, ...] = ("crc32",)
    """The parameters of the check routine, in the words of `erase`."""
    check_ram: tuple[str, ...] = ()
    """The parameters of the check routine for a flash driver, in the words of `erase`."""
    signature: bytes = b""
    """The bytes that the parameter "signature" has to be."""
    routines: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Further routines by their identifiers, with their parameters in the words of `erase`: `{"0x0301" = ["address"]}`."""
    formats: Mapping[int, Literal["zlib", "xor", "plain"]] = field(default_factory=dict)
    """What the ECU does with the data by their dataFormatIdentifier: `{"0x10" = "zlib", "0x01" = "xor"}`; "xor" is with
    0x55, "plain" takes the data as they are."""
    levels: Mapping[int, bytes] = field(default_factory=dict)
    """Secrets of further security levels, which only `rules` need: `{"0x11" = "5a5a"}`."""
    seed_data: bytes = b""
    """The bytes that have to follow the sub-function that requests the seed."""
    sessions: tuple[int, ...] = ()
    """Numbers of further sessions."""
    programming: Annotated[int, Range(0, 0x7F)] = 0x02
    """Number of the programming session."""
    settle: Annotated[float, Range(0)] = 0.0
    """Seconds after the begin of a session in which every request is refused (NRC 0x7F)."""
    keeps_key: bool = False
    """Whether a level that was unlocked stays unlocked in the programming session."""
    writes: tuple[int, ...] = ()
    """Further data identifiers that may be written."""
    names_length: bool = True
    """Whether the answer to RequestDownload names the longest block."""
    answers_checksum: bool = False
    """Whether the answer of the check routine is the CRC-32 of the memory instead of a status."""
    whole_after: Literal["dependencies", "check", "exit"] = "dependencies"
    """What declares the programming complete: the routine of the dependencies, the check routine, or "exit",
    RequestTransferExit."""
    download: tuple[str, ...] = ()
    """The parameters of RequestDownload behind the dataFormatIdentifier, in the words of `erase`; the addresses then come with
    the blocks. Empty: as in the standard."""
    block: tuple[str, ...] = ()
    """What a block is made of behind its counter, as words: "address" (3 bytes), "data", "length" (1 byte), "crc16-x25" of the
    request up to there. Empty: as in the standard."""
    block_status: bytes = b""
    """The bytes that follow the counter in the answer to a block."""
    exit_answer: Literal["", "crc32", "crc16"] = ""
    """The checksum of what was downloaded that the answer to RequestTransferExit holds. "": none."""
    dated: bool = False
    """Whether what is written has to begin with the day in BCD (YYMMDD), by the host's clock."""
    confirm: Annotated[int, Range(0, 0xFFFF)] = 0
    """Identifier of a routine that the started application wants, unlocked, before it reports its version. 0: none."""
    boot_ids: tuple[int, ...] = ()
    """The CAN ids that the bootloader listens to and answers under, where they are others than those of the application."""


class Order:
    """The requests that the ECU has answered in this session, and the rules about them."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._done: list[bytes] = []

    def restarted(self) -> None:
        self._done.clear()

    def check(self, request: bytes, *, functional: bool) -> None:
        """Raises RequestRefused."""
        for rule in self._rules:
            if request.startswith(rule.request):
                if rule.functional and not functional:
                    raise RequestRefused(rule.nrc)
                done = self._done
                if rule.since:
                    last = max((at for at, item in enumerate(done) if item.startswith(rule.since)), default=None)
                    if last is None:
                        continue
                    done = done[last:]
                if not all(any(item.startswith(wanted) for item in done) for wanted in rule.after):
                    raise RequestRefused(rule.nrc)

    def answered(self, request: bytes) -> None:
        self._done.append(request[:8])


class Levels(SecurityAccess):
    """Several levels, each with a secret of its own. Only the main one opens the memory."""

    def __init__(self, main: SecurityAccess, others: Mapping[int, SecurityAccess], seed_data: bytes) -> None:
        self._main = main
        self._all = {main.level: main, **others}
        self._seed_data = seed_data
        self.level = main.level

    def lock(self) -> None:
        for level in self._all.values():
            level.lock()

    def restarted(self) -> None:
        for level in self._all.values():
            level.restarted()

    def need(self) -> None:
        self._main.need()

    def serve(self, data: bytes) -> bytes | None:
        kind = data[0] & 0x7F if data else 0
        level = self._all.get(kind) or self._all.get(kind - 1) or self._main
        if kind in self._all and data[1:] != self._seed_data:
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        return level.serve(data)
