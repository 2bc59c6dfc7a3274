"""`Target`: one component, or one bus, named on the command line instead of in a bench file.

    stm32-uart:/dev/ttyUSB0
    stm32-uart:/dev/ttyUSB0?entry.reset=dtr&entry.boot0=rts
    uds:socketcan:can0?request=0x7E0

A target is PROTOCOL:WHERE or PROTOCOL:WHERE?KEY=VALUE&KEY=VALUE. It becomes a bench file of one component, checked as any
bench file is (`TargetFile`), so whatever works on a bench works on a target. The class of the bus reads WHERE
(`Transport.where`); keys and values are those of the bench file, and the schema says which table a key belongs to
(`target_keys`). In WHERE and in the settings %XX stands for a byte, such as %26 for "&".
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import unquote

from ..flashers.flasher import Bootloader
from ..transports import plugins
from ..transports.errors import PluginBroken
from ..transports.plain import quoted
from ..transports.quoting import shell_line
from ..transports.toml_text import toml_lines, toml_value
from ..transports.transport import Transport, Where
from . import target_keys
from .benchfile.schema import BenchFile, FileSpec, Reader, parsed
from .benchfile.toml_positions import Place
from .component import Unlisted
from .errors import BenchError, BenchMissing, TargetWrong
from .state import target_folder
from .target_keys import KeyWrong

if TYPE_CHECKING:
    from .probers import Prober

LONGEST = 4096
"""Characters of a target."""
LONGEST_LINE = 100
"""Characters of a line of TOML; a longer table gets a heading of its own."""
OF_A_SCAN = ("probe", "ask", "quiet")
"""Keys of a bus that only a scan needs."""
MOST_SHOWN = 300
"""Characters of a target that a remedy repeats."""


@dataclass(frozen=True, slots=True)
class Target:
    """A target as written. `profile`: a TOML file with keys of the component's profile, over which the settings go.

    `whole_bus`: whether it may also be a bus without a component, such as socketcan:can0.
    """

    text: str
    profile: Path | None = None
    whole_bus: bool = False

    def file(self) -> TargetFile:
        """The bench file that says the same. Opens no bus. Raises TargetWrong, BenchError for the profile, PluginBroken."""
        return _parsed(self)


def is_target(text: str) -> bool:
    """Whether a word is meant as a target: no component's name has one of these characters."""
    return ":" in text or "/" in text


def refuse_swapped(name: str, file: str) -> None:
    """Raises TargetWrong where the file stands in the target's place, and the target in the file's."""
    given, first = file.partition(":")[:2], name.partition(":")[0]
    if given[1] and given[0] in (protocols := plugins.names(plugins.FLASHERS)) and first not in protocols:
        raise TargetWrong(
            f"{quoted(file)} is a target, and stands where the file does",
            remedy=f"The target comes first. Write: {shell_line([file, name])}",
        )


def refuse_file(name: str, file: Path | None) -> None:
    """Raises TargetWrong where a file stands in the place of a component that is not known.

    `file`: the word after it, which is a file's in the right order.
    """
    if Path(name).is_file():
        remedy = None
        if file is not None:
            first = "NAME" if file.is_file() else str(file)
            remedy = f"The component comes first. Write: {shell_line([first, name])}"
        raise TargetWrong(
            f"{quoted(name)} is a file, and stands where a component's name or a target does", remedy=remedy
        )


def is_target_or_file(text: str) -> bool:
    """Whether a word that may also be the path of a bench file is meant as a target."""
    return ":" in text.partition("/")[0] and not os.access(text, os.F_OK)


def without_settings(text: str) -> str:
    """A target for a recording: its settings, which may be secret, are in the bench file that is recorded with it."""
    return text.partition("?")[0]


def bus_of(target: Target) -> str:
    """The bus that a component's target is on, as a target of its own. Raises TargetWrong, PluginBroken."""
    parts = taken_apart(target)
    kind, place = parts.transport.kind, without_settings(target.text).partition(":")[2]
    bus = kind if parts.where.address else f"{kind}:{place}"
    for (table, *_), _, setting in _settings(parts, target.text):
        if table == "bus":
            bus = _set(bus, setting)
    return bus


def scan_of(target: Target) -> list[str]:
    """The words of a scan that asks whoever is on the bus of a component's target. Raises TargetWrong, PluginBroken."""
    file = Target(bus_of(target), whole_bus=True).file()
    ((_, spec),) = file.spec.bus.items()
    prober: type[Prober] = plugins.load(plugins.ENUMERATORS, spec.kind)
    return file.scan_with(prober.onward(spec, ()))[1:]


class _Reader(Reader):
    """Says where a fault is in the words of the target."""

    target = ""

    def _at(self, place: Place) -> str:
        return quoted(self.target)

    def _dotted(self, place: Place, *more: str | int) -> str:
        said = super()._dotted(place, *more)
        said = said.removeprefix("component.")
        return re.sub(r"^bus\.[^.]*\.", "bus.", said)


@dataclass(frozen=True, slots=True)
class Parts:
    """A target taken apart, before its settings are looked at. `flasher` None: a bus without a component."""

    target: Target
    protocol: str
    flasher: type[Bootloader] | None
    transport: type[Transport]
    where: Where
    settings: str

    @property
    def keys(self) -> Mapping[str, target_keys.Fields]:
        return target_keys.tables(self.transport, self.where.settings, self.flasher)


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFile(BenchFile):
    """The bench file of one target. Its relative paths start at the profile's folder, else at the current folder.

    `identity`: the same for each way to write a target with this protocol, place and address. `raw`: its tables.
    """

    lists_host: ClassVar[bool] = False
    parts: Parts
    raw: dict[str, Any]
    identity: str = ""

    def state_folder(self, state: Path) -> Path:
        name = self.path.stem if self.parts.where.known_as is None else self.parts.protocol or self.parts.transport.kind
        return target_folder(state, name, self.identity)

    def at(self, place: Place) -> str:
        return quoted(self.parts.target.text)

    def setting_of_bus(self, bus: str, setting: str) -> str:
        text = _set(self.parts.target.text, f"bus.{setting}")
        return shell_line([text]) if len(text) <= MOST_SHOWN else f"?bus.{setting}"

    def target_of(self, found: Unlisted) -> str:
        """The target of a part that a scan of this bus has found."""
        (component,) = tomllib.loads(found.lines)["component"]
        address, transport = component.get("address", {}), self.parts.transport
        head, _, given = self.parts.target.text.partition("?")
        place = transport.place(address)
        said = transport.where(place) if place else None
        settings = {f"address.{key}": value for key, value in address.items() if not said or key not in said.address}
        settings |= _flat("profile", component.get("profile", {}))
        flasher = plugins.load(plugins.FLASHERS, component["protocol"])
        known = target_keys.tables(transport, self.parts.where.settings, flasher)
        kept = [one for one in given.split("&") if one and one.partition("=")[0].removeprefix("bus.") not in OF_A_SCAN]
        kept = [one if one.startswith("bus.") else f"bus.{one}" for one in kept]
        for key, value in settings.items():
            is_id = key.startswith("address.") and isinstance(value, int) and not isinstance(value, bool)
            kept.append(f"{_shortest(known, key)}={f'0x{value:X}' if is_id else _escaped(toml_value(value))}")
        text = f"{component['protocol']}:{place or head.removeprefix(f'{transport.kind}:')}"
        return "?".join([text, "&".join(kept)]) if kept else text

    def scan_with(self, settings: Mapping[str, str]) -> list[str]:
        """The command line that scans this target with these settings of its bus."""
        target = self.parts.target
        head, _, given = target.text.partition("?")
        kept = [one for one in given.split("&") if one and one.partition("=")[0].removeprefix("bus.") not in settings]
        named = [f"{key}={_escaped(value)}" for key, value in settings.items()]
        text = "?".join([head, *(["&".join(kept + named)] if kept + named else [])])
        profile = [] if target.profile is None else ["--profile", str(target.profile)]
        return ["proxyflash", "scan", text, *profile]


def taken_apart(target: Target) -> Parts:
    """Raises TargetWrong, PluginBroken."""
    text = target.text
    if len(text) > LONGEST:
        _wrong(text, f"has more than {LONGEST:,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        _wrong(text, "has bytes that are no UTF-8")
    head, mark, settings = text.partition("?")
    if mark and not settings:
        _wrong(text, "ends with '?' and has no setting after it")
    protocol, colon, place = head.partition(":")
    if colon and protocol in plugins.names(plugins.FLASHERS):
        flasher: type[Bootloader] = plugins.load(plugins.FLASHERS, protocol)
        transport: type[Transport] = plugins.load(plugins.TRANSPORTS, flasher.bus_kind)
        _refuse_misplaced(text, head, protocol, place, transport)
        where = transport.where(_decoded(text, place)) if place else None
        if where is None:
            _wrong_place(text, protocol, place, transport)
        return Parts(target, protocol, flasher, transport, where, settings)
    if not target.whole_bus:
        _wrong_protocol(text, protocol, head, colon)
    transport, where = _bus(text, head)
    _refuse_misplaced(text, head, "", head.removeprefix(f"{transport.kind}:"), transport)
    return Parts(target, "", None, transport, where, settings)


def _parsed(target: Target) -> TargetFile:
    parts = taken_apart(target)
    folder = Path.cwd()
    tables: dict[str, dict[str, Any]] = {
        "bus": {},
        "component": {},
        "address": dict(parts.where.address),
        "profile": {},
    }
    if target.profile is not None:
        tables["profile"], folder = _profile(parts, target.profile), target.profile.absolute().parent
    for place, value, _ in _settings(parts, target.text):
        inner: dict[str, Any] = tables
        for key in place[:-1]:
            inner[key] = dict(found) if isinstance(found := inner.get(key), dict) else {}
            inner = inner[key]
        inner[place[-1]] = value
    bus = parts.transport.kind if parts.where.address else _name(parts.where.label)
    raw: dict[str, Any] = {"bus": {bus: {"kind": parts.transport.kind, **parts.where.settings, **tables["bus"]}}}
    if parts.flasher is not None:
        of_component = {key: tables[key] for key in ("address", "profile") if tables[key]}
        component = {"bus": bus, "protocol": parts.protocol, **of_component, **tables["component"]}
        raw["component"] = [{"name": _name(parts.protocol, parts.where.label), **component}]
    return _file(parts, folder, raw)


def _file(parts: Parts, folder: Path, raw: dict[str, Any]) -> TargetFile:
    file = _checked(parts, folder, raw)
    address = None
    for entry in file.entries.values():
        address = entry.address.model_dump()
        if (label := entry.address.label()) and not parts.where.address:
            raw["component"][0]["name"] = _name(parts.protocol, parts.where.label, label)
            file = _checked(parts, folder, raw)
    ((bus, spec),) = file.spec.bus.items()
    left_out = {key: value for key, value in file.settings(bus).items() if key in parts.where.left_out}
    where = {**(parts.where.known_as or parts.where.settings), **left_out}
    known_by = [parts.transport.kind, where, parts.protocol, address, [spec.emulated]]
    return replace(file, identity=json.dumps(known_by, sort_keys=True))


def _checked(parts: Parts, folder: Path, raw: dict[str, Any]) -> TargetFile:
    """Raises TargetWrong."""
    named = raw["component"][0]["name"] if "component" in raw else next(iter(raw["bus"]))
    path, text = folder / f"{named}.toml", "\n".join(as_toml(raw)) + "\n"
    reader = _Reader(path, text, raw)
    reader.target = parts.target.text
    try:
        reader.refuse_odd_values(raw, ())
        spec = reader.validated(FileSpec, raw, ())
        return TargetFile(path, text, spec, reader.entries(spec), parts=parts, raw=raw)
    except BenchError as error:
        setting = parts.flasher.Address.example if parts.flasher is not None else ""
        if setting and f"{setting.partition('=')[0]} is missing" in error.cause:
            said = error.cause.removeprefix(f"{reader._at(())}: ")
            _wrong(parts.target.text, said, forms=[_set(parts.target.text, setting)])
        raise TargetWrong(error.cause, remedy="The keys: proxyflash help bench-file") from error


def _settings(parts: Parts, text: str) -> Iterator[tuple[tuple[str, ...], Any, str]]:
    """The place and the value of each setting, and the setting as written. Raises TargetWrong."""
    known = parts.keys if parts.settings else {}
    seen: dict[tuple[str, ...], str] = {}
    for setting in parts.settings.split("&") if parts.settings else ():
        key, equals, value = setting.partition("=")
        key = _decoded(text, key)
        if not equals or not key:
            _wrong(text, f"has a setting {quoted(setting)}, which is not KEY=VALUE")
        try:
            place = target_keys.place(known, key)
            _refuse_place(parts, place, key)
            for other, written in seen.items():
                if place[: len(other)] == other or other[: len(place)] == place:
                    both = "" if written == key else f" and {quoted(written)}"
                    raise KeyWrong(f"{quoted(key)}{both} {'set the same' if both else 'is set twice'}")
            meant = target_keys.value(known, place, _decoded(text, value))
        except KeyWrong as error:
            able = [right for right in error.right if target_keys.takes(known, right, _decoded(text, value))]
            if len(able) < len(error.right):
                # What another table's schema refuses is not offered to a library that is not asked yet.
                able = [right for right in able if not target_keys.is_free(known, right)]
            forms = () if able else (_with(text, setting, f"{right}=VALUE") for right in error.right)
            _wrong(text, str(error), *(_with(text, setting, f"{right}={value}") for right in able), forms=forms)
        seen[place] = key
        yield place, meant, setting


def _refuse_place(parts: Parts, place: tuple[str, ...], key: str) -> None:
    """What the target's place says stays: by it the part is named and locked. Raises KeyWrong."""
    said = {"bus": ("kind", *parts.where.settings), "address": tuple(parts.where.address)}
    if place[1] in said.get(place[0], ()):
        raise KeyWrong(f"{quoted(key)} is said by what stands before the '?'")


def _profile(parts: Parts, path: Path) -> dict[str, Any]:
    """The keys of a profile's file. It holds without the settings. Raises BenchError, TargetWrong."""
    if parts.flasher is None:
        _wrong(parts.target.text, "is a bus, and a profile is of a component")
    try:
        text, raw = parsed(path)
    except BenchMissing as error:
        raise error.advised("Name a TOML file with the keys of the component's profile.") from error
    reader = Reader(path, text, raw)
    reader.refuse_odd_values(raw, ())
    reader.validated(parts.flasher.Profile, raw, ())
    return raw


def _bus(text: str, head: str) -> tuple[type[Transport], Where]:
    """The bus that a target without a protocol names: KIND, KIND:WHERE, or a WHERE that only one kind has."""
    kinds = plugins.names(plugins.TRANSPORTS)
    kind, _, place = head.partition(":")
    if kind in kinds:
        transport: type[Transport] = plugins.load(plugins.TRANSPORTS, kind)
        where = transport.where(_decoded(text, place))
        if where is None or where.address:
            right = _near_buses(text, place, [transport])
            _wrong(text, f"names no bus of kind {kind}: {quoted(place)}", *right, forms=_bus_forms([transport]))
        return transport, where
    claims = _claims(text, head)
    if len(claims) > 1:
        parts = [one for one, where in claims if where.address]
        right = [f"{one.kind}:{text}" for one, where in claims if not where.address]
        _wrong(text, "may be several kinds of bus", *right, forms=_bus_forms(parts))
    if not claims or claims[0][1].address:
        _refuse_near_protocol(text, kind)
        all_kinds = [transport for _, transport in _transports()]
        right = _near_buses(text, head, all_kinds)
        _wrong(text, "begins with no protocol and names no bus", *right, forms=_bus_forms(all_kinds))
    return claims[0]


def _near_buses(text: str, place: str, transports: Iterable[type[Transport]]) -> list[str]:
    """The target with its place as it is probably meant, for each kind of bus that has such a place."""
    _, mark, settings = text.partition("?")
    near = [(one, one.nearly(_decoded(text, place))) for one in transports]
    return [
        f"{meant}{mark}{settings}"
        for one, meant in near
        if meant and (where := one.where(meant)) is not None and not where.address
    ]


def _claims(text: str, head: str) -> list[tuple[type[Transport], Where]]:
    """The kinds of bus that have such a place."""
    place = _decoded(text, head)
    return [
        (transport, where)
        for _, transport in _transports()
        if is_target(place) and (where := transport.where(place)) is not None
    ]


def _transports() -> Iterator[tuple[str, type[Transport]]]:
    for kind in plugins.names(plugins.TRANSPORTS):
        try:
            yield kind, plugins.load(plugins.TRANSPORTS, kind)
        except PluginBroken:
            continue


def _bus_forms(transports: Iterable[type[Transport]]) -> list[str]:
    """How a bus without a component is written; that of which a place names one part by its kind."""
    return [one.kind if one.where("") else f"{one.kind}:{one.where_form}" for one in transports if one.where_form]


_KEY = r"(?:[\w-]+\.)*[\w-]+"
_FORGOTTEN = re.compile(
    rf"([^?&,;\s]*?[^?&,;\s/])(?:[&,;\s]+|/?(?=(?:bus|profile|component|address|entry|version)\.))({_KEY}=.*)",
    re.DOTALL,
)
"""A place, and settings behind it: after another sign than '?', or after none where the key begins with a table's name."""


def _refuse_misplaced(text: str, head: str, protocol: str, place: str, transport: type[Transport]) -> None:
    """A setting in the place, where '?' was forgotten. Raises TargetWrong."""
    _, mark, settings = text.partition("?")
    found = _FORGOTTEN.fullmatch(head)
    if found is not None and "://" not in head and not Path(_decoded(text, place)).exists():
        given = re.sub(rf"[,;\s]+(?={_KEY}=)", "&", found[2])
        right = f"{found[1]}?{given}" + (f"&{settings}" if mark else "")
        _wrong(text, "has a setting and no '?' before it", right)
    if (meant := transport.misplaced(_decoded(text, place))) is not None:
        where, setting = meant
        right = f"{head.removesuffix(place)}{where}?bus.{setting}" + (f"&{settings}" if mark else "")
        _wrong(text, "settings stand after a '?'", right)


def _wrong_place(text: str, protocol: str, place: str, transport: type[Transport]) -> NoReturn:
    if not transport.where_form:
        _wrong(text, f"can't be named so: a bus of kind {transport.kind} needs a bench file")
    said = f"{quoted(place)} is not a place" if place else "there is no place after the protocol,"
    near = transport.nearly(_decoded(text, place))
    right = [f"{protocol}:{near}{text.removeprefix(f'{protocol}:{place}')}"] if near else []
    _wrong(text, f"{said} on a bus of kind {transport.kind}", *right, forms=[form(protocol)])


def _wrong_protocol(text: str, protocol: str, head: str, colon: str) -> NoReturn:
    names = plugins.names(plugins.FLASHERS)
    if colon:
        _refuse_near_protocol(text, protocol)
    fitting = [
        name
        for transport, where in _claims(text, head)
        for name in names
        if transport.where_form and _kind_of(name) == transport.kind
    ]
    said = f"does not begin with a protocol; {'these fit' if fitting else 'there are'}: {', '.join(fitting or names)}"
    if len(fitting) != 1:
        _wrong(text, said, forms=[f"PROTOCOL:{text}"] if fitting else ())
    right, flasher = f"{fitting[0]}:{text}", plugins.load(plugins.FLASHERS, fitting[0])
    if flasher.Address.example and "?" not in text:
        _wrong(text, said, forms=[_set(right, flasher.Address.example)])
    _wrong(text, said, right)


def _refuse_near_protocol(text: str, protocol: str) -> None:
    """Raises TargetWrong where protocols have this name elsewhere, or nearly this name: of those, the ones for such a place.

    Of several with nearly this name those that begin with it, else the nearest.
    """
    known = plugins.names(plugins.FLASHERS)
    so_called = [name for name in known if protocol.lower() in _other_names(name)]
    near = so_called or get_close_matches(protocol[:MOST_SHOWN], known)
    if not near:
        return
    rest = text[len(protocol) :]
    kinds = {transport.kind for transport, _ in _claims(text, rest.partition("?")[0].removeprefix(":"))}
    fitting = [name for name in near if _kind_of(name) in kinds] or near
    meant = fitting if so_called else sorted(name for name in fitting if name.startswith(protocol)) or fitting[:1]
    _wrong(text, f"{quoted(protocol)} is not a protocol", *(name + rest for name in meant))


def form(protocol: str) -> str:
    """How a target with this protocol is written; words in capitals stand for what only its writer knows. "": there is none."""
    flasher: type[Bootloader] = plugins.load(plugins.FLASHERS, protocol)
    place = plugins.load(plugins.TRANSPORTS, flasher.bus_kind).where_form
    if not place:
        return ""
    found = f"{protocol}:{place}"
    return _set(found, flasher.Address.example) if flasher.Address.example else found


def _other_names(protocol: str) -> Sequence[str]:
    try:
        flasher: type[Bootloader] = plugins.load(plugins.FLASHERS, protocol)
    except PluginBroken:
        return ()
    return flasher.other_names


def _kind_of(protocol: str) -> str:
    try:
        return str(plugins.load(plugins.FLASHERS, protocol).bus_kind)
    except PluginBroken:
        return ""


def _wrong(text: str, said: str, *right: str, forms: Iterable[str] = ()) -> NoReturn:
    """Raises TargetWrong.

    Args:
        right: The target repaired: each names the place that was typed, and keeps its settings.
        forms: How such a target is written in general, with words in capitals.
    """
    told = []
    for head, lines in (("Write", right), ("The form", forms)):
        if shown := [shell_line([line]) for line in lines if len(line) <= MOST_SHOWN]:
            told.append(f"{head}: {' or '.join(shown)}")
    raise TargetWrong(f"{quoted(text)}: {said}", remedy=". ".join(told) or None)


def _set(text: str, setting: str) -> str:
    """A target with one more setting."""
    return f"{text}{'&' if '?' in text else '?'}{setting}"


def _with(text: str, setting: str, other: str) -> str:
    head, _, settings = text.partition("?")
    return f"{head}?{'&'.join(other if item == setting else item for item in settings.split('&'))}"


def _flat(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table and of the tables in it, by their dotted keys."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= _flat(f"{name}.{key}", value) if isinstance(value, dict) else {f"{name}.{key}": value}
    return found


def _shortest(known: Mapping[str, target_keys.Fields], key: str) -> str:
    """The key without its table, where no other table has it."""
    short = key.partition(".")[2]
    try:
        target_keys.place(known, short)
    except KeyWrong:
        return key
    return short


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("&", "%26")


def _decoded(text: str, piece: str) -> str:
    """With the bytes that %XX stands for. Raises TargetWrong."""
    if wrong := re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", piece, re.DOTALL):
        _wrong(text, f"has {quoted(wrong[0])}, and '%' stands before two hexadecimal digits; write %25 for '%'")
    try:
        return unquote(piece, errors="strict")
    except UnicodeDecodeError:
        _wrong(text, f"has bytes in {quoted(piece)} that are no UTF-8")


def _name(*words: str) -> str:
    """A name for a bus or component, as the bench file has them."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(words)).strip("-")[:64].strip("-") or "part"


def as_toml(raw: Mapping[str, Any]) -> list[str]:
    """The lines of a bench file with these tables `bus` and `component`."""
    lines = list(toml_lines({key: table for key, table in raw.items() if table}, longest=LONGEST_LINE))
    return lines[1:]  # The first is the empty line before a heading.
