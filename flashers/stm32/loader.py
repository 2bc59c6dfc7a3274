"""`Stm32Loader`: what the STM32 system memory bootloader does on any wire; each wire has a subclass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from .codec import MassErase

UNLOCK_REMEDY = "Lifting readout protection (ST's own tools do, proxyflash does not) erases the part whole."


class Stm32Loader(ABC):
    """One loader. `most_pages`: how many erase units `erase_pages` takes at once.

    What carries no checksum of the protocol's own (who the part is, what its memory holds) is the caller's to ask twice. Every
    method raises a PartError when the part does not do what was asked, and a TransportError when the wire fails.
    """

    most_pages: ClassVar[int]

    @abstractmethod
    def get(self) -> tuple[int, frozenset[int]]:
        """Version of the protocol, and the codes of the commands that this wire can be given."""

    @abstractmethod
    def get_version(self) -> tuple[int, bytes]:
        """Version of the protocol, and two option bytes, which only the first loaders fill in."""

    @abstractmethod
    def get_id(self) -> int:
        """Product id."""

    @abstractmethod
    def read_memory(self, address: int, size: int) -> bytes:
        """1 to 256 bytes. Raises PartProtected when the loader refuses the command itself."""

    @abstractmethod
    def write_memory(self, address: int, data: bytes, *, blank: int, seconds: float) -> None:
        """1 to 256 bytes, a multiple of 4, within `seconds` of their arrival. `blank`: what an erased byte reads as.

        Raises PartProtected when the loader refuses the command itself, OperationFailed when the block is neither there nor
        blank.
        """

    @abstractmethod
    def go(self, address: int) -> None:
        """Starts the application at `address`."""

    @abstractmethod
    def erase_pages(self, numbers: Sequence[int], *, extended: bool, seconds: float) -> None:
        """Erase units by their numbers, within `seconds`. `extended`: by Extended Erase."""

    @abstractmethod
    def mass_erase(self, what: MassErase, *, extended: bool, seconds: float) -> bool:
        """All, or with `extended` a bank, within `seconds`; False if the loader refuses it."""
