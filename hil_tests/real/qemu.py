"""`Qemu`: a processor that QEMU emulates, with the flash that it keeps, its console on TCP and its supply in our hand.

Its memory is read from outside, and written over the GDB remote protocol, and so without asking the part. A
`system_reset` is a supply cut: whatever the processor was doing ends there, and the flash stays as it is. What is loaded
by QEMU's own `-device loader` would be written again at each reset; so nothing is loaded that way unless it is meant so.

Each QMP command opens a connection of its own: QEMU serves one at a time, and a bench file's power commands want theirs.

    python -m proxyflash.hil_tests.real.qemu SOCKET COMMAND...      # QMP's commands without arguments, in turn
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PROGRAM = "qemu-system-arm"
SECONDS = 60.0
"""How long QEMU may take for anything that is asked of it, on a machine that is busy."""
PIECE = 1024
"""Bytes of one GDB packet: QEMU takes 4096 characters, two for each."""
MANY = 1 << 30
"""More writes than it ever does."""
TIED = ("setpriv", "--pdeathsig", "KILL", "--")
"""Ends a program with its parent, whatever ended the parent."""


class NotInstalled(Exception):
    """The program is not there; the text says it in the words that a skip is known by."""


class QemuFailed(Exception):
    """QEMU ended, or answered something that it should not."""


class Qemu:
    """One machine. `loaded`: files that are loaded again at each reset, as QEMU's `loader` takes them."""

    def __init__(self, machine: str, cpu: str, *, loaded: Sequence[str] = (), more: Sequence[str] = ()) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            raise NotInstalled(f"{PROGRAM} is not installed (Debian: qemu-system-arm)")
        self._folder = tempfile.TemporaryDirectory(prefix="proxyflash-qemu-")
        folder = Path(self._folder.name)
        self.qmp_path, gdb = folder / "qmp", folder / "gdb"
        self._log = folder / "log"
        self._opened: Gdb | None = None
        # The kernel picks the port, and QEMU is handed what listens there.
        with socket.create_server(("127.0.0.1", 0)) as listening, self._log.open("w") as log:
            self.port = int(listening.getsockname()[1])
            command = [program, "-machine", machine, "-cpu", cpu, "-display", "none", "-monitor", "none", "-S"]
            command += ["-chardev", f"socket,id=console,fd={listening.fileno()},server=on,wait=off"]
            command += ["-serial", "chardev:console", *more]
            command += ["-chardev", f"socket,id=gdb,path={gdb},server=on,wait=off", "-gdb", "chardev:gdb"]
            command += ["-qmp", f"unix:{self.qmp_path},server=on,wait=off"]
            for item in loaded:
                command += ["-device", f"loader,{item}"]
            # In a session of its own: an interrupt ends the tests, which end it.
            self._process = subprocess.Popen(
                [*TIED, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )
        try:
            self._await_socket(self.qmp_path)
            self._await_socket(gdb)
            self._opened = Gdb(gdb)
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Of its console, for pyserial."""
        return f"socket://127.0.0.1:{self.port}"

    @property
    def _gdb(self) -> Gdb:
        assert self._opened is not None
        return self._opened

    def command(self, *commands: str) -> None:
        """QMP's, those without arguments: "stop", "cont", "system_reset". Raises QemuFailed."""
        self._check()
        qmp(self.qmp_path, *commands)

    def read(self, address: int, size: int) -> bytes:
        """From its memory, without its noticing."""
        self._check()
        path = self.qmp_path.with_name("memory")
        qmp(self.qmp_path, ("memsave", {"cpu-index": 0, "val": address, "size": size, "filename": str(path)}))
        return path.read_bytes()

    def load(self, address: int, data: bytes) -> None:
        """Into its memory; then it is restarted."""
        with self._gdb as gdb:
            gdb.write(address, data)
            self.command("system_reset")

    def cut_at(self, cuts: Sequence[int], written: int, entry: int, loaded: bytes = b"") -> list[int]:
        """Restarts it once for each number, and cuts its supply at the so-manieth write to the word at `written`.

        `loaded`: what is put to address 0 before. At last it is restarted and reaches `entry`, from where it runs on.
        Returns how often it wrote, each time and at last; what came to `entry` before was not cut.
        """
        with self._gdb as gdb:
            gdb.write(0, loaded)
            done = []
            for times in (*cuts, MANY):
                self.command("system_reset")
                done.append(gdb.run_to(written, times, entry))
            return done

    def cut_when(self, written: int, times: int) -> None:
        """Lets it run, and cuts its supply at the so-manieth write to the word at `written` from now on."""
        with self.stopped_at(written, times):
            self.command("system_reset")

    @contextmanager
    def stopped_at(self, written: int, times: int) -> Iterator[None]:
        """Lets it run until the so-manieth write to the word at `written` from now on; it stands still in the block."""
        with self._gdb as gdb:
            gdb.run_to(written, times)
            yield

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise QemuFailed(f"{PROGRAM} ended with status {self._process.returncode}: {self._log.read_text()}")

    def _await_socket(self, path: Path) -> None:
        ends = time.monotonic() + SECONDS
        while not path.exists():
            self._check()
            if time.monotonic() > ends:
                raise QemuFailed(f"{PROGRAM} does not start")
            time.sleep(0.01)


def qmp(path: Path, *commands: str | tuple[str, dict[str, Any]]) -> None:
    """Has a QEMU do some commands in turn, over its QMP socket. Raises QemuFailed."""
    with connected(path) as link, link.makefile("rw", encoding="utf-8") as lines:
        if not lines.readline():  # Its greeting.
            raise QemuFailed("QEMU closed the connection")
        for command in ("qmp_capabilities", *commands):
            name, arguments = (command, {}) if isinstance(command, str) else command
            lines.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
            lines.flush()
            while "return" not in (answer := json.loads(lines.readline() or '{"error": "it closed the connection"}')):
                if "error" in answer:
                    raise QemuFailed(f"{name}: {answer['error']}")


class Gdb:
    """The GDB remote protocol, as much of it as this takes. The machine is stopped while this is entered.

    One connection for good: to detach and to come again is more than QEMU 7.2 always takes.
    """

    def __init__(self, path: Path) -> None:
        self._link = connected(path)
        self._received = b""

    def __enter__(self) -> Self:
        self._link.sendall(b"\x03")
        # Its report that it has stopped comes before this answer, and is passed over.
        self._ask("qC")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._send("c")

    def close(self) -> None:
        self._link.close()

    def write(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            self._do(f"M{address + at:x},{len(piece):x}:{piece.hex()}")

    def run_to(self, written: int, times: int, entry: int | None = None) -> int:
        """Lets it run until it has written `times` times to the word at `written`, or reaches `entry`.

        Returns how often it wrote. It is stopped then, before the last write takes effect.
        """
        watch = f"2,{written:x},4"
        if entry is not None:
            self._do(f"Z1,{entry:x},2")
        done = 0
        while done < times:
            self._do(f"Z{watch}")
            stopped = self._ask("c")
            self._do(f"z{watch}")
            if "watch:" not in stopped:
                break
            done += 1
            if done < times:
                self._ask("s")
        if entry is not None:
            self._do(f"z1,{entry:x},2")
        return done

    def _do(self, text: str) -> None:
        answer = self._ask(text)
        if answer != "OK":
            raise QemuFailed(f"{text[:30]}: {answer}")

    def _send(self, text: str) -> None:
        body = text.encode()
        self._link.sendall(b"$%s#%02x" % (body, sum(body) & 0xFF))

    def _ask(self, text: str) -> str:
        self._send(text)
        while True:
            # Acknowledgements and what came before go by.
            start, end = self._received.find(b"$"), self._received.find(b"#")
            if 0 <= start < end and len(self._received) >= end + 3:
                answer = self._received[start + 1 : end]
                self._received = self._received[end + 3 :]
                self._link.sendall(b"+")
                # It reports that it has stopped also unasked.
                if not answer.startswith(b"T") or text in ("c", "s"):
                    return answer.decode()
                continue
            more = self._link.recv(65536)
            if not more:
                raise QemuFailed(f"QEMU closed the connection after {text[:20]}")
            self._received += more


def connected(path: Path) -> socket.socket:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(SECONDS)
    try:
        link.connect(str(path))
    except BaseException:
        link.close()
        raise
    return link


if __name__ == "__main__":
    qmp(Path(sys.argv[1]), *sys.argv[2:])
