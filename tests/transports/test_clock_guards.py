"""What only real time moves is refused under a simulated clock, by name, before anything of it is opened or started."""

from __future__ import annotations

import os
import socket
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators.can import bridge as can_bridge
from proxyflash.emulators.can import server as can_server
from proxyflash.emulators.can.python_can import EmulatedCanBus
from proxyflash.emulators.can.wire import CanWire
from proxyflash.emulators.control import Control
from proxyflash.emulators.serial.acm_tty import AcmTty
from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.emulators.usb.cdc_acm import CdcAcm
from proxyflash.emulators.usb.usbip import UsbIpDevice
from proxyflash.emulators.usb.vhci import VhciHost
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.enumerators.commands import HostCommands
from proxyflash.flashers.keys.making import library_keys
from proxyflash.flashers.keys.settings import KeyLibrary
from proxyflash.tests.processes import descriptors
from proxyflash.tools.vm import guest
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.errors import ExitStatus, MixedClocks
from proxyflash.transports.isotp.kernel import KernelIsoTp
from proxyflash.transports.isotp.opening import IsoTpAddress, IsoTpOptions
from proxyflash.transports.outside import Outside
from proxyflash.transports.simulated_clock import SimulatedClock
from proxyflash.transports.usb.bus import UsbBus
from proxyflash.updates.handlers.programs import started

pytestmark = pytest.mark.real_time("threads of Python's own beside the simulated clock's, and signals")


def uart() -> UartWire:
    return UartWire(uuid.uuid4().hex)


def usb_ip(folder: Path) -> object:
    wire, adapter = UsbWire(uuid.uuid4().hex), CdcAcm(uart(), "imu")
    port = wire.new_port()
    wire.plug(port, adapter.function)
    ours, its = socket.socketpair()
    with ours, its:
        return UsbIpDevice(wire, port, adapter.function, its)


def kernel_iso_tp(folder: Path) -> object:
    wire = CanWire(uuid.uuid4().hex)
    with CanBus.open("b", {"interface": "proxyflash", "channel": wire.channel}) as bus:
        try:
            return KernelIsoTp(bus, IsoTpAddress(request=CanId(0x7E0), response=CanId(0x7E8)), IsoTpOptions())
        finally:
            wire.close()


def bridge(folder: Path) -> object:
    wire, other = CanWire(uuid.uuid4().hex), CanWire(uuid.uuid4().hex)
    bus = EmulatedCanBus(other.channel)
    try:
        return can_bridge.bridge(wire, bus)
    finally:
        bus.shutdown()
        wire.close()
        other.close()


def served_can(folder: Path) -> object:
    wire = CanWire(uuid.uuid4().hex)
    try:
        return can_server.serve_can(wire, folder / "can.socket")
    finally:
        wire.close()


def program(folder: Path) -> object:
    with started(["touch", "made"], os.environ, folder) as process:
        return process


def in_guest(folder: Path) -> object:
    with guest._qemu(["touch", str(folder / "made")], []) as process:
        return process


def remote_can(folder: Path) -> object:
    return can_server.RemoteNode(str(folder / "can.socket"), lambda message: None, lambda: None)


def library(folder: Path) -> Any:
    """A file of the kind that a key library is: the interpreter's own."""
    return library_keys(KeyLibrary(file=sys.executable))


REAL: dict[str, tuple[Callable[[Path], Any], str]] = {
    "pty": (lambda folder: serve_pty(uart()), "a pseudo-terminal"),
    "vhci": (lambda folder: VhciHost(UsbWire("v"), folder), "the kernel's virtual USB controller"),
    "acm": (lambda folder: AcmTty(uart(), "imu", folder), "a tty of the kernel"),
    "usbip": (usb_ip, "USB/IP"),
    "kernel isotp": (kernel_iso_tp, "the kernel's ISO-TP"),
    "control": (lambda folder: Control(folder / "control", {}, {}), "the pipe {folder}/control"),
    "can server": (served_can, "the socket {folder}/can.socket"),
    "remote can": (remote_can, "the CAN wire of another process at {folder}/can.socket"),
    "bridge": (bridge, "a bridge to another bus"),
    "usb": (lambda folder: UsbBus.open("usb", {}), "the USB of this host"),
    "command": (
        lambda folder: HostCommands(folder, Outside(lambda: None)).run("touch made"),
        "the command 'touch made'",
    ),
    "program": (program, "the program touch"),
    "key library": (library, f"the key library {sys.executable}"),
    "guest": (in_guest, "a guest"),
}


@pytest.mark.parametrize("name", REAL)
def test_what_needs_real_time_is_refused_and_nothing_of_it_is_left(
    name: str, simulated: SimulatedClock, tmp_path: Path
) -> None:
    opens, what = REAL[name]
    folder = tmp_path / "own"
    folder.mkdir()
    before = descriptors()
    with pytest.raises(MixedClocks) as told:
        opens(folder)
    assert told.value.code == "E-CLOCK-MIXED"
    assert told.value.exit_status is ExitStatus.USAGE
    assert told.value.cause == f"{what.format(folder=folder)} can't be used under a simulated clock"
    assert "all emulated in this process" in told.value.remedy
    assert list(folder.iterdir()) == []
    assert descriptors() == before
    assert simulated.threads() == []


def test_every_guard_of_the_product_is_tried_here() -> None:
    """Those of the ports that a bench file names are tried in test_clock.py."""
    elsewhere = {"transports/serial/opening.py", "transports/can/opening.py", "transports/udp.py"}
    root = Path(clock.__file__).parents[1]
    packages = ("transports", "flashers", "enumerators", "updates", "emulators", "tools")
    guards = sum(
        path.read_text().count("clock.real(") + path.read_text().count("clock.program(")
        for package in packages
        for path in (root / package).rglob("*.py")
        if str(path.relative_to(root)) not in elsewhere
    )
    # A command and a program start in one place.
    assert guards == len(REAL) - 1


def test_the_same_is_possible_in_real_time(tmp_path: Path) -> None:
    wire = uart()
    path, close = serve_pty(wire)
    assert Path(path).exists()
    close()
    assert HostCommands(tmp_path, Outside(lambda: None)).run("echo it") == "it\n"
