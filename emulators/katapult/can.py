"""An emulated board on CAN: Katapult, and the application that it starts.

The application takes Klipper's admin messages (CANBUS_protocol.md of Klipper3d/klipper, src/generic/canserial.c there and in
Arksine/katapult), and answers the bench file's question for its version. Katapult runs from a reset on where the application has
asked for it, or where the flash begins with no application; else it starts what is there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import can

from ...transports import clock
from ..application import Application
from ..board import Board, ResetPulled
from ..can.wire import CanWire
from ..device import BadDevice, DeviceSpec, EmulatedDevice, factory_content
from ..flash import NorFlash
from ..serial.settings import around_group
from ..supply import Supply
from .loader import Loader
from .parts import flash_of, part_of, started

ADMIN, ADMIN_ANSWER = 0x3F0, 0x3F1
QUERY, KLIPPER_SET, REBOOT, KATAPULT_SET, KATAPULT_CLEAR, NEED_NODE_ID = 0x00, 0x01, 0x02, 0x11, 0x12, 0x20
FIFO = 3
"""Frames that the controller keeps while the processor doesn't look at it (bxCAN: RM0008, 24.7.4)."""
BUFFER = 24
"""Frames of 8 bytes that Katapult keeps unread (192 bytes)."""
RESET_SECONDS = 0.02
COMPLETE_SECONDS = 0.1
"""How long after its answer to COMPLETE Katapult resets."""


@dataclass(frozen=True, slots=True)
class Question:
    """The application's: its ids, the frame that asks for the version, and the texts around that in the answer."""

    request: int
    response: int
    send: bytes
    before: str
    after: str


class KatapultNode(Board):
    """`running`: the application that runs now; None in Katapult. `is_hung`: it started what was not whole."""

    def __init__(
        self,
        name: str,
        part: Mapping[str, Any],
        supply: Supply,
        wire: CanWire,
        flash: NorFlash,
        uuid: bytes,
        question: Question | None,
        *,
        pace: float,
    ) -> None:
        super().__init__(name, supply, pace=pace)
        self._part = part
        self._flash = flash
        self._uuid = uuid
        self._question = question
        self.running: Application | None = None
        self.is_hung = False
        self.assigned = 0
        """The id under which it receives; 0: it has no node id."""
        self.wanted = False
        """Whether the next start is that of Katapult: a mark in the memory that a reset leaves as it is."""
        self._inbox: deque[tuple[float, can.Message]] = deque()
        self._is_deaf = False
        self._clock = 0.0
        self._wire = wire
        self.node = wire.attach(name, self._received)
        supply.listen(self.node.power)
        supply.listen(self._switched)
        flash.busy = self._work

    def _switched(self, on: bool) -> None:
        self.wanted = self.wanted and on
        if not on:
            with self.changed:
                self._inbox.clear()

    def firmware(self) -> None:
        self.running, self.is_hung, self.assigned, self._is_deaf = None, False, 0, False
        with self.changed:
            self._inbox.clear()
        wanted, self.wanted = self.wanted, False
        loader = Loader(self._part, self._flash, self._uuid)
        if wanted or not loader.is_valid:
            self._serve(loader)
        self.running = started(self._flash, self._part["start"])
        self.is_hung = self.running is None
        while self.running is not None:
            self._run_application(*self._next())

    # Katapult.

    def _serve(self, loader: Loader) -> None:
        """Returns when it starts the application."""
        while not loader.completed:
            identifier, data = self._next()
            if identifier == ADMIN and data:
                self._administrate(data, KATAPULT_SET)
            elif self.assigned and identifier == self.assigned + 1:
                self.assigned = 0
            elif self.assigned and identifier == self.assigned:
                for answer in loader.feed(data):
                    for start in range(0, len(answer), 8):
                        self._send(self.assigned + 1, answer[start : start + 8])
        self._busy(COMPLETE_SECONDS + RESET_SECONDS)
        self.assigned = 0
        with self.changed:
            self._inbox.clear()

    # The application.

    def _run_application(self, identifier: int, data: bytes) -> None:
        question = self._question
        if identifier == ADMIN and data:
            self._administrate(data, KLIPPER_SET)
        elif question is not None and identifier == question.request and data == question.send:
            assert self.running is not None
            answer = f"{question.before}{self.running.version}{question.after}".encode()
            for start in range(0, len(answer) + (len(answer) % 8 == 0), 8):
                self._send(question.response, answer[start : start + 8])

    # Both.

    def _administrate(self, data: bytes, setter: int) -> None:
        """`setter`: the command that gives this program a node id."""
        is_own = data[1:7] == self._uuid
        if data[0] == QUERY and not self.assigned:
            self._send(ADMIN_ANSWER, bytes((NEED_NODE_ID,)) + self._uuid + bytes((setter,)))
        elif data[0] == setter and len(data) >= 8:
            given = 0x100 + 2 * data[7]
            if is_own:
                self.assigned = given
            elif given == self.assigned:
                self.assigned = 0
        elif data[0] == KATAPULT_CLEAR and setter == KATAPULT_SET:
            self.assigned = 0
        elif data[0] == REBOOT and setter == KLIPPER_SET and is_own:
            self.wanted = True
            self._busy(RESET_SECONDS)
            raise ResetPulled

    def _received(self, message: can.Message) -> None:
        """On the wire's thread."""
        if message.is_error_frame or message.is_remote_frame:
            return
        identifier = message.arbitration_id
        mine = [ADMIN] if not self.assigned else [ADMIN, self.assigned, self.assigned + 1]
        if self._question is not None and self.running is not None:
            mine.append(self._question.request)
        if identifier not in mine or message.is_extended_id != (identifier > 0x7FF):
            return
        with self.changed:
            if len(self._inbox) < (FIFO if self._is_deaf else BUFFER):
                self._inbox.append((self._wire.ended_at, message))
                self.changed.notify_all()

    def _next(self) -> tuple[int, bytes]:
        """The next frame. Raises PowerLost, ResetPulled."""
        self.wait(lambda: bool(self._inbox), None)
        with self.changed:
            # It has something to do, until it waits again.
            self._idle.clear()
            at, message = self._inbox.popleft()
        self._clock = max(self._clock, at)
        return message.arbitration_id, bytes(message.data)

    def _send(self, identifier: int, data: bytes) -> None:
        self.tick()
        frame = can.Message(arbitration_id=identifier, is_extended_id=identifier > 0x7FF, data=data)
        self.node.send(frame, 5.0, at=self._clock)

    def _busy(self, seconds: float) -> None:
        self._clock += seconds * self.pace
        self.busy_real(self._clock - clock.monotonic() if self.pace else 0.0)

    def _work(self, seconds: float) -> None:
        """The flash works, and the processor with it."""
        self._is_deaf = True
        self._busy(seconds)
        self._is_deaf = False


class KatapultCanDevice(EmulatedDevice):
    """Keys of the `emulated` table: `part` (of parts.toml), `firmware`. The UUID is that of the address."""

    bus_kind: ClassVar[str] = "can"

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = dict(spec.settings)
        part = part_of(settings.pop("part", "toolhead-f103"))
        settings.pop("firmware", None)
        for key in settings:
            raise BadDevice(key, "no key of an emulated board with Katapult; there are: part, firmware")
        uuid = bytes.fromhex(str(spec.address.get("uuid", "")).zfill(12))
        self.name = spec.name
        self.supply = Supply()
        self.part = part
        fresh = spec.is_new
        self.flash = flash_of(part, spec, self.supply)
        factory_content(spec, self.flash, fresh=fresh, start=part["start"])
        self.node = KatapultNode(spec.name, part, self.supply, wire, self.flash, uuid, _question(spec), pace=spec.pace)
        self.node.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @property
    def board(self) -> Board:
        return self.node

    @property
    def application_version(self) -> str | None:
        running = self.node.running
        return None if running is None else running.version

    @property
    def application_start(self) -> int:
        return int(self.part["start"])

    def double_reset(self) -> None:
        """A person presses the reset button twice: Katapult runs."""
        self.node.wanted = True
        self.node.reset()

    def rescue(self) -> None:
        """Two resets, where it has started what is not whole."""
        if self.node.is_hung:
            self.double_reset()
        else:
            self.reset()

    def settle(self) -> None:
        self.node.settle()

    def close(self) -> None:
        self.node.close()
        self.node.node.detach()
        self.flash.close()


def _question(spec: DeviceSpec) -> Question | None:
    address, version = spec.address, spec.profile.get("version", {})
    if "version_request" not in address or "version_response" not in address:
        return None
    before, after = around_group(str(version.get("match", "([0-9][0-9A-Za-z.+-]*)")))
    return Question(
        address["version_request"], address["version_response"], bytes.fromhex(version.get("send", "")), before, after
    )
