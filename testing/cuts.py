"""What happens to an update: the wire, the supply, or somebody who asks the engine to stop; and how long an update is."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from ..emulators.device import EmulatedDevice
from ..emulators.faults import FaultPlan
from ..enumerators.bench import Bench
from ..flashers import events as ev
from ..transports import clock


class How(StrEnum):
    """What happens at a unit of the wire: a CAN frame, a serial byte, a USB control transfer."""

    UNPLUGGED = "unplugged"
    """The host's adapter, or the part's USB cable, is pulled out, and joined again when the command has failed."""
    SUPPLY = "supply"
    """The part's supply goes, and comes back when the command has failed."""


@dataclass(frozen=True)
class Course:
    """An update that nothing interrupts.

    `writes`: the units of each write of either side; where the wire has no writes, each unit.
    """

    operations: int
    yields: int
    writes: tuple[range, ...]

    def units(self, each: int, seed: str) -> list[int]:
        """Some units of each write: `each` of them, chosen at random by this seed, or all if the write has fewer."""
        chosen = random.Random(seed)
        return sorted(unit for write in self.writes for unit in chosen.sample(write, min(each, len(write))))


class Stopper:
    """At the `count`-th event of the engine: cuts the part's supply, or, without a part, asks to stop.

    `phase`: in which phase that was; None: in none.
    """

    def __init__(self, device: EmulatedDevice | None, count: int) -> None:
        self.device = device
        self.count = count
        self.seen = 0
        self.asked = False
        self.phase: ev.Phase | None = None

    def is_asked(self) -> bool:
        return self.asked

    def __call__(self, event: ev.Event) -> None:
        self.seen += 1
        if self.seen != self.count:
            return
        # What prepares an upload belongs to it: a part may be on its way into its bootloader.
        self.phase = ev.Phase.WRITE if isinstance(event, ev.Preparing) else getattr(event, "phase", None)
        if self.device is None:
            self.asked = True
        else:
            self.device.supply.off()


class Planned:
    """Asks to stop as soon as the plan is known."""

    def __init__(self) -> None:
        self._is_known = False

    def is_asked(self) -> bool:
        return self._is_known

    def __call__(self, event: ev.Event) -> None:
        self._is_known = self._is_known or isinstance(event, ev.Planned)


class WireCut(ABC):
    """At the `unit`-th unit from now on, over both directions, the host is cut off or the part's supply goes.

    The emulated wire's own fault comes there. The unit itself is lost, as it is when the part that sends or receives
    it stops. A bus of another kind has a subclass of its own, which `KINDS` gets.
    """

    CUTS_OFF: ClassVar[str]
    """The wire's method that cuts the host off."""
    KINDS: ClassVar[dict[str, type[WireCut]]] = {}
    """By the kind of bus."""

    @staticmethod
    def at(bench: Bench, unit: int, how: How) -> WireCut:
        """The cut for the bus of this bench."""
        return WireCut.KINDS[bench.file.spec.bus["b"].kind](bench, unit, how)

    @classmethod  # noqa: B027 - only a serial line has writes
    def watch(cls, wire: Any, wrote: Callable[[int, int], None]) -> None:
        """`wrote` is called with the units before and after each write, on a wire where a write has several units."""

    def __init__(self, bench: Bench, unit: int, how: How) -> None:
        self.bench = bench
        self.how = how
        self.device = bench.emulated_device("part")
        self.wire = bench.emulated_wire("b")
        self.is_done = False
        self.happened = 0.0
        """When it was done, by the clock."""
        self._going: clock.SomeTimer | None = None
        """Cuts the supply: another thread does, for who notices the cut is within the wire."""
        self._cuts_off = getattr(self.wire, self.CUTS_OFF)
        setattr(self.wire, self.CUTS_OFF, self._happens)
        self.wire.faults.plan = FaultPlan(disconnect_after=self.wire.faults.units + unit)

    def mend(self) -> None:
        """The wire is whole, and the supply is there."""
        self.wire.faults.plan = FaultPlan()
        setattr(self.wire, self.CUTS_OFF, self._cuts_off)
        if self._going is not None:
            self._going.join()
        if self.how is How.SUPPLY:
            self.device.supply.on()
        elif self.is_done:
            self._join()

    def _happens(self, what: Any) -> None:
        if not self.is_done:
            self.happened = clock.monotonic()
        if self.how is How.UNPLUGGED:
            self._cuts_off(what)
        elif not self.is_done:
            self._cut_supply(what)
        self.is_done = True

    def _cut_supply(self, what: Any) -> None:
        self._cut_supply_in(0.0)

    def _cut_supply_in(self, seconds: float) -> None:
        self._going = clock.Timer(seconds, self.device.supply.off)
        self._going.start()

    @abstractmethod
    def _join(self) -> None: ...


class CanCut(WireCut):
    CUTS_OFF = "_unplug"

    def _join(self) -> None:
        self.bench.reopen("b")


class LineCut(WireCut):
    CUTS_OFF = "vanish"

    @classmethod
    def watch(cls, wire: Any, wrote: Callable[[int, int], None]) -> None:
        for end in (wire.host, wire.device):
            end.send = _watched(end.send, wire, wrote)

    def _happens(self, what: Any) -> None:
        if self.wire.is_usb and self.how is How.UNPLUGGED and not self.is_done:
            # The part is the adapter, and lives off it.
            self._cut_supply(what)
        super()._happens(what)

    def _cut_supply(self, what: float) -> None:
        """`what`: the byte's time."""
        self._cut_supply_in(max(0.0, what - clock.monotonic()))

    def _join(self) -> None:
        self.wire.plug()
        self.device.supply.on()
        self.bench.reopen("b")


def _watched(send: Callable[..., None], wire: Any, wrote: Callable[[int, int], None]) -> Callable[..., None]:
    def watched(data: bytes, at: float | None = None) -> None:
        before = wire.faults.units
        send(data, at)
        wrote(before, wire.faults.units)

    return watched


class UsbCut(WireCut):
    """A part with a supply of its own notices that its cable was pulled out by the reset that comes with joining it."""

    CUTS_OFF = "unplug"

    def _happens(self, what: Any) -> None:
        self._function = what.function
        super()._happens(what)

    def _cut_supply(self, what: Any) -> None:
        setattr(self.wire, self.CUTS_OFF, self._cuts_off)
        self.device.supply.off()

    def _join(self) -> None:
        (port,) = self.wire.ports
        if port.function is None:
            self.wire.plug(port, self._function)
            self._function.bus_reset()
            with self.wire.changed:
                if not self.wire.changed.wait_for(lambda: port.function is not None, 10):
                    raise TimeoutError("the device did not enumerate within 10 s")


WireCut.KINDS.update(can=CanCut, serial=LineCut, usb=UsbCut)
