"""`emulate`: serves the bench's emulated parts to other programs."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import click

from ...enumerators.bench import Bench
from ...enumerators.errors import BenchName
from ...transports import clock
from .session import Session, command

SOCKET_LIMIT = 100
"""Bytes that a Unix socket's path may have, below Linux's 108."""

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
    closers: list[Callable[[], None]] = []
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


def _serve(bench: Bench, name: str, closers: list[Callable[[], None]]) -> dict[str, str]:
    wire = bench.emulated_wire(name)
    kind = bench.file.spec.bus[name].kind
    if kind == "serial":
        from ...emulators.serial.pty import serve_pty

        path, close = serve_pty(wire)
        link = bench.folder / f"{name}.pty"
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        closers += [close, lambda: link.unlink(missing_ok=True)]
        return {"kind": kind, "path": str(link), "opens": f"a serial port at {link} ({path})"}
    if kind == "can":
        from ...emulators.can.server import serve_can

        socket = bench.folder / f"{name}.sock"
        if len(str(socket)) > SOCKET_LIMIT:
            raise BenchName(
                f"{socket}: the path is too long for a socket", remedy="Name another folder: --state FOLDER"
            )
        closers.append(serve_can(wire, socket))
        opens = f'python-can: interface "proxyflash", channel "unix:{socket}"'
        return {"kind": kind, "path": str(socket), "opens": opens}
    return {"kind": kind, "path": "", "opens": f"not served: plug it into the kernel with --vhci {name}"}


def _serve_usb(bench: Bench, name: str, closers: list[Callable[[], None]]) -> dict[str, str]:
    from ...emulators.usb.vhci import VhciHost

    spec = bench.file.spec.bus.get(name)
    if spec is None or not spec.emulated or spec.kind != "usb":
        raise click.UsageError(f"--vhci {name}: name an emulated USB bus")
    host = VhciHost(bench.emulated_wire(name))
    closers.append(host.close)
    # So that who waits for this command's answer finds the devices.
    host.wait_enumerated(ENUMERATION_SECONDS)
    places = ", ".join(host.places())
    return {"kind": "usb", "path": places, "opens": f"USB devices of this host at {places}"}


def _serve_tty(bench: Bench, name: str, closers: list[Callable[[], None]]) -> dict[str, str]:
    from ...emulators.serial.acm_tty import AcmTty

    spec = bench.file.spec.bus.get(name)
    if spec is None or not spec.emulated or spec.kind != "serial":
        raise click.UsageError(f"--acm {name}: name an emulated serial bus")
    tty = AcmTty(bench.emulated_wire(name), name)
    closers.append(tty.close)
    return {"kind": "serial", "path": tty.path, "opens": f"a serial port at {tty.path}"}


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


def _join(bench: Bench, text: str, closers: list[Callable[[], None]]) -> None:
    from ...emulators.can.bridge import bridge
    from ...transports.can.opening import open_bus

    name, _, place = text.partition("=")
    interface, _, channel = place.partition(":")
    spec = bench.file.spec.bus.get(name)
    if spec is None or not spec.emulated or spec.kind != "can" or not interface:
        raise click.UsageError(f"--join {text}: write BUS=INTERFACE:CHANNEL, where BUS is an emulated CAN bus")
    settings = {"interface": interface, "channel": channel, "fd": bool(spec.settings.get("fd"))}
    opened = open_bus(f"--join {text}", settings)
    closers += [opened.shutdown, bridge(bench.emulated_wire(name), opened)]


def _interrupt() -> clock.SomeEvent:
    """Set by Ctrl-C, and by a service manager's stop."""
    ended = clock.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda signum, frame: ended.set())
    return ended
