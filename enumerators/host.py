"""Components without a bus: a partition, an application, whatever the host itself holds.

Such a `[[component]]` of the bench file has no `bus`, `protocol` and `address`. It gives its version by a key of a file or
by a command; an update reaches it by step handlers that know partitions, files and services, not by a flasher.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..transports import private_files
from ..transports.outside import Outside, OutsideFailed
from .benchfile.schema import ComponentSpec, HostVersion
from .commands import HostCommands
from .component import Component, Presence

MOST_BYTES = 1 << 20
"""Of a file that is asked for a version."""
LONGEST = 200
"""Characters of a version."""


class HostComponent:
    """One component of the bench that lies in the host.

    `commands`: runs those of the bench file. `outside`: records what the host answers, or replays it.
    """

    def __init__(self, spec: ComponentSpec, commands: HostCommands, outside: Outside) -> None:
        self.spec = spec
        self.commands = commands
        self._outside = outside

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def folder(self) -> Path:
        """The bench file's: where its paths and commands start from."""
        return self.commands.folder

    def look(self) -> Component:
        """Asks for its version as the bench file says.

        ABSENT: the file is not there, or the command fails; UNKNOWN: neither has a version, or there is no way to ask.
        """
        version, presence = "", Presence.UNKNOWN
        if self.spec.version_from is not None:
            try:
                version = _version(self.spec.version_from, self.commands, self._outside)
                presence = Presence.OK if version else Presence.UNKNOWN
            except OutsideFailed:
                presence = Presence.ABSENT
        return Component(
            id=self.spec.id or self.spec.name,
            name=self.spec.name,
            group=self.spec.group,
            manufacturer=self.spec.manufacturer,
            model=self.spec.model,
            version=version,
            presence=presence,
            bus="",
            protocol="",
            where="host",
            properties=dict(self.spec.properties),
        )


def _version(asked: HostVersion, commands: HostCommands, outside: Outside) -> str:
    """ "" where it says none. Raises OutsideFailed."""
    if asked.command:
        return _found(asked, commands.run(asked.command))
    # Of a file the version alone is recorded, not what else stands in it.
    question = f"version in the file {asked.file}" + (f", {asked.key}" if asked.key else "")
    return outside.ask(question, lambda: _found(asked, _content(commands.folder / asked.file)))


def _content(path: Path) -> str:
    try:
        with private_files.named_file(path) as stream:
            return stream.read(MOST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise OutsideFailed(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def _found(asked: HostVersion, text: str) -> str:
    """The version in what the file or the command says."""
    if asked.key:
        return _value(text, asked.key)
    if asked.match:
        found = re.search(asked.match, text)
        return (found[1] or "")[:LONGEST] if found else ""
    first = text.strip()
    return first if first.isprintable() and len(first) <= LONGEST else ""


def _value(text: str, key: str) -> str:
    """Of the last line KEY=VALUE, quoted or not, as os-release(5) has them."""
    value = ""
    for line in text.splitlines():
        name, equals, rest = line.partition("=")
        if equals and name.strip() == key:
            value = rest.strip()
            if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
                value = value[1:-1]
    return value[:LONGEST]
