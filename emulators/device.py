"""What every emulated part has in common, whatever bus it sits on: one class a bootloader protocol, in one file.

Registered under the entry-point group `proxyflash.emulators` by the same protocol name as its flasher.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from ..transports import named_files
from . import application
from .flash import NorFlash
from .keys import BadDevice as BadDevice
from .keys import Schema, Table
from .supply import Supply


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """One emulated part, as the bench file describes it, in plain values.

    `address`, `profile`: the component's own tables. `settings`: its `emulated` table (part, firmware, serial,
    protections, ...; each device class declares its keys and refuses others with BadDevice). `folder`: where its flash
    is kept; None: in memory. `firmware_folder`: what relative firmware paths start from. `pace`: see Board.
    """

    name: str
    address: Mapping[str, Any] = field(default_factory=dict)
    profile: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    folder: Path | None = None
    firmware_folder: Path = Path()
    pace: float = 1.0
    version: Mapping[str, str] = field(default_factory=dict)
    """The bench file's `version = {send, match}` question, for applications that answer one on their wire."""

    @property
    def flash_path(self) -> Path | None:
        """Where the flash contents of the part are kept."""
        return None if self.folder is None else self.folder / f"{self.name}.flash"

    @property
    def is_new(self) -> bool:
        """Whether nothing is kept of the part: it comes from the factory."""
        return self.flash_path is None or not self.flash_path.exists()


@dataclass(frozen=True, kw_only=True)
class PartKeys(Table):
    """Keys of each `emulated` table, of whatever kind the part is. The bus takes them out before the part is made."""

    powered: bool = True
    """Whether the supply of the part is on. Without supply the part answers nothing, as if it were not plugged in."""


class EmulatedDevice(ABC):
    """One emulated part on a wire. Powered from construction on."""

    bus_kind: ClassVar[str]
    keys: ClassVar[type[Table] | None] = None
    """The keys of its `emulated` table. None: the class declares none, and nobody describes them."""

    name: str
    supply: Supply
    flash: NorFlash

    @classmethod
    @abstractmethod
    def attach(cls, spec: DeviceSpec, wire: Any) -> Self:
        """Puts the part on a wire (CanWire, UartWire or UsbWire, by `bus_kind`) and powers it. Raises BadDevice."""

    @classmethod
    def part_names(cls) -> Sequence[str]:
        """The names that the key `part` of its `emulated` table takes; empty: it has no such key, or takes any."""
        return ()

    @classmethod
    def keys_schema(cls) -> Schema | None:
        """The JSON Schema of its `emulated` table, with the keys that each part has. None: it declares none."""
        if cls.keys is None:
            return None
        common, own = PartKeys.schema(), cls.keys.schema(cls.part_names())
        return own | {"properties": own["properties"] | common["properties"]}

    @property
    @abstractmethod
    def application_version(self) -> str | None:
        """The version of the application that runs now; "" if it has none to tell; None while in the bootloader."""

    @property
    def application_start(self) -> int:
        """Where the application lies; in front of it may be a bootloader."""
        return self.flash.base

    def make_firmware(self, version: str, product: str, manufacturer: str, size: int, *, seed: int = 0) -> bytes:
        """A firmware of `size` bytes, 400 at least, for tests: what the part is flashed with, and then runs."""
        return application.make(version, product, manufacturer, size, start=self.application_start, seed=seed)

    def settle(self) -> None:  # noqa: B027 - a part without a processor of its own starts while its supply comes
        """Waits until the part has started, after its supply was switched."""

    def reset(self) -> None:
        """Pulls its reset line for a moment; a part without one is switched off and on."""
        self.supply.off()
        self.supply.on()

    def rescue(self) -> None:
        """What a person does to a part that hangs, which an interruption may have left so: a reset, for most parts."""
        self.reset()

    @abstractmethod
    def close(self) -> None:
        """Takes the part off the wire and stops it; the flash contents are kept in their file."""


def factory_content(spec: DeviceSpec, flash: NorFlash, *, fresh: bool, start: int | None = None) -> None:
    """Loads the `firmware` of the settings (raw binary) into a fresh memory, at `start` or the start of the flash."""
    name = spec.settings.get("firmware")
    if not fresh or name is None:
        return
    path = spec.firmware_folder / str(name)
    start = flash.base if start is None else start
    room = flash.end - start
    try:
        data = named_files.read(path, room)
    except OSError as error:
        raise BadDevice("firmware", f"{path}: {error.strerror}") from error
    if len(data) > room:
        raise BadDevice("firmware", f"{path}: more than the part's {room} bytes")
    flash.load(start, data)
