"""`doctor`: looks for what keeps this host from working. Each check passes, or names its fix."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path

import click

from ...transports import plugins
from ...transports.errors import ExitStatus, ProxyflashError
from ...transports.quoting import shell_line
from .session import Session, bus_names, command

CLASHES = {"can": "python-can", "serial": "pyserial", "usb": "pyusb", "isotp": "can-isotp"}
"""Importable names that packages of other names provide too, and the package that has to be behind each."""


@dataclass(frozen=True, slots=True)
class Check:
    """`passed` None: neither good nor bad without a bench that needs it."""

    title: str
    passed: bool | None
    fix: str = ""


@command("doctor")
@click.argument("bus", required=False, shell_complete=bus_names)
def doctor(session: Session, bus: str | None) -> int | None:
    """Looks for what keeps this host from working: packages, kernel, permissions, and the buses of the bench.

    With BUS only that bus of the bench file is opened.

    \b
    proxyflash doctor
    proxyflash doctor powertrain
    """
    checks = [*_packages(), *_plugins(), *_can(), *_serial(), *_usb(), *_buses(session, bus)]
    session.output.document({"checks": [asdict(check) for check in checks]})
    marks = {True: "ok   ", False: "FAIL ", None: "-    "}
    for check in checks:
        session.output.line(marks[check.passed] + check.title)
        if check.fix and not check.passed:
            session.output.line(f"       {check.fix}")
    return ExitStatus.FAILED if any(check.passed is False for check in checks) else None


def _packages() -> Iterator[Check]:
    owners = metadata.packages_distributions()
    for module, package in CLASHES.items():
        found = sorted(set(owners.get(module, [])))
        if util.find_spec(module) is None or package not in found:
            yield Check(f"{package} is not installed", False, f"pip install {package}")
        elif len(found) > 1:
            others = [name for name in found if name != package]
            fix = f"{shell_line(['pip', 'uninstall', *others])}; pip install --force-reinstall {package}"
            yield Check(f"{' and '.join(found)} both provide the module {module!r}", False, fix)
        else:
            yield Check(f"{package} {metadata.version(package)}", True)


def _plugins() -> Iterator[Check]:
    for plugin in plugins.survey():
        if plugin.fault:
            yield Check(f"plugin {plugin.name} of {plugin.package}: {plugin.fault}", False, "Reinstall or remove it.")


def _can() -> Iterator[Check]:
    try:
        socket.socket(socket.PF_CAN, socket.SOCK_RAW, socket.CAN_RAW).close()
    except (OSError, AttributeError):
        fix = "sudo modprobe can-raw; on a kernel without it, use an adapter that python-can drives from user space"
        yield Check("the kernel has no CAN sockets", None, fix)
        return
    yield Check("the kernel has CAN sockets", True)
    for link in sorted(Path("/sys/class/net").iterdir()):
        kind = link / "type"
        if kind.is_file() and kind.read_text().strip() == "280":
            state = (link / "operstate").read_text().strip()
            up = state in ("up", "unknown")
            fix = shell_line(["sudo", "ip", "link", "set", "dev", link.name, "up", "type", "can", "bitrate", "500000"])
            yield Check(f"CAN interface {link.name} is {state}", up, fix)


def _serial() -> Iterator[Check]:
    ports = sorted([*Path("/dev").glob("ttyUSB*"), *Path("/dev").glob("ttyACM*")])
    if not ports:
        yield Check("no USB serial adapter is attached", None, "Plug one in.")
    for port in ports:
        allowed = os.access(port, os.R_OK | os.W_OK)
        yield Check(
            f"{port} may {'' if allowed else 'not '}be used", allowed, "sudo usermod -aG dialout $USER, then log in"
        )


def _usb() -> Iterator[Check]:
    try:
        import usb.backend.libusb1
    except ImportError:
        return  # said among the packages

    if usb.backend.libusb1.get_backend() is None:
        yield Check("libusb is not installed", None, "sudo apt-get install libusb-1.0-0")
        return
    yield Check("libusb", True)
    for device in sorted(Path("/dev/bus/usb").glob("*/*")):
        if not os.access(device, os.R_OK | os.W_OK):
            rule = 'SUBSYSTEM=="usb", ATTR{idVendor}=="0483", ATTR{idProduct}=="df11", MODE="0660", TAG+="uaccess"'
            fix = f"Put a line like this, with your device's ids, into /etc/udev/rules.d/70-proxyflash.rules: {rule}"
            yield Check(f"{device} may not be used", None, fix)
            return


def _buses(session: Session, only: str | None) -> Iterator[Check]:
    try:
        bench = session.bench
    except ProxyflashError as error:
        named = session.bench_path is not None or only is not None
        yield Check(f"{error.code} {error.cause}", False if named else None, error.remedy)
        return
    if only is not None and only not in bench.file.spec.bus:
        raise click.UsageError(f"{bench.file.path} has no bus {only!r}; it has: {', '.join(bench.file.spec.bus)}")
    for name in [only] if only is not None else bench.file.spec.bus:
        try:
            bench.transport(name)
        except ProxyflashError as error:
            yield Check(f"bus {name}: {error.code} {error.cause}", False, error.remedy)
        else:
            yield Check(f"bus {name} opens", True)
