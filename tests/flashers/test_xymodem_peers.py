"""X- and YMODEM to receivers that nobody here wrote: lrzsz's rx and rb in a shell's loop, and U-Boot, which QEMU runs.

Both are loaders with a command line: the shell and U-Boot have a prompt, receive on a command, and say how it ended.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tty
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from proxyflash.flashers.errors import OperationFailed, PartRefused
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult, Programmer
from proxyflash.flashers.xymodem.flasher import XymodemFlasher
from proxyflash.flashers.xymodem.profile import XymodemAddress
from proxyflash.tests.flashers.xymodem_lab import FLASHERS
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.serial.port import SerialPort

pytestmark = pytest.mark.real_time("the receivers are programs of their own")

UBOOT = Path("/usr/lib/u-boot/qemu_arm/u-boot.bin")
LOOP = """
cd "$1"
while printf 'rx> '; read -r line; do
  set -- $line
  case $1 in
    rx|rb) printf 'receiving\\r\\n'; "$@" 2>said; printf '\\r\\nstatus %s\\r\\n' $? ;;
    crc32) printf 'crc %s\\r\\n' "$(gzip -c <"$2" | tail -c8 | od -An -N4 -tx4 --endian=little | tr -d ' ')" ;;
    end) exit ;;
    *) printf '?\\r\\n' ;;
  esac
done
"""
"""A loader: rx or rb, then the file's CRC-32 as gzip computes it."""


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {package}")
    return found


def flash(port: SerialPort, protocol: str, data: bytes, profile: dict[str, Any]) -> FlashResult:
    model = FLASHERS[protocol].Profile.model_validate(profile)
    flasher: XymodemFlasher = FLASHERS[protocol].attach(port, XymodemAddress(), model)
    programmer = Programmer(flasher, "part", attempts=1)
    try:
        plan = programmer.plan(FirmwareImage((Segment(0, data),), "bin", relocatable=True))
        return programmer.flash(plan)
    finally:
        flasher.close()


class Shell:
    """The loop behind a pseudo-terminal, whose master two programs copy from and to.

    What rx and rb read is a pipe: on a terminal they set XON/XOFF, and 0x13 in a block would keep their answer back.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        master, slave = os.openpty()
        tty.setraw(slave)
        pipe = subprocess.PIPE
        said = subprocess.Popen(["cat", "-u"], stdin=master, stdout=pipe)
        loop = subprocess.Popen(["bash", "-c", LOOP, "loop", str(folder)], stdin=said.stdout, stdout=pipe)
        heard = subprocess.Popen(["cat", "-u"], stdin=loop.stdout, stdout=master)
        self._processes = (said, loop, heard)
        self.port = SerialPort.open("part", {"url": os.ttyname(slave), "baudrate": 115_200})
        for descriptor in (master, slave):
            os.close(descriptor)

    def close(self) -> None:
        self.port.close()
        for process in self._processes:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    program("rx", "lrzsz")
    made = Shell(tmp_path)
    yield made
    made.close()


IMAGE = random.Random(41).randbytes(66_000) + b"\x1a\x1a\x00"
"""Its end looks like padding."""


class TestLrzsz:
    """The modes that rx and rb have; by size, block numbers wrap."""

    @pytest.mark.parametrize("block_size", [128, 1024])
    @pytest.mark.parametrize("options", ["", "-c"], ids=["checksum", "crc"])
    def test_rx(self, shell: Shell, options: str, block_size: int) -> None:
        """The file has the last block's padding."""
        padded = IMAGE + b"\x1a" * (-len(IMAGE) % 128)
        result = flash(
            shell.port,
            "xmodem",
            IMAGE,
            {
                "greet": "\n",
                "prompt": "rx> $",
                "upload": [{"send": f"rx -b {options} new.bin\n", "expect": "receiving\r\n"}],
                "block_size": block_size,
                "success": "status 0\r\n",
                "failure": "status [1-9][0-9]*\r\n",
            },
        )
        assert result.verified == 'the loader\'s word "status 0"'
        assert (shell.folder / "new.bin").read_bytes() == padded

    @pytest.mark.parametrize("block_size", [128, 1024])
    def test_rb(self, shell: Shell, block_size: int) -> None:
        """The file has the size that the batch's header gives, and gzip finds the bytes that were sent."""
        result = flash(shell.port, "ymodem", IMAGE, batch("rb -b -y", block_size))
        assert result.verified == f'the loader\'s word "crc {zlib.crc32(IMAGE):08x}"'
        assert (shell.folder / "new.bin").read_bytes() == IMAGE

    def test_an_empty_name_ends_the_batch(self, shell: Shell) -> None:
        """And rb ends well: it would wait for another file, and fail."""
        flash(shell.port, "ymodem", b"x", batch("rb -b -y", 128))
        flash(shell.port, "ymodem", b"yz", batch("rb -b -y", 128))
        assert (shell.folder / "new.bin").read_bytes() == b"yz"

    def test_a_receiver_that_ends_with_an_error(self, shell: Shell) -> None:
        """It may not write the file: it cancels the transfer."""
        (shell.folder / "new.bin").mkdir()
        with pytest.raises(PartRefused):
            flash(shell.port, "ymodem", IMAGE, batch("rb -b -y", 1024) | {"failure": ""})


def batch(command: str, block_size: int) -> dict[str, Any]:
    return {
        "greet": "\n",
        "prompt": "rx> $",
        "upload": [{"send": f"{command}\n", "expect": "receiving\r\n"}],
        "block_size": block_size,
        "file_name": "new.bin",
        "success": "status 0\r\n",
        "failure": "status [1-9][0-9]*\r\n",
        "commit": [{"send": "crc32 new.bin\n", "expect": "crc <crc32>"}],
        "timings": {"block": 5},
    }


@pytest.fixture(scope="module")
def uboot() -> Iterator[SerialPort]:
    """U-Boot on QEMU's board "virt", with a NOR flash, at a TCP port that the kernel chose."""
    qemu = program("qemu-system-arm", "qemu-system-arm")
    if not UBOOT.exists():
        pytest.skip("u-boot-qemu is not installed: apt-get install u-boot-qemu")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        command = [
            qemu,
            "-machine",
            "virt",
            "-display",
            "none",
            "-monitor",
            "none",
            "-net",
            "none",
            "-bios",
            str(UBOOT),
        ]
        line = f"socket,id=line,fd={listening.fileno()},server=on,wait=off"
        process = subprocess.Popen(
            [*command, "-chardev", line, "-serial", "chardev:line"],
            pass_fds=[listening.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            url = f"socket://127.0.0.1:{listening.getsockname()[1]}"
            with SerialPort.open("uboot", {"url": url, "baudrate": 115_200}) as port:
                yield port
        finally:
            process.kill()
            process.wait()


RAM, FLASH = "0x40200000", "0x04200000"


def board(protocol: str, block_size: int, commit: list[dict[str, Any]]) -> dict[str, Any]:
    """A profile for this U-Boot. Ctrl-C ends its countdown, and any command."""
    return {
        "greet": "\x03",
        "prompt": "\n=> $",
        "upload": [{"send": f"load{protocol[0]} {RAM}\r", "expect": "Ready for binary"}],
        "block_size": block_size,
        "success": "## Total Size +=",
        "commit": commit,
        "timings": {"connect": 60},
    }


CHECK: dict[str, Any] = {"send": f"crc32 {RAM} 0x<size-hex>\r", "expect": "==> <crc32>"}
INTO_FLASH: list[dict[str, Any]] = [
    CHECK,
    {"send": f"erase {FLASH} +0x<size-hex>\r", "expect": "Erased [0-9]+ sectors", "seconds": 60},
    {"send": f"cp.b {RAM} {FLASH} 0x<size-hex>\r", "expect": "done", "seconds": 60},
    {"send": f"crc32 {FLASH} 0x<size-hex>\r", "expect": "==> <crc32>"},
]


@pytest.mark.timeout(300)
class TestUBoot:
    @pytest.mark.parametrize("block_size", [128, 1024])
    @pytest.mark.parametrize("protocol", ["xmodem", "ymodem"])
    def test_into_ram_and_into_flash(self, uboot: SerialPort, protocol: str, block_size: int) -> None:
        """Its own CRC-32, over what its flash holds, is the image's."""
        data = random.Random(f"{protocol} {block_size}").randbytes(3000)
        result = flash(uboot, protocol, data, board(protocol, block_size, INTO_FLASH))
        assert result.verified == f'the loader\'s word "==> {zlib.crc32(data):08x}"'

    def test_more_than_256_blocks(self, uboot: SerialPort) -> None:
        data = random.Random(256).randbytes(40_000)
        result = flash(uboot, "ymodem", data, board("ymodem", 128, [CHECK]))
        assert result.verified == f'the loader\'s word "==> {zlib.crc32(data):08x}"'

    def test_the_size_that_it_tells_is_the_file_s(self, uboot: SerialPort) -> None:
        profile = board("ymodem", 1024, []) | {"success": r"## Total Size +=.* = <size> Bytes"}
        assert "= 1500 Bytes" in flash(uboot, "ymodem", bytes(1500), profile).verified

    def test_a_flash_that_it_can_not_write(self, uboot: SerialPort) -> None:
        """The sectors that hold U-Boot itself are protected: it says so, and it is not a success."""
        protected: list[dict[str, Any]] = [CHECK, {"send": f"cp.b {RAM} 0 0x<size-hex>\r", "expect": "done"}]
        profile = board("ymodem", 1024, protected) | {"failure": "Can't write to protected Flash sectors"}
        with pytest.raises(OperationFailed, match="protected Flash sectors"):
            flash(uboot, "ymodem", bytes(1000), profile)

    def test_a_transfer_that_was_cut(self, uboot: SerialPort) -> None:
        """It waits in the middle of a block; the same command ends well."""
        uboot.write(f"loady {RAM}\r".encode(), Deadline.after(5))
        uboot.read_until(b"C", Deadline.after(30))
        uboot.write(b"\x01\x00\xff" + bytes(40), Deadline.after(5))
        data = random.Random(7).randbytes(1000)
        flash(uboot, "ymodem", data, board("ymodem", 1024, [CHECK]))
