"""`Part`: one kind of part as the contract describes it: its bench file, its firmware, what is particular to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from ..emulators.device import EmulatedDevice
from ..flashers import formats
from ..flashers.image import FirmwareImage
from ..transports.toml_text import toml_text

OLD, NEW = "1.4.2", "1.5.0"
"""The versions of the firmware that a part runs first, and of the update."""


class Sizes(NamedTuple):
    """Bytes of the old firmware, of the new one, and of a smaller new one, which keeps the wire busy for less long."""

    old: int = 1000
    new: int = 2500
    short: int = 500


class Part:
    """A part on an emulated bus of its own.

    Its emulator takes `firmware` in the `emulated` table, the file that a new part holds; makes firmware for tests
    (`EmulatedDevice.make_firmware`); and counts the operations of its flash (`Supply.operation`).
    """

    protocol: ClassVar[str]
    """As in the entry points of the flasher and of the emulator."""
    bus: ClassVar[Mapping[str, Any]]
    """Keys of the bus in the bench file: `kind`, and what the transport needs."""
    component: ClassVar[Mapping[str, Any]] = {}
    """Further keys of the component in the bench file: `address`, `profile`, `version`."""
    emulated: ClassVar[Mapping[str, Any]] = {}
    """The component's `emulated` table, but for `firmware`."""
    sizes: ClassVar[Sizes] = Sizes()
    may_stay: ClassVar[bool] = False
    """Whether a request that the bus still holds when the part gets its supply back keeps the part in its bootloader."""
    relocatable: ClassVar[bool] = False
    """Whether a firmware file goes without an address, for the bootloader knows where it belongs."""
    each: ClassVar[int] = 1
    """Bytes of each write on a serial line at which an interruption is tried; others for each kind of interruption."""
    paced: ClassVar[int] = 20
    """How many places are tried at true pace, where each byte's arrival costs processor time."""

    def firmware(self, device: EmulatedDevice, version: str, size: int) -> bytes:
        """A firmware of `size` bytes that the part runs and that reports `version`, as it lies in the part's memory."""
        return device.make_firmware(version, "part", "Acme", size)

    def image(self, path: Path, start: int) -> FirmwareImage:
        """The firmware file at `path`, as the user gives it to the `flash` command. `start`: where it goes."""
        return formats.load(path, address=None if self.relocatable else start)

    def by_hand(self, device: EmulatedDevice) -> None:
        """What a person does to a part that an interruption has left so that only a person can reset it."""

    def bench_file(
        self, *, pace: int = 0, firmware: str = "", bus: Mapping[str, Any] | None = None, **changed: Mapping[str, Any]
    ) -> str:
        """The text of the bench file: the bus `b` with the component `part`.

        Args:
            pace: 1 is that of real wires and parts, 0 takes no time.
            firmware: the file that a new part holds.
            bus: the whole bus, in the place of the emulated one.
            changed: keys that replace those of a table of the component, such as `profile`.
        """
        component = {**self.component, "name": "part", "bus": "b", "protocol": self.protocol}
        if bus is None:
            bus = {**self.bus, "emulated": True, "pace": pace}
            component["emulated"] = {**self.emulated, **({"firmware": firmware} if firmware else {})}
        for table, keys in changed.items():
            component[table] = {**component.get(table, {}), **keys}
        return f"[bus.b]\n{_lines(bus)}\n[[component]]\n{_lines(component)}\n"


def _lines(table: Mapping[str, Any]) -> str:
    return "\n".join(f"{key} = {_toml(value)}" for key, value in table.items())


def _toml(value: Any) -> str:
    match value:
        case Mapping():
            return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case bool():
            return str(value).lower()
        case str():
            return toml_text(value)
    return repr(value)
