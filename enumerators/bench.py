"""`Bench`: a bench file brought to life: its components, and the buses that they are on.

with Bench.open("bench.toml") as bench:
    component = bench.component("imu")
    component.flash("imu-1.5.0.hex", context=RunContext(on_event=print))
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..transports import plugins
from ..transports.errors import NextAction, ProxyflashError, TransportError, naming
from ..transports.plain import meant
from ..transports.transport import Transport
from .bench_component import BenchComponent
from .benchfile import schema as benchfile
from .buses import Buses
from .component import Component, Presence
from .emulation import emulate
from .errors import BenchMissing, ComponentUnknown
from .host import HostComponent
from .probers import Prober
from .state import default_state
from .target import Target

if TYPE_CHECKING:
    from ..emulators.replay.session import Replay
    from ..transports.recording.recorder import Recorder
    from .scan import Scan


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


class Bench(Buses):
    """The buses and components of one bench file."""

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | Target | None = None,
        *,
        state: Path | None = None,
        recorder: Recorder | None = None,
        replay: Replay | None = None,
    ) -> Self:
        """Reads the bench file, or takes a target in its place; opens no bus yet. Raises BenchError, TargetWrong.

        `recorder`: keeps what passes on the buses. `replay`: a recording that stands for all of them; the caller closes
        it.
        """
        file = path.file() if isinstance(path, Target) else benchfile.load(find_file(path))
        return cls(file, state or default_state(), recorder, replay)

    @property
    def components(self) -> tuple[BenchComponent, ...]:
        return tuple(BenchComponent(self, entry) for entry in self.file.entries.values())

    def component(self, name: str) -> BenchComponent:
        """A component on a bus. Raises ComponentUnknown."""
        found = self.find(name)
        if isinstance(found, HostComponent):
            raise ComponentUnknown(
                f"component {name!r} is a part of this host, on no bus",
                remedy="It has no bootloader; an update's steps reach it: proxyflash apply MANIFEST",
            )
        return found

    @property
    def only(self) -> BenchComponent:
        """The one component of a target's bench. Raises ComponentUnknown where there is none, or are several."""
        found = self.components
        if len(found) != 1:
            raise ComponentUnknown(
                f"{self.file.path} has {len(found)} components, and the target stands for one",
                remedy=("Name the component: ", NextAction.SCAN),
            )
        return found[0]

    def find(self, name: str) -> BenchComponent | HostComponent:
        """One on a bus, or one of the host itself. Raises ComponentUnknown."""
        if (spec := self.file.hosted.get(name)) is not None:
            return HostComponent(spec, self.commands, self.outside)
        entry = self.file.entries.get(name)
        if entry is None:
            known = ", ".join(self.file.names) or "none"
            raise ComponentUnknown(
                f"{self.file.path} has no component {name!r}{meant(name, self.file.names)}; it has: {known}"
            )
        return BenchComponent(self, entry)

    def scan(self) -> Scan:
        """Asks every component of the file who it is, and looks for others. Enters no bootloader.

        Raises BenchLocked and StateFolder. The scan's `faults` have the errors of components and of buses: neither hides
        another.
        """
        from .scan import scan

        return scan(self)

    def unplugged(self, component: Component) -> bool:
        """Whether it is optional and absent."""
        if component.presence is not Presence.ABSENT:
            return False
        found = self.find(component.name)
        return (found.spec if isinstance(found, HostComponent) else found.entry.spec).optional

    def may_be_in_bootloader(self, component: Component) -> bool:
        """Whether its silence doesn't mean that it isn't there: on its bus only connecting to its bootloader shows that."""
        if component.presence is not Presence.ABSENT or component.name not in self.file.entries:
            return False
        with suppress(ProxyflashError):
            return not self.prober(component.bus).sees_bootloaders
        return False

    def check(self) -> list[str]:
        """Finds what opening the buses would find wrong with the file, and opens none; what is likely not meant, in words.

        Emulated buses are brought to life, in memory and unlocked, for what only that shows; the files and functions that
        profiles name are looked at. Under replay nothing is looked at. Raises BenchKey, the TransportError that a bus's own
        keys are, and what `Bootloader.check_profile` and `check_address` raise.
        """
        said: list[str] = []
        for name, spec in self.file.spec.bus.items() if self.replay is None else ():
            entries = [entry for entry in self.file.entries.values() if entry.spec.bus == name]
            for entry in entries:
                with naming(entry.spec.name):
                    entry.flasher.check_profile(entry.profile)
                    entry.flasher.check_address(entry.address, entry.profile)
                said += [
                    f"component {entry.spec.name}: there is no image {image.file} now"
                    for image in entry.spec.images
                    if not _is_seen(self.file.folder / image.file)
                ]
            if spec.emulated:
                emulate(self.file, name, None).close()
                said += [
                    f"component {entry.spec.name}: its emulated part has no firmware, and so no application to run; give it "
                    'emulated = {firmware = "..."}'
                    for entry in entries
                    if "firmware" not in entry.spec.emulated
                ]
            else:
                transport: type[Transport] = plugins.load(plugins.TRANSPORTS, spec.kind)
                settings = self.file.settings(name)
                try:
                    transport.check(name, settings)
                except TransportError as error:
                    raise error.placed(self.file.at_settings(name, error)) from error
                said += [f"bus {name}: {text}" for text in transport.surprises(settings)]
                for entry in entries:
                    about = f"component {entry.spec.name}"
                    found = (*entry.address.surprises(), *entry.flasher.surprises(entry.profile, settings))
                    said += [f"{about}: {text}" for text in found]
            prober: Prober = plugins.load(plugins.ENUMERATORS, spec.kind)(name, spec, None)
            if spec.probe and (idle := prober.unasked(entries)):
                said.append(f"bus {name}: {idle}")
        return said


def _is_seen(path: Path) -> bool:
    """Whether there is such a file; not seen is one in a folder that this user may not enter, or whose name is too long."""
    try:
        return path.exists()
    except OSError:
        return False
