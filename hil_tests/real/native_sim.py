"""`NativeSim`: Zephyr's SMP server as a program of the host, on a pseudo-terminal or on UDP.

The UDP builds listen on port 1337 of all interfaces. So they get a network of their own, which has nothing but a
loopback; `relay.py`, in there with them, passes on the datagrams for a port of the host's loopback that the kernel picked.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from . import zephyr_firmware as firmware
from .qemu import SECONDS, TIED, NotInstalled, QemuFailed

NEEDED = (
    (("/lib/ld-linux.so.2", "/lib32/ld-linux.so.2"), "libc6-i386"),
    (
        ("/usr/lib32/libgcc_s.so.1", "/usr/lib/i386-linux-gnu/libgcc_s.so.1", "/lib/i386-linux-gnu/libgcc_s.so.1"),
        "lib32gcc-s1",
    ),
)
"""What programs of 32 bits need: where it may be, and the package that has it."""
PTY = re.compile(rb"connected to pseudotty: (\S+)")
UDP = re.compile(rb"smp_udp: Started")
RELAY = Path(__file__).with_name("relay.py")


class NativeSim:
    """`build`: "serial", "serial_raw", "serial_buf1024", "udp", ... `path`: the pseudo-terminal; `port`: the UDP port."""

    def __init__(self, build: str) -> None:
        """Raises Missing, NotInstalled, QemuFailed."""
        for files, package in NEEDED:
            if not any(Path(file).exists() for file in files):
                raise NotInstalled(f"{package} is not installed (Debian: {package})")
        program = str(firmware.find(f"_native_sim_{build}.exe"))
        self._folder = tempfile.TemporaryDirectory(prefix="proxyflash-")  # It keeps its flash where it runs.
        self.path, self.port = "", 0
        if build.startswith("udp"):
            self._start_udp(program)
        else:
            self._start([program])
        try:
            said = self._await(UDP if build.startswith("udp") else PTY)
        except BaseException:
            self.stop()
            raise
        if not self.port:
            self.path = said.group(1).decode()

    def stop(self) -> None:
        """For good."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start(self, command: Sequence[str], pass_fds: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(
            [*TIED, *command],
            cwd=self._folder.name,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=pass_fds,
            start_new_session=True,
        )

    def _start_udp(self, program: str) -> None:
        if shutil.which("unshare") is None:
            raise NotInstalled("unshare is not installed (Debian: util-linux)")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as host:
            host.bind(("127.0.0.1", 0))
            self.port = int(host.getsockname()[1])
            # Sockets that were opened before stay in the host's network.
            relay = [sys.executable, str(RELAY), str(host.fileno()), program]
            self._start(["unshare", "--user", "--map-root-user", "--net", *relay], [host.fileno()])

    def _await(self, wanted: re.Pattern[bytes]) -> re.Match[bytes]:
        assert self._process.stdout is not None
        ends, said = time.monotonic() + SECONDS, b""
        while not (found := wanted.search(said)):
            if select.select([self._process.stdout], [], [], max(0, ends - time.monotonic()))[0]:
                more = os.read(self._process.stdout.fileno(), 65536)
                said += more
                if more:
                    continue
            raise QemuFailed(f"it does not start: {said.decode(errors='replace')}")
        return found
