"""A part on CAN: how its firmware receives, sends and works, and how its application answers a question for its version.

The rule: the firmware acts as of the moment that the last frame came in, not of the moment that this thread got to run, so that
the wire alone limits the speed. While its flash works, the processor does not look at its controller, which keeps few frames.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import can

from ...transports import clock
from ..application import Application
from ..board import Board
from ..device import DeviceSpec, EmulatedDevice
from ..keys import around_group
from ..supply import Supply
from .wire import CanWire


@dataclass(frozen=True, slots=True)
class Question:
    """The application's: its ids, the frame that asks for the version, and the texts around that in the answer."""

    request: int
    response: int
    send: bytes
    before: str
    after: str

    @classmethod
    def of(cls, spec: DeviceSpec) -> Self | None:
        """By `version_request` and `version_response` of the address, and `version` of the profile. Raises BadDevice."""
        address, version = spec.address, spec.profile.get("version", {})
        if "version_request" not in address or "version_response" not in address:
            return None
        before, after = around_group(str(version.get("match", "([0-9][0-9A-Za-z.+-]*)")))
        return cls(
            address["version_request"],
            address["version_response"],
            bytes.fromhex(version.get("send", "")),
            before,
            after,
        )


def enter_frame(spec: DeviceSpec) -> tuple[int, bytes] | None:
    """The id and the bytes by which the application starts its bootloader (`enter` of the profile); None: it has none."""
    enter = spec.profile.get("enter", {})
    return (enter["id"], bytes.fromhex(enter.get("data", ""))) if "id" in enter else None


class CanBoard(Board):
    """`running`: the application that runs now; None in the bootloader. `is_hung`: it started what was not whole."""

    fifo: ClassVar[int] = 3
    """Frames that the controller keeps while the processor doesn't look at it (bxCAN: RM0008, 24.7.4)."""
    buffer: ClassVar[int] = 24
    """Frames that the firmware keeps unread."""

    def __init__(self, name: str, supply: Supply, wire: CanWire, question: Question | None, *, pace: float) -> None:
        super().__init__(name, supply, pace=pace)
        self._question = question
        self.running: Application | None = None
        self.is_hung = False
        self._inbox: deque[tuple[float, can.Message]] = deque()
        self._is_deaf = False
        self._clock = 0.0
        self._wire = wire
        self.node = wire.attach(name, self._received)
        supply.listen(self.node.power)
        supply.listen(self._switched)

    @abstractmethod
    def _listens_to(self) -> Sequence[int]:
        """The ids that its filters let pass, besides the question's."""

    def _restarted(self) -> None:
        """The processor starts, with a controller that has heard nothing."""
        self.running, self.is_hung, self._is_deaf = None, False, False
        self._forget()

    def _forget(self) -> None:
        with self.changed:
            self._inbox.clear()

    def _switched(self, on: bool) -> None:
        if not on:
            self._forget()

    def _answers(self, identifier: int, data: bytes) -> bool:
        """Answers the question with the running application's version; False: it is not the question."""
        question = self._question
        if question is None or self.running is None or (identifier, data) != (question.request, question.send):
            return False
        answer = f"{question.before}{self.running.version}{question.after}".encode()
        for start in range(0, len(answer) + (len(answer) % 8 == 0), 8):
            self._send(question.response, answer[start : start + 8])
        return True

    def _received(self, message: can.Message) -> None:
        """On the wire's thread."""
        if message.is_error_frame or message.is_remote_frame:
            return
        identifier = message.arbitration_id
        is_question = self._question is not None and self.running is not None and identifier == self._question.request
        if not is_question and identifier not in self._listens_to():
            return
        if message.is_extended_id != (identifier > 0x7FF):
            return
        with self.changed:
            if len(self._inbox) < (self.fifo if self._is_deaf else self.buffer):
                self._inbox.append((self._wire.ended_at, message))
                # It has something to do, until it waits again.
                self._idle.clear()
                self.changed.notify_all()

    def _next(self) -> tuple[int, bytes]:
        """The next frame. Raises PowerLost, ResetPulled."""
        while True:
            if (found := self._next_within(None)) is not None:
                return found

    def _next_within(self, seconds: float | None) -> tuple[int, bytes] | None:
        """As `_next`; None: none came within `seconds`, or it was lost with the supply."""
        if not self.wait(lambda: bool(self._inbox), seconds):
            return None
        with self.changed:
            if not self._inbox:
                return None
            # It has something to do, until it waits again.
            self._idle.clear()
            at, message = self._inbox.popleft()
        self._clock = max(self._clock, at)
        return message.arbitration_id, bytes(message.data)

    def _send(self, identifier: int, data: bytes, *, fd: bool = False) -> None:
        self.tick()
        frame = can.Message(
            arbitration_id=identifier, is_extended_id=identifier > 0x7FF, data=data, is_fd=fd, bitrate_switch=fd
        )
        self.node.send(frame, 5.0, at=self._clock)

    def _busy(self, seconds: float) -> None:
        self._clock += seconds * self.pace
        self.busy_real(self._clock - clock.monotonic() if self.pace else 0.0)

    def _work(self, seconds: float) -> None:
        """The flash works, and the processor with it."""
        self._is_deaf = True
        self._busy(seconds)
        self._is_deaf = False


class CanDevice(EmulatedDevice):
    """One part on a CAN bus. A subclass makes its `node`, its `flash` and its `supply`, and starts the node."""

    bus_kind = "can"
    node: CanBoard

    @property
    def board(self) -> Board:
        return self.node

    @property
    def application_version(self) -> str | None:
        running = self.node.running
        return None if running is None else running.version

    def settle(self) -> None:
        self.node.settle()

    def close(self) -> None:
        self.node.close()
        self.node.node.detach()
        self.flash.close()
