"""Which part a loader is of, and what is known of that part: its family, its memory, the numbers of its erase units."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from ..errors import PartProtected, PartRefused
from ..flasher import Identity
from ..memory import MemoryMap
from ..serial.stable_read import read_stable
from .codec import Command
from .loader import Stm32Loader
from .parts import FLASH_START, Stm32Family, families
from .profile import Stm32PartProfile


class FoundPart(NamedTuple):
    """What a loader reports of its part. `family`, `flash_size` and `memory` are None where they are not known.

    `commands`: those of the loader. `numbers`: what Erase calls each erase unit, by its address.
    """

    identity: Identity
    commands: frozenset[int]
    product: int
    family: Stm32Family | None
    flash_size: int | None
    memory: MemoryMap | None
    numbers: Mapping[int, int]
    is_readable: bool

    @property
    def has_extended_erase(self) -> bool:
        return Command.EXTENDED_ERASE in self.commands


def find_part(loader: Stm32Loader, profile: Stm32PartProfile) -> FoundPart:
    """Asks a loader that is in step. Raises PartError, TransportError."""
    version, commands = read_stable(loader.get)
    details: dict[str, str] = {}
    if Command.GET_VERSION in commands:
        version, options = loader.get_version()
        details["option_bytes"] = options.hex(" ")
    product = read_stable(loader.get_id)
    family = families().get(product)
    uid, flash_size, is_readable = _registers(loader, family)
    if family is not None and is_readable:
        family = family.by_option(_option_word(loader, family))
    memory, numbers = _memory(profile, family, flash_size) if is_readable else (None, {})
    details |= {"product_id": f"0x{product:03X}", "readout_protection": "off" if is_readable else "on"}
    if memory is not None:
        details["flash"] = f"{sum(region.size for region in memory.regions) // 1024} KiB"
    identity = Identity(
        part=family.name if family else f"STM32 0x{product:03X}",
        serial=uid,
        bootloader=f"{version >> 4}.{version & 0xF}",
        manufacturer="ST",
        details=details,
    )
    return FoundPart(identity, commands, product, family, flash_size, memory, numbers, is_readable)


def _memory(
    profile: Stm32PartProfile, family: Stm32Family | None, flash_size: int | None
) -> tuple[MemoryMap | None, Mapping[int, int]]:
    """What the profile says goes before what is known; None where neither says anything."""
    own = profile.memory_map(family)
    if own is not None:
        return own, profile.numbers()
    if family is None:
        return None, {}
    return MemoryMap(family.regions(flash_size)), family.page_numbers()


def _registers(loader: Stm32Loader, family: Stm32Family | None) -> tuple[str, int | None, bool]:
    """Unique id, flash size in bytes (None: not known), and whether memory can be read at all.

    Read Memory is the first command that readout protection refuses (AN3155, table 2).
    """
    try:
        loader.read_memory(FLASH_START, 4)
    except PartProtected:
        return "", None, False
    if family is None:
        return "", None, True
    with suppress(PartRefused):
        uid, kibibytes = read_stable(lambda: (_unique_id(loader, family), _size_register(loader, family)))
        size = int.from_bytes(kibibytes, "little") * 1024
        return uid.hex(), size if 0 < size <= family.flash else None, True
    return "", None, True


def _option_word(loader: Stm32Loader, family: Stm32Family) -> int:
    """Of a family whose option bytes choose its sectors; as delivered where they can't be read."""
    option = family.option
    if option is None:
        return 0
    with suppress(PartRefused):
        return read_stable(lambda: int.from_bytes(loader.read_memory(option.address, 4), "little"))
    return (1 - option.value) << option.bit


def _size_register(loader: Stm32Loader, family: Stm32Family) -> bytes:
    return _register(loader, family, family.size, 2) if family.size else b""


def _unique_id(loader: Stm32Loader, family: Stm32Family) -> bytes:
    if not family.uid:
        return b""
    data = _register(loader, family, family.uid, family.uid_words[-1] + 4)
    return b"".join(data[word : word + 4] for word in family.uid_words)


def _register(loader: Stm32Loader, family: Stm32Family, address: int, size: int) -> bytes:
    """Some loaders read registers only from certain addresses on."""
    before = address % family.registers_from
    return loader.read_memory(address - before, before + size)[before:]
