"""Who a device with a DFU interface says it is, from its descriptors (USB 2.0, chapter 9; DFU 1.1, chapter 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...transports.usb.bus import UsbInfo, UsbInterface
from ..flasher import Identity, ProbeResult, State
from .codec import PROTOCOL_DFU_MODE
from .entry import is_dfu, is_in_dfu_mode


def alternates(info: UsbInfo) -> list[UsbInterface]:
    """The alternate settings of the interface that is in DFU mode, in order."""
    found = [item for item in info.interfaces if is_dfu(item) and item.protocol == PROTOCOL_DFU_MODE]
    own = {item.alternate: item for item in found if item.number == found[0].number}
    return [own[number] for number in sorted(own)]


def has_dfu(info: UsbInfo) -> bool:
    return any(is_dfu(item) for item in info.interfaces)


def probed(info: UsbInfo) -> ProbeResult:
    state = State.BOOTLOADER if is_in_dfu_mode(info) else State.RUNNING
    return ProbeResult(state, identity(info, state))


def common(found: Sequence[ProbeResult]) -> ProbeResult:
    """What is true of all of several devices that the address can't tell apart."""
    first = found[0]
    if len(found) == 1:
        return first
    version = first.identity.version if len({item.identity.version for item in found}) == 1 else ""
    ports = ", ".join(item.identity.details["port"] for item in found)
    return ProbeResult(first.state, replace(first.identity, serial="", version=version, details={"ports": ports}))


def identity(info: UsbInfo, state: State) -> Identity:
    version = f"{info.bcd_device >> 8:x}.{info.bcd_device >> 4 & 0xF:x}.{info.bcd_device & 0xF:x}"
    running = state is State.RUNNING
    return Identity(
        part=info.product,
        serial=info.serial,
        version=version if running else "",
        bootloader="" if running else version,
        manufacturer=info.manufacturer,
        details={"port": info.port, "usb": f"{info.vendor_id:04x}:{info.product_id:04x}"},
    )
