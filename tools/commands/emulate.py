"""`emulate`: serves the bench's emulated parts to other programs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...enumerators.bench import Bench
from ...enumerators.errors import BenchName
from ...transports import clock
from .session import Session, command

if TYPE_CHECKING:
    from ...emulators.bench_wire import BenchWire, Served

KERNEL = {"vhci": "USB", "acm": "serial"}
"""The options that have a driver of the kernel take a bus, and what an error calls such a bus."""


@command("emulate")
@click.option(
    "--join",
    "joins",
    metavar="BUS=INTERFACE:CHANNEL",
    multiple=True,
    help="Join an emulated CAN bus with one of python-can's, such as powertrain=socketcan:vcan0.",
)
@click.option(
    "--vhci",
    "kernel_usb",
    metavar="BUS",
    multiple=True,
    help="Plug an emulated USB bus's devices into the kernel's virtual host controller (vhci_hcd; needs root).",
)
@click.option(
    "--acm",
    "kernel_ttys",
    metavar="BUS",
    multiple=True,
    help="Serve an emulated serial line as a tty of the kernel's cdc_acm driver, with parity and modem lines (root).",
)
@click.option(
    "--control",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Make a FIFO there that takes: off NAME, on NAME (a part's supply); reset NAME; cut BUS, join BUS (its wire).",
)
def emulate(
    session: Session,
    joins: tuple[str, ...],
    kernel_usb: tuple[str, ...],
    kernel_ttys: tuple[str, ...],
    control: Path | None,
) -> int | None:
    """Serves the bench's emulated parts to other programs, until Ctrl-C.

    A serial line is served as a PTY; a CAN bus as a Unix socket, which python-can opens with interface "proxyflash".
    Both are made in the bench's folder of the state folder, under the bus's name. USB devices are served by --vhci,
    serial lines with parity and modem lines by --acm.

    \b
    proxyflash emulate
    stm32flash -m 8n1 <the PTY that it names>
    """
    ended = _interrupt()
    bench = session.bench
    closers: list[Callable[[], object]] = []
    served: dict[str, dict[str, str]] = {}
    try:
        for name, spec in bench.file.spec.bus.items():
            if spec.emulated and name not in (*kernel_usb, *kernel_ttys):
                served[name] = _serve(bench, name, closers)
        for join in joins:
            _join(bench, join, closers)
        for driver, names in (("vhci", kernel_usb), ("acm", kernel_ttys)):
            for name in names:
                served[name] = _serve_by_kernel(bench, driver, name, closers)
        if not served:
            raise BenchName(f"{bench.file.path} has no emulated bus", remedy="Set emulated = true for one.")
        if control is not None:
            closers.append(_control(bench, control))
        session.output.document({"served": served})
        for name, facts in served.items():
            session.output.line("  ".join([name, *facts.values()]))
        session.output.note("serving; Ctrl-C ends it")
        ended.wait()
    finally:
        for close in reversed(closers):
            close()
    return None


LONGEST_PATH = 107
"""Bytes of a Unix socket's path (Linux, sun_path less the NUL); a longer one is opened from this folder."""


def _serve(bench: Bench, name: str, closers: list[Callable[[], object]]) -> dict[str, str]:
    wire = bench.emulated_wire(name)
    try:
        served = wire.serve(name, bench.folder)
    except OSError as error:
        where = error.filename or bench.folder
        raise BenchName(f"{where}: {error.strerror}", remedy="Name another folder: --state FOLDER") from error
    if served is None:
        driver = wire.kernel_driver
        opens = f"not served: plug it into the kernel with --{driver} {name}" if driver else "not served"
        return {"kind": wire.kind, "path": "", "opens": opens}
    return _listed(wire, served, closers)


def _serve_by_kernel(bench: Bench, driver: str, name: str, closers: list[Callable[[], object]]) -> dict[str, str]:
    wire = _wire(bench, name)
    served = wire.serve_by_kernel(name) if wire is not None and wire.kernel_driver == driver else None
    if wire is None or served is None:
        raise click.UsageError(f"--{driver} {name}: name an emulated {KERNEL[driver]} bus")
    return _listed(wire, served, closers)


def _listed(wire: BenchWire, served: Served, closers: list[Callable[[], object]]) -> dict[str, str]:
    closers.append(served.close)
    path = str(Path(served.path).absolute())
    too_long = Path(served.path).is_socket() and len(os.fsencode(path)) > LONGEST_PATH
    if too_long or not Path(served.path).exists():
        return {"kind": wire.kind, "path": served.path, "opens": served.opens}
    # It is pasted into the bench file of another folder.
    return {"kind": wire.kind, "path": path, "opens": served.opens.replace(served.path, path)}


def _wire(bench: Bench, name: str) -> BenchWire | None:
    """None: there is no emulated bus of this name."""
    spec = bench.file.spec.bus.get(name)
    return bench.emulated_wire(name) if spec is not None and spec.emulated else None


def _control(bench: Bench, path: Path) -> Callable[[], None]:
    from ...emulators.control import Control

    spec = bench.file.spec
    buses = [name for name, bus in spec.bus.items() if bus.emulated]
    parts = [item.name for item in bench.components if item.emulated]
    devices = {name: bench.emulated_device(name) for name in parts}
    try:
        made = Control(path, devices, {name: bench.emulated_wire(name) for name in buses})
    except OSError as error:
        raise BenchName(f"{path}: {error.strerror}", remedy="Name another path for --control.") from error
    return made.close


def _join(bench: Bench, text: str, closers: list[Callable[[], object]]) -> None:
    name, _, place = text.partition("=")
    wire = _wire(bench, name)
    ends = wire.join(place, f"--join {text}") if wire is not None and place.partition(":")[0] else None
    if ends is None:
        raise click.UsageError(f"--join {text}: write BUS=INTERFACE:CHANNEL, where BUS is an emulated CAN bus")
    closers.append(ends)


def _interrupt() -> clock.SomeEvent:
    """Set by Ctrl-C, and by a service manager's stop."""
    ended = clock.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, frame: ended.set())
    return ended
