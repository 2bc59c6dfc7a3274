"""One command in a guest of its own: QEMU without KVM, the host's files below a file system in memory.

The command's standard output and error come out by a virtio port each and unchanged; what the kernel prints stays apart,
on the console. The guest reports on a third port how far it is, and that it is alive. It is never asked to power off: when
the command's status and the end of both outputs are here, QEMU is killed.
"""

from __future__ import annotations

import os
import platform
import re
import secrets
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ...transports import clock
from .errors import VmBoot, VmDied, VmError, VmHost, VmPanic, VmQemu, VmSilent, VmTime
from .initramfs import archive

QEMU = "qemu-system-x86_64"
NAME = "proxyflash-vm"
SILENCE = 120.0
"""Seconds without a sign of life, which the guest gives every five, also from its start to the first one."""
CONSOLE_LINES = 15
"""Of the console, in an error."""
CHUNK = 1 << 16
PARAMETERS = (
    "console=ttyS0", "loglevel=5", "panic=-1", "mitigations=off", "nokaslr",
    # On a busy host a guest's processor stands still for a while: the kernel takes that for a broken timer, a lock-up.
    "no_timer_check", "nowatchdog", "rcupdate.rcu_cpu_stall_suppress=1",
)  # fmt: skip
"""The kernel's; its Documentation/admin-guide/kernel-parameters.txt has them."""
PANIC = re.compile(r"Kernel panic - not syncing: (.*?)\s*$")

Write = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Job:
    """What runs in the guest. `folder` and `artefacts` are absolute and mean the same inside."""

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    artefacts: Path | None = None
    memory: int = 2048
    """MiB."""
    time_limit: float = 600.0
    """Seconds, from QEMU's start on."""
    silence: float = SILENCE


@dataclass(frozen=True, slots=True)
class Outcome:
    """`status`: as a shell has it, so 128 and the signal's number for a command that a signal ended."""

    status: int
    boot_seconds: float
    seconds: float


def check() -> None:
    """`VmHost` and `VmQemu` where no guest can run."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise VmHost(f"guests run on Linux on x86-64 only; this is {platform.system()} on {platform.machine()}")
    if shutil.which(QEMU) is None:
        raise VmQemu(f"{QEMU} is not installed")


def run(kernel: Path, initramfs: Path, job: Job, out: Write, err: Write, console: Write) -> Outcome:
    """Boots, runs the command, and hands on what it prints as it comes.

    What `out`, `err` or `console` raise ends the guest, and so does KeyboardInterrupt.
    """
    end = secrets.token_hex(16).encode()
    with ExitStack() as stack:
        packed = stack.enter_context(os.fdopen(os.memfd_create("initramfs"), "wb"))
        packed.write(initramfs.read_bytes() + archive(_job_files(job, end.decode())))
        packed.flush()
        ports = [stack.enter_context(_port()) for _ in range(3)]
        theirs = [port[1].fileno() for port in ports]
        started = clock.monotonic()
        process = stack.enter_context(_qemu(_command(kernel, packed.fileno(), theirs, job), [packed.fileno(), *theirs]))
        for _, their in ports:
            their.close()
        control, *streams = (ours for ours, _ in ports)
        assert process.stdout is not None
        return _Watch(process, process.stdout, control, streams, (out, err), console, end, started, job).result()


def _job_files(job: Job, end: str) -> dict[str, bytes]:
    settings = {"END": end, "NAME": NAME, "FOLDER": str(job.folder), "ARTEFACTS": str(job.artefacts or "")}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in job.environment.items()]
    lines += [f"cd {shlex.quote(str(job.folder))} || exit 126", f"exec {shlex.join(job.command)}"]
    return {
        "job/settings": os.fsencode("".join(f"{name}={shlex.quote(text)}\n" for name, text in settings.items())),
        "job/command": os.fsencode("\n".join(lines) + "\n"),
    }


@contextmanager
def _port() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _command(kernel: Path, initramfs: int, ports: list[int], job: Job) -> list[str]:
    processors = min(4, len(os.sched_getaffinity(0)))
    command = [
        QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(processors), "-m", str(job.memory),
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(kernel), "-initrd", f"/proc/self/fd/{initramfs}",
        "-append", " ".join(PARAMETERS),
        *_share("host", Path("/"), "readonly=on,multidevs=remap"),
        "-device", "virtio-serial-pci",
    ]  # fmt: skip
    if job.artefacts is not None:
        command += _share("artefacts", job.artefacts, "multidevs=remap")
    for number, descriptor in enumerate(ports, 1):
        command += ["-chardev", f"socket,id=port{number},fd={descriptor}"]
        command += ["-device", f"virtserialport,chardev=port{number},nr={number}"]
    return command


def _share(tag: str, folder: Path, settings: str) -> list[str]:
    path = str(folder).replace(",", ",,")
    device = f"local,id={tag},path={path},security_model=none,{settings}"
    return ["-fsdev", device, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


@contextmanager
def _qemu(command: list[str], descriptors: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """Running, until this ends; also where this process ends without a word."""
    clock.real("a guest")
    # A session of its own: a terminal's Ctrl-C is for us alone. setpriv is part of util-linux.
    guarded = ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command
    try:
        process = subprocess.Popen(
            guarded, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            pass_fds=descriptors, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise VmQemu(f"{error.filename} can't be started: {error.strerror}") from error
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


class _Stream:
    """One output of the command: hands on all that comes before the mark of its end."""

    def __init__(self, write: Write, end: bytes) -> None:
        self._write = write
        self._end = end
        self._held = b""
        self.ended = False

    def feed(self, data: bytes) -> None:
        data = self._held + data
        self.ended = data.endswith(self._end)
        keep = next((size for size in range(len(self._end), 0, -1) if data.endswith(self._end[:size])), 0)
        self._held = data[len(data) - keep :]
        if keep < len(data):
            self._write(data[: len(data) - keep])


class _Watch:
    """Reads all that a guest says until its command has ended."""

    def __init__(
        self, process: subprocess.Popen[bytes], console: IO[bytes], control: socket.socket,
        streams: list[socket.socket], writes: tuple[Write, Write], log: Write, end: bytes, started: float, job: Job,
    ) -> None:  # fmt: skip
        self._process = process
        self._job = job
        self._started = started
        self._log = log
        self._lines: deque[str] = deque(maxlen=CONSOLE_LINES)
        self._line = b""
        self._panic = ""
        self._said = b""
        self._alive = started
        self._ready: float | None = None
        self._status: int | None = None
        self._streams = [_Stream(write, end) for write in writes]
        self._selector = selectors.DefaultSelector()
        self._selector.register(console, selectors.EVENT_READ, self._on_console)
        self._selector.register(control, selectors.EVENT_READ, self._on_control)
        for port, stream in zip(streams, self._streams, strict=True):
            self._selector.register(port, selectors.EVENT_READ, stream.feed)

    def result(self) -> Outcome:
        with self._selector:
            while self._status is None or self._ready is None or not all(stream.ended for stream in self._streams):
                self._wait()
        return Outcome(self._status, self._ready - self._started, clock.monotonic() - self._ready)

    def _wait(self) -> None:
        now = clock.monotonic()
        limit = self._started + self._job.time_limit
        quiet = self._alive + self._job.silence
        if now >= limit:
            where = "the command" if self._ready is not None else "the boot"
            raise self._failure(VmTime, f"the guest's time limit of {self._job.time_limit:g} s passed during {where}")
        if now >= quiet:
            raise self._failure(VmSilent, f"the guest gave no sign of life for {self._job.silence:g} s")
        for key, _ in self._selector.select(min(limit, quiet) - now):
            try:
                data = os.read(key.fd, CHUNK)
            except ConnectionResetError:
                data = b""
            if data:
                key.data(data)
            else:
                self._selector.unregister(key.fileobj)
        if not self._selector.get_map():
            raise self._ended()

    def _on_console(self, data: bytes) -> None:
        self._log(data)
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").strip("\r\x1b")
            if text.strip():
                self._lines.append(text)
            if found := PANIC.search(text):
                self._panic = found[1]

    def _on_control(self, data: bytes) -> None:
        self._alive = clock.monotonic()
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            word, _, rest = line.decode(errors="replace").partition(" ")
            if word == "ready":
                self._ready = self._alive
            elif word == "exit":
                self._status = int(rest)
            elif word == "failed":
                raise self._failure(VmBoot, f"the guest can't be set up: {rest}")

    def _ended(self) -> VmError:
        """QEMU has closed all that it had open."""
        status = self._process.wait()
        if self._panic:
            return self._failure(VmPanic, f"the guest's kernel panicked: {self._panic.rstrip('.')}")
        if status == 0:
            return self._failure(VmDied, "the guest was switched off before its command ended")
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
        return self._failure(VmDied, f"QEMU ended {how}")

    def _failure(self, kind: type[VmError], cause: str) -> VmError:
        last = [self._line.decode(errors="replace")] if self._line.strip() else []
        return kind(cause, console=[*self._lines, *last])
