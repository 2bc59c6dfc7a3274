"""`Bench`: a bench file brought to life. Opens each bus once, when it is first needed, and shares it.

with Bench.open("bench.toml") as bench:
    component = bench.component("imu")
    component.flash("imu-1.5.0.hex", on_event=print)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ..flashers import events as ev
from ..flashers.errors import Cancelled
from ..flashers.flasher import Flasher, Sighting, State
from ..flashers.formats import load as load_image
from ..flashers.image import FirmwareImage
from ..flashers.plan import FlashPlan
from ..flashers.programmer import FlashResult, Programmer
from ..transports import clock, plugins
from ..transports.deadline import Deadline
from ..transports.errors import (
    AdapterAbsent,
    AdapterBusy,
    AdapterForbidden,
    AdapterGone,
    BadSettings,
    BusOff,
    CanOverrun,
    NotAcknowledged,
    PluginBroken,
    PluginUnknown,
    ProxyflashError,
    Unexpected,
)
from ..transports.outside import Outside
from ..transports.recording.recorder import Recorder
from .benchfile import schema as benchfile
from .benchfile.toml_positions import Place
from .commands import HostCommands
from .component import Component, Presence, Unlisted, distinct
from .errors import BenchError, BenchKey, BenchMissing, ComponentUnknown
from .host import HostComponent
from .power import cycle
from .probers import Prober
from .state import BenchLock, bench_folder, default_state

if TYPE_CHECKING:
    from ..emulators.bench import EmulatedBus
    from ..emulators.device import BadDevice, EmulatedDevice
    from ..emulators.replay.session import Replay

SIGHT_SECONDS = 2.0
"""How long a component has to answer who it is."""
OF_THE_BUS = (
    AdapterAbsent,
    AdapterBusy,
    AdapterForbidden,
    AdapterGone,
    BadSettings,
    BusOff,
    CanOverrun,
    NotAcknowledged,
    PluginUnknown,
    PluginBroken,
    BenchError,
)
"""What no other component of the bus would fare better with."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What is there: the file's components in its order, and what the file lacks. `faults`: of a bus, or, where the
    error names one, of one component of that bus."""

    components: tuple[Component, ...]
    unlisted: tuple[Unlisted, ...]
    faults: tuple[tuple[str, ProxyflashError], ...]


def find_file(named: str | os.PathLike[str] | None = None) -> Path:
    """`named`, else PROXYFLASH_BENCH, else bench.toml here or in a parent folder, else the user's configuration.

    What is named need not be there. Raises BenchMissing when nothing is named and none of the others is there.
    """
    chosen = named or os.environ.get("PROXYFLASH_BENCH")
    if chosen:
        return Path(chosen)
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "bench.toml").is_file():
            return folder / "bench.toml"
    base = os.environ.get("XDG_CONFIG_HOME")
    own = (Path(base) if base else Path.home() / ".config") / "proxyflash" / "bench.toml"
    if own.is_file():
        return own
    raise BenchMissing(
        f"there is no bench.toml in {here} or a folder above it, and no {own}",
        remedy="Name one: --bench FILE. Or write one from what is attached: proxyflash bench init",
    )


class Bench:
    """The buses and components of one bench file. `state`: the folder for what is remembered."""

    def __init__(
        self,
        file: benchfile.BenchFile,
        state: Path,
        recorder: Recorder | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.file = file
        self.replay = replay
        self._recorder = recorder
        self.outside = Outside(lambda: self._recorder, replay)
        self.commands = HostCommands(file.folder, self.outside)
        self.state = state
        self.folder = bench_folder(state, file.path)
        self._lock: BenchLock | None = None
        self._opening = clock.RLock()
        self._is_closed = False
        self._transports: dict[str, Any] = {}
        self._emulated: dict[str, EmulatedBus] = {}

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        state: Path | None = None,
        recorder: Recorder | None = None,
        replay: Replay | None = None,
    ) -> Self:
        """Reads the bench file; opens no bus yet. Raises BenchError.

        `recorder`: keeps what passes on the buses. `replay`: a recording that stands for all of them; the caller closes
        it.
        """
        return cls(benchfile.load(find_file(path)), state or default_state(), recorder, replay)

    @property
    def recorder(self) -> Recorder:
        """Keeps what passes on the buses, from the first time that it is asked for."""
        with self._opening:
            if self._recorder is None:
                self._recorder = Recorder()
                for transport in self._transports.values():
                    transport.recorder = self._recorder
            return self._recorder

    @property
    def components(self) -> tuple[BenchComponent, ...]:
        return tuple(BenchComponent(self, entry) for entry in self.file.entries.values())

    def component(self, name: str) -> BenchComponent:
        """One that is on a bus. Raises ComponentUnknown."""
        found = self.find(name)
        if isinstance(found, HostComponent):
            raise ComponentUnknown(
                f"component {name!r} is a part of this host, on no bus",
                remedy="It has no bootloader; an update's steps reach it: proxyflash apply MANIFEST",
            )
        return found

    def find(self, name: str) -> BenchComponent | HostComponent:
        """One on a bus, or one of the host itself. Raises ComponentUnknown."""
        if (spec := self.file.hosted.get(name)) is not None:
            return self._hosted(spec)
        entry = self.file.entries.get(name)
        if entry is None:
            known = ", ".join(self.file.names) or "none"
            raise ComponentUnknown(f"{self.file.path} has no component {name!r}; it has: {known}")
        return BenchComponent(self, entry)

    def _hosted(self, spec: benchfile.ComponentSpec) -> HostComponent:
        return HostComponent(spec, self.commands, self.outside)

    def transport(self, bus: str) -> Any:
        """The open CanBus, SerialPort or UsbBus of this name. Raises TransportError, BenchLocked."""
        with self._opening:
            if bus not in self._transports:
                spec = self.file.spec.bus[bus]
                self.lock()
                if self.replay is not None:
                    settings = self.replay.host_settings(bus, spec.kind, spec.settings)
                else:
                    settings = self._emulated_bus(bus).host_settings if spec.emulated else spec.settings
                try:
                    self._transports[bus] = plugins.load(plugins.TRANSPORTS, spec.kind).open(bus, settings)
                except BadSettings as error:
                    error.cause = f"{self.file.at(('bus', bus))}: {error.cause}"
                    raise
                if hasattr(self._transports[bus], "outside"):
                    self._transports[bus].outside = self.outside
                if self._recorder is not None:
                    self._transports[bus].recorder = self._recorder
                if self._is_closed:
                    # Meanwhile, by another thread.
                    self._transports.pop(bus).close()
                    raise _closed()
            return self._transports[bus]

    def reopen(self, bus: str) -> Any:
        """Opens a bus anew whose adapter was gone; what was made on it before is done with. Raises as `transport`."""
        with self._opening:
            if bus in self._transports:
                self._transports.pop(bus).close()
            return self.transport(bus)

    def emulated_device(self, component: str) -> EmulatedDevice:
        """The emulated part behind a component of an emulated bus, for tests: its supply, its flash."""
        return self._emulated_bus(self.file.entries[component].spec.bus).devices[component]

    def emulated_wire(self, bus: str) -> Any:
        """The CanWire, UartWire or UsbWire of an emulated bus, with its parts on it; the host's end stays free."""
        return self._emulated_bus(bus).wire

    def prober(self, bus: str) -> Prober:
        spec = self.file.spec.bus[bus]
        # Opened first: a replay refuses a kind of bus that it doesn't know before anything of that name is imported.
        transport = self.transport(bus)
        prober: Prober = plugins.load(plugins.ENUMERATORS, spec.kind)(bus, spec, transport)
        return prober

    def scan(self) -> Scan:
        """Asks every component of the file who it is, and looks for what the file lacks. Enters no bootloader.

        Raises BenchLocked and StateFolder. What a component raises is among the scan's `faults`, and so is what a bus
        raises: neither hides another one.
        """
        self.lock()
        components: dict[str, Component] = {}
        unlisted: list[Unlisted] = []
        faults: list[tuple[str, ProxyflashError]] = []
        for bus in self.file.spec.bus:
            entries = [entry for entry in self.file.entries.values() if entry.spec.bus == bus]
            try:
                prober = self.prober(bus)
                for entry in entries:
                    try:
                        components[entry.spec.name] = _seen(entry, prober)
                    except OF_THE_BUS:
                        raise
                    except Exception as error:
                        # One part that answers anything keeps no other from being asked.
                        fault = error if isinstance(error, ProxyflashError) else Unexpected.of(error)
                        fault.component = fault.component or entry.spec.name
                        faults.append((bus, fault))
                        components[entry.spec.name] = _record(entry, Presence.ABSENT, None)
                unlisted += prober.unlisted(entries, Deadline.after(SIGHT_SECONDS))
            except Exception as error:
                faults.append((bus, error if isinstance(error, ProxyflashError) else Unexpected.of(error)))
                for entry in entries:
                    components.setdefault(entry.spec.name, _record(entry, Presence.ABSENT, None))
        for name, hosted in self.file.hosted.items():
            components[name] = self._hosted(hosted).look()
        real = [spec for spec in self.file.spec.bus.values() if not spec.emulated]
        if real and self.replay is None:
            # Brings in pyserial, which a bench of emulated CAN and USB does without.
            from .probers.serial import ports_not_listed

            unlisted += ports_not_listed([str(spec.settings.get("url", "")) for spec in real if spec.kind == "serial"])
        return Scan(
            tuple(components[name] for name in self.file.names),
            tuple(distinct(unlisted, self.file.spec.bus, self.file.names)),
            tuple(faults),
        )

    def unplugged(self, component: Component) -> bool:
        """Whether it is one that need not be there, and is not."""
        if component.presence is not Presence.ABSENT:
            return False
        found = self.find(component.name)
        return (found.spec if isinstance(found, HostComponent) else found.entry.spec).optional

    def check(self) -> None:
        """Brings the emulated buses to life, in memory and unlocked, for what only that shows. Raises BenchKey.

        Under replay no part is emulated.
        """
        for name, spec in self.file.spec.bus.items():
            if spec.emulated and self.replay is None:
                self._emulate(name, spec, None).close()

    def lock(self) -> None:
        """Keeps other processes from this bench until it is closed. Raises BenchLocked, StateFolder, Cancelled."""
        with self._opening:
            if self._is_closed:
                raise _closed()
            if self._lock is None:
                self._lock = BenchLock(self.folder)

    def close(self) -> None:
        """For good: a thread that is left can't open a bus again, and so does no more to a part."""
        self._is_closed = True
        for transport in list(self._transports.values()):
            transport.close()
        for emulated in list(self._emulated.values()):
            emulated.close()
        self._transports.clear()
        self._emulated.clear()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _emulated_bus(self, bus: str) -> EmulatedBus:
        if self.replay is not None:
            raise ComponentUnknown(
                f"bus {bus!r} is replayed, so none of its parts is emulated", remedy="Open the bench without a replay."
            )
        with self._opening:
            if bus not in self._emulated:
                self.lock()
                self._emulated[bus] = self._emulate(bus, self.file.spec.bus[bus], self.folder)
            return self._emulated[bus]

    def _emulate(self, bus: str, spec: benchfile.BusSpec, folder: Path | None) -> EmulatedBus:
        """`folder`: where the flash contents are kept; None: in memory."""
        # Only a bench file that asks for emulated parts brings them in.
        from ..emulators.bench import EmulatedBus, PartSpec
        from ..emulators.device import BadDevice, DeviceSpec

        parts = [
            PartSpec(
                entry.spec.protocol,
                DeviceSpec(
                    entry.spec.name,
                    address=entry.spec.address,
                    profile=entry.raw_profile,
                    settings=entry.spec.emulated,
                    folder=folder,
                    firmware_folder=self.file.path.parent,
                    pace=spec.pace,
                    version=_question(entry),
                ),
            )
            for entry in self.file.entries.values()
            if entry.spec.bus == bus
        ]
        try:
            return EmulatedBus(bus, spec.kind, spec.settings, parts, faults=spec.faults.model_dump(), pace=spec.pace)
        except BadDevice as error:
            place = self._place(bus, error)
            key = ".".join(item for item in place if isinstance(item, str))
            raise BenchKey(f"{self.file.at(place)}: {key}: {error.reason}") from error

    def _place(self, bus: str, error: BadDevice) -> Place:
        """Where the file has a key that an emulated part or wire refuses."""
        if not error.part:
            return ("bus", bus, error.key)
        entry = self.file.entries[error.part]
        table = () if error.key in entry.spec.model_fields_set - set(entry.spec.emulated) else ("emulated",)
        return ("component", entry.index, *table, error.key)


class BenchComponent:
    """One component of a bench: what the file says of it, and what can be done with it."""

    def __init__(self, bench: Bench, entry: benchfile.Entry) -> None:
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
        return _seen(self.entry, self.bench.prober(self.entry.spec.bus))

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


def _closed() -> Cancelled:
    return Cancelled("the bench was closed meanwhile", touched=False)


def _question(entry: benchfile.Entry) -> dict[str, str]:
    """What a running application answers its version to, for an emulated one."""
    question = entry.spec.version
    return question.model_dump(include={"send", "match"}) if question else {}


def _seen(entry: benchfile.Entry, prober: Prober) -> Component:
    sighting = prober.sight(entry, Deadline.after(SIGHT_SECONDS))
    if sighting is None:
        return _record(entry, Presence.ABSENT if prober.can_tell(entry) else Presence.UNKNOWN, None)
    presence = Presence.OK if sighting.state is State.RUNNING else Presence.BOOTLOADER
    return _record(entry, presence, sighting)


def _record(entry: benchfile.Entry, presence: Presence, sighting: Sighting | None) -> Component:
    spec = entry.spec
    identity = sighting.identity if sighting else None
    properties = dict(spec.properties)
    if identity:
        properties |= {key: value for key, value in identity.details.items() if value}
        if identity.serial:
            properties["serial"] = identity.serial
        if identity.bootloader:
            properties["bootloader"] = identity.bootloader
    return Component(
        id=(identity.serial if identity else "") or getattr(entry.address, "serial", None) or spec.name,
        name=spec.name,
        group=spec.group,
        manufacturer=spec.manufacturer or (identity.manufacturer if identity else ""),
        model=spec.model or (identity.part if identity else ""),
        version=identity.version if identity else "",
        presence=presence,
        bus=spec.bus,
        protocol=spec.protocol,
        where=_where(entry),
        properties=properties,
    )


def _where(entry: benchfile.Entry) -> str:
    """Protocol and address, short: "uds 0x7E0/0x7E8", "dfu 0483:df11"."""
    address = entry.address.model_dump(exclude_none=True)
    if "request" in address and "response" in address:
        return f"{entry.spec.protocol} 0x{address['request']:X}/0x{address['response']:X}"
    if "target" in address and "source" in address:
        return f"{entry.spec.protocol} 0x{address['target']:02X} from 0x{address['source']:02X}"
    if "vendor_id" in address and "product_id" in address:
        return f"{entry.spec.protocol} {address['vendor_id']:04x}:{address['product_id']:04x}"
    return entry.spec.protocol
