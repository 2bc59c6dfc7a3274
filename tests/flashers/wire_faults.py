"""What the units of an emulated wire may suffer, for tests that inject it."""

from __future__ import annotations

from dataclasses import replace

from proxyflash.emulators.faults import FaultPlan

FAULTS = ("drop", "duplicate", "corrupt", "delay")


def faults(kind: str, chance: float, **when: int) -> FaultPlan:
    """A plan with one kind of fault. `chance`: of each unit. `when`: `first`, `last` and `seed` of the plan."""
    return replace(FaultPlan(delay_seconds=0.03, **when), **{kind: chance})  # type: ignore[arg-type]
