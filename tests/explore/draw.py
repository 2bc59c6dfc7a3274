"""What a seed draws: a bench, firmware for its parts, commands, and what goes wrong while they run.

Everything comes from one random generator, in one order, so that a seed means the same on every machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from .families import BY_NAME, FAMILIES, Family

OLD, NEW, OTHER = "1.4.2", "1.5.0", "1.6.0"
"""Versions: of what the parts hold first, of the update, and of an update that is begun instead of the first."""
WIRE_FAULTS = ("drop", "duplicate", "corrupt", "delay", "disconnect", "bus-off")


@dataclass(frozen=True, slots=True)
class Bus:
    """One wire of the bench. `pace`: see Board. `at_once`: as in the bench file; 0: it doesn't say."""

    name: str
    kind: str
    pace: float
    at_once: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One part. `sizes`: of its firmware, by version."""

    name: str
    number: int
    bus: str
    family_name: str
    group: str
    sizes: dict[str, int]

    @property
    def family(self) -> Family:
        return BY_NAME[self.family_name]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that goes wrong.

    `kind`: "supply", "wire", "kill", "power" (the host loses its supply), "disk", "clock", "stop" (Ctrl-C), "halt" (Ctrl-C
    twice). `target`: the part or the bus, where it has one. `at`: the flash operation, unit, or point, counted from 1 since
    the command began. `point`: which points count: "disk", "event", "wire" or "any". `what`: of a wire, which fault;
    `chance`: how likely, by unit; `amount`: bytes left on a disk that fills, or seconds that a clock is set back.
    `mends`: simulated seconds after which it passes while the command runs; 0: not before the command has ended.
    """

    kind: str
    at: int = 1
    target: str = ""
    point: str = "any"
    what: str = ""
    chance: float = 0.0
    amount: float = 0.0
    mends: float = 0.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Round:
    """A command and what goes wrong in it. `what`: "flash", "apply", "other", "resume", "rollback", "repair"."""

    what: str
    part: str = ""
    options: tuple[str, ...] = ()
    troubles: tuple[Trouble, ...] = ()
    mended: bool = True
    """Whether all of it is mended before the next command."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that a seed draws. `update`: whether its commands are updates; `policy`: the bench file's [updates] table."""

    seed: int
    buses: tuple[Bus, ...]
    parts: tuple[Part, ...]
    update: bool
    policy: dict[str, str] = field(default_factory=dict)
    options: dict[str, dict[str, object]] = field(default_factory=dict)
    """What each group's step asks of the engine."""
    rounds: tuple[Round, ...] = ()
    preemption: float = 1.0
    """See SimulatedClock."""

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def case(seed: int) -> Case:
    chance = random.Random(f"proxyflash exploration {seed}")
    update = chance.random() < 0.5
    count = 1 if not update else chance.choices((1, 2, 3, 4, 5, 6, 7, 8), (45, 36, 9, 4, 2, 2, 1, 1))[0]
    buses, parts = _bench(chance, count)
    policy, options = _policy(chance, parts) if update else ({}, {})
    rounds = _rounds(chance, parts, buses, update)
    preemption = chance.choices((0.01, 0.05, 0.2, 1.0), (40, 40, 15, 5))[0]
    return Case(seed, tuple(buses), tuple(parts), update, policy, options, rounds, preemption)


def _bench(chance: random.Random, count: int) -> tuple[list[Bus], list[Part]]:
    buses: list[Bus] = []
    parts: list[Part] = []
    pace = 1.0 if chance.random() < 0.06 else 0.0
    for number in range(1, count + 1):
        family = _family(chance, buses)
        taken = {part.bus for part in parts if part.family.alone} if family.alone else set()
        shared = [bus for bus in buses if bus.kind == family.kind != "serial" and bus.name not in taken]
        if shared and (len(buses) == 4 or chance.random() < 0.8):
            bus = chance.choice(shared)
        else:
            at_once = chance.choice((0, 2, 4)) if family.kind == "can" else 0
            bus = Bus(f"bus{len(buses) + 1}", family.kind, pace, at_once)
            buses.append(bus)
        group = parts[-1].group if parts and parts[-1].family_name == family.name and chance.random() < 0.6 else ""
        sizes = {version: _size(chance, family) for version in (OLD, NEW, OTHER)}
        if group:
            same = next(part for part in parts if part.group == group)
            sizes = {**sizes, NEW: same.sizes[NEW], OTHER: same.sizes[OTHER]}
        parts.append(Part(f"part{number}", number, bus.name, family.name, group or f"group{number}", sizes))
    return buses, parts


def _family(chance: random.Random, buses: list[Bus]) -> Family:
    if len(buses) < 4:
        known = list(FAMILIES)
    else:
        kinds = {bus.kind for bus in buses}
        known = [family for family in FAMILIES if family.kind in kinds and family.kind != "serial"]
    if not known:
        # Four serial lines: the fifth part shares one with nobody, so the bench gets no larger kind of bus.
        known = [family for family in FAMILIES if family.kind == "can"]
    return chance.choices(known, [family.weight for family in known])[0]


def _size(chance: random.Random, family: Family) -> int:
    low, high = family.sizes
    return low + int((high - low) * chance.random() ** 4) // 4 * 4


def _policy(chance: random.Random, parts: list[Part]) -> tuple[dict[str, str], dict[str, dict[str, object]]]:
    policy: dict[str, str] = {}
    if chance.random() < 0.5:
        policy["parallel"] = "true"
    if chance.random() < 0.5:
        policy["on_failure"] = chance.choice(('"continue"', '"rollback"'))
    if chance.random() < 0.1:
        policy["timeout_seconds"] = "600"
    options: dict[str, dict[str, object]] = {}
    for group in dict.fromkeys(part.group for part in parts):
        asked: dict[str, object] = {}
        if chance.random() < 0.15:
            asked["onFailure"] = chance.choice(("stop", "continue", "rollback"))
        if chance.random() < 0.1:
            asked["attempts"] = chance.choice((1, 2, 3))
        if chance.random() < 0.1:
            asked["timeoutSeconds"] = chance.choice((5, 60, 600))
        if asked:
            options[group] = asked
    return policy, options


def _rounds(chance: random.Random, parts: list[Part], buses: list[Bus], update: bool) -> tuple[Round, ...]:
    rounds: list[Round] = []
    what = "apply" if update else "flash"
    troubled = chance.choices((0, 1, 2, 3), (3, 60, 30, 7))[0]
    for _ in range(troubled):
        troubles = [_trouble(chance, parts, buses) for _ in range(chance.choices((1, 2, 3), (75, 20, 5))[0])]
        mended = chance.random() < 0.9
        rounds.append(Round(what, parts[0].name, _options(chance, what), tuple(troubles), mended))
        if update:
            what = chance.choices(("apply", "resume", "rollback", "other"), (30, 40, 20, 10))[0]
    return tuple(rounds)


def _options(chance: random.Random, what: str) -> tuple[str, ...]:
    if what == "apply" and chance.random() < 0.15:
        return ("--on-failure", chance.choice(("stop", "continue", "rollback")))
    return ()


def _few(chance: random.Random, most: int) -> int:
    """A number from 1 on; small ones are as likely as large ones."""
    return max(1, int(most ** chance.random()))


def _trouble(chance: random.Random, parts: list[Part], buses: list[Bus]) -> Trouble:
    kind = chance.choices(
        ("supply", "wire", "kill", "power", "disk", "clock", "stop", "halt"), (28, 28, 16, 12, 6, 3, 10, 5)
    )[0]
    mends = chance.choice((0.0, 0.0, 0.05, 0.5, 3.0))
    point = chance.choice(("disk", "event", "event", "wire", "any"))
    at = _few(chance, {"disk": 120, "event": 100, "wire": 1500, "any": 1500}[point])
    match kind:
        case "supply":
            part = chance.choice(parts)
            return Trouble(kind, _few(chance, 1500), part.name, mends=mends)
        case "wire":
            bus = chance.choice(buses)
            what = chance.choice(WIRE_FAULTS if bus.kind == "can" else WIRE_FAULTS[:-1])
            if what in ("disconnect", "bus-off"):
                return Trouble(kind, _few(chance, 3000), bus.name, what=what, mends=mends)
            likely = chance.choice((1.0, 0.3, 0.05, 0.01, 0.002))
            return Trouble(
                kind, _few(chance, 3000), bus.name, what=what, chance=likely, amount=_few(chance, 300), mends=mends,
                seed=chance.randrange(1 << 30),
            )  # fmt: skip
        case "disk":
            return Trouble(kind, amount=_few(chance, 60_000))
        case "clock":
            return Trouble(kind, at, point=point, amount=chance.choice((60.0, 86_400.0, 1e8)))
        case _:
            return Trouble(kind, at, point=point, seed=chance.randrange(1 << 30))
