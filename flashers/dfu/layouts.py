"""Devices whose descriptors are known to be wrong, from layouts.toml beside this file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import Literal

from ...transports.usb.bus import UsbInfo


@dataclass(frozen=True, slots=True)
class KnownWrong:
    """One row; the file's head says what each value means."""

    vendor_id: int
    product_id: int
    bcd_device: int | None = None
    serial: str = "*"
    flavour: Literal["", "dfu"] = ""
    alt: int = -1
    layout: str = ""

    def means(self, info: UsbInfo) -> bool:
        return (
            (self.vendor_id, self.product_id) == (info.vendor_id, info.product_id)
            and self.bcd_device in (None, info.bcd_device)
            and fnmatchcase(_as_bytes(info.serial), self.serial)
        )


def of(info: UsbInfo) -> Iterator[KnownWrong]:
    """What is known of this device."""
    return (row for row in _rows() if row.means(info))


@cache
def _rows() -> tuple[KnownWrong, ...]:
    rows = tomllib.loads((files(__package__) / "layouts.toml").read_text(encoding="utf-8"))["device"]
    return tuple(KnownWrong(**row) for row in rows)


def _as_bytes(serial: str) -> str:
    """A serial number that a device gives as bytes where UTF-16 is due, as what was meant."""
    return serial if serial.isascii() else serial.encode("utf-16-le", "surrogatepass").decode("latin-1").rstrip("\0")
