"""Ports found again by their USB place, in a sysfs of our own making (Documentation/ABI/testing/sysfs-bus-usb)."""

from __future__ import annotations

import os
import pty
from pathlib import Path

import pytest
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialAbsent, SerialGone
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.serial.usb_tty import UsbTty, at_place, usb_tty


def plug(root: Path, place: str, number: int, tty: str, *, converter: bool = False) -> None:
    """As cdc_acm lays it out, or with a `converter`'s own folder for its port."""
    device = root / "devices" / "usb1" / place
    interface = device / f"{place}:1.0"
    owner = interface / tty if converter else interface
    owner.mkdir(parents=True)
    (device / "devnum").write_text(f"{number}\n")
    (device / "idVendor").write_text("2341\n")
    folder = root / "class" / "tty" / tty
    folder.mkdir(parents=True)
    (folder / "device").symlink_to(owner)


def test_a_device_that_came_back_is_found_at_its_place(tmp_path: Path) -> None:
    ttys = tmp_path / "class" / "tty"
    plug(tmp_path, "1-4.2", 17, "ttyACM0")
    plug(tmp_path, "1-4.3", 9, "ttyUSB0", converter=True)
    (ttys / "ttyS0").mkdir()
    assert usb_tty("/dev/ttyACM0", ttys) == UsbTty("1-4.2", 17, "/dev/ttyACM0")
    assert usb_tty("/dev/ttyUSB0", ttys) == UsbTty("1-4.3", 9, "/dev/ttyUSB0")
    assert at_place("1-4.2", ttys) == UsbTty("1-4.2", 17, "/dev/ttyACM0")
    assert at_place("1-9", ttys) is None
    for url in ("/dev/ttyS0", "/dev/ttyACM7", "socket://localhost:1", "loop://"):
        assert usb_tty(url, ttys) is None


@pytest.mark.real_time("pseudo-terminals")
def test_a_port_is_opened_again() -> None:
    master, slave = pty.openpty()
    other, beside = pty.openpty()
    try:
        with SerialPort.open("line", {"url": os.ttyname(slave), "baudrate": 19_200}) as port:
            port.reopen(os.ttyname(beside))
            assert (port.url, port.baudrate) == (os.ttyname(beside), 19_200)
            os.write(other, b"here")
            assert port.read_exactly(4, Deadline.after(20)) == b"here"
            port.reopen()
            assert port.url == os.ttyname(slave)
            with pytest.raises(SerialAbsent):
                port.reopen("/dev/there-is-none")
            with pytest.raises(SerialGone):
                port.write(b"x", Deadline.after(1))
            port.reopen()
            port.write(b"x", Deadline.after(20))
            assert os.read(master, 1) == b"x"
    finally:
        for descriptor in (master, slave, other, beside):
            os.close(descriptor)
