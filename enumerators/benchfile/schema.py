"""The bench file: which buses this host has, and which components are wired to them. TOML, checked as a whole.

What it names, it names in the underlying library's own terms (python-can's, pyserial's, pyusb's) and passes on. Every
error names the file, the line and the key.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import date, time
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from ...flashers.flasher import Address, Bootloader
from ...flashers.settings import Before, Field, Settings, in_words
from ...transports import named_files, plugins
from ...transports.errors import BadSettings, ProxyflashError, TransportError
from ...transports.plain import meant, quoted
from ...transports.quoting import shell_line
from ..errors import BenchKey, BenchMissing, BenchName, BenchSyntax
from ..state import bench_folder
from .toml_positions import Place, key_lines, nearest
from .validation import Fault, first_fault, keys_beside, lowered

M = TypeVar("M", bound=Settings)

DEEPEST = 32
"""Levels of nesting; no key of this file needs more than 6."""
MOST_BYTES = 4 << 20
"""Of a bench file."""
LONG_KEY = re.compile(rf"(?:\.[ \t]*+(?:[\w-]++|\"[^\"\n]*+\"|'[^'\n]*+')[ \t]*+){{{DEEPEST}}}", re.ASCII)
"""A dotted key that is nested too deeply, which tomllib would take quadratic time for."""

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""The form of the names of buses and components."""
Name = Annotated[
    str,
    Field(pattern=f"^{NAME}$", max_length=64),
    in_words("of ASCII letters, digits, '.', '_' and '-', and begin with a letter or a digit"),
]


def _compiled(text: str | bytes) -> re.Pattern[Any]:
    try:
        return re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from error


def _with_group(text: str | bytes) -> None:
    if _compiled(text).groups < 1:
        raise ValueError("the pattern needs one group, around the version")


def _for_bytes(value: object) -> object:
    """A pattern for answers, which come in as bytes."""
    if isinstance(value, str):
        _with_group(value.encode())
    return value


def _for_text(value: object) -> object:
    if isinstance(value, str):
        _compiled(value)
    return value


def _for_version(value: object) -> object:
    if isinstance(value, str) and value:
        _with_group(value)
    return value


class VersionQuestion(Settings):
    """A question that a running application answers with its version, on the wire that it is flashed over."""

    send: str
    """The text that is sent."""
    match: Annotated[str, Before(_for_bytes)]
    """A regular expression (Python's `re`, on bytes) with a group around the version. The answer must go on after the
    version, such as with a line end or a space."""
    timeout: float = Field(default=0.5, gt=0, le=60)
    """Seconds that the answer may take."""


class HostVersion(Settings):
    """The version of a component without a bus: from a file of the host, or from a shell command.

    Paths and commands start from the bench file's folder.
    """

    file: str = Field(default="", max_length=4096)
    """A file that holds the version. Give either `file` or `command`."""
    key: str = Field(default="", max_length=256)
    """The key whose value is the version, in a file with lines `KEY=VALUE`, such as /etc/os-release."""
    command: str = Field(default="", max_length=4096)
    """A shell command that prints the version, within 30 seconds."""
    match: Annotated[str, Before(_for_version)] = ""
    """A regular expression with a group around the version. Without `match` and `key`, the whole text is the
    version."""

    def check_together(self) -> None:
        if bool(self.file) == bool(self.command):
            raise ValueError("it takes either file or command")
        if self.key and not self.file:
            raise ValueError("key is for a file")
        if self.key and self.match:
            raise ValueError("it takes either key or match")


class PartitionSpec(Settings):
    """How a partition of the host is updated: into the slot that isn't in use, which is then switched to.

    Paths and commands are taken from the bench file's folder on.
    """

    slots: Annotated[dict[Name, str], Field(min_length=2, max_length=2)]
    """Two block devices, or files, by the names that the commands use for them."""
    active: str = Field(min_length=1, max_length=4096)
    """A shell command that prints the name of the slot in use."""
    switch: str = Field(min_length=1, max_length=4096)
    """A shell command that makes the other slot the one in use. `{slot}` stands for that slot's name."""
    reboot: bool = True
    """Whether the host must restart before the other slot is in use."""


class AppSpec(Settings):
    """How an application of the host is updated. The path and the commands are taken from the bench file's folder on."""

    folder: str = Field(min_length=1, max_length=4096)
    """The folder with the application's files. An update changes nothing outside of this folder."""
    restart: str = Field(default="", max_length=4096)
    """A shell command that restarts the application."""
    health: str = Field(default="", max_length=4096)
    """A shell command that ends with status 0 when the application works."""
    health_seconds: float = Field(default=30.0, ge=0, le=3600)
    """Seconds that the application has until it works."""


class FaultSpec(Settings):
    """What goes wrong on an emulated bus: see the emulators' FaultPlan. A unit is a frame, a byte or a transfer."""

    drop: float = Field(default=0.0, ge=0, le=1)
    """Chance that a unit is lost."""
    duplicate: float = Field(default=0.0, ge=0, le=1)
    """Chance that a unit arrives twice."""
    corrupt: float = Field(default=0.0, ge=0, le=1)
    """Chance that a unit arrives with one bit changed."""
    delay: float = Field(default=0.0, ge=0, le=1)
    """Chance that a unit arrives late."""
    delay_seconds: float = Field(default=0.05, ge=0, le=60)
    """Seconds by which a late unit is late."""
    disconnect_after: int = Field(default=0, ge=0)
    """The unit, counted from 1, at which the host's adapter vanishes. 0: never."""
    bus_off_after: int = Field(default=0, ge=0)
    """The unit, counted from 1, at which the host's CAN controller goes bus-off. 0: never."""
    first: int = Field(default=1, ge=1)
    """The first unit that chance may hit."""
    last: int = Field(default=0, ge=0)
    """The last unit that chance may hit. 0: no end."""
    seed: int = 0
    """Seed of the random numbers. The same seed gives the same faults."""


class AskSpec(Settings):
    """A bootloader protocol that an unknown part on a serial line may be asked with."""

    protocol: str
    """The bootloader protocol to ask with."""
    baudrate: int | None = Field(default=None, gt=0)
    """Bit rate of the question, in bit/s. Default: the bus's `baudrate`."""
    profile: dict[str, Any] = Field(default_factory=dict)
    """A profile, as of a component with this protocol."""


class BusSpec(Settings, takes_more=True):
    """One bus. Keys beyond these are the library's own and are passed on."""

    kind: str
    """The kind of bus: `"can"`, `"serial"`, `"udp"`, `"usb"`, or a kind that a plugin adds. `proxyflash plugins`
    lists what is installed."""
    emulated: bool = False
    """Whether proxyflash emulates the components of this bus in its own process."""
    probe: bool = False
    """Whether `scan` may look here for devices that this file does not list. `scan` then sends TesterPresent on CAN,
    and the bootloader's sync byte on a serial line."""
    pace: float = Field(default=1.0, ge=0, le=100)
    """How many times as long as on the real bus things take on an emulated bus. 0.0: no time."""
    faults: FaultSpec = FaultSpec()
    """What goes wrong on an emulated bus."""
    at_once: int | None = Field(default=None, ge=1, le=100)
    """How many components of this bus an update works on at the same time, if the update allows it. Default: 1, on
    USB all of them."""
    ask: tuple[AskSpec, ...] = ()
    """Protocols with which `scan` asks an unknown part on a serial line without a component, in this order."""
    quiet: float = Field(default=0.5, ge=0, le=60)
    """Seconds for which the line must be quiet before the next question of `ask`."""

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra)


class ImageSpec(Settings):
    """A release that is known to be good, for tests."""

    file: str = Field(min_length=1)
    """A firmware file. A relative path starts at the bench file's folder."""
    version: str = ""
    """The version that the application then reports. "": the version is not compared."""
    address: int | None = Field(default=None, ge=0)
    """Address of a raw binary. Default: the start of the part's memory."""


class ComponentSpec(Settings):
    """One component. A component without a bus belongs to the host: a partition, an application."""

    name: Name
    """The component's name, unique in the file."""
    id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The id of a component of this host, unique in the file. Default: its name."""
    group: str = ""
    """A group of components that take the same update."""
    bus: str = ""
    """The name of the component's bus. "": the component belongs to this host, such as a partition or an
    application."""
    protocol: str = ""
    """The protocol of the component's bootloader. Needed on a bus."""
    address: dict[str, Any] = Field(default_factory=dict)
    """Where the component is on its bus. The keys depend on the protocol."""
    profile: str | dict[str, Any] = Field(default_factory=dict)
    """How the maker's bootloader differs: a table, or the name of a table `[profile.NAME]`. The keys depend on the
    protocol."""
    manufacturer: str = ""
    """The manufacturer. Default: what the part reports."""
    model: str = ""
    """The model. Default: what the part reports."""
    properties: dict[str, str] = Field(default_factory=dict)
    """Texts by which updates and people recognise the component, such as `{mounted = "left"}`."""
    version: VersionQuestion | None = None
    """How the application on a serial line is asked for its version."""
    version_from: HostVersion | None = None
    """How the version of a component of this host is found."""
    partition: PartitionSpec | None = None
    """How a partition of this host is updated."""
    app: AppSpec | None = None
    """How an application of this host is updated."""
    boot_timeout: float = Field(default=10.0, gt=0, le=600)
    """Seconds that the application has to answer after a boot."""
    images: tuple[ImageSpec, ...] = ()
    """Known good releases to test with, oldest first."""
    optional: bool = False
    """Whether the component may be unplugged. An update skips an optional component while it is absent."""
    emulated: dict[str, Any] = Field(default_factory=dict)
    """Which part is emulated, on an emulated bus, and how it behaves. The keys are those of the protocol's emulated parts."""


class PowerSpec(Settings):
    """Shell commands that cut and restore a component's supply; they run in the bench file's folder."""

    off: str = Field(min_length=1)
    """A shell command that cuts the supply."""
    on: str = Field(min_length=1)
    """A shell command that restores the supply."""
    volts: str = Field(default="", max_length=4096)
    """A shell command that prints the supply's voltage as a number, for the conditions of an update."""


class CheckSpec(Settings):
    """A shell command, run in the bench file's folder, that decides whether an update may go on."""

    command: str = Field(min_length=1)
    """The shell command, of 30 seconds at most. The check fails if its exit status is not 0."""
    match: Annotated[str, Before(_for_text)] = ""
    """A regular expression that must be found in what the command prints."""
    min: float | None = None
    """The first number that the command prints must be this or more."""
    max: float | None = None
    """The first number that the command prints must be this or less."""


class FileSpec(Settings):
    """The whole bench file."""

    bus: dict[Name, BusSpec] = Field(default_factory=dict)
    """The buses of this host: `[bus.NAME]`."""
    component: list[ComponentSpec] = Field(default_factory=list)
    """The components: one `[[component]]` for each."""
    profile: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    """Profiles that several components share: `[profile.NAME]`."""
    power: dict[Name, PowerSpec] = Field(default_factory=dict)
    """How the supply of a component is switched: `[power.NAME]`, by the component's name."""
    check: dict[Name, CheckSpec] = Field(default_factory=dict)
    """Checks that updates ask by their name: `[check.NAME]`."""
    updates: dict[str, Any] = Field(default_factory=dict)
    """Rules that hold for every update on this bench."""


NAMED = ("bus", "profile", "power", "check")
"""Of its tables, those that hold tables by names."""


@dataclass(frozen=True, slots=True)
class BenchEntry:
    """One component of the file, with everything that its protocol needs, checked. `index`: which `[[component]]`."""

    spec: ComponentSpec
    flasher: type[Bootloader]
    address: Address
    profile: Settings
    raw_profile: dict[str, Any]
    index: int


@dataclass(frozen=True, slots=True)
class BenchFile:
    """A bench file that holds."""

    path: Path
    text: str
    spec: FileSpec
    entries: dict[str, BenchEntry]
    hosted: dict[str, ComponentSpec] = field(default_factory=dict)
    """The components without a bus."""
    lists_host: ClassVar[bool] = True
    """Whether it is meant to list the buses of this host, so that others are worth telling."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all components, in the file's order."""
        listed = (component.name for component in self.spec.component)
        return tuple(name for name in listed if name in self.entries or name in self.hosted)

    def validated(self, model: type[M], value: object, key: str) -> M:
        """The table of a key at the top, by its model. Raises BenchKey with the line."""
        return Reader(self.path, self.text, {key: value}).validated(model, value, (key,))

    def settings(self, bus: str) -> dict[str, Any]:
        """What the transport of a bus is opened with: its own keys, and what the protocols on it have for those left out."""
        found: dict[str, Any] = {}
        for entry in self.entries.values():
            if entry.spec.bus == bus:
                found |= entry.flasher.bus_defaults
        return found | self.spec.bus[bus].settings

    def setting_of_bus(self, bus: str, setting: str) -> str:
        """How a setting of a bus, as KEY=VALUE, is written here, for messages."""
        return f"{setting.replace('=', ' = ')} in [bus.{bus}] of {self.path}"

    def state_folder(self, state: Path) -> Path:
        """The part of the state folder that is this bench's."""
        return bench_folder(state, self.path)

    @property
    def folder(self) -> Path:
        """Where its paths and commands start from."""
        return self.path.absolute().parent

    def at(self, place: Place) -> str:
        """File and line of a key, for messages: "desk.toml:12"."""
        return _at(self.path, self.text, place)

    def at_settings(self, bus: str, error: TransportError) -> str:
        """File and line of the key of a bus that an error is about."""
        return self.at(("bus", bus, error.setting if isinstance(error, BadSettings) else ""))


def load(path: Path) -> BenchFile:
    """Reads and checks a bench file. Raises BenchMissing, BenchSyntax, BenchKey, BenchName, PluginUnknown."""
    return from_text(path, _read(path))


def from_text(path: Path, text: str) -> BenchFile:
    """A bench file that is to have this text. Raises as `load`, but for BenchMissing."""
    raw = _tables(path, text)
    reader = Reader(path, text, raw)
    reader.refuse_odd_values(raw, ())
    spec = reader.validated(FileSpec, raw, ())
    hosted = {component.name: component for component in spec.component if not component.bus}
    return BenchFile(path, text, spec, reader.entries(spec), hosted)


def parsed(path: Path) -> tuple[str, dict[str, Any]]:
    """The text of a TOML file, and its tables. Raises BenchMissing, BenchSyntax."""
    text = _read(path)
    return text, _tables(path, text)


def _tables(path: Path, text: str) -> dict[str, Any]:
    """Raises BenchSyntax."""
    if (long := LONG_KEY.search(text)) is not None:
        raise BenchSyntax(f"{path}:{text.count(chr(10), 0, long.start()) + 1}: nested too deeply")
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise BenchSyntax(f"{path}: nested too deeply") from error
    except ValueError as error:
        raise BenchSyntax(_syntax(path, text, str(error))) from error


def _read(path: Path) -> str:
    try:
        data = named_files.read(path, MOST_BYTES)
    except IsADirectoryError as error:
        raise BenchMissing(f"{path}: is a folder", remedy="Name the file in it.") from error
    except PermissionError as error:
        make = shell_line(["chmod", "+r", "--", path])
        raise BenchMissing(f"{path}: {error.strerror}", remedy=f"Make it readable: {make}") from error
    except OSError as error:
        port = f"For one part on a port, name its protocol too: {shell_line([f'stm32-uart:{path}'])}"
        remedy = port if path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm") else None
        raise BenchMissing(f"{path}: {error.strerror}", remedy=remedy) from error
    if len(data) > MOST_BYTES:
        raise BenchSyntax(f"{path}: more than {MOST_BYTES:,} bytes, which is not a bench file")
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BenchSyntax(
            f"{path}:{line}: byte 0x{data[error.start]:02X} is not UTF-8", remedy="Save the file as UTF-8."
        ) from error


def _syntax(path: Path, text: str, said: str) -> str:
    """tomllib's "Expected '=' (at line 3, column 5)", with the line where other messages have it."""
    found = re.search(r" \(at (?:line (\d+), (column \d+)|end of document)\)$", said)
    if found is None:
        # The one thing that tomllib leaves to Python: an integer of more digits than int() takes.
        long = re.search(r"[0-9_]{4300,}", text)
        return f"{path}:{text.count(chr(10), 0, long.start()) + 1 if long else 1}: a number has too many digits"
    what = lowered(said[: found.start()])
    line, column = found[1] or text.rstrip().count("\n") + 1, found[2] or "at the end of the file"
    if (twice := re.search(r"cannot declare \((.*?),?\) twice", what)) is not None:
        table = twice[1].replace("'", "").replace(", ", ".")
        what = f"[{table}] stands there twice" + "; each one is [[component]]" * (table == "component")
    elif what == "invalid value" and found[1] is not None:
        value = text.split("\n")[int(line) - 1][int(column.removeprefix("column ")) - 1 :]
        what += ": a text stands between straight quotes" * (re.match(r"[^\W\d]|[/.\u2018-\u201f]", value) is not None)
    return f"{path}:{line}: {what} ({column})"


def _at(path: Path, text: str, place: Place) -> str:
    line = nearest(key_lines(text), place)
    return f"{path}:{line}" if line else str(path)


class Reader:
    """Checks one file; knows its text, to say on which line a fault is."""

    def __init__(self, path: Path, text: str, raw: dict[str, Any]) -> None:
        self.path = path
        self.text = text
        self.raw = raw

    def refuse_odd_values(self, value: object, place: Place) -> None:
        """What TOML has and no key of this file takes: dates, numbers without end or beyond 64 bits."""
        if len(place) > DEEPEST:
            raise BenchKey(f"{self._at(place)}: {self._dotted(place[:2])} is nested too deeply")
        match value:
            case dict():
                for key, item in value.items():
                    self.refuse_odd_values(item, (*place, key))
            case list():
                for index, item in enumerate(value):
                    self.refuse_odd_values(item, (*place, index))
            case float() if not math.isfinite(value):
                raise BenchKey(f"{self._at(place)}: {self._dotted(place)} = {value} is not a finite number")
            case int() if value.bit_length() > 63:
                raise BenchKey(f"{self._at(place)}: {self._dotted(place)} has more than 64 bits")
            case date() | time():
                raise BenchKey(f"{self._at(place)}: {self._dotted(place)} = {value} is a date or time")

    def entries(self, spec: FileSpec) -> dict[str, BenchEntry]:
        self._buses(spec)
        found: dict[str, BenchEntry] = {}
        names: set[str] = set()
        for index, component in enumerate(spec.component):
            place = ("component", index)
            if component.name in names:
                raise BenchName(
                    f"{self._at((*place, 'name'))}: two components are called {component.name!r}",
                    remedy="Give each component a name of its own.",
                )
            names.add(component.name)
            if component.id is not None and any(
                other is not component and component.id in (other.id, other.name) for other in spec.component
            ):
                raise BenchName(
                    f"{self._at((*place, 'id'))}: the id {component.id!r} is that of another component",
                    remedy="Give each component an id of its own.",
                )
            if not component.bus:
                self._hosted(component, place)
                continue
            entry = self._entry(spec, component, index)
            self._refuse_twin(entry, found.values())
            found[component.name] = entry
        for name in spec.power:
            if name not in names:
                raise BenchName(
                    f"{self._at(('power', name))}: there is no component {name!r}{meant(name, names)}",
                    remedy="A power table is named after the component that it supplies.",
                )
        return found

    def _buses(self, spec: FileSpec) -> None:
        kinds = plugins.names(plugins.TRANSPORTS)
        for name, bus in spec.bus.items():
            if bus.kind not in kinds:
                raise BenchKey(
                    f"{self._at(('bus', name, 'kind'))}: bus.{name}.kind = {bus.kind!r} is none of {', '.join(kinds)}"
                    f"{meant(bus.kind, kinds)}"
                )
            if not bus.emulated and (near := get_close_matches("emulated", bus.settings, n=1, cutoff=0.8)):
                raise BenchKey(
                    f"{self._at(('bus', name, near[0]))}: bus.{name}: unknown key {near[0]!r} (did you mean 'emulated'?)"
                )
            for key in ("pace", "faults"):
                if key in bus.model_fields_set and not bus.emulated:
                    raise BenchKey(f"{self._at(('bus', name, key))}: bus.{name}.{key} is for emulated buses only")
            for key in ("ask", "quiet"):
                if key in bus.model_fields_set and not plugins.load(plugins.ENUMERATORS, bus.kind).asks:
                    raise BenchKey(
                        f"{self._at(('bus', name, key))}: bus.{name}.{key} is not for a bus of kind {bus.kind}, as for "
                        "serial lines"
                    )
            for index, asked in enumerate(bus.ask):
                self._asked(name, bus, asked, index)

    def _asked(self, name: str, bus: BusSpec, asked: AskSpec, index: int) -> None:
        place: Place = ("bus", name, "ask", index)
        flasher = self._flasher(asked.protocol, (*place, "protocol"))
        if flasher.bus_kind != bus.kind:
            raise BenchKey(
                f"{self._at((*place, 'protocol'))}: bus.{name}.ask: {asked.protocol!r} runs over a bus of kind "
                f"{flasher.bus_kind}, not of kind {bus.kind}"
            )
        self.validated(flasher.Profile, asked.profile, (*place, "profile"))

    def _flasher(self, protocol: str, place: Place) -> type[Bootloader]:
        try:
            flasher: type[Bootloader] = plugins.load(plugins.FLASHERS, protocol)
        except ProxyflashError as error:
            raise error.placed(self._at(place)) from error
        return flasher

    def _hosted(self, component: ComponentSpec, place: Place) -> None:
        """A component without a bus has none of what is about one."""
        about_buses = ("protocol", "address", "profile", "version", "boot_timeout", "images", "emulated")
        for key in about_buses:
            if key in component.model_fields_set:
                raise BenchKey(
                    f"{self._at((*place, key))}: component {component.name!r} has {key} and no bus",
                    remedy="Name its bus; or, if it is a part of this host, take the key out.",
                )
        for key in ("partition", "app"):
            if getattr(component, key) is not None and component.version_from is None:
                raise BenchKey(
                    f"{self._at((*place, key))}: component {component.name!r} has {key} and no version_from",
                    remedy="An update asks for the version before and after: add version_from.",
                )

    def _refuse_twin(self, entry: BenchEntry, others: Iterable[BenchEntry]) -> None:
        """Two names for one part; a part with several memories may have a component, and so a profile, for each."""
        for other in others:
            same = (other.spec.bus, other.spec.protocol) == (entry.spec.bus, entry.spec.protocol)
            if same and (other.address, other.profile) == (entry.address, entry.profile):
                raise BenchName(
                    f"{self._at(('component', entry.index))}: component {entry.spec.name!r} is the same part as "
                    f"{other.spec.name!r}: bus, protocol, address and profile are equal",
                    remedy="Correct its bus or address, or take it out.",
                )

    def _entry(self, spec: FileSpec, component: ComponentSpec, index: int) -> BenchEntry:
        place: Place = ("component", index)
        for key in ("id", "version_from", "partition", "app"):
            if getattr(component, key) is not None:
                raise BenchKey(
                    f"{self._at((*place, key))}: component {component.name!r} is on bus {component.bus!r}; "
                    f"{key} is for parts of this host",
                    remedy={
                        "id": "It reports its serial number itself, or has a serial number in its address.",
                        "version_from": "It reports its version itself, or is asked by the key version.",
                    }.get(key, "Parts on buses are flashed."),
                )
        if not component.protocol:
            raise BenchKey(f"{self._at(place)}: component.protocol is missing: {component.name!r} is on a bus")
        bus = spec.bus.get(component.bus)
        if bus is None:
            known = ", ".join(spec.bus) or "none"
            raise BenchName(
                f"{self._at((*place, 'bus'))}: component {component.name!r} is on a bus {component.bus!r} that the "
                f"file doesn't have{meant(component.bus, spec.bus)}; it has: {known}",
                remedy=f"Add a table [bus.{component.bus}], or correct the name.",
            )
        flasher = self._flasher(component.protocol, (*place, "protocol"))
        if flasher.bus_kind != bus.kind:
            raise BenchKey(
                f"{self._at((*place, 'protocol'))}: component.protocol = {component.protocol!r} runs over a bus of "
                f"kind {flasher.bus_kind}, but {component.bus!r} is of kind {bus.kind}"
            )
        if component.emulated and not bus.emulated:
            raise BenchKey(
                f"{self._at((*place, 'emulated'))}: component.emulated: {component.bus!r} is not an emulated bus"
            )
        if component.version is not None and not bus.probe:
            self._refuse_harm(flasher, component, component.version, place)
        raw_profile, profile_place = self._profile(spec, component, place)
        return BenchEntry(
            component,
            flasher,
            self.validated(flasher.Address, component.address, (*place, "address")),
            self.validated(flasher.Profile, raw_profile, profile_place),
            raw_profile,
            index,
        )

    def _refuse_harm(
        self, flasher: type[Bootloader], component: ComponentSpec, question: VersionQuestion, place: Place
    ) -> None:
        """The bootloader hears the application's question where it waits instead, as after an interrupted flash."""
        if does := flasher.harmed_by(question.send.encode()):
            raise BenchKey(
                f"{self._at((*place, 'version'))}: component {component.name!r}: {does}, and version.send may come to it",
                remedy=f"Set probe = true for the bus {component.bus!r}: the bootloader is looked for first. Or ask in "
                "other letters.",
            )

    def _profile(self, spec: FileSpec, component: ComponentSpec, place: Place) -> tuple[dict[str, Any], Place]:
        if isinstance(component.profile, dict):
            return component.profile, (*place, "profile")
        if component.profile not in spec.profile:
            known = ", ".join(spec.profile) or "none"
            raise BenchName(
                f"{self._at((*place, 'profile'))}: there is no profile {component.profile!r}"
                f"{meant(component.profile, spec.profile)}; there are: {known}",
                remedy=f"Add a table [profile.{component.profile}], or correct the name.",
            )
        return spec.profile[component.profile], ("profile", component.profile)

    def validated(self, model: type[M], value: object, place: Place) -> M:
        """A table by its model. TOML's types that JSON does not have are refused before. Raises BenchKey with the line."""
        try:
            return model.of_file(value, self.path.absolute().parent)
        except ValueError as error:
            # Only now pydantic is imported.
            from pydantic import ValidationError

            if not isinstance(error, ValidationError):
                raise
            fault = first_fault(error)
            raise BenchKey(self._explain(fault, place, keys_beside(model, fault.place))) from None

    def _explain(self, fault: Fault, place: Place, known: Iterable[str]) -> str:
        path = (*place, *fault.place)
        if path == ("component",) and fault.kind == "list_type":
            return f"{self._at(path)}: [component] is one table; write [[component]], for each component one"
        if fault.kind in ("model_type", "dict_type") and path[0] in NAMED and len(path) <= 2:
            return f"{self._at(path)}: {path[0]} is not a list, and holds tables alone; write [{path[0]}.NAME] for each {path[0]}"
        if fault.kind == "extra_forbidden":
            suggested = self._of_the_protocol(path) or meant(str(path[-1]), known)
            return f"{self._at(path)}: unknown key {self._dotted(path)}{suggested}"
        if fault.kind == "missing":
            return f"{self._at(path)}: {self._dotted(path[:-1], path[-1])} is missing"
        message = "should be a table" if fault.kind in ("model_type", "dict_type") else fault.message
        # What is wrong with a whole table is not said better by its keys.
        said = f" = {quoted(fault.value)}" if fault.place or not isinstance(fault.value, dict) else ""
        return f"{self._at(path)}: {self._dotted(path)}{said}: {message}"

    def _of_the_protocol(self, path: Place) -> str:
        """What is meant by a key of a component's profile or address that stands beside these; "" if it is none."""
        match path:
            case ("component", int(index), str(key)):
                protocol = self.raw["component"][index].get("protocol")
                if protocol in plugins.names(plugins.FLASHERS):
                    flasher = self._flasher(protocol, path)
                    for table, model in (("profile", flasher.Profile), ("address", flasher.Address)):
                        if key in model.keys_declared:
                            return f" (did you mean '{table}.{key}'?)"
        return ""

    def _dotted(self, place: Place, *more: str | int) -> str:
        """A place in the words of the file; what pydantic adds (which member of a union it tried) is left out."""
        said: list[str] = []
        value: Any = self.raw
        for item in place:
            try:
                value = value[item]
            except (KeyError, IndexError, TypeError):
                break
            if isinstance(item, str):
                said.append(item)
        return ".".join([*said, *map(str, more)]) or "the file"

    def _at(self, place: Place) -> str:
        return _at(self.path, self.text, place)
