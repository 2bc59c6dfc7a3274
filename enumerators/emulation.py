"""The emulated buses of a bench file, brought to life in this process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .benchfile.schema import BenchEntry, BenchFile
from .benchfile.toml_positions import Place
from .errors import BenchKey

if TYPE_CHECKING:
    from ..emulators.bench import EmulatedBus
    from ..emulators.device import BadDevice


def emulate(file: BenchFile, bus: str, folder: Path | None) -> EmulatedBus:
    """One emulated bus with its parts. The caller closes it.

    Args:
        folder: Where the flash contents are kept. None: in memory.

    Raises:
        BenchKey: The emulated part or wire refuses a key of the file.
    """
    # Only a bench file that asks for emulated parts brings them in.
    from ..emulators.bench import EmulatedBus, PartSpec
    from ..emulators.device import BadDevice, DeviceSpec

    spec = file.spec.bus[bus]
    parts = [
        PartSpec(
            entry.spec.protocol,
            DeviceSpec(
                entry.spec.name,
                address=entry.spec.address,
                profile=entry.raw_profile,
                settings=entry.spec.emulated,
                folder=folder,
                firmware_folder=file.folder,
                pace=spec.pace,
                version=_question(entry),
            ),
        )
        for entry in file.entries.values()
        if entry.spec.bus == bus
    ]
    try:
        return EmulatedBus(bus, spec.kind, file.settings(bus), parts, faults=spec.faults.model_dump(), pace=spec.pace)
    except BadDevice as error:
        place = _place(file, bus, error)
        key = ".".join(item for item in place if isinstance(item, str))
        raise BenchKey(f"{file.at(place)}: {key}: {error.reason}") from error


def _place(file: BenchFile, bus: str, error: BadDevice) -> Place:
    """Where the file has a key that an emulated part or wire refuses."""
    if not error.part:
        return ("bus", bus, error.key)
    entry = file.entries[error.part]
    table = () if error.key in entry.spec.model_fields_set - set(entry.spec.emulated) else ("emulated",)
    return ("component", entry.index, *table, error.key)


def _question(entry: BenchEntry) -> dict[str, str]:
    """What a running application answers its version to, for an emulated one."""
    question = entry.spec.version
    return {"send": question.send, "match": question.match} if question else {}
