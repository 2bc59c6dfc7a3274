"""An emulated board on CAN: Katapult, and the application that it starts.

The application takes Klipper's admin messages (CANBUS_protocol.md of Klipper3d/klipper, src/generic/canserial.c there and in
Arksine/katapult), and answers the bench file's question for its version. Katapult runs from a reset on where the application has
asked for it, or where the flash begins with no application; else it starts what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from ..board import ResetPulled
from ..can.board import CanBoard, CanDevice, Question
from ..can.wire import CanWire
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Table
from ..supply import Supply
from .loader import Loader
from .parts import parts, started

ADMIN, ADMIN_ANSWER = 0x3F0, 0x3F1
QUERY, KLIPPER_SET, REBOOT, KATAPULT_SET, KATAPULT_CLEAR, NEED_NODE_ID = 0x00, 0x01, 0x02, 0x11, 0x12, 0x20
RESET_SECONDS = 0.02
COMPLETE_SECONDS = 0.1
"""How long after its answer to COMPLETE Katapult resets."""


class KatapultNode(CanBoard):
    """One board. Katapult keeps 192 bytes, 24 frames, unread."""

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
        self._part = part
        self._flash = flash
        self._uuid = uuid
        self.assigned = 0
        """The id under which it receives; 0: it has no node id."""
        self.wanted = False
        """Whether the next start is that of Katapult: a mark in the memory that a reset leaves as it is."""
        # The wire may bring frames from now on.
        super().__init__(name, supply, wire, question, pace=pace)
        flash.busy = self._work

    def _switched(self, on: bool) -> None:
        self.wanted = self.wanted and on
        super()._switched(on)

    def _listens_to(self) -> Sequence[int]:
        return (ADMIN, self.assigned, self.assigned + 1) if self.assigned else (ADMIN,)

    def firmware(self) -> None:
        self._restarted()
        self.assigned = 0
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
        self._forget()

    # The application.

    def _run_application(self, identifier: int, data: bytes) -> None:
        if not self._answers(identifier, data) and identifier == ADMIN and data:
            self._administrate(data, KLIPPER_SET)

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


@dataclass(frozen=True, kw_only=True)
class KatapultCanKeys(Table):
    """The `emulated` table."""

    part: str = "toolhead-f103"
    """Which board it is."""
    firmware: str | None = None
    """Raw binary that the application's flash of a new part holds. A relative path starts at the bench file's folder. Default:
    the flash is erased."""


class KatapultCanDevice(CanDevice):
    """One board. The UUID is that of the address."""

    keys = KatapultCanKeys
    node: KatapultNode

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        part = parts()[KatapultCanKeys.of(spec.settings, self.part_names()).part]
        uuid = bytes.fromhex(str(spec.address.get("uuid", "")).zfill(12))
        self.name = spec.name
        self.supply = Supply()
        self.part = part
        fresh = spec.is_new
        self.flash = NorFlash.of_part(part, self.supply, spec.flash_path)
        factory_content(spec, self.flash, fresh=fresh, start=part["start"])
        self.node = KatapultNode(
            spec.name, part, self.supply, wire, self.flash, uuid, Question.of(spec), pace=spec.pace
        )
        self.node.start()

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

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
