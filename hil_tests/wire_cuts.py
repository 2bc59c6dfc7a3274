"""What the suite cuts, and when: the wire to a part, the adapter of its bus, or its supply, in a phase of its flashing.

On an emulated bench the emulated wire loses everything on request. On any other the bench file says how, in the
component's properties, by shell commands that are run in the bench file's folder:

    properties = {wire-cut = "relay 3 off", wire-join = "relay 3 on"}
    properties = {adapter-cut = "uhubctl -l 1 -p 2 -a off", adapter-join = "uhubctl -l 1 -p 2 -a on"}
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace

from ..enumerators.bench_component import BenchComponent
from ..enumerators.power import switch
from ..flashers import events as ev
from ..flashers.events import Phase
from .power import Power


class Cut(ABC):
    """One thing that can be cut and joined again. Joining what is whole does nothing that a part would see."""

    @abstractmethod
    def cut(self) -> None: ...

    @abstractmethod
    def join(self) -> None: ...


class Supply(Cut):
    def __init__(self, power: Power) -> None:
        self._power = power

    def cut(self) -> None:
        self._power.off()

    def join(self) -> None:
        self._power.on()


class BrownOut(Cut):
    """The supply is back at once, while the flasher works on."""

    def __init__(self, power: Power) -> None:
        self._power = power

    def cut(self) -> None:
        self._power.cycle()

    def join(self) -> None:
        pass


class CommandCut(Cut):
    def __init__(self, component: BenchComponent, cut: str, join: str) -> None:
        self._component = component
        self._commands = (cut, join)
        self._is_cut = False

    def cut(self) -> None:
        self._is_cut = True
        self._run(self._commands[0])

    def join(self) -> None:
        if self._is_cut:
            self._run(self._commands[1])
            self._is_cut = False

    def _run(self, command: str) -> None:
        switch(command, commands=self._component.bench.commands, component=self._component.name)


class EmulatedCut(Cut):
    """`adapter`: the host's adapter vanishes; else it stays, and nothing passes any more."""

    def __init__(self, component: BenchComponent, *, adapter: bool) -> None:
        self._component = component
        self._adapter = adapter
        self._wire = component.bench.emulated_wire(component.entry.spec.bus)
        self._plan = self._wire.faults.plan

    def cut(self) -> None:
        faults = self._wire.faults
        if self._adapter:
            faults.plan = replace(self._plan, disconnect_after=faults.units + 1)
        else:
            faults.plan = replace(self._plan, drop=1.0, first=1, last=0)

    def join(self) -> None:
        if self._wire.faults.plan == self._plan:
            return
        self._wire.faults.plan = self._plan
        self._wire.rejoin()
        if self._adapter and self._wire.powers_parts:
            self._component.power_cycle()


def cut_of(component: BenchComponent, kind: str) -> Cut | None:
    """`kind`: "wire" or "adapter". None: this bench has no way to cut it."""
    if component.emulated:
        return EmulatedCut(component, adapter=kind == "adapter")
    properties = component.entry.spec.properties
    cut, join = (properties.get(f"{kind}-{verb}") for verb in ("cut", "join"))
    return CommandCut(component, cut, join) if cut and join else None


class InPhase:
    """An event sink that does something once, when flashing reaches a phase: within it where its progress is reported.

    A part that erases while it is written has no phase of erasing: there the first write is the moment.
    """

    def __init__(self, phase: Phase, action: Callable[[], None]) -> None:
        self._phase = phase
        self._action = action
        self.done = False

    def __call__(self, event: ev.Event) -> None:
        if not self.done and self._due(event):
            self.done = True
            self._action()

    def _due(self, event: ev.Event) -> bool:
        match event:
            case ev.PhaseStarted(phase=Phase.WRITE):
                return self._phase is Phase.ERASE
            case ev.PhaseStarted(phase=phase):
                return phase is self._phase and phase not in (Phase.ERASE, Phase.WRITE)
            case ev.Progress(phase=phase, done=done, total=total):
                return phase is self._phase and (phase is not Phase.WRITE or 2 * done >= total)
        return False
