"""What the bench file says of a DFU component: its address on USB, and its maker's variations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from ...transports.usb.bus import UsbInfo, UsbMatch
from ..flasher import Address
from ..memory import Region
from ..memory_runs import MemoryRun, check_apart, listed, regions
from ..settings import Before, Field, Settings
from ..vector_table import VectorTable
from .dfuse_layout import FLASH_START

ANY = 0xFFFF
"""An id that is not given, as in a DFU file's suffix (DFU 1.1, appendix B)."""

DECIMAL_VENDORS = (483, 1209, 1915, 2341)
"""Ids of STMicroelectronics, pid.codes, Nordic Semiconductor and Arduino, as they are when the 0x is forgotten."""


class DfuAddress(Address):
    """Which USB device it is."""

    vendor_id: int = Field(default=0x0483, ge=0, le=0xFFFF)
    """USB vendor id in DFU mode. 0xFFFF: any, which needs `port`."""
    product_id: int = Field(default=0xDF11, ge=0, le=0xFFFF)
    """USB product id in DFU mode. 0xFFFF: any, which needs `port`."""
    runtime_vendor_id: int | None = Field(default=None, ge=0, le=0xFFFF)
    """USB vendor id of the running application. Default: as in DFU mode."""
    runtime_product_id: int | None = Field(default=None, ge=0, le=0xFFFF)
    """USB product id of the running application. Default: as in DFU mode."""
    serial: str | None = None
    """Serial number, to tell two equal devices apart."""
    port: str | None = None
    """Bus and port path as in sysfs (`"1-4.2"`), to tell two equal devices apart."""
    alt: int = Field(default=0, ge=0, le=255)
    """The alternate setting that is read and written, unless the image file names one."""

    def check_together(self) -> None:
        if ANY in (self.vendor_id, self.product_id) and not self.port:
            raise ValueError("ids of 0xFFFF stand for any device, and need a port")

    @property
    def serial_number(self) -> str:
        return self.serial or ""

    def surprises(self) -> Iterator[str]:
        """Of vendors of DFU devices, an id without the 0x that is theirs with it."""
        if self.vendor_id in DECIMAL_VENDORS:
            yield (
                f"vendor_id = {self.vendor_id} is 0x{self.vendor_id:04X}; for {self.vendor_id:04}:... as lsusb shows it write: "
                f"vendor_id = 0x{self.vendor_id:04}"
            )

    def label(self) -> str:
        return f"{self.vendor_id:04x}:{self.product_id:04x}"

    def means(self, found: object) -> bool:
        """Whether it is this device, in DFU mode or running."""
        if not isinstance(found, UsbInfo):
            return False
        if self.serial not in (None, found.serial) or self.port not in (None, found.port):
            return False
        running = (
            self.vendor_id if self.runtime_vendor_id is None else self.runtime_vendor_id,
            self.product_id if self.runtime_product_id is None else self.runtime_product_id,
        )
        return any(
            vendor in (ANY, found.vendor_id) and product in (ANY, found.product_id)
            for vendor, product in ((self.vendor_id, self.product_id), running)
        )

    def dfu_mode(self, port: str | None = None) -> UsbMatch:
        """The device in DFU mode; at a known port without its serial number, which may be another one there."""
        return UsbMatch(
            None if self.vendor_id == ANY else self.vendor_id,
            None if self.product_id == ANY else self.product_id,
            self.serial if port is None else None,
            port or self.port,
        )

    def runtime(self) -> UsbMatch | None:
        """The running application; None where its ids are not given."""
        if self.runtime_vendor_id is None and self.runtime_product_id is None:
            return None
        return UsbMatch(
            self.vendor_id if self.runtime_vendor_id is None else self.runtime_vendor_id,
            self.product_id if self.runtime_product_id is None else self.runtime_product_id,
            self.serial,
            self.port,
        )


MOST_TRANSFER = 4096
"""The most bytes of one control transfer: libusb takes no longer ones on Linux (MAX_CTRL_BUFFER_LENGTH) and Windows."""


class DfuMemoryRun(MemoryRun):
    """A run of erase units of one of a DfuSe device's memories."""

    alt: int = Field(default=0, ge=0, le=255)
    """The alternate setting of the memory."""


def _listed(value: object) -> object:
    return listed(value, "[{start = 0x0800_0000, size = 0x2_0000, erase_unit = 0x400}]")


class DfuProfile(Settings):
    """How a DFU device differs from the usual."""

    part: str = ""
    """The product string in DFU mode. "": any."""
    flavour: Literal["auto", "dfu", "dfuse"] = "auto"
    """`"dfu"` (DFU 1.1) or `"dfuse"` (ST's extension). `"auto"`: depends on the descriptors."""
    slot_size: int = Field(default=0x0100_0000, gt=0)
    """Bytes that a DFU 1.1 device takes. The device does not report them."""
    write_alignment: int = Field(default=8, ge=1, le=1024)
    """Bytes to which each write to a DfuSe device's flash is aligned."""
    memory: Annotated[tuple[DfuMemoryRun, ...], Before(_listed)] = ()
    """The memory of a DfuSe device that reports a wrong layout, as a list of runs. The list replaces the layout of
    the alternate settings that it names."""
    mass_erase: bool = True
    """Whether one command erases the whole memory when all of it is to be erased and the device's own layout is
    used."""
    transfer_size: int = Field(default=MOST_TRANSFER, ge=8, le=MOST_TRANSFER, multiple_of=8)
    """Most bytes of one transfer, in multiples of 8. libusb takes 4096 at most. Give less for a device or a hub that
    fails with long transfers."""
    reenumerate: float = Field(default=10.0, gt=0, le=120)
    """Seconds that the device may take to come back on USB."""
    work: float = Field(default=60.0, gt=0, le=600)
    """Seconds that one piece of work may take."""

    def check_together(self) -> None:
        if self.transfer_size % self.write_alignment:
            raise ValueError(f"transfer_size = {self.transfer_size} is not a multiple of write_alignment")
        for alternate in {run.alt for run in self.memory}:
            check_apart([run for run in self.memory if run.alt == alternate])
        if any(run.erase_unit % self.write_alignment or run.start % self.write_alignment for run in self.memory):
            raise ValueError("start and erase_unit of memory are multiples of write_alignment")

    def own_regions(self, alternate: int) -> list[Region]:
        """What `memory` says of an alternate setting; nothing: it is as the device reports."""
        found = regions([run for run in self.memory if run.alt == alternate], write_alignment=self.write_alignment)
        return [replace(region, head=VectorTable() if region.start == FLASH_START else None) for region in found]
