"""The kernel's virtual host controller as its files show it. The real one is met in hil_tests/kernel."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from proxyflash.emulators.device import DeviceSpec
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.errors import VhciAbsent, VhciForbidden, VhciFull
from proxyflash.emulators.usb.vhci import VhciHost, VhciPort, ports
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.tests.processes import descriptors

pytestmark = pytest.mark.real_time("USB/IP over a socket pair")

LONG = 300.0
HEAD = "hub port sta spd dev      sockfd local_busid\n"


class Kernel:
    """What stands behind the files. `states`: `sta` of each port; 4 is free, 6 used."""

    def __init__(self, count: int = 3) -> None:
        self.states = [4] * count
        self.streams: dict[int, socket.socket] = {}
        self.lines: list[str] = []
        self.refuses: dict[int, int] = {}
        """By port, with which errno."""
        self.attached = threading.Condition()

    def attach(self, line: str) -> None:
        port, descriptor, *_ = map(int, line.split())
        if port in self.refuses:
            raise OSError(self.refuses[port], os.strerror(self.refuses[port]))
        with self.attached:
            self.lines.append(line)
            self.streams[port] = socket.socket(fileno=os.dup(descriptor))
            self.streams[port].settimeout(LONG)
            self.states[port] = 6
            self.attached.notify_all()

    def wait_attached(self, count: int) -> None:
        """Until `count` have been, since the beginning."""
        with self.attached:
            assert self.attached.wait_for(lambda: len(self.lines) >= count, LONG)

    def status(self) -> str:
        for port, stream in tuple(self.streams.items()):
            readable, _, _ = select.select([stream], [], [], 0)
            if readable and stream.recv(1, socket.MSG_PEEK) == b"":
                self.detach(port)
        lines = [f"hs  {port:04d} {state:03d} 000 00000000 000000 0-0\n" for port, state in enumerate(self.states)]
        return HEAD + "".join(lines) + f"ss  {len(lines):04d} 004 000 00000000 000000 0-0\n"

    def detach(self, port: int) -> None:
        self.streams.pop(port).close()
        self.states[port] = 4

    def device(self, port: int) -> bytes:
        """Vendor and product id of what is attached there, little endian."""
        self.streams[port].sendall(
            struct.pack(">10I", 1, 1, 0, 1, 0, 0, 18, 0, 0, 0) + bytes.fromhex("8006000100001200")
        )
        return self.streams[port].recv(48 + 18, socket.MSG_WAITALL)[48 + 8 : 48 + 12]


class Controller(type(Path())):  # type: ignore[misc]
    """The folder of a Kernel."""

    kernel: ClassVar[Kernel]

    def write_text(self, data: str, *arguments: Any, **more: Any) -> int:
        assert self.name == "attach"
        self.kernel.attach(data)
        return len(data)

    def read_text(self, *arguments: Any, **more: Any) -> str:
        assert self.name == "status"
        return self.kernel.status()


@pytest.fixture
def kernel() -> Iterator[Kernel]:
    Controller.kernel = Kernel()
    yield Controller.kernel
    for port in tuple(Controller.kernel.streams):
        Controller.kernel.detach(port)


@pytest.fixture
def controller(tmp_path: Path, kernel: Kernel) -> Path:
    folder: Path = Controller(tmp_path / "vhci_hcd.0")
    for name in ("usb7", "usb8"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    return folder


@pytest.fixture
def wire() -> Iterator[UsbWire]:
    made = UsbWire(uuid.uuid4().hex, pace=0)
    yield made
    made.close()


@pytest.fixture
def add(wire: UsbWire) -> Iterator[Callable[..., DfuDevice]]:
    made: list[DfuDevice] = []

    def build(part: str = "slot-dfu") -> DfuDevice:
        made.append(DfuDevice(DeviceSpec(f"part{len(made)}", settings={"part": part, "boot": "dfu"}), wire))
        return made[-1]

    yield build
    for device in made:
        device.close()


@pytest.fixture(autouse=True)
def nothing_left(wire: UsbWire, kernel: Kernel) -> Iterator[None]:
    """No thread of its own, and no end of a stream."""
    before = len(descriptors())
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("vhci-", "usbip-"))]
    assert len(descriptors()) - len(kernel.streams) == before


def test_each_device_gets_a_port(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel
) -> None:
    add("slot-dfu"), add("stm32f405-dfu")
    host = VhciHost(wire, controller)
    assert host.places() == ["7-1", "7-2"]
    # Port, descriptor, device id (bus and device on the host that exports it), full speed.
    words = [line.split() for line in kernel.lines]
    assert [(port, device, speed) for port, _, device, speed in words] == [("0", "65537", "2"), ("1", "65538", "2")]
    assert [kernel.device(port) for port in (0, 1)] == [bytes.fromhex("09 12 01 df"), bytes.fromhex("83 04 11 df")]
    host.close()
    assert kernel.states == [4, 4, 4]


def test_ports_that_others_have_are_left_alone(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel
) -> None:
    kernel.states[0] = 6
    kernel.refuses[1] = errno.EBUSY  # Somebody took it since it was looked at.
    add()
    host = VhciHost(wire, controller)
    assert host.places() == ["7-3"]
    host.close()


def test_a_part_that_restarts_comes_back_where_it_was(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel
) -> None:
    device = add()
    add()
    host = VhciHost(wire, controller)
    # One of its own: the kernel closes its end when it sees that the other is closed.
    with kernel.streams[0].dup() as stream:
        stream.settimeout(LONG)
        device.supply.off()
        assert stream.recv(1) == b""
    device.supply.on()
    kernel.wait_attached(3)
    assert kernel.lines[2].split()[0] == "0"
    assert host.places() == ["7-1", "7-2"]
    assert kernel.device(0) == bytes.fromhex("09 12 01 df")
    host.close()


def test_one_that_the_kernel_detaches_stays_off_until_it_is_powered_anew(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel
) -> None:
    device = add()
    host = VhciHost(wire, controller)
    kernel.detach(0)
    with wire.changed:
        assert wire.changed.wait_for(lambda: wire.ports[0].function is None, LONG)
    assert len(kernel.lines) == 1
    device.supply.off()
    device.supply.on()
    kernel.wait_attached(2)
    host.close()


def test_a_device_that_comes_later(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel
) -> None:
    host = VhciHost(wire, controller)
    assert host.places() == []
    add()
    kernel.wait_attached(1)
    host.close()


def test_no_port_is_free(wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel) -> None:
    for _ in range(4):
        add()
    with pytest.raises(VhciFull):
        VhciHost(wire, controller)
    # Nor are the three left that had one.
    assert kernel.status().count(" 004 ") == 4


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS], ids=errno.errorcode.get)
def test_this_user_may_not(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel, number: int
) -> None:
    kernel.refuses[0] = number
    add()
    with pytest.raises(VhciForbidden, match=os.strerror(number)):
        VhciHost(wire, controller)


def test_the_kernel_takes_no_device(
    wire: UsbWire, add: Callable[..., DfuDevice], controller: Path, kernel: Kernel
) -> None:
    kernel.refuses[0] = errno.EINVAL
    add()
    with pytest.raises(VhciAbsent, match="Invalid argument"):
        VhciHost(wire, controller)


def test_no_controller(wire: UsbWire, add: Callable[..., DfuDevice], tmp_path: Path) -> None:
    add()
    with pytest.raises(VhciAbsent):
        VhciHost(wire, tmp_path / "vhci_hcd.0")


@pytest.mark.parametrize("text", ["", HEAD, HEAD + "hs\n", HEAD + "hs  port 004\n", "\xff"])
def test_a_status_that_says_nothing(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "vhci_hcd.0"
    folder.mkdir()
    (folder / "status").write_text(text, encoding="latin-1")
    with pytest.raises(VhciAbsent):
        ports(folder)


def test_several_controllers(tmp_path: Path) -> None:
    """With CONFIG_USBIP_VHCI_NR_HCS above 1: the first lists the ports of all, each hub is below its own."""
    for number, buses in enumerate(("usb1 usb2", "usb3 usb4")):
        for bus in buses.split():
            (tmp_path / f"vhci_hcd.{number}" / bus).mkdir(parents=True)
    first = tmp_path / "vhci_hcd.0"
    first.joinpath("status").write_text(
        HEAD + "hs  0000 006 002 00010001 000007 1-1\n"
        "hs  0001 004 000 00000000 000000 0-0\nss  0002 004 000 00000000 000000 0-0\n"
    )
    first.joinpath("status.1").write_text(HEAD + "hs  0003 004 000 00000000 000000 0-0\n")
    assert ports(first) == [VhciPort(0, "1-1", False), VhciPort(1, "1-2", True), VhciPort(3, "3-1", True)]
