"""What a page says of the bench, of the host and of the programs that did the work."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

from ..enumerators.benchfile.schema import BenchEntry, BenchFile
from .story import Facts, Table

OWN = "proxyflash"


def known_buses(file: BenchFile) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The kind and the settings of each bus."""
    return {name: (spec.kind, file.settings(name)) for name, spec in file.spec.bus.items()}


def identity_of_entry(entry: BenchEntry) -> Facts:
    """What the bench file says of a component."""
    spec = entry.spec
    return (
        ("group", spec.group),
        ("manufacturer", spec.manufacturer),
        ("model", spec.model),
        ("bus", spec.bus),
        ("protocol", spec.protocol),
    )


def host_tables() -> Iterator[Table]:
    """The host, and the versions of proxyflash and of the libraries that it requires."""
    yield Table(
        "Host",
        (
            ("name", platform.node()),
            ("system", platform.platform()),
            ("processor", platform.machine()),
            ("Python", platform.python_version()),
        ),
    )
    yield Table("Versions", tuple(versions()))


def versions() -> Iterator[tuple[str, str]]:
    """proxyflash first. A library that isn't installed is left out."""
    yield OWN, metadata.version(OWN)
    for requirement in metadata.requires(OWN) or ():
        name = re.match(r"[\w.-]+", requirement)
        if name is None or "extra ==" in requirement:
            continue
        try:
            yield name[0], metadata.version(name[0])
        except metadata.PackageNotFoundError:
            continue
