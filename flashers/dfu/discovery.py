"""Which devices with a DFU interface are on USB: read from the descriptors, which needs no request to a running part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from ...transports.deadline import Deadline
from ...transports.toml_text import toml_text
from ...transports.usb.bus import UsbBus, UsbInfo
from ..flasher import Address, Discovered, Discovery
from .entry import is_dfu, is_in_dfu_mode

if TYPE_CHECKING:
    from ..describing import Describer


class DfuDiscovery(Discovery):
    """The devices that none of the addresses means; whichever protocols they are of."""

    protocol: ClassVar[str] = "dfu"

    @classmethod
    def describer(cls) -> Describer:
        from .describe import DfuDescriber

        return DfuDescriber()

    @classmethod
    def discover(
        cls, bus: UsbBus, listed: Sequence[Address], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        there = [info for info in bus.list() if any(is_dfu(item) for item in info.interfaces)]
        serials = Counter((info.vendor_id, info.product_id, info.serial) for info in there)
        found = []
        for info in there:
            if not any(address.means(info) for address in listed):
                unique = serials[info.vendor_id, info.product_id, info.serial] == 1
                found.append(as_discovered(info, by_serial=bool(info.serial) and unique))
        return found

    @classmethod
    def asked(cls, bus: UsbBus, *, active: bool, found: int) -> str:
        there = bus.list()
        able = sum(any(map(is_dfu, info.interfaces)) for info in there)
        return f"read the descriptors of {len(there)} USB devices, of which {able or 'none'} has a DFU interface"


def as_discovered(info: UsbInfo, *, by_serial: bool) -> Discovered:
    """Of a running part only the ids of its application are seen, so it is known by its port, which it keeps."""
    ids = f"vendor_id = 0x{info.vendor_id:04X}, product_id = 0x{info.product_id:04X}"
    port = f"port = {toml_text(info.port)}"
    if is_in_dfu_mode(info):
        address = f"{ids}, {f'serial = {toml_text(info.serial)}' if by_serial else port}"
    else:
        running = ids.replace("vendor", "runtime_vendor").replace("product", "runtime_product")
        address = f"vendor_id = 0xFFFF, product_id = 0xFFFF, {running}, {port}"
    about = " ".join(text for text in (info.manufacturer, info.product) if text)
    return Discovered(
        f"{info.vendor_id:04x}:{info.product_id:04x}  port {info.port}  {about}".rstrip(),
        f"usb-{info.vendor_id:04x}-{info.product_id:04x}",
        address,
    )
