"""The devices of an emulated USB wire on the Linux kernel's virtual host controller, `vhci_hcd`.

    served = VhciHost(wire)     # needs root and the module vhci_hcd
    print(served.places())      # ["3-1"]: ports as in sysfs, for lsusb -s, dfu-util -p and a component's address
    served.close()

Every program on the host sees the devices then: the kernel enumerates them, and libusb opens them. One socket pair a
device: the kernel gets one end by a line "<port> <fd> <devid> <speed>" in the controller's `attach`
(Documentation/ABI/testing/sysfs-platform-usbip-vhci), the other is answered by `usbip`. A device that leaves the wire
has its end closed, which unplugs it, and a device that comes is attached again at the same port. If somebody else detaches a
device ("<port>" into `detach`), it stays off until its part starts again, as with a cable pulled.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...transports import clock
from ..errors import VhciAbsent, VhciForbidden, VhciFull
from .usbip import UsbIpDevice
from .wire import Port, UsbWire

CONTROLLER = Path("/sys/devices/platform/vhci_hcd.0")
"""The first; its files `status.N` list the ports of the others, and its `attach` serves all."""
FREE = 4
"""`sta` of a port with nothing at it (tools/usb/usbip/libsrc, VDEV_ST_NULL)."""
SPEED_FULL = 2
"""enum usb_device_speed (include/uapi/linux/usb/ch9.h)."""
DEVICE_ID = 0x0001_0000
"""Bus number and device number on the host that exports it, from which a device id is made."""
FREE_SECONDS = 5.0
"""How long the kernel may take to let go of a port."""
LOOK_AGAIN = 0.005


@dataclass(frozen=True, slots=True)
class VhciPort:
    """One full-speed port of the controller. `place`: as sysfs names it."""

    number: int
    place: str
    free: bool


def ports(controller: Path = CONTROLLER) -> list[VhciPort]:
    """The controller's ports for devices below super speed. Raises VhciAbsent."""
    found = []
    try:
        for status in sorted(controller.glob("status*"), key=lambda path: int(path.suffix[1:] or 0)):
            hub = controller.with_name(f"vhci_hcd.{status.suffix[1:] or 0}")
            buses = [int(path.name[3:]) for path in hub.glob("usb[0-9]*")]
            # hub, port, sta, spd, dev, sockfd, local_busid. The hub for super speed is made after the other.
            lines = [line.split() for line in status.read_text(encoding="ascii").splitlines()[1:]]
            numbers = [(int(words[1]), int(words[2])) for words in lines if words[0] == "hs"]
            for index, (number, state) in enumerate(numbers, 1):
                place = f"{min(buses)}-{index}" if buses else ""
                found.append(VhciPort(number, place, state == FREE))
    except (OSError, ValueError, IndexError) as error:
        raise VhciAbsent(f"{controller}: the ports can't be read ({error})") from error
    if not found:
        raise VhciAbsent("the kernel's virtual USB host controller (vhci_hcd) is not there")
    return found


class VhciHost:
    """Serves a wire's devices until it is closed. They are the wire's, not closed with it.

    Raises VhciAbsent, VhciForbidden, VhciFull.
    """

    def __init__(self, wire: UsbWire, controller: Path = CONTROLLER) -> None:
        clock.real("the kernel's virtual USB controller")
        self._wire = wire
        self._controller = controller
        self._places: dict[Port, VhciPort] = {}
        self._served: dict[Port, UsbIpDevice] = {}
        self._seen = -1
        self._ending = False
        try:
            self._follow()
        except BaseException:
            self._unplug_all()
            raise
        self._thread = clock.Thread(target=self._run, name=f"vhci-{wire.channel}")
        self._thread.start()

    def places(self) -> list[str]:
        """Where the devices are, in the order of the wire's ports."""
        return [place.place for place in self._places.values()]

    def wait_enumerated(self, seconds: float) -> bool:
        """Waits until the kernel has configured all devices that are plugged in now; False when it took too long."""
        ends = clock.monotonic() + seconds
        while not all(Path("/sys/bus/usb/devices", f"{place}:1.0").exists() for place in self.places()):
            if clock.monotonic() >= ends:
                return False
            clock.sleep(LOOK_AGAIN)
        return True

    def close(self) -> None:
        """Unplugs all devices, and waits until the kernel has let go of them."""
        with self._wire.changed:
            self._ending = True
            self._wire.changed.notify_all()
        self._thread.join()
        self._unplug_all()

    def _run(self) -> None:
        while not self._ending:
            with self._wire.changed:
                self._wire.changed.wait_for(lambda: self._ending or self._wire.changes != self._seen, FREE_SECONDS)
            with contextlib.suppress(VhciAbsent, VhciForbidden, VhciFull):
                # What stands in the way now may be gone at the next look.
                self._follow()

    def _follow(self) -> None:
        """Makes the kernel's ports what the wire's are."""
        with self._wire.changed:
            self._seen = self._wire.changes
            wanted = {port: port.function for port in self._wire.ports}
        for port, function in wanted.items():
            served = self._served.get(port)
            if served is not None and served.function is not function:
                self._unplug(port)
            if function is not None and port not in self._served:
                self._plug(port)

    def _plug(self, port: Port) -> None:
        function = port.function
        if function is None:
            return
        kept = self._places.get(port)
        for place in (kept,) if kept else self._free_ports():
            ours, kernels = socket.socketpair()
            with kernels:
                line = f"{place.number} {kernels.fileno()} {DEVICE_ID | port.number} {SPEED_FULL}"
                try:
                    (self._controller / "attach").write_text(line, encoding="ascii")
                except OSError as error:
                    ours.close()
                    if error.errno == errno.EBUSY:
                        continue
                    raise self._refused(error) from error
            self._places[port] = place
            self._served[port] = UsbIpDevice(self._wire, port, function, ours)
            return
        raise VhciFull("no port of the kernel's virtual USB host controller (vhci_hcd) is free")

    def _free_ports(self) -> Iterator[VhciPort]:
        own = {place.number for place in self._places.values()}
        yield from (place for place in ports(self._controller) if place.free and place.number not in own)

    def _refused(self, error: OSError) -> VhciAbsent | VhciForbidden:
        text = f"{self._controller / 'attach'}: {error.strerror}"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return VhciForbidden(f"this user may not plug devices into vhci_hcd ({text})")
        return VhciAbsent(f"vhci_hcd takes no device ({text})")

    def _unplug(self, port: Port) -> None:
        self._served.pop(port).close()
        number = self._places[port].number
        ends = clock.monotonic() + FREE_SECONDS
        while not any(place.number == number and place.free for place in ports(self._controller)):
            if clock.monotonic() >= ends:
                return
            clock.sleep(LOOK_AGAIN)

    def _unplug_all(self) -> None:
        for port in tuple(self._served):
            with contextlib.suppress(VhciAbsent):
                self._unplug(port)
