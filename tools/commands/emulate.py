"""`emulate`: serves the bench's emulated parts to other programs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from ...enumerators.bench import Bench
from ...enumerators.errors import BenchName
from ...transports import clock
from .session import Session, command

AnyWire = TypeVar("AnyWire")

ENUMERATION_SECONDS = 10.0
"""How long the kernel may take to configure the devices that are plugged into it."""


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
    help="Make a FIFO there that takes: off NAME, on NAME (a part's supply); cut BUS, join BUS (its wire).",
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
            if spec.emulated and name not in kernel_ttys:
                served[name] = _serve(bench, name, closers)
        for join in joins:
            _join(bench, join, closers)
        for name in kernel_usb:
            served[name] = _serve_usb(bench, name, closers)
        for name in kernel_ttys:
            served[name] = _serve_tty(bench, name, closers)
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


def _serve(bench: Bench, name: str, closers: list[Callable[[], object]]) -> dict[str, str]:
    wire = bench.emulated_wire(name)
    try:
        served = wire.serve(name, bench.folder)
    except OSError as error:
        where = error.filename or bench.folder
        raise BenchName(f"{where}: {error.strerror}", remedy="Name another folder: --state FOLDER") from error
    if served is None:
        return {"kind": wire.kind, "path": "", "opens": f"not served: plug it into the kernel with --vhci {name}"}
    closers.append(served.close)
    return {"kind": wire.kind, "path": served.path, "opens": served.opens}


def _wire(bench: Bench, name: str, wanted: type[AnyWire], usage: str) -> AnyWire:
    """The wire of an emulated bus, of the kind that an option is for."""
    spec = bench.file.spec.bus.get(name)
    wire = bench.emulated_wire(name) if spec is not None and spec.emulated else None
    if not isinstance(wire, wanted):
        raise click.UsageError(usage)
    return wire


def _serve_usb(bench: Bench, name: str, closers: list[Callable[[], object]]) -> dict[str, str]:
    from ...emulators.usb.bench_wire import BenchUsbWire
    from ...emulators.usb.vhci import VhciHost

    wire = _wire(bench, name, BenchUsbWire, f"--vhci {name}: name an emulated USB bus")
    host = VhciHost(wire)
    closers.append(host.close)
    # So that who waits for this command's answer finds the devices.
    host.wait_enumerated(ENUMERATION_SECONDS)
    places = ", ".join(host.places())
    return {"kind": wire.kind, "path": places, "opens": f"USB devices of this host at {places}"}


def _serve_tty(bench: Bench, name: str, closers: list[Callable[[], object]]) -> dict[str, str]:
    from ...emulators.serial.acm_tty import AcmTty
    from ...emulators.serial.bench_wire import BenchUartWire

    wire = _wire(bench, name, BenchUartWire, f"--acm {name}: name an emulated serial bus")
    tty = AcmTty(wire, name)
    closers.append(tty.close)
    return {"kind": wire.kind, "path": tty.path, "opens": f"a serial port at {tty.path}"}


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
    from ...emulators.can.bench_wire import BenchCanWire
    from ...emulators.can.bridge import bridge
    from ...transports.can.opening import open_bus

    name, _, place = text.partition("=")
    interface, _, channel = place.partition(":")
    usage = f"--join {text}: write BUS=INTERFACE:CHANNEL, where BUS is an emulated CAN bus"
    if not interface:
        raise click.UsageError(usage)
    wire = _wire(bench, name, BenchCanWire, usage)
    settings = {"interface": interface, "channel": channel, "fd": wire.data_bitrate is not None}
    opened = open_bus(f"--join {text}", settings)
    closers += [opened.shutdown, bridge(wire, opened)]


def _interrupt() -> clock.SomeEvent:
    """Set by Ctrl-C, and by a service manager's stop."""
    ended = clock.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, frame: ended.set())
    return ended
