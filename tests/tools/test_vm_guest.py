"""`vm run` with real guests: few, for each takes both processors for some seconds."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.tools.vm import kernel

from .conftest import PROGRAM

pytestmark = pytest.mark.real_time("child programs")
LIMIT = 300
"""Seconds for a guest: a loaded machine takes many times the six that it needs."""


@pytest.fixture(scope="module", autouse=True)
def peers() -> None:
    for name, package in (("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static")):
        if shutil.which(name) is None:
            pytest.skip(f"{package} is not installed")
    if kernel.kept(kernel.cache_folder()) is None and shutil.which("apt-get") is None:
        pytest.skip("apt-get is not installed")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """On the disk: a guest has a /dev/shm of its own."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


def vm_run(
    *arguments: str | Path, limit: float = LIMIT, folder: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [PROGRAM, "vm", "run", "--time-limit", str(limit), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, env=os.environ | {"GIVEN": "g"})


CHECKS = """
import fcntl, os, pty, socket, struct, sys, termios
classic = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
listener = socket.socket(socket.AF_CAN, socket.SOCK_RAW, socket.CAN_RAW)
for one in (classic, listener):
    one.setsockopt(socket.SOL_CAN_RAW, socket.CAN_RAW_FD_FRAMES, 1)
    one.bind(("vcan0",))
frame = struct.pack("=IBB2x64s", 0x123, 64, 0, bytes(range(64)))
classic.send(frame)
assert listener.recv(72)[8:] == bytes(range(64))
ends = [socket.socket(socket.AF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP) for _ in range(2)]
ends[0].bind(("vcan0", 0x1, 0x2)); ends[1].bind(("vcan0", 0x2, 0x1))
ends[0].send(bytes(100))
assert ends[1].recv(200) == bytes(100)
ours, theirs = pty.openpty()
fcntl.ioctl(theirs, termios.TIOCSETD, struct.pack("i", 17))
assert os.access("/sys/devices/platform/vhci_hcd.0/attach", os.W_OK)
assert os.listdir("/sys/class/udc") == ["dummy_udc.0"]
assert os.path.isdir("/sys/kernel/config/usb_gadget")
with open("/dev/shm/x", "w") as file: file.write("x")
assert socket.gethostname() == "proxyflash-vm"
"""

SCRIPT = """\
set -e
pwd
id -un
ls -A /run
echo "$GIVEN $ANSWER $PROXYFLASH_KERNEL_BENCH"
echo said >&2
echo "<4>a driver warns" >/dev/kmsg
{python} checks.py
cat bytes
cp bytes "$PROXYFLASH_ARTEFACTS/copy"
echo lost > left-behind; echo lost > {outside}; echo lost > /tmp/lost
sleep 1000 &
exit 3
"""


def test_a_command_in_a_guest(tmp_path: Path) -> None:
    folder = tmp_path / "a folder, of mine"
    folder.mkdir()
    outside = Path(__file__).with_name("left-behind")
    # Long lines, no text, no newline at the end: 1 MiB of whatever comes.
    content = random.Random(4).randbytes(1 << 20)
    (folder / "bytes").write_bytes(content)
    (folder / "checks.py").write_text(CHECKS)
    (folder / "script").write_text(SCRIPT.format(python=sys.executable, outside=outside))
    settings = ["--env", "GIVEN", "--env", "ANSWER=4 2", "--artefacts", "kept, all"]
    done = vm_run(*settings, "sh", "script", folder=folder)
    assert done.stderr == b"said\n"
    assert done.returncode == 3
    head = f"{folder}\nroot\nproxyflash\ng 4 2 1\n"
    assert done.stdout[: len(head)].decode() == head
    assert done.stdout[len(head) :] == content
    kept = folder / "kept, all"
    assert (kept / "copy").read_bytes() == content
    assert (kept / "copy").stat().st_uid == os.getuid()
    assert sorted(file.name for file in kept.iterdir()) == ["console.log", "copy"]
    assert b"a driver warns" in (kept / "console.log").read_bytes()
    assert sorted(file.name for file in folder.iterdir()) == ["bytes", "checks.py", "kept, all", "script"]
    assert not outside.exists()
    assert not Path("/tmp/lost").exists()
    # It is the kernel that needs no unpacking: a guest takes longer to do that than for all else.
    found = kernel.kept(kernel.cache_folder())
    assert found is not None
    assert found.image.name == "vmlinux"


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    done = vm_run("no-such-program", folder=tmp_path)
    assert done.returncode == 127
    assert b"no-such-program" in done.stderr
    assert done.stdout == b""


def test_a_command_that_is_killed(tmp_path: Path) -> None:
    done = vm_run("--", "sh", "-c", "printf before; kill -9 $$", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (137, b"before", b"")


def test_a_panic(tmp_path: Path) -> None:
    crash = "echo before; sleep 1; echo c > /proc/sysrq-trigger"
    done = vm_run("--artefacts", tmp_path / "kept", "--", "sh", "-c", crash, folder=tmp_path)
    assert done.returncode == 125
    assert done.stdout == b"before\n"
    assert done.stderr.startswith(b"E-VM-PANIC the guest's kernel panicked: sysrq triggered crash. ")
    assert b"\n  | " in done.stderr
    assert b"Kernel panic - not syncing" in (tmp_path / "kept" / "console.log").read_bytes()


def test_a_time_limit(tmp_path: Path) -> None:
    done = vm_run("sleep", "1000", limit=2, folder=tmp_path)
    assert done.returncode == 125
    assert done.stderr.startswith(b"E-VM-TIME the guest's time limit of 2 s passed during the ")


def test_output_comes_as_it_is_written_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    command = [str(PROGRAM), "vm", "run", "--", "sh", "-c", "echo 1; sleep 1000"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert process.stdout.read() == b""
