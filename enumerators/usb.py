"""Components on USB: read from the descriptors, which needs no request to the running part."""

from __future__ import annotations

from collections.abc import Sequence

from ..transports.deadline import Deadline
from ..transports.usb import UsbBus, UsbInfo
from .benchfile import Entry
from .component import Unlisted, toml_text
from .probers import Prober

APPLICATION_SPECIFIC = 0xFE
DFU_SUBCLASS = 0x01
"""USB DFU 1.1, 4.2.1: the interface's class and subclass."""


class UsbProber(Prober):
    """The host's USB devices; those with a DFU interface may be components."""

    transport: UsbBus

    def unlisted(self, entries: Sequence[Entry], deadline: Deadline) -> list[Unlisted]:
        found = []
        for info in self.transport.list():
            if any(_is_dfu(interface.class_code, interface.subclass) for interface in info.interfaces) and not any(
                _claims(entry, info) for entry in entries
            ):
                found.append(_unlisted(self.name, info))
        return found


def _is_dfu(class_code: int, subclass: int) -> bool:
    return class_code == APPLICATION_SPECIFIC and subclass == DFU_SUBCLASS


def _claims(entry: Entry, info: UsbInfo) -> bool:
    address = entry.address.model_dump()
    if address.get("serial") not in (None, info.serial) or address.get("port") not in (None, info.port):
        return False
    ids = (
        (address.get("vendor_id"), address.get("product_id")),
        (address.get("runtime_vendor_id"), address.get("runtime_product_id")),
    )
    return (info.vendor_id, info.product_id) in ids


def _unlisted(bus: str, info: UsbInfo) -> Unlisted:
    place = f"serial = {toml_text(info.serial)}" if info.serial else f'port = "{info.port}"'
    name = f"usb-{info.vendor_id:04x}-{info.product_id:04x}"
    body = (
        f'bus = "{bus}"\n'
        'protocol = "dfu"\n'
        f"address = {{vendor_id = 0x{info.vendor_id:04X}, product_id = 0x{info.product_id:04X}, {place}}}"
    )
    about = " ".join(text for text in (info.manufacturer, info.product) if text)
    title = f"dfu {info.vendor_id:04x}:{info.product_id:04x}  port {info.port}  {about}".rstrip()
    return Unlisted(bus, title, name, body)
