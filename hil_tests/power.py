"""The supply of a component under test, real or emulated."""

from __future__ import annotations

from ..enumerators.bench_component import BenchComponent
from ..enumerators.power import switch


class Power:
    """Switches the supply by the commands of the bench file, or that of the emulated part.

    Every method raises PowerFailed when a command fails. What a test leaves off is switched on before the next one.
    """

    def __init__(self, component: BenchComponent) -> None:
        self._component = component
        self._off = False

    @property
    def is_on(self) -> bool:
        """Whether it is on, as far as is known: nobody asks a supply that commands switch."""
        component = self._component
        return component.bench.emulated_device(component.name).supply.is_on if component.emulated else not self._off

    def off(self) -> None:
        self._off = True
        self._switch(on=False)

    def on(self) -> None:
        """The part starts; nothing waits for its application."""
        self._switch(on=True)
        self._off = False

    def cycle(self) -> None:
        """Off and on. Whatever came of cutting it, it is switched on."""
        try:
            self.off()
        finally:
            self.on()

    def _switch(self, *, on: bool) -> None:
        component = self._component
        if component.emulated:
            device = component.bench.emulated_device(component.name)
            if on:
                device.supply.on()
                device.settle()
            else:
                device.supply.off()
            return
        spec = component.bench.file.spec.power[component.name]
        switch(spec.on if on else spec.off, commands=component.bench.commands, component=component.name)
