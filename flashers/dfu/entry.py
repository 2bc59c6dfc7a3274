"""Into DFU mode and out of it: which USB device is meant, detaching (DFU 1.1, chapter 5), coming back.

A device is followed by its port: as a rule it keeps its port, while its ids, its serial number and its address may all change.
Where it comes back at another port, as behind a virtual machine, it is known by its serial number, or by being the only
device that came.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from enum import Enum, auto

from ...transports.deadline import Deadline
from ...transports.errors import TransportError, UsbAbsent, UsbForbidden, UsbGone, UsbStall, UsbTimeout
from ...transports.usb.bus import UsbBus, UsbDevice, UsbInfo, UsbInterface, UsbMatch
from ...transports.usb.claims import Claimed, marks, returned
from ..errors import NoResponse, PartWrongMode
from .codec import (
    APPLICATION_SPECIFIC,
    DFU_SUBCLASS,
    OUT,
    PROTOCOL_DFU_MODE,
    Request,
    parse_functional,
)
from .link import REQUEST_SECONDS
from .profile import DfuAddress

DETACH_MS = 1000
"""wTimeout of a DETACH to a device without a functional descriptor."""
LOOK_SECONDS = 0.25
"""Between two looks whether a device that left is back at another port."""
MOST_LISTED = 5
"""Devices that a message names."""
STRANGER_SECONDS = 2.0
"""How long an application may take to appear, of which nothing is known: it may have no USB at all."""


class Came(Enum):
    """What came back at a device's port after it had left."""

    APPLICATION = auto()
    DFU_MODE = auto()
    NOTHING = auto()


def is_dfu(interface: UsbInterface) -> bool:
    """DFU 1.1, 4.1.2 and 4.2.3."""
    return interface.class_code == APPLICATION_SPECIFIC and interface.subclass == DFU_SUBCLASS


def is_in_dfu_mode(info: UsbInfo) -> bool:
    return any(is_dfu(item) and item.protocol == PROTOCOL_DFU_MODE for item in info.interfaces)


def find(bus: UsbBus, address: DfuAddress) -> UsbDevice:
    """The device in DFU mode, else its running application. Raises NoResponse, UsbAmbiguous and what opening raises."""
    runtime = address.runtime()
    if address.port is None and runtime is not None:
        bus.check_one((address.dfu_mode(), runtime))
    for match in (address.dfu_mode(), runtime):
        if match is None:
            continue
        with suppress(UsbAbsent):
            device = bus.open_device(match)
            if is_in_dfu_mode(device.info) or match.vendor_id is not None:
                return device
            # Any device at the port was meant, if only it is in DFU mode.
            device.close()
    ids = [match for match in (address.dfu_mode(), runtime) if match is not None]
    raise NoResponse(f"no USB device {' or '.join(str(match) for match in ids)}; {_there(bus, ids)}")


def detach(bus: UsbBus, device: UsbDevice, address: DfuAddress, seconds: float) -> UsbDevice:
    """DETACH, then a USB reset unless the device detaches unasked; it comes back in DFU mode within `seconds`.

    Closes `device`. Raises PartWrongMode.
    """
    info = device.info
    others = bus.ports()
    interface = next((item for item in info.interfaces if is_dfu(item)), None)
    if interface is None:
        device.close()
        raise PartWrongMode(
            f"{info.vendor_id:04x}:{info.product_id:04x} runs, and has no DFU interface to be detached by",
            remedy="Start its bootloader by hand (its button or boot pin), then run the command again.",
        )
    functional = parse_functional(interface.extra)
    try:
        device.claim(interface.number, interface.alternate)
        timeout = functional.detach_ms if functional else DETACH_MS
        with suppress(UsbGone, UsbTimeout):
            _ask_to_detach(device, interface.number, timeout)
        if functional is None or not functional.will_detach:
            with suppress(TransportError):
                device.reset()
    finally:
        device.close()
    deadline = Deadline.after(seconds)
    wanted = address.dfu_mode(info.port or None)
    while True:
        try:
            matches = [wanted, *_elsewhere(bus, address, info, others, in_dfu_mode=True)]
            back = bus.wait_for(matches, deadline.sooner(LOOK_SECONDS))
        except (UsbAbsent, UsbForbidden) as error:
            _refuse_ids_of_application(bus, address, info)
            if not deadline.expired:
                continue
            if isinstance(error, UsbForbidden):
                raise
            if any(
                ids_of(seen) == ids_of(info) and not is_in_dfu_mode(seen) for seen in bus.list(UsbMatch(port=info.port))
            ):
                raise _still_running(info, seconds) from None
            raise PartWrongMode(
                f"detached, but no {wanted} came back within {seconds:g} s; {_there(bus, [wanted])}",
                remedy="Are vendor_id and product_id of its address those of its DFU mode?",
            ) from None
        if is_in_dfu_mode(back.info):
            bus.moved(info.port, back.info.port)
            return back
        # The same ids in both modes, and the application has not gone yet.
        back.close()
        if not bus.wait_gone(wanted, deadline):
            raise _still_running(info, seconds)


def _ask_to_detach(device: UsbDevice, interface: int, timeout: int) -> None:
    """A device that was asked before refuses it until the time of that request is over (DFU 1.1, 5.1 and A.2.2): a command that
    was killed may have asked. `timeout`: in milliseconds. Raises UsbStall where it is refused then, too."""
    with suppress(UsbStall):
        device.control_out(OUT, Request.DETACH, timeout, interface, b"", Deadline.after(REQUEST_SECONDS))
        return
    device.wait(timeout / 1000)
    device.control_out(OUT, Request.DETACH, timeout, interface, b"", Deadline.after(REQUEST_SECONDS))


def ids_of(info: UsbInfo) -> tuple[int, int]:
    return info.vendor_id, info.product_id


def _still_running(info: UsbInfo, seconds: float) -> PartWrongMode:
    """A DETACH, or the reset after it, may have been lost."""
    error = PartWrongMode(
        f"{info} was asked to detach, and is still running after {seconds:g} s", remedy="Run the same command again."
    )
    return error.passing(True)


def _refuse_ids_of_application(bus: UsbBus, address: DfuAddress, info: UsbInfo) -> None:
    """Raises PartWrongMode where the address has the application's ids, and the device is at its port in DFU mode under others.

    The device is reset then, so that its application runs again.
    """
    wanted, ids = address.dfu_mode(), ids_of(info)
    if not info.port or (wanted.vendor_id, wanted.product_id) != ids:
        return
    for seen in bus.list(UsbMatch(port=info.port)):
        if not is_in_dfu_mode(seen) or ids_of(seen) == ids:
            continue
        with suppress(TransportError), closing(bus.open_device(UsbMatch(port=info.port))) as device:
            device.reset()
        raise PartWrongMode(
            f"{ids[0]:04x}:{ids[1]:04x} are the ids of its running application; in DFU mode it is "
            f"{seen.vendor_id:04x}:{seen.product_id:04x}",
            remedy=f"Write it as dfu:{seen.vendor_id:04x}:{seen.product_id:04x}?runtime_vendor_id=0x{ids[0]:04x}"
            f"&runtime_product_id=0x{ids[1]:04x}, or give its address these four ids in the bench file.",
        )


def came_back(bus: UsbBus, address: DfuAddress, info: UsbInfo, others: Collection[str], seconds: float) -> Came:
    """Waits for a device that is to start its application: what is at its port then, within `seconds`.

    A device that shows its DFU mode for a moment, on its way to its application, is waited for. Opens nothing: the user may
    have no right to the application. `others`: the ports where devices were before the request.
    """
    deadline = Deadline.after(seconds)
    runtime = address.runtime()
    if not bus.wait_gone(UsbMatch(port=info.port) if info.port else address.dfu_mode(), deadline):
        return Came.DFU_MODE
    if runtime is None:
        deadline = deadline.sooner(STRANGER_SECONDS)
    where = UsbMatch(port=info.port) if info.port else runtime or address.dfu_mode()
    while True:
        if bus.wait_seen(where, deadline.sooner(LOOK_SECONDS), lambda seen: not is_in_dfu_mode(seen)) is not None:
            return Came.APPLICATION
        if found := _elsewhere(bus, address, info, others, in_dfu_mode=False):
            bus.moved(info.port, found[0].port or "")
            return Came.APPLICATION
        if deadline.expired:
            fell_back = bus.list(where) or _elsewhere(bus, address, info, others, in_dfu_mode=True)
            return Came.DFU_MODE if fell_back else Came.NOTHING


def _elsewhere(
    bus: UsbBus, address: DfuAddress, info: UsbInfo, others: Collection[str], *, in_dfu_mode: bool
) -> Sequence[UsbMatch]:
    """The port where a device came back in that mode which left `info.port`; none where that isn't known, or it isn't back.

    `others`: the ports where devices were before. Which of the devices it is that came, `claims.returned` says. Where the address
    names a port, only a serial number shows it, and not at a place where another device is followed.
    """
    match = address.dfu_mode() if in_dfu_mode else address.runtime()
    if match is None or match.vendor_id is None or info.port in bus.ports():
        return ()
    came = [
        seen
        for seen in bus.list(replace(match, serial=None, port=None))
        if seen.port not in others and seen.interfaces and is_in_dfu_mode(seen) is in_dfu_mode
    ]
    followed, there = bus.followed, {*bus.ports(), info.port}
    if address.port is not None:
        places = {other.place for other in followed}
        came = [seen for seen in came if seen.port not in places]
    # Several devices may have the same serial number in DFU mode: that of a device at its place shows nothing.
    others_now = [Claimed(other.place, frozenset()) if other.place in there else other for other in followed]
    place = returned(
        Claimed(info.port or "", marks([info.serial or ""])),
        [Claimed(seen.port or "", marks([seen.serial or ""])) for seen in came],
        others_now,
        lambda place: place not in there,
        only_one=address.port is None,
    )
    return [UsbMatch(port=place)] if place else ()


def _there(bus: UsbBus, wanted: Sequence[UsbMatch]) -> str:
    """Where such devices are, or else any with a DFU interface, and what is at the port that is meant."""
    there = bus.list()
    ids = {(match.vendor_id, match.product_id) for match in wanted}
    places = {match.port for match in wanted if match.port is not None}
    near = [seen for seen in there if seen.port in places or (seen.vendor_id, seen.product_id) in ids]
    shown = (near or [seen for seen in there if any(map(is_dfu, seen.interfaces))])[:MOST_LISTED]
    if not shown:
        return "nothing is there" if places else "no device with a DFU interface is there"
    return "there is " + ", ".join(
        f"{seen}, {f'serial {seen.serial}' if seen.serial else 'no serial number'}" for seen in shown
    )
