"""The bench file: which buses this host has, and which components are wired to them. TOML, checked as a whole.

What it names, it names in the underlying library's own terms (python-can's, pyserial's, pyusb's) and passes on. Every
fault is told with the file, the line and the key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..flashers.base import Flasher, Settings
from ..transports import plugins
from ..transports.errors import ProxyflashError
from .errors import BenchKey, BenchMissing, BenchName, BenchSyntax

M = TypeVar("M", bound=BaseModel)

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


def _compilable(value: object) -> object:
    if isinstance(value, str):
        try:
            if re.compile(value).groups < 1:
                raise ValueError("the pattern needs one group, around the version")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
    return value


class VersionQuestion(Settings):
    """A question that a running application answers with its version, on the wire that it is flashed over."""

    send: str
    match: Annotated[str, BeforeValidator(_compilable)]
    timeout: float = Field(default=0.5, gt=0, le=60)


class BusSpec(BaseModel):
    """One bus. Keys beyond these are the library's own and are passed on."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str
    emulated: bool = False
    probe: bool = False
    """Whether enumerators may send here what is not addressed to a component of the file."""
    pace: float = Field(default=1.0, ge=0, le=100)
    """Of an emulated bus: 1.0 takes the time that the wire takes, 0.0 none."""
    faults: dict[str, float] = Field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class ComponentSpec(Settings):
    """One component."""

    name: Name
    group: str = ""
    bus: str
    protocol: str
    address: dict[str, Any] = Field(default_factory=dict)
    profile: str | dict[str, Any] = Field(default_factory=dict)
    manufacturer: str = ""
    model: str = ""
    properties: dict[str, str] = Field(default_factory=dict)
    version: VersionQuestion | None = None
    boot_timeout: float = Field(default=10.0, gt=0, le=600)
    emulated: dict[str, Any] = Field(default_factory=dict)


class PowerSpec(Settings):
    """Commands that cut and restore a component's supply."""

    off: str
    on: str


class FileSpec(Settings):
    """The whole file."""

    bus: dict[Name, BusSpec] = Field(default_factory=dict)
    component: list[ComponentSpec] = Field(default_factory=list)
    profile: dict[Name, dict[str, Any]] = Field(default_factory=dict)
    power: dict[Name, PowerSpec] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One component of the file, with everything that its protocol needs, checked."""

    spec: ComponentSpec
    flasher: type[Flasher]
    address: Settings
    profile: Settings
    raw_profile: dict[str, Any]


@dataclass(frozen=True, slots=True)
class BenchFile:
    """A bench file that holds."""

    path: Path
    spec: FileSpec
    entries: dict[str, Entry]


def load(path: Path) -> BenchFile:
    """Reads and checks a bench file. Raises BenchMissing, BenchSyntax, BenchKey, BenchName, PluginUnknown."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BenchMissing(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BenchSyntax(f"{path}: not UTF-8 at byte {error.start}") from error
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BenchSyntax(f"{path}: {error}") from error
    except RecursionError as error:
        raise BenchSyntax(f"{path}: nested too deeply") from error
    reader = _Reader(path, text, raw)
    spec = reader.validated(FileSpec, raw, ())
    return BenchFile(path, spec, reader.entries(spec))


class _Reader:
    """Checks one file; knows its text, to say on which line a fault is."""

    def __init__(self, path: Path, text: str, raw: dict[str, Any]) -> None:
        self.path = path
        self.lines = text.splitlines()
        self.raw = raw

    def entries(self, spec: FileSpec) -> dict[str, Entry]:
        self._buses(spec)
        found: dict[str, Entry] = {}
        for index, component in enumerate(spec.component):
            place = ("component", index)
            if component.name in found:
                raise BenchName(
                    f"{self._at((*place, 'name'))}: two components are called {component.name!r}",
                    remedy="Give each component a name of its own.",
                )
            found[component.name] = self._entry(spec, component, place)
        for name in spec.power:
            if name not in found:
                raise BenchName(
                    f"{self._at(('power', name))}: there is no component {name!r}",
                    remedy="A power table is named after the component that it supplies.",
                )
        return found

    def _buses(self, spec: FileSpec) -> None:
        kinds = plugins.names(plugins.TRANSPORTS)
        for name, bus in spec.bus.items():
            if bus.kind not in kinds:
                raise BenchKey(f"{self._at(('bus', name, 'kind'))}: kind {bus.kind!r} is none of {', '.join(kinds)}")
            for key in ("pace", "faults"):
                if key in bus.model_fields_set and not bus.emulated:
                    raise BenchKey(f"{self._at(('bus', name, key))}: {key} is for emulated buses only")

    def _entry(self, spec: FileSpec, component: ComponentSpec, place: tuple[str | int, ...]) -> Entry:
        bus = spec.bus.get(component.bus)
        if bus is None:
            known = ", ".join(spec.bus) or "none"
            raise BenchName(
                f"{self._at((*place, 'bus'))}: component {component.name!r} is on a bus {component.bus!r} that the "
                f"file doesn't have; it has: {known}",
                remedy=f"Add a table [bus.{component.bus}], or correct the name.",
            )
        try:
            flasher = plugins.load(plugins.FLASHERS, component.protocol)
        except ProxyflashError as error:
            error.cause = f"{self._at((*place, 'protocol'))}: {error.cause}"
            raise
        if flasher.bus_kind != bus.kind:
            raise BenchKey(
                f"{self._at((*place, 'protocol'))}: {component.protocol} runs over a bus of kind {flasher.bus_kind}, "
                f"but {component.bus!r} is of kind {bus.kind}"
            )
        if component.emulated and not bus.emulated:
            raise BenchKey(f"{self._at((*place, 'emulated'))}: {component.bus!r} is not an emulated bus")
        raw_profile, profile_place = self._profile(spec, component, place)
        return Entry(
            component,
            flasher,
            self.validated(flasher.Address, component.address, (*place, "address")),
            self.validated(flasher.Profile, raw_profile, profile_place),
            raw_profile,
        )

    def _profile(
        self, spec: FileSpec, component: ComponentSpec, place: tuple[str | int, ...]
    ) -> tuple[dict[str, Any], tuple[str | int, ...]]:
        if isinstance(component.profile, dict):
            return component.profile, (*place, "profile")
        if component.profile not in spec.profile:
            known = ", ".join(spec.profile) or "none"
            raise BenchName(
                f"{self._at((*place, 'profile'))}: there is no profile {component.profile!r}; there are: {known}",
                remedy=f"Add a table [profile.{component.profile}], or correct the name.",
            )
        return spec.profile[component.profile], ("profile", component.profile)

    def validated(self, model: type[M], value: object, place: tuple[str | int, ...]) -> M:
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise BenchKey(self._explain(error, place)) from None

    def _explain(self, error: ValidationError, place: tuple[str | int, ...]) -> str:
        first = error.errors(include_url=False, include_context=False)[0]
        path = (*place, *first["loc"])
        if first["type"] == "extra_forbidden":
            return f"{self._at(path)}: {self._dotted(path)} is no key that is known here"
        if first["type"] == "missing":
            return f"{self._at(path)}: {self._dotted(path)} is missing"
        what = first["msg"].removeprefix("Value error, ")
        return f"{self._at(path)}: {self._dotted(path)} = {first['input']!r}: {what[:1].lower() + what[1:]}"

    def _dotted(self, path: Sequence[str | int]) -> str:
        return ".".join(str(item) for item in path if not isinstance(item, int)) or "the file"

    def _at(self, path: Sequence[str | int]) -> str:
        line = self._line(path)
        return f"{self.path}:{line}" if line else str(self.path)

    def _line(self, path: Sequence[str | int]) -> int:
        """The line of a key, or of the nearest table above it that the file spells out; 0 if there is none."""
        best = 0
        header: list[str] = []
        counts: dict[str, int] = {}
        wanted = list(path)
        depth = 0
        for number, line in enumerate(self.lines, 1):
            text = line.strip()
            table = re.match(r"^\[(\[?)([^\]]+)\]", text)
            if table:
                header = [part.strip().strip("\"'") for part in table[2].split(".")]
                prefix: list[str | int] = list(header)
                if table[1]:
                    counts[table[2]] = counts.get(table[2], -1) + 1
                    prefix.append(counts[table[2]])
                elif header[0] in counts:
                    prefix.insert(1, counts[header[0]])
            else:
                key = re.match(r"^([A-Za-z0-9_.\"'-]+)\s*=", text)
                if not key:
                    continue
                prefix = [*self._table(header, counts), *key[1].replace('"', "").split(".")]
            common = 0
            while common < min(len(prefix), len(wanted)) and prefix[common] == wanted[common]:
                common += 1
            if common == len(prefix) and common > depth:
                best, depth = number, common
        return best

    def _table(self, header: list[str], counts: dict[str, int]) -> list[str | int]:
        if not header:
            return []
        if ".".join(header) in counts:
            return [*header, counts[".".join(header)]]
        if header[0] in counts:
            return [header[0], counts[header[0]], *header[1:]]
        return list(header)
