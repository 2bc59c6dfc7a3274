"""`vm run`, `vm prepare`: commands in a guest whose kernel has the drivers that this host does not have."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from ..output import Mode, OutputLost
from .session import Session, command, group

if TYPE_CHECKING:
    from ..vm.guest import Job, Outcome
    from ..vm.kernel import Kernel

HANDED_ON = (
    "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "CI", "VIRTUAL_ENV",
)  # fmt: skip
HANDED_ON_PREFIXES = ("LC_", "PROXYFLASH_", "PYTHON", "PYTEST_", "PY_")
"""The command finds these of this process's environment."""
CONSOLE = "console.log"


@group("vm")
def vm() -> None:
    """Runs commands in a guest with CAN, ISO-TP, USB and tty drivers, for a host without them."""


_CACHE = click.option(
    "--cache", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Where kernel and initramfs are kept.  [default: ~/.cache/proxyflash/vm]",
)  # fmt: skip
_MODULES = click.option(
    "--modules", metavar="NAME,...", default="", help="Kernel modules that are loaded beside those for CAN and USB."
)


@command("prepare")
@_CACHE
@_MODULES
def prepare(session: Session, cache: Path | None, modules: str) -> int | None:
    """Downloads the newest kernel and makes the initramfs, so that a CI can keep both.

    \b
    proxyflash vm prepare
    proxyflash vm prepare --cache build/vm
    """
    with _interruptible():
        kernel, initramfs = _prepared(session, cache, modules, newest=True)
    session.output.document({"kernel": str(kernel.image), "initramfs": str(initramfs), "release": kernel.release})
    session.output.line(f"{kernel.name}  OK  {initramfs.parent}")
    return None


def _drivers(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str]:
    from ..vm.host import CHECKS

    needs = [name for name in (value or "").split(",") if name]
    if unknown := [name for name in needs if name not in CHECKS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(CHECKS)}")
    return needs


@command("run")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    metavar="SECONDS",
    show_default=True,
    help="From the guest's start on.",
)
@click.option(
    "--artefacts",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A folder that the guest can write to, under the same path.",
)
@click.option("--env", "variables", multiple=True, metavar="NAME[=VALUE]", help="A variable more for the command.")
@click.option(
    "--memory",
    type=click.IntRange(min=256),
    default=2048,
    show_default=True,
    metavar="MIB",
    help="The guest's memory, which also holds what it writes.",
)
@click.option(
    "--needs",
    metavar="DRIVER,...",
    callback=_drivers,
    help="No guest where this host has these drivers ready: can, isotp, slcan, usb, gadget.",
)
@_MODULES
@_CACHE
def run(
    session: Session, words: tuple[str, ...], time_limit: float, artefacts: Path | None, variables: tuple[str, ...],
    memory: int, needs: list[str], modules: str, cache: Path | None,
) -> int | None:  # fmt: skip
    """Runs COMMAND as root in a guest that sees this host's files and has a kernel with CAN and USB drivers.

    There are vcan0 (up, MTU 72), the kernel's ISO-TP, slcan, vhci_hcd and dummy_hcd. What the guest writes is gone
    afterwards, but for the folder of --artefacts ($PROXYFLASH_ARTEFACTS there). Output and exit status are those of
    COMMAND; 125 if the guest itself fails.

    \b
    proxyflash vm run -- pytest tests/can
    proxyflash vm run --artefacts build/vm -- sh -c 'candump vcan0 > build/vm/can.log & pytest'
    """
    from ..vm import guest, host

    folder = _artefacts(artefacts)
    environment = _environment(variables, folder)
    if needs:
        lacking = host.missing(needs)
        if not lacking:
            return _on_this_host(session, words, environment, time_limit)
        session.output.note(f"in a guest, because drivers are missing on this host: {'; '.join(lacking)}")
    job = guest.Job(words, Path.cwd(), _guest_environment() | environment, folder, memory, time_limit)
    with _interruptible():
        kernel, initramfs = _prepared(session, cache, modules)
        outcome = _carried_out(session, job, kernel, initramfs)
    if outcome is None:  # Its command was ended: that is not a success, whoever went away.
        return OutputLost.exit_status
    if session.output.verbosity:
        session.output.note(f"{kernel.name}: booted in {outcome.boot_seconds:.1f} s, ran for {outcome.seconds:.1f} s")
    session.output.document(
        {"exit_status": outcome.status, "boot_seconds": round(outcome.boot_seconds, 3),
         "seconds": round(outcome.seconds, 3), "kernel": kernel.name}
    )  # fmt: skip
    return outcome.status


def _prepared(session: Session, cache: Path | None, modules: str, *, newest: bool = False) -> tuple[Kernel, Path]:
    from ..vm import guest, initramfs, kernel

    guest.check()
    initramfs.static_busybox()
    with kernel.opened((cache or kernel.cache_folder()).absolute()) as folder:
        found = None if newest else kernel.kept(folder)
        if found is None:
            found = kernel.fetched(folder, session.output.note)
        return found, initramfs.built(folder, found, [name for name in modules.split(",") if name])


def _environment(variables: tuple[str, ...], artefacts: Path | None) -> dict[str, str]:
    """What the command finds in its environment, wherever it runs."""
    found = {"PROXYFLASH_KERNEL_BENCH": "1"}
    if artefacts is not None:
        found["PROXYFLASH_ARTEFACTS"] = str(artefacts)
    for variable in variables:
        name, given, value = variable.partition("=")
        if not (name.isidentifier() and name.isascii()):
            raise click.UsageError(f"--env {variable}: write NAME=VALUE, or NAME for the value that it has here")
        if given or name in os.environ:
            found[name] = value if given else os.environ[name]
    return found


def _guest_environment() -> dict[str, str]:
    """What is different in a guest: little of this process's environment, and the command is root there."""
    size = shutil.get_terminal_size()
    handed_on = {
        name: value
        for name, value in os.environ.items()
        if (name in HANDED_ON or name.startswith(HANDED_ON_PREFIXES)) and name.isidentifier() and name.isascii()
    }
    path = handed_on.pop("PATH", os.defpath).split(":")
    # It litters nothing there, and each process in that slow guest would compile all that it imports.
    handed_on.pop("PYTHONDONTWRITEBYTECODE", None)
    return {
        "PYTHONUNBUFFERED": "1",
        **handed_on,
        "PATH": ":".join(dict.fromkeys([*path, "/usr/local/sbin", "/usr/sbin", "/sbin"])),
        "USER": "root",
        "LOGNAME": "root",
        "COLUMNS": str(size.columns),
        "LINES": str(size.lines),
    }


def _on_this_host(session: Session, words: tuple[str, ...], environment: dict[str, str], time_limit: float) -> int:
    from ..vm import host

    session.output.note("this host has the drivers: no guest")
    out = None if session.output.mode is Mode.TEXT else sys.stderr
    try:
        with _interruptible():
            status = host.run(words, os.environ | environment, out, time_limit)
    except OSError as error:
        session.output.alarm(f"{words[0]}: {error.strerror}")
        status = 127 if isinstance(error, FileNotFoundError) else 126
    session.output.document({"exit_status": status, "kernel": platform.release()})
    return status


def _carried_out(session: Session, job: Job, kernel: Kernel, initramfs: Path) -> Outcome | None:
    """None where nobody takes the command's output any more."""
    from ..vm import guest

    text = session.output.mode is Mode.TEXT
    out = sys.stdout if text else sys.stderr
    try:
        with _log(job.artefacts) as log:
            return guest.run(kernel.image, initramfs, job, _writer(out), _writer(sys.stderr), log)
    except OutputLost as error:
        session.output.lost = error
        return None


def _artefacts(folder: Path | None) -> Path | None:
    """The folder, made if need be, under its name without links: it has this name in a guest too."""
    from ..vm.errors import VmFolder

    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VmFolder(f"{folder}: {error.strerror}") from error
    return folder.resolve()


@contextmanager
def _log(artefacts: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Where the console's text goes."""
    from ..vm.errors import VmFolder

    if artefacts is None:
        yield len
        return
    try:
        # The folder is the guest's as well, which could have left a link or a FIFO there.
        how = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(artefacts / CONSOLE, how, 0o644), "wb", buffering=0) as stream:
            yield stream.write
    except OSError as error:
        raise VmFolder(f"{artefacts / CONSOLE}: {error.strerror}") from error


def _writer(stream: object) -> Callable[[bytes], None]:
    raw: BinaryIO | None = getattr(stream, "buffer", None)

    def write(data: bytes) -> None:
        if raw is None:
            return
        try:
            raw.write(data)
            raw.flush()
        except (OSError, ValueError) as error:
            silent = isinstance(error, BrokenPipeError)
            raise OutputLost(f"the command's output can't be written: {error}", silent=silent) from error

    return write


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the guest as Ctrl-C does."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


# What follows the command's name is the command's own.
run.allow_interspersed_args = False
vm.add_command(prepare)
vm.add_command(run)
