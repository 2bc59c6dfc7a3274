"""What the suite asks of a part again and again: that it runs, which version, and what its bootloader knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..enumerators.bench_component import BenchComponent
from ..enumerators.component import Component, Presence
from ..flashers.errors import ImageWrongPart, Unsupported
from ..flashers.flasher import Capability, SlotAccess, Target
from ..flashers.image import FirmwareImage
from ..flashers.memory import Erase
from ..flashers.programmer import Programmer
from ..transports import clock
from ..transports.deadline import Deadline
from ..transports.errors import AdapterGone
from .parts import IN_WINDOW, IN_WINDOW_EMULATED

LOOK_AGAIN = 0.05
"""Seconds between two looks at a part that starts."""
RUNNING = (Presence.OK, Presence.UNKNOWN)
"""Of a part that can't be asked it is not known whether it runs; it must not be known that it doesn't."""


def reopened(component: BenchComponent) -> None:
    """A new connection to its bus, as the next command has. For when an adapter was gone."""
    component.bench.reopen(component.entry.spec.bus)


def started(component: BenchComponent, *, patient: bool = True) -> Component:
    """As it is found once it has had the time to start.

    `patient`: whether a part in its bootloader gets all of that time, and not only its time to leave the bootloader.
    """
    deadline = Deadline.after(component.entry.spec.boot_timeout)
    in_window = deadline.sooner(IN_WINDOW_EMULATED if component.emulated else IN_WINDOW)
    while True:
        try:
            found = component.look()
        except AdapterGone:
            if deadline.expired:
                raise
            reopened(component)
            continue
        stays = not patient and _in_bootloader(component, found)
        if found.presence in RUNNING or (in_window if stays else deadline).expired:
            return found
        clock.sleep(LOOK_AGAIN)


def _in_bootloader(component: BenchComponent, found: Component) -> bool:
    """Not every protocol can be asked that; an emulated part without a firmware is nowhere else."""
    if found.presence is Presence.BOOTLOADER:
        return True
    return component.emulated and component.bench.emulated_device(component.name).application_version is None


def running(component: BenchComponent, version: str = "") -> Component:
    """As it is found, which must be running, with `version` where both that and the running version are known."""
    __tracebackhide__ = True
    found = started(component)
    assert found.presence in RUNNING, f"'{component.name}' is found as {found.presence.value} instead of running"
    if version and found.version:
        assert found.version == version, f"'{component.name}' runs {found.version} instead of {version}"
    return found


def gone(component: BenchComponent) -> None:
    """It no longer answers; a host may need a while to see that a USB device has left."""
    __tracebackhide__ = True
    deadline = Deadline.after(component.entry.spec.boot_timeout)
    while component.look().presence in RUNNING:
        assert not deadline.expired, f"'{component.name}' still runs"
        clock.sleep(LOOK_AGAIN)


class Session:
    """The engine on a part that is in its bootloader, with what that knows of itself."""

    def __init__(self, programmer: Programmer) -> None:
        self.programmer = programmer
        self.is_silent = programmer.bootloader.is_silent
        self.identity = programmer.connect()
        self.memory = programmer.memory_map()
        self.region = self.memory.regions[0]
        self.capabilities = programmer.bootloader.capabilities
        self.is_slot = isinstance(programmer.bootloader.access(), SlotAccess)
        """Whether it takes whole images, and no pieces of them."""

    @property
    def tells(self) -> bool:
        """Whether its memory can be read or hashed, so that it can be compared before it is written."""
        return bool(self.capabilities & (Capability.READ | Capability.DIGEST)) and self.region.erase is not Erase.NEVER

    def refuses(self, target: Target) -> bool:
        """Whether it takes no file that says this of its part."""
        access = self.programmer.bootloader.access()
        try:
            if isinstance(access, SlotAccess):
                access.slot(target)
            else:
                access.memory_map(target)
        except ImageWrongPart:
            return True
        return False

    def holds(self, image: FirmwareImage) -> bool:
        """Whether it holds this image, which a silent bootloader has to say that it can't tell. Raises VerifyMismatch."""
        if not self.is_silent:
            return bool(self.programmer.verify(image))
        try:
            self.programmer.verify(image)
        except Unsupported:
            return True
        return False


@contextmanager
def bootloader(component: BenchComponent, *, judged: bool = True) -> Iterator[Session]:
    """Brings the part into its bootloader; it is left as it is then.

    `judged`: whether the part may refuse what it holds for being no firmware that it could run.
    """
    entry = component.entry
    profile = entry.profile if judged else entry.flasher.unjudged(entry.profile)
    flasher = entry.flasher.attach(component.bench.transport(entry.spec.bus), entry.address, profile)
    try:
        yield Session(Programmer(flasher, component.name))
    finally:
        flasher.close()
