"""Ports found again by their USB place, their serial number or as the only one.

In a sysfs of our own making (Documentation/ABI/testing/sysfs-bus-usb).
"""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialAbsent, SerialAmbiguous, SerialGone
from proxyflash.transports.serial import host as serial_host
from proxyflash.transports.serial import usb_tty as usb_ttys
from proxyflash.transports.serial.port import SerialPort
from proxyflash.transports.serial.usb_tty import Followed, UsbTty, usb_tty
from proxyflash.transports.usb import claims
from serial.tools import list_ports, list_ports_common

PRODUCT = "Arduino Leonardo"


class Host:
    """A host's sysfs."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.ttys = root / "class" / "tty"
        self.ttys.mkdir(parents=True)
        monkeypatch.setattr(usb_ttys, "TTYS", self.ttys)

    def plug(
        self, place: str, number: int, tty: str, *, serial: str = "", interface: int = 0, converter: bool = False
    ) -> None:
        """As cdc_acm lays it out, or with a `converter`'s own folder for its port."""
        device = self.root / "devices" / "usb1" / place
        folder = device / f"{place}:1.{interface}"
        owner = folder / tty if converter else folder
        owner.mkdir(parents=True)
        said = {"devnum": f"{number}", "idVendor": "2341", "idProduct": "0036", "product": PRODUCT, "serial": serial}
        for name, text in said.items():
            (device / name).write_text(f"{text}\n")
        (folder / "bInterfaceNumber").write_text(f"{interface:02x}\n")
        (self.ttys / tty).mkdir()
        (self.ttys / tty / "device").symlink_to(owner)

    def unplug(self, tty: str) -> None:
        shutil.rmtree((self.ttys / tty / "device").resolve().parent)
        shutil.rmtree(self.ttys / tty)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(claims, "PREFIX", f"proxyflash-test-{os.getpid()}")
    monkeypatch.setattr(claims, "DEVICES", tmp_path / "nothing")
    return Host(tmp_path, monkeypatch)


@contextmanager
def other_process(place: str, serial: str) -> Iterator[None]:
    """A process that follows a device at this place until the end of the block."""
    program = (
        "from proxyflash.transports.usb import claims; import sys; claims.PREFIX = sys.argv[1]; claim = claims.Claim(); "
        "claim.say(sys.argv[2], sys.argv[3:]); print(flush=True); input()"
    )
    arguments = [sys.executable, "-c", program, claims.PREFIX, place, serial]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def path(port: UsbTty | None) -> str | None:
    return port.path if port is not None else None


@pytest.mark.parametrize(
    ("ids", "product", "url", "said"),
    [
        ("2341:0036", PRODUCT, "/dev/ttyACM0", False),
        ("2fe3:0001", "Zephyr CDC ACM", "/dev/ttyACM0", False),
        ("2341:0042", "", "/dev/ttyACM0", True),
        ("1a86:55d4", "USB Single Serial", "/dev/ttyACM0", True),
        ("0483:374b", "STM32 STLink", "/dev/ttyACM0", True),
        ("0d28:0204", "BBC micro:bit CMSIS-DAP", "/dev/ttyACM0", True),
        ("0403:6001", "FT232R USB UART", "/dev/ttyUSB0", True),
    ],
)
def test_a_default_bit_rate_is_said_where_there_is_a_uart(
    host: Host, ids: str, product: str, url: str, said: bool
) -> None:
    host.plug("1-4.2", 17, url.removeprefix("/dev/"))
    for name, text in zip(("idVendor", "idProduct", "product"), (*ids.split(":"), product), strict=True):
        (host.root / "devices" / "usb1" / "1-4.2" / name).write_text(f"{text}\n")
    assert bool(SerialPort.default_rate({"url": url})[0]) == said


def test_where_a_port_is_plugged_in(host: Host) -> None:
    host.plug("1-4.2", 17, "ttyACM0", serial="85430353531351B0E1E2")
    host.plug("1-4.3", 9, "ttyUSB0", converter=True)
    (host.ttys / "ttyS0").mkdir()
    found = usb_tty("/dev/ttyACM0")
    assert found == UsbTty("1-4.2", 17, "/dev/ttyACM0")
    assert str(found) == f"/dev/ttyACM0 (2341:0036 {PRODUCT}, serial number 85430353531351B0E1E2, USB port 1-4.2)"
    assert usb_tty("/dev/ttyUSB0") == UsbTty("1-4.3", 9, "/dev/ttyUSB0")
    for url in ("/dev/ttyS0", "/dev/ttyACM7", "socket://localhost:1", "loop://"):
        assert usb_tty(url) is None


def test_only_ttys_of_devices_are_looked_at(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host has 64 virtual consoles, and each bus on a serial line asks."""
    host.plug("1-4.2", 17, "ttyACM0")
    host.plug("1-4.3", 9, "ttyUSB0", converter=True)
    (host.ttys / "tty63").mkdir()
    looked, look = [], usb_ttys._look

    def counted(tty: Path) -> usb_ttys.UsbTty | None:
        looked.append(tty.name)
        return look(tty)

    monkeypatch.setattr(usb_ttys, "_look", counted)
    assert path(usb_tty("/dev/ttyUSB0")) == "/dev/ttyUSB0"
    assert looked == ["ttyUSB0"]
    assert [port.path for port in usb_ttys.ports()] == ["/dev/ttyACM0", "/dev/ttyUSB0"]
    assert looked == ["ttyUSB0", "ttyACM0", "ttyUSB0"]


class TestFollowed:
    @pytest.fixture
    def followed(self, host: Host) -> Followed:
        host.plug("1-1", 3, "ttyACM7", serial="0001")
        host.plug("1-4.2", 17, "ttyACM0", serial="0001")
        return Followed("/dev/ttyACM0")

    def test_at_its_place(self, host: Host, followed: Followed) -> None:
        host.unplug("ttyACM0")
        assert followed.now(only_one=True) is None
        host.plug("1-4.2", 18, "ttyACM1")
        assert path(followed.now(only_one=False)) == "/dev/ttyACM1"

    def test_the_same_interface_of_several(self, host: Host) -> None:
        host.plug("1-4.2", 17, "ttyACM0", interface=2)
        followed = Followed("/dev/ttyACM0")
        host.unplug("ttyACM0")
        host.plug("1-4.2", 18, "ttyACM1", interface=0)
        host.plug("1-4.2", 18, "ttyACM2", interface=2)
        assert path(followed.now(only_one=False)) == "/dev/ttyACM2"

    def test_by_its_serial_number(self, host: Host, followed: Followed) -> None:
        """Not a port that was there before, though it has the same."""
        host.unplug("ttyACM0")
        assert followed.now(only_one=False) is None
        host.plug("2-1", 4, "ttyACM3", serial="0002")
        host.plug("2-2", 5, "ttyACM1", serial="0001")
        assert path(followed.now(only_one=False)) == "/dev/ttyACM1"

    def test_the_only_one_that_came(self, host: Host, followed: Followed) -> None:
        host.unplug("ttyACM0")
        host.plug("2-1", 4, "ttyACM1")
        assert followed.now(only_one=False) is None
        assert path(followed.now(only_one=True)) == "/dev/ttyACM1"
        host.plug("2-2", 5, "ttyACM2")
        assert followed.now(only_one=True) is None, "which of the two can't be known"

    def test_another_ones_place_is_not_its_own(self, host: Host, followed: Followed) -> None:
        """Two boards leave at the same time: the first that is back is not taken for the other."""
        other = Followed("/dev/ttyACM7")
        host.unplug("ttyACM7")
        followed.see("/dev/ttyACM0")
        host.unplug("ttyACM0")
        host.plug("1-1", 19, "ttyACM1")
        assert followed.now(only_one=True) is None
        assert path(other.now(only_one=True)) == "/dev/ttyACM1"

    def test_another_ones_place_is_not_its_own_by_the_same_serial_number(self, host: Host, followed: Followed) -> None:
        """Cheap boards all have the same."""
        other = Followed("/dev/ttyACM7")
        host.unplug("ttyACM7")
        host.unplug("ttyACM0")
        host.plug("1-1", 19, "ttyACM1", serial="0001")
        assert followed.now(only_one=True) is None
        assert path(other.now(only_one=True)) == "/dev/ttyACM1"

    def test_who_followed_the_same_part_before_is_no_other_one(self, host: Host) -> None:
        host.plug("1-1", 3, "ttyACM0", serial="A")
        before = Followed("/dev/ttyACM0", "imu")
        host.unplug("ttyACM0")
        host.plug("1-2", 4, "ttyACM1", serial="A")
        followed = Followed("/dev/ttyACM1", "imu")
        host.unplug("ttyACM1")
        host.plug("1-1", 5, "ttyACM0", serial="A")
        assert path(followed.now(only_one=False)) == path(before.now(only_one=False)) == "/dev/ttyACM0"

    def test_another_ones_serial_number_is_not_its_own(self, host: Host) -> None:
        """A virtual machine gives the first place that is free: to whichever board is back first."""
        host.plug("1-1", 3, "ttyACM7", serial="A")
        host.plug("1-2", 4, "ttyACM0", serial="B")
        first, second = Followed("/dev/ttyACM7"), Followed("/dev/ttyACM0")
        host.unplug("ttyACM7")
        host.unplug("ttyACM0")
        host.plug("1-1", 5, "ttyACM1", serial="B")
        assert first.now(only_one=True) is None
        assert path(second.now(only_one=False)) == "/dev/ttyACM1"
        host.plug("1-2", 6, "ttyACM2", serial="A")
        assert path(first.now(only_one=False)) == "/dev/ttyACM2"
        assert path(second.now(only_one=False)) == "/dev/ttyACM1"

    @pytest.mark.parametrize("serial", ["", "0001"], ids=["no serial number", "the same serial number"])
    def test_of_two_that_are_away_neither_takes_the_first_that_comes(self, host: Host, serial: str) -> None:
        host.plug("1-1", 3, "ttyACM7", serial=serial)
        host.plug("1-2", 4, "ttyACM0", serial=serial)
        first, second = Followed("/dev/ttyACM7"), Followed("/dev/ttyACM0")
        host.unplug("ttyACM7")
        host.unplug("ttyACM0")
        host.plug("2-1", 5, "ttyACM1", serial=serial)
        assert (first.now(only_one=True), second.now(only_one=True)) == (None, None)
        host.plug("1-2", 6, "ttyACM2", serial=serial)
        assert path(second.now(only_one=True)) == "/dev/ttyACM2"
        assert path(first.now(only_one=True)) == "/dev/ttyACM1"

    @pytest.mark.parametrize(
        ("serial", "back"), [("", ""), ("B", "B")], ids=["all look the same", "by its serial number"]
    )
    def test_what_another_process_follows_is_not_taken(self, host: Host, serial: str, back: str) -> None:
        host.plug("1-1", 3, "ttyACM7", serial="A" if serial else "")
        first = Followed("/dev/ttyACM7")
        with other_process("1-2", serial):
            host.unplug("ttyACM7")
            host.plug("1-1" if back else "2-1", 5, "ttyACM1", serial=back)
            assert first.now(only_one=True) is None
        assert path(first.now(only_one=True)) == "/dev/ttyACM1"

    @pytest.mark.parametrize("serial", ["", "A"])
    def test_what_another_process_follows_at_the_same_place_is_the_same_device(self, host: Host, serial: str) -> None:
        host.plug("1-1", 3, "ttyACM7", serial=serial)
        first = Followed("/dev/ttyACM7")
        with other_process("1-1", serial):
            host.unplug("ttyACM7")
            host.plug("2-1", 5, "ttyACM1", serial=serial)
            assert path(first.now(only_one=True)) == "/dev/ttyACM1"


class TestAlike:
    """Two adapters that say the same of themselves have one name under /dev/serial/by-id: udev lets it lead to either."""

    @pytest.fixture
    def links(self, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        for name in ("BY_ID", "BY_PATH"):
            folder = tmp_path / name
            folder.mkdir()
            monkeypatch.setattr(serial_host, name, folder)
        host.plug("1-1", 3, "ttyACM0")
        (tmp_path / "BY_ID" / "usb-1a86_USB_Serial-if00").symlink_to("/dev/ttyACM0")
        for number in (0, 1):
            (tmp_path / "BY_PATH" / f"pci-usb-0:{number + 1}:1.0").symlink_to(f"/dev/ttyACM{number}")
        return tmp_path

    def test_a_name_that_fits_both_is_refused(self, host: Host, links: Path) -> None:
        name = f"{links}/BY_ID/usb-1a86_USB_Serial-if00"
        serial_host.refuse_ambiguous(name)
        host.plug("1-2", 4, "ttyACM1")
        with pytest.raises(SerialAmbiguous, match="fits 2 adapters: /dev/ttyACM0, /dev/ttyACM1") as caught:
            SerialPort.open("line", {"url": name})
        assert f"{links}/BY_PATH/pci-usb-0:1:1.0, {links}/BY_PATH/pci-usb-0:2:1.0" in caught.value.remedy

    @pytest.mark.parametrize(
        ("pattern", "fits"),
        [("2341:003", True), ("2341:0036", False), ("1-1", False), ("2341:003&n=2", False)],
    )
    def test_a_pattern_that_fits_both_is_refused(
        self, pattern: str, fits: bool, links: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They need not look the same."""
        found = [list_ports_common.ListPortInfo(f"/dev/ttyACM{number}", skip_link_detection=True) for number in (0, 1)]
        for number, info in enumerate(found):
            info.location, info.vid, info.pid = f"1-{number + 1}:1.0", 0x2341, 0x0036 + number
            info.hwid = info.usb_info()
        monkeypatch.setattr(list_ports, "comports", lambda include_links=False: found)
        with pytest.raises(SerialAmbiguous, match=r"fits 2 adapters: ") if fits else nullcontext():
            serial_host.refuse_ambiguous(f"hwgrep://{pattern}")

    def test_the_lasting_name_is_that_of_the_place(self, host: Host, links: Path) -> None:
        host.plug("1-2", 4, "ttyACM1")
        names = [serial_host.lasting_name(f"/dev/ttyACM{number}") for number in (0, 1)]
        assert names == [f"{links}/BY_PATH/pci-usb-0:{number}:1.0" for number in (1, 2)]


@pytest.mark.real_time("a port of the kernel")
def test_what_is_there_instead_is_named(host: Host) -> None:
    host.plug("1-4.2", 18, "ttyACM1")
    for url in ("/dev/ttyACM0-gone", "hwgrep://SER=0815"):
        with pytest.raises(SerialAbsent, match=r"; USB serial ports that are there: /dev/ttyACM1 \(2341:0036 Arduino"):
            SerialPort.open("line", {"url": url})


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
