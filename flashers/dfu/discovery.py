"""Which devices with a DFU interface are on USB: read from the descriptors, which needs no request to a running part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import ClassVar

from ...transports.deadline import Deadline
from ...transports.toml_text import toml_text
from ...transports.usb.bus import UsbBus, UsbInfo
from ..flasher import Discovered, Discovery, Settings
from .entry import is_dfu, is_in_dfu_mode
from .profile import ANY


class DfuDiscovery(Discovery):
    """The devices that none of the addresses means; those of other protocols on USB count by the same keys."""

    protocol: ClassVar[str] = "dfu"

    @classmethod
    def discover(
        cls, bus: UsbBus, listed: Sequence[Settings], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        there = [info for info in bus.list() if any(is_dfu(item) for item in info.interfaces)]
        serials = Counter((info.vendor_id, info.product_id, info.serial) for info in there)
        found = []
        for info in there:
            if not any(_claims(address, info) for address in listed):
                unique = serials[info.vendor_id, info.product_id, info.serial] == 1
                found.append(as_discovered(info, by_serial=bool(info.serial) and unique))
        return found


def _claims(listed: Settings, info: UsbInfo) -> bool:
    address = listed.model_dump()
    if address.get("serial") not in (None, info.serial) or address.get("port") not in (None, info.port):
        return False
    return any(
        vendor in (ANY, info.vendor_id) and product in (ANY, info.product_id) for vendor, product in _ids(address)
    )


def _ids(address: dict[str, object]) -> Iterator[tuple[object, object]]:
    """Those of DFU mode; those of the running application, of which what is not told is the same."""
    vendor, product = address.get("vendor_id"), address.get("product_id")
    yield vendor, product
    runtime_vendor, runtime_product = address.get("runtime_vendor_id"), address.get("runtime_product_id")
    yield vendor if runtime_vendor is None else runtime_vendor, product if runtime_product is None else runtime_product


def as_discovered(info: UsbInfo, *, by_serial: bool) -> Discovered:
    """Of a running part only the ids of its application are seen, so it is told by its port, which it keeps."""
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
