"""Faults of an emulated wire, on demand: by chance from a seed, or at a chosen unit."""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """What goes wrong. A unit is a CAN frame, a serial byte or a USB control transfer; both directions count.

    `drop`, `duplicate`, `corrupt`, `delay`: chances of a unit, 0.0 to 1.0; `delay_seconds` is how long the delayed one
    is held back. `disconnect_after`, `bus_off_after`: the unit, counted from 1, at which the host's adapter vanishes or
    goes bus-off; 0: never. `first`, `last`: the units that chance may hit; `last` 0: no end.
    """

    drop: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    delay: float = 0.0
    delay_seconds: float = 0.05
    disconnect_after: int = 0
    bus_off_after: int = 0
    first: int = 1
    last: int = 0
    seed: int = 0

    @classmethod
    def names(cls) -> list[str]:
        return [field.name for field in fields(cls)]


class Fault(StrEnum):
    """What happens to one unit."""

    DROP = "drop"
    DUPLICATE = "duplicate"
    CORRUPT = "corrupt"
    DELAY = "delay"
    DISCONNECT = "disconnect"
    BUS_OFF = "bus-off"


class Faults:
    """Draws the fault of each unit that passes, in order."""

    def __init__(self, plan: FaultPlan | None = None) -> None:
        self.plan = plan or FaultPlan()
        self.units = 0
        self.done: list[tuple[int, Fault]] = []
        """The faults so far: unit and kind."""
        self._random = random.Random(self.plan.seed)

    def restart(self, plan: FaultPlan) -> None:
        """Another plan from now on; its chances are drawn from its seed."""
        self.plan = plan
        self._random.seed(plan.seed)

    def spare(self, count: int) -> bool:
        """Whether the next `count` units pass as they are, whatever is drawn; then they are counted."""
        plan = self.plan
        last = self.units + count
        if (plan.disconnect_after and last >= plan.disconnect_after) or self.units < plan.bus_off_after <= last:
            return False
        has_chances = plan.drop or plan.duplicate or plan.corrupt or plan.delay
        if has_chances and last >= plan.first and not (plan.last and self.units >= plan.last):
            return False
        self.units = last
        return True

    def draw(self) -> Fault | None:
        """The fault of the next unit; None: it passes as it is."""
        plan = self.plan
        self.units += 1
        fault: Fault | None = None
        if plan.disconnect_after and self.units >= plan.disconnect_after:
            fault = Fault.DISCONNECT
        elif plan.bus_off_after and self.units == plan.bus_off_after:
            fault = Fault.BUS_OFF
        elif self.units >= plan.first and (not plan.last or self.units <= plan.last):
            chances = ((plan.drop, Fault.DROP), (plan.duplicate, Fault.DUPLICATE), (plan.corrupt, Fault.CORRUPT),
                       (plan.delay, Fault.DELAY))  # fmt: skip
            for chance, kind in chances:
                if chance and self._random.random() < chance:
                    fault = kind
                    break
        if fault is not None:
            self.done.append((self.units, fault))
        return fault

    def corrupted(self, data: bytes) -> bytes:
        """`data` with one bit turned; b"" as it is."""
        if not data:
            return data
        index = self._random.randrange(len(data))
        turned = data[index] ^ (1 << self._random.randrange(8))
        return data[:index] + bytes([turned]) + data[index + 1 :]
