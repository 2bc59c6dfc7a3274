"""An emulated part on CAN that speaks XCP: OpenBLT and its application, or an ECU whose application is a slave itself.

OpenBLT waits half a second after a reset for CONNECT (its back door), and then starts an application whose checksum is right.
That application restarts into OpenBLT at CONNECT, without an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

from ...transports import clock
from ..board import ResetPulled
from ..can.board import CanBoard, CanDevice, Question
from ..can.wire import CanWire
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range, Table
from ..supply import Supply
from .parts import firmware, memory_of, parts, started
from .slave import OpenBltMemory, Slave

BACK_DOOR_SECONDS = 0.5
RESET_SECONDS = 0.02
FD_LENGTHS = (12, 16, 20, 24, 32, 48, 64)


class XcpNode(CanBoard):
    buffer: ClassVar[int] = 64

    def __init__(
        self,
        name: str,
        part: Mapping[str, Any],
        supply: Supply,
        wire: CanWire,
        flash: NorFlash,
        ids: tuple[int, int, int | None],
        secret: bytes,
        question: Question | None,
        *,
        pace: float,
    ) -> None:
        self._part = part
        self._flash = flash
        self._ids = ids
        self._secret = secret
        self.may_start = False
        """Whether OpenBLT starts the application once nobody is connected."""
        # The wire may bring frames from now on.
        super().__init__(name, supply, wire, question, pace=pace)
        flash.busy = self._work

    def firmware(self) -> None:
        self._restarted()
        self.may_start = False
        memory = memory_of(self._part, self._flash)
        slave = Slave(self._part, memory, self._secret)
        if isinstance(memory, OpenBltMemory):
            self._wait_for_connect(slave, memory)
        self.running = started(self._part, self._flash)
        if isinstance(memory, OpenBltMemory):
            self.is_hung = self.running is None
            while self.running is not None:
                self._run_application(*self._next())
            return
        while True:
            frame = self._next()
            if not self._answers(*frame):
                self._serve(slave, *frame)

    def _wait_for_connect(self, slave: Slave, memory: OpenBltMemory) -> None:
        """Returns when OpenBLT starts the application."""
        until = clock.monotonic() + BACK_DOOR_SECONDS
        while True:
            self.may_start = memory.is_valid
            waits = self.may_start and not slave.connected
            frame = self._next_within(max(0.0, until - clock.monotonic()) if waits else None)
            if frame is not None:
                self._serve(slave, *frame)
            elif waits and clock.monotonic() >= until:
                self.may_start = False
                return

    def _serve(self, slave: Slave, identifier: int, data: bytes) -> None:
        request, response, broadcast = self._ids
        if identifier == broadcast:
            if data[:6] == b"\xf2\xffXCP\0" and "block" not in self._part:
                number = request | (0x8000_0000 if request > 0x7FF else 0)
                order = "big" if self._part.get("big_endian") else "little"
                self._send(response, b"\xffXCP" + number.to_bytes(4, order))  # type: ignore[arg-type]
            return
        for answer in slave.take(data):
            if slave.programs:
                self.running = None
            size = next((size for size in FD_LENGTHS if len(answer) <= size), 64) if len(answer) > 8 else len(answer)
            self._send(response, answer.ljust(size, b"\0"), fd=self._is_fd)
        if slave.restarts:
            self._busy(RESET_SECONDS)
            raise ResetPulled

    @property
    def _is_fd(self) -> bool:
        return int(self._part["max_cto"]) > 8

    def _run_application(self, identifier: int, data: bytes) -> None:
        """Of an OpenBLT."""
        if not self._answers(identifier, data) and identifier == self._ids[0] and data[:1] == b"\xff":
            self._busy(RESET_SECONDS)
            raise ResetPulled

    def _listens_to(self) -> Sequence[int]:
        request, _, broadcast = self._ids
        return [request] if broadcast is None else [request, broadcast]


@dataclass(frozen=True, kw_only=True)
class XcpCanKeys(Table):
    """The `emulated` table."""

    part: str = "openblt-f103"
    """Which part it is."""
    firmware: str | None = None
    """Raw binary that the flash of a new part holds. A relative path starts at the bench file's folder. Default: the flash is
    erased."""
    secret: bytes = b""
    """Bytes in hexadecimal. The key is the seed xor these bytes. "": no key is wanted."""
    request: Annotated[int, Range(0, 0x1FFF_FFFF)] = 0x667
    """The id that it listens to, where the address has `broadcast` alone."""


class XcpCanDevice(CanDevice):
    """One part. Its ids are those of the address."""

    keys = XcpCanKeys
    node: XcpNode

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = XcpCanKeys.of(spec.settings, self.part_names())
        self.name = spec.name
        self.supply = Supply()
        self.part = part = parts()[settings.part]
        fresh = spec.is_new
        self.flash = NorFlash.of_part(part, self.supply, spec.flash_path)
        factory_content(spec, self.flash, fresh=fresh)
        ids = (
            int(spec.address.get("request", settings.request)),
            int(spec.address["response"]),
            spec.address.get("broadcast"),
        )
        question = Question.of(spec)
        self.node = XcpNode(
            spec.name, part, self.supply, wire, self.flash, ids, settings.secret, question, pace=spec.pace
        )
        self.node.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    def make_firmware(self, version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
        return firmware(self.part, version, product, manufacturer, size=size, seed=seed)

    def settle(self) -> None:
        """Also until the back door is closed, unless somebody is connected."""
        self.node.settle()
        until = clock.monotonic() + 2 * BACK_DOOR_SECONDS
        while self.node.may_start and self.supply.is_on and clock.monotonic() < until:
            clock.sleep(BACK_DOOR_SECONDS / 10)
