"""`BenchComponent`: one component on a bus of the bench: what the bench file says of it, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..flashers import events as ev
from ..flashers.flasher import Flasher, State
from ..flashers.formats import load as load_image
from ..flashers.image import FirmwareImage
from ..flashers.plan import FlashPlan
from ..flashers.programmer import FlashResult, Programmer
from ..transports import clock
from ..transports.deadline import Deadline
from ..transports.errors import ProxyflashError
from .benchfile.schema import Entry
from .buses import Buses
from .component import Component
from .power import cycle
from .records import look


class BenchComponent:
    """One component of a bench: what the file says of it, and what can be done with it."""

    def __init__(self, bench: Buses, entry: Entry) -> None:
        self.bench = bench
        self.entry = entry

    @property
    def name(self) -> str:
        return self.entry.spec.name

    @property
    def emulated(self) -> bool:
        """Whether the part is emulated in this process."""
        return self.bench.replay is None and self.bench.file.spec.bus[self.entry.spec.bus].emulated

    @property
    def real(self) -> bool:
        """Whether hardware is reached: the part is neither emulated nor replayed."""
        return self.bench.replay is None and not self.emulated

    def look(self) -> Component:
        """Asks the part who it is, without disturbing its work."""
        return look(self.entry, self.bench.prober(self.entry.spec.bus))

    def flasher(self) -> Flasher:
        """A flasher for this part; nothing is sent yet. The caller closes it."""
        transport = self.bench.transport(self.entry.spec.bus)
        flasher: Flasher = self.entry.flasher.attach(transport, self.entry.address, self.entry.profile)
        return flasher

    def programmer(
        self,
        *,
        on_event: ev.EventSink = ev.ignore,
        cancelled: Callable[[], bool] = lambda: False,
        attempts: int = 3,
    ) -> Programmer:
        """The engine with a flasher for this part. The caller closes `programmer.flasher`."""
        return Programmer(self.flasher(), self.name, on_event=on_event, cancelled=cancelled, attempts=attempts)

    def flash(
        self,
        image: FirmwareImage | str | os.PathLike[str],
        *,
        address: int | None = None,
        verify: bool = True,
        boot: bool = True,
        compare: bool = True,
        expect_version: str | None = None,
        confirm: Callable[[FlashPlan], bool] | None = None,
        on_event: ev.EventSink = ev.ignore,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> FlashResult | None:
        """Plans, erases, writes, verifies, boots, and asks for the version.

        `address`: where a raw binary goes. `compare`: skip what the part holds already. `confirm`: asked with the plan
        before anything is erased; False, for which None is returned, and an exception both leave the part as it was.
        """
        loaded = image if isinstance(image, FirmwareImage) else load_image(Path(image), address=address)
        programmer = self.programmer(on_event=on_event, cancelled=cancelled)
        try:
            plan = programmer.plan(loaded, compare=compare)
            agreed = False
            try:
                agreed = confirm is None or confirm(plan)
            finally:
                if not agreed:
                    programmer.release()
            if not agreed:
                return None
            return programmer.flash(
                plan,
                verify=verify,
                boot=boot,
                ask_version=self.version_question(),
                expect_version=expect_version,
                boot_seconds=self.entry.spec.boot_timeout,
            )
        finally:
            programmer.flasher.close()

    def version_question(self) -> Callable[[Deadline], str | None] | None:
        """Asks the running application for its version until it answers; None: it can not be asked."""
        prober = self.bench.prober(self.entry.spec.bus)
        if not prober.can_tell(self.entry):
            return None

        def ask(deadline: Deadline) -> str | None:
            while True:
                try:
                    sighting = prober.application(self.entry, deadline)
                except ProxyflashError:
                    sighting = None
                if sighting is not None and sighting.state is State.RUNNING:
                    return sighting.identity.version
                if deadline.expired:
                    return None
                # A part that boots is mute or answers from its bootloader; ask again soon, but leave it some air.
                clock.sleep(min(0.05, deadline.remaining))

        return ask

    def power_cycle(self) -> bool:
        """Cuts and restores the supply, by the file's commands or on the emulated part; False if there is no way.

        Under replay nothing is cut: what the part did then is in the recording.
        """
        if self.emulated:
            device = self.bench.emulated_device(self.name)
            device.supply.off()
            device.supply.on()
            return True
        power = self.bench.file.spec.power.get(self.name)
        if self.bench.replay is not None:
            return power is not None or self.bench.file.spec.bus[self.entry.spec.bus].emulated
        if power is None:
            return False
        cycle(power.off, power.on, commands=self.bench.commands, component=self.name)
        return True
