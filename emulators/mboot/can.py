"""An emulated part on CAN: MBoot, and the application that it starts.

MBoot takes the bytes of all frames under its id for one stream, and answers in frames of up to 8 bytes. It starts a valid
application after the time that it waits for a ping. The application answers the bench file's question for its version, and the
profile's `enter` by which it starts MBoot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

from ...transports import clock
from .. import application
from ..board import ResetPulled
from ..can.board import CanBoard, CanDevice, Question, enter_frame
from ..can.wire import CanWire
from ..device import DeviceSpec, factory_content
from ..flash import NorFlash
from ..keys import Range, Table
from ..serial.board import Silence
from ..supply import Supply
from .loader import Loader
from .parts import parts, unique_of

FRAME = 8
RESET_SECONDS = 0.02


class MbootNode(CanBoard):
    """`ids`: those under which MBoot receives and answers. `enter`: the id and the data at which the application starts MBoot."""

    fifo = 1
    """A mailbox of the FlexCAN, while the interrupts are off for the flash's sake."""

    def __init__(
        self,
        name: str,
        part: Mapping[str, Any],
        supply: Supply,
        wire: CanWire,
        flash: NorFlash,
        ids: tuple[int, int],
        question: Question | None,
        enter: tuple[int, bytes] | None,
        *,
        detect: float,
        pace: float,
    ) -> None:
        self._part = part
        self._flash = flash
        self._ids = ids
        self._enter = enter
        self._detect = detect
        self._heard = bytearray()
        self._until: float | None = None
        self._loader: Loader | None = None
        self.wanted = False
        """Whether the application has started MBoot."""
        # The wire may bring frames from now on.
        super().__init__(name, supply, wire, question, pace=pace)
        flash.busy = self._work

    def _listens_to(self) -> Sequence[int]:
        if self.running is None:
            return self._ids[:1]
        return () if self._enter is None else self._enter[:1]

    def _switched(self, on: bool) -> None:
        self.wanted = self.wanted and on
        super()._switched(on)

    def firmware(self) -> None:
        self._restarted()
        self._heard.clear()
        wanted, self.wanted = self.wanted, False
        self._clock = max(self._clock, clock.monotonic())
        found = application.find(self._flash, self._part["base"] + self._part["reserved"])
        self._until = None if wanted or found is None else self._clock + self._detect * self.pace
        self._loader = Loader(self._part, self._flash, self, unique_of(self.name))
        try:
            self._loader.serve()
        except Silence:
            self.running = found
            while (frame := self._next()) != self._enter:
                self._answers(*frame)
            self.wanted = True
        self._busy(RESET_SECONDS)
        raise ResetPulled

    # What MBoot calls.

    def receive(self, count: int, silence: float | None = None) -> bytes:
        """Raises Silence, PowerLost, ResetPulled."""
        until = None if silence is None else clock.monotonic() + silence
        while len(self._heard) < count:
            if self._until is not None and self._loader is not None and not self._loader.is_active:
                self._await_ping(self._until)
            frame = self._next_within(None if until is None else until - clock.monotonic())
            if frame is None and until is not None:
                self._heard.clear()
                raise Silence
            self._heard += b"" if frame is None else frame[1]
        data = bytes(self._heard[:count])
        del self._heard[:count]
        return data

    def _await_ping(self, until: float) -> None:
        """Until something comes; a part that waits so is not idle yet. Raises Silence, PowerLost, ResetPulled."""
        with self.changed:
            while not self._inbox:
                self.tick()
                left = until - clock.monotonic()
                if left <= 0:
                    raise Silence
                self.changed.wait(left)

    def send(self, data: bytes) -> None:
        for start in range(0, len(data), FRAME):
            self._send(self._ids[1], data[start : start + FRAME])


@dataclass(frozen=True, kw_only=True)
class MbootCanKeys(Table):
    """The `emulated` table."""

    part: str = "tower-kv46f"
    """Which part it is."""
    firmware: str | None = None
    """Raw binary that the flash of a new part holds. A relative path starts at the bench file's folder. Default: the flash is
    erased."""
    detect: Annotated[float, Range(0)] | None = None
    """Seconds that the bootloader waits for a ping after a reset. Default: as the part."""


class MbootCanDevice(CanDevice):
    """One part. Its ids are those of the address."""

    keys = MbootCanKeys
    node: MbootNode

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = MbootCanKeys.of(spec.settings, self.part_names())
        self.part = parts()[settings.part]
        self.name = spec.name
        self.supply = Supply()
        fresh = spec.is_new
        self.flash = NorFlash.of_part(self.part, self.supply, spec.flash_path)
        factory_content(spec, self.flash, fresh=fresh, start=self.application_start)
        self.node = MbootNode(
            spec.name,
            self.part,
            self.supply,
            wire,
            self.flash,
            (spec.address.get("request", 0x321), spec.address.get("response", 0x123)),
            Question.of(spec),
            enter_frame(spec),
            detect=self.part["detect_seconds"] if settings.detect is None else settings.detect,
            pace=spec.pace,
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
        return int(self.part["base"] + self.part["reserved"])

    def reset(self) -> None:
        self.node.reset()
