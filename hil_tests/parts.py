"""One component under test, over the whole run: whether it is there, brought back between tests, made safe at the end.

The rule: a part is looked at before each test that is for it, and a test finds it powered and running. A part that can't be
brought back is broken from then on, and reported once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..enumerators.bench_component import BenchComponent
from ..enumerators.component import Component, Presence
from ..flashers.flasher import Capability
from ..transports import clock
from ..transports.deadline import Deadline
from ..transports.errors import AdapterGone, ProxyflashError
from .firmware import Firmware, TestImage, listed
from .power import Power
from .verdicts import told

LOOK_AGAIN = 0.05
"""Seconds between two looks at a part that starts."""
IN_WINDOW, IN_WINDOW_EMULATED = 2.0, 0.2
"""Seconds after its start in which a part that is in its bootloader may still leave it unasked."""
START_EMULATED = 1.0
"""Seconds in which an emulated part that has its supply answers, unless something is wrong."""


class PartLost(Exception):
    """It was there, and can't be brought back. The text says what was found."""


class NotThere(Exception):
    """It was not there from the start."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Since which test, and why."""

    test: str
    cause: str


class Part:
    """`may_flash`: whether a firmware may be written to bring it back."""

    def __init__(self, component: BenchComponent, firmware: Firmware, *, may_flash: bool) -> None:
        self.component = component
        self.firmware = firmware
        self.name = component.name
        self.may_flash = may_flash
        self.power: Power | None = Power(component) if has_power(component) else None
        self.seen: Component | None = None
        """As it was last found; None until it has been."""
        self.absent = False
        """Whether it was not there when it was first looked for."""
        self.has_run = False
        self.has_answered = False
        """Whether it has been seen at all: a part that can't be asked while it runs may be absent."""
        self._version = ""
        self.broken: Broken | None = None
        self.test = ""
        """The last test that had it."""
        self._capabilities: Capability | None = None
        self._was_switched_on = False
        self._is_started = False

    def await_start(self) -> None:
        """The supply of an emulated part came with the bench. A loader that is asked within its first seconds, by a scan for
        instance, may wait for more for ever."""
        if self._is_started or not (self.component.emulated and "firmware" in self.component.entry.spec.emulated):
            return
        self._is_started = True
        device = self.component.bench.emulated_device(self.name)
        deadline = Deadline.after(START_EMULATED + IN_WINDOW)
        while device.supply.is_on and device.application_version is None and not deadline.expired:
            clock.sleep(LOOK_AGAIN)

    def make_ready(self) -> Component:
        """Powered, and running if it can be. Raises NotThere, PartLost, ProxyflashError."""
        self._undo_faults()
        if self.power is not None and not self.power.is_on:
            self.power.on()
        found = self._look(self._patience)
        if found.presence is Presence.ABSENT and self.seen is None:
            found = self._switched_on(found)
        if found.presence is Presence.ABSENT or (
            # A part that is emulated without a firmware is to be so.
            found.presence is Presence.BOOTLOADER and (self.has_run or not self.component.emulated)
        ):
            found = self._brought_back(found)
        if found.presence is Presence.OK:
            self.has_run, self._version = True, found.version
        self.has_answered |= found.presence in (Presence.OK, Presence.BOOTLOADER)
        self.seen = found
        return found

    def capabilities(self) -> Capability:
        """What its bootloader can do: asked once, which takes it there and back."""
        if self._capabilities is None:
            with self.component.programmer() as programmer:
                programmer.connect()
                self._capabilities = programmer.bootloader.capabilities
                self.has_answered = True
            self.make_ready()
        return self._capabilities

    def supply(self) -> str:
        """Switches it on, if it is off; why that could not be done."""
        try:
            if self.power is not None and not self.power.is_on:
                self.power.on()
        except ProxyflashError as error:
            return told(error)
        return ""

    def bring_back(self) -> str:
        """Has it run, at the end, if it has its supply; why that could not be done."""
        if self.broken or self.seen is None or not (self.power is None or self.power.is_on):
            return ""
        try:
            self.make_ready()
        except (ProxyflashError, PartLost) as error:
            return told(error)
        return ""

    @property
    def _patience(self) -> float:
        """Seconds that it may take to answer: none for a part that no test has touched."""
        if not self.test:
            return 0.0
        seconds = self.component.entry.spec.boot_timeout
        return min(seconds, START_EMULATED) if self.component.emulated else seconds

    def _switched_on(self, found: Component) -> Component:
        """Looks again at a part that was not there at first: a run that was killed may have left its supply off."""
        if self.power is not None and not self.component.emulated and not self._was_switched_on:
            self._was_switched_on = True
            self.power.on()
            found = self._look(self.component.entry.spec.boot_timeout)
        if found.presence is Presence.ABSENT:
            raise NotThere(_mute(found))
        return found

    def _undo_faults(self) -> None:
        """Ends the faults that tests have set in an emulated part and its wire."""
        if not self.component.emulated:
            return
        bench, bus = self.component.bench, self.component.entry.spec.bus
        bench.emulated_device(self.name).supply.cut_at(None)
        wire = bench.emulated_wire(bus)
        plan = type(wire.faults.plan)(**bench.file.spec.bus[bus].faults.model_dump())
        if wire.faults.plan != plan:
            wire.faults.plan = plan
            wire.rejoin()

    def _look(self, seconds: float) -> Component:
        """Who it says it is; asked again for this number of seconds while nothing answers."""
        deadline = Deadline.after(seconds)
        while True:
            found = self._looked()
            if found.presence is not Presence.ABSENT or deadline.expired:
                return found
            clock.sleep(min(LOOK_AGAIN, deadline.remaining))

    def _looked(self) -> Component:
        """An adapter that is gone is opened again: a test may have had its reasons."""
        try:
            self._drain()
            found = self.component.look()
        except AdapterGone:
            self.component.bench.reopen(self.component.entry.spec.bus)
            found = self.component.look()
        if found.presence in (Presence.ABSENT, Presence.UNKNOWN) and self.component.emulated:
            device = self.component.bench.emulated_device(self.name)
            if device.supply.is_on and device.application_version is None:
                return replace(found, presence=Presence.BOOTLOADER)
        return found

    def _drain(self) -> None:
        transport = self.component.bench.transport(self.component.entry.spec.bus)
        transport.drain()

    def _started(self) -> Component:
        """As it is found once it has had the time to start."""
        deadline = Deadline.after(self.component.entry.spec.boot_timeout)
        patience = {
            Presence.ABSENT: deadline,
            Presence.BOOTLOADER: deadline.sooner(IN_WINDOW_EMULATED if self.component.emulated else IN_WINDOW),
        }
        while True:
            found = self._looked()
            if found.presence not in patience or patience[found.presence].expired:
                return found
            clock.sleep(LOOK_AGAIN)

    def _brought_back(self, found: Component) -> Component:
        """By its protocol, by its supply, by a firmware that is known to be good.

        A part that doesn't answer may be in its bootloader, where the bench file allows no question that would tell.
        """
        # An emulated part starts at once what it can start; some protocols wait long for a part that can't.
        ways = (self._boot, self._restart, self._boot, self._restore)
        for way in ways[1::2] if self.component.emulated else ways:
            if found.presence in (Presence.ABSENT, Presence.BOOTLOADER) and way():
                found = self._started()
        if found.presence is Presence.ABSENT:
            raise PartLost(_mute(found) + ("" if self.power else f", and no [power.{self.name}] to restart it by"))
        if found.presence is Presence.BOOTLOADER and self.has_run:
            if not self.may_flash:
                advice = "--allow-flash would flash it"
            elif not self._known:
                advice = "with images in the bench file it would be flashed"
            else:
                advice = "flashing it did not help"
            raise PartLost(f"it stays in its bootloader; {advice}")
        return found

    def _boot(self) -> bool:
        """Its bootloader's answer says less than a look afterwards."""
        bootloader = self.component.bootloader()
        try:
            bootloader.connect()
            bootloader.start_application()
        except AdapterGone:
            raise
        except ProxyflashError:
            return False
        finally:
            bootloader.close()
        return True

    def _restart(self) -> bool:
        if self.power is None:
            return False
        if self.component.bench.transport(self.component.entry.spec.bus).steers_parts:
            # The lines that a test left asserted may hold it in its bootloader.
            self.component.bench.reopen(self.component.entry.spec.bus)
        self.power.cycle()
        return True

    def _restore(self) -> bool:
        if not self.may_flash or not self._known:
            return False
        self.component.flash(self._release().image)
        return True

    @property
    def _known(self) -> bool:
        """Whether there is a firmware to bring it back with."""
        return self.component.emulated or bool(listed(self.component))

    def _release(self) -> TestImage:
        """That which it ran when it was last seen to, if it is one of the known ones; else the oldest."""
        ran = self._version
        known = self.firmware.images
        return next((image for image in known if image.version and image.version == ran), known[0])


def has_power(component: BenchComponent) -> bool:
    return component.emulated or component.name in component.bench.file.spec.power


def _mute(found: Component) -> str:
    return f"nothing answers at {found.where} on bus '{found.bus}'"
