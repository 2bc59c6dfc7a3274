"""`BenchComponent`: one component on a bus of the bench: what the bench file says of it, and what can be done with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ..flashers.errors import RebootFailed, VersionMismatch
from ..flashers.events import QUIET, RunContext
from ..flashers.flasher import Bootloader, Capability, ProbeResult, State
from ..flashers.formats import load as load_image
from ..flashers.image import FirmwareImage
from ..flashers.plan import FlashPlan
from ..flashers.programmer import FlashResult, Programmer
from ..transports import clock, plugins
from ..transports.deadline import Deadline
from ..transports.errors import Left, ProxyflashError
from ..transports.transport import Transport
from .benchfile.schema import BenchEntry, BenchFile
from .buses import Buses
from .component import Component
from .power import cycle
from .records import look

UNTOUCHED = Left("connect", touched=False, erased_bytes=0, written_bytes=0, boots=None)


def default_rate(file: BenchFile, entry: BenchEntry) -> str:
    """What is said where nobody gave the bit rate at which a component's bootloader is asked; "": somebody did."""
    bus = entry.spec.bus
    transport: type[Transport] = plugins.load(plugins.TRANSPORTS, file.spec.bus[bus].kind)
    said, setting = transport.default_rate(file.settings(bus))
    if not said or getattr(entry.profile, "baudrate", None) is not None:
        return ""
    return f"{said}; to give the part's, write for example: {file.setting_of_bus(bus, setting)}"


class BenchComponent:
    """One component of a bench: what the file says of it, and what can be done with it."""

    def __init__(self, bench: Buses, entry: BenchEntry) -> None:
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

    def bootloader(self) -> Bootloader:
        """This part's bootloader; nothing is sent yet. The caller closes it."""
        transport = self.bench.transport(self.entry.spec.bus)
        bootloader: Bootloader = self.entry.flasher.attach(transport, self.entry.address, self.entry.profile)
        return bootloader

    def programmer(self, context: RunContext = QUIET, *, attempts: int = 3, starts_again: bool = True) -> Programmer:
        """The engine with this part's bootloader; a context manager."""
        if self.bench.watcher is not None:
            context = context.watched(self.bench.watcher)
        runs_on = self.entry.flasher.runs_while_written(self.entry.profile)
        try:
            bootloader = self.bootloader()
        except ProxyflashError as error:
            error.left = UNTOUCHED
            raise
        return Programmer(
            bootloader,
            self.name,
            context,
            attempts=attempts,
            starts_again=starts_again,
            runs_on=runs_on,
            default_rate=default_rate(self.bench.file, self.entry),
        )

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        address: int | None = None,
        format: str | None = None,
        only: Sequence[str] = (),
    ) -> FirmwareImage:
        """A firmware file for this part. `format`: its name, which is then not guessed. `only`: the memories that are meant.

        Raises what `formats.load` raises.
        """
        image = load_image(Path(path), address=address, format=format, as_is=self.entry.flasher.is_silent)
        return replace(image, only=tuple(only))

    def flash(
        self,
        image: FirmwareImage | str | os.PathLike[str],
        *,
        address: int | None = None,
        verify: bool = True,
        boot: bool = True,
        compare: bool = True,
        expect_version: str | None = None,
        context: RunContext = QUIET,
        starts_again: bool = True,
    ) -> FlashResult:
        """Plans, erases, writes, verifies, boots, and asks for the version.

        `address`: where a raw binary goes. `compare`: skip what the part holds already. Who wants to see the plan before
        anything is erased calls `programmer`, its `plan`, and `carry_out`. `starts_again`: as of `programmer`.
        """
        loaded = image if isinstance(image, FirmwareImage) else self.load(image, address=address)
        with self.programmer(context, starts_again=starts_again) as programmer:
            plan = programmer.plan(loaded, compare=compare)
            return self.carry_out(programmer, plan, verify=verify, boot=boot, expect_version=expect_version)

    def carry_out(
        self,
        programmer: Programmer,
        plan: FlashPlan,
        *,
        verify: bool = True,
        boot: bool = True,
        expect_version: str | None = None,
    ) -> FlashResult:
        """Erases, writes and verifies what the plan says, boots, and asks for the version.

        Raises RebootFailed, VersionMismatch, and what `Programmer.flash` and `Programmer.start` do.
        """
        began = clock.monotonic()
        result = programmer.flash(plan, verify=verify, boot=False)
        version = self.start(programmer, plan, expect_version=expect_version) if boot else None
        booted = boot and bool(programmer.bootloader.capabilities & Capability.BOOT)
        return replace(result, version=version, booted=booted, seconds=clock.monotonic() - began)

    def start(
        self, programmer: Programmer, plan: FlashPlan | None = None, *, expect_version: str | None = None
    ) -> str | None:
        """Starts the planned image, or whatever the part holds; the version that it then reports.

        None where it can't be started, or can't be asked. Raises RebootFailed where it doesn't answer in the time that
        the bench file gives it to boot, VersionMismatch.
        """
        with programmer.starting(plan) as started:
            if started is None or not self.can_be_asked:
                return None
            seconds = self.entry.spec.boot_timeout
            found = self._await_application()
            if found is None:
                raise RebootFailed(f"the application did not answer within {seconds:g} s after the boot")
            if found.state is not State.RUNNING:
                raise RebootFailed(
                    f"within {seconds:g} s after the boot the part answered from its bootloader, not from its application"
                ).answers()
            version = found.identity.version
            if expect_version is not None and version != expect_version:
                raise VersionMismatch(
                    f"the application reports version {version or 'unknown'}, wanted {expect_version}"
                )
            started(version)
            return version

    @property
    def can_be_asked(self) -> bool:
        """Whether silence of its running application means that it doesn't run."""
        return self.bench.prober(self.entry.spec.bus).can_tell(self.entry)

    def await_version(self) -> str | None:
        """What the application answers, once it runs: "" if it can't tell.

        None if it can't be asked, or doesn't answer in the time that the bench file gives it to boot.
        """
        found = self._await_application()
        return found.identity.version if found is not None and found.state is State.RUNNING else None

    def _await_application(self) -> ProbeResult | None:
        """The application's answer, once it runs; in the time that the bench file gives it to boot the part's last answer."""
        prober = self.bench.prober(self.entry.spec.bus)
        deadline = Deadline.after(self.entry.spec.boot_timeout)
        found = None
        while self.can_be_asked:
            found = None
            with suppress(ProxyflashError):
                found = prober.application(self.entry, deadline)
            if (found is not None and found.state is State.RUNNING) or deadline.expired:
                break
            # A part that boots is mute or answers from its bootloader; ask again soon, but leave it some air.
            clock.sleep(min(0.05, deadline.remaining))
        return found

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
