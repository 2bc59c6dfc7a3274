"""`add`: a target's component written into a bench file, behind what the file has; nothing of that changes."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from ...transports import named_files
from ..errors import BenchLocked, BenchMissing, BenchName, BenchSyntax
from ..target import TargetFile, as_toml
from .schema import MOST_BYTES, NAME, BenchEntry, BenchFile, BusSpec, from_text, load

INLINE = "Write each component under [[component]] and each bus under [bus.NAME], and run this again."


def add(path: Path, name: str, target: TargetFile) -> BenchFile:
    """Adds the target's component under this name, on a bus that the file has for that place, or on a new bus.

    The file is replaced as a whole, or made if it isn't there. It then says of the component what the target says.
    Raises BenchError; BenchLocked while another process adds to a file of the same folder.
    """
    if not re.fullmatch(NAME, name) or len(name) > 64:
        raise BenchName(
            f"{name!r} can't be a component's name",
            remedy="Write letters, digits, '.', '_' and '-', beginning with a letter or digit, 64 at most.",
        )
    path = path.resolve()
    with _alone(path.parent):
        before = _bytes(path)
        file = None if before is None else load(path)
        lines = as_toml(_tables(file, name, target))
        end = "\r\n" if before and b"\r\n" in before else "\n"
        gap = (b"" if before.endswith(b"\n") else end.encode()) + end.encode() if before else b""
        whole = (before or b"") + gap + (end.join(lines) + end).encode()
        made = _checked(path, whole)
        entry, (wanted,) = made.entries[name], target.entries.values()
        if _said(entry) != _said(wanted):
            raise BenchName(
                f"the target names files from {target.folder} on, and {path} is in another folder",
                remedy="Name the files by their whole paths, or copy the profile and its files there.",
            )
        _write(path, whole, _mode(target))
    return made


def _tables(file: BenchFile | None, name: str, target: TargetFile) -> dict[str, object]:
    """What is added. Raises BenchName."""
    ((own, bus),) = target.raw["bus"].items()
    (component,) = target.raw["component"]
    names = () if file is None else [item.name for item in file.spec.component]
    if file is not None and name in names:
        raise BenchName(
            f"{file.path} has a component {name!r}", remedy="Choose another name, or take that component out."
        )
    there = None if file is None else _bus_of(file, target)
    taken = () if file is None else file.spec.bus
    chosen = there or next(one for one in _numbered(own) if one not in taken)
    buses = {} if there else {chosen: bus}
    return {"bus": buses, "component": [component | {"name": name, "bus": chosen}]}


def _bus_of(file: BenchFile, target: TargetFile) -> str | None:
    """The file's bus at the target's place. Raises BenchName where the target wants other settings of that bus."""
    ((_, wanted),) = target.spec.bus.items()
    for name, bus in file.spec.bus.items():
        place = target.parts.where.settings
        if (bus.kind, bus.emulated) != (wanted.kind, wanted.emulated):
            continue
        if any(bus.settings.get(key) != value for key, value in place.items()):
            continue
        for key in target.raw["bus"][next(iter(target.raw["bus"]))]:
            if key != "kind" and _value(bus, key) != _value(wanted, key):
                raise BenchName(
                    f"{file.at(('bus', name))}: bus {name!r} is at this place, and its {key} is not the target's",
                    remedy=f"Take {key} out of the target, or correct it in the file.",
                )
        return name
    return None


def _value(bus: BusSpec, key: str) -> object:
    return getattr(bus, key) if key in BusSpec.keys_declared else bus.settings.get(key)


def _numbered(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name[:60]}-{number}" for number in count(2))


def _checked(path: Path, whole: bytes) -> BenchFile:
    text = whole.decode("utf-8-sig").replace("\r\n", "\n")
    try:
        return from_text(path, text)
    except BenchSyntax as error:
        # The file has been read before: what is added can't follow it.
        raise BenchSyntax(f"{path} has its components or buses in one value", remedy=INLINE) from error


def _bytes(path: Path) -> bytes | None:
    """None: there is no such file. Raises BenchMissing."""
    try:
        return named_files.read(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BenchMissing(f"{path}: {error.strerror}", remedy="Name another file.") from error


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Raises BenchLocked while another process is in here with the same folder; BenchMissing."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise BenchMissing(f"{folder}: {error.strerror}", remedy="Name another file.") from error
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchLocked(f"another process works on {folder}", remedy="Run this again.") from None
        except OSError as error:
            # NFS locks no folder.
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
                raise BenchMissing(f"{folder}: {error.strerror}", remedy="Name another file.") from error
        yield
    finally:
        os.close(number)


def _said(entry: BenchEntry) -> tuple[object, ...]:
    return entry.address, entry.profile.model_dump(), list(entry.flasher.files_named(entry.profile))


def _mode(target: TargetFile) -> int:
    """Of a new bench file: what the profile's file, which may hold secrets, lets nobody read, that one doesn't either."""
    profile = target.parts.target.profile
    return 0o666 if profile is None else profile.stat().st_mode & 0o666 | 0o600


def _write(path: Path, whole: bytes, mode: int) -> None:
    """Has the file hold this, at once. Raises BenchMissing. `mode`: of a new file, less the umask."""
    try:
        with named_files.whole(path, mode) as stream:
            stream.write(whole)
    except OSError as error:
        raise BenchMissing(f"{path}: {error.strerror}", remedy="Name another file.") from error
