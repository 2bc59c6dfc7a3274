"""`doctor`: looks for what keeps this host from working. Each check passes, or names its fix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata, util

import click
from click.shell_completion import CompletionItem

from ...enumerators.errors import TargetWrong
from ...enumerators.target import is_target
from ...transports import plugins
from ...transports.errors import ExitStatus, PluginBroken, ProxyflashError
from ...transports.plain import counted
from ...transports.quoting import shell_line
from ...transports.transport import HostCheck
from .session import PROFILE, Session, bus_names, command, target_words

CLASHES = {"can": "python-can", "serial": "pyserial", "usb": "pyusb", "isotp": "can-isotp"}
"""Importable names that packages of other names provide too, and the package that has to be behind each."""


def _bus_words(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Completion: the buses of the bench file, and targets."""
    return [
        *map(CompletionItem, bus_names(context, parameter, incomplete)),
        *target_words(context, parameter, incomplete),
    ]


@command("doctor")
@click.argument("bus", metavar="[BUS|TARGET]", required=False, shell_complete=_bus_words)
@PROFILE
def doctor(session: Session, bus: str | None) -> int | None:
    """Looks for what keeps this host from working: packages, kernel, permissions, and the buses of the bench.

    With BUS only that bus of the bench file is opened, with TARGET the target's bus. Exit status 1 if anything is wrong; what
    is not there, and no bus of the bench needs, is marked by "-" and is nothing wrong.

    \b
    proxyflash doctor
    proxyflash doctor powertrain
    proxyflash doctor stm32-uart:/dev/ttyUSB0
    """
    checks = [*_packages(), *_plugins(), *_kinds(), *_buses(session, bus)]
    session.output.document({"checks": [asdict(check) for check in checks]})
    marks = {True: "ok   ", False: "FAIL ", None: "-    "}
    for check in checks:
        session.output.line(marks[check.passed] + check.title)
        if check.fix and not check.passed:
            session.output.line(f"       {check.fix}")
    wrong, missing = ([check for check in checks if check.passed is passed] for passed in (False, None))
    verdict = f"{counted(len(wrong), 'problem')}" if wrong else "no problem"
    if missing:
        verdict += (
            f"; not there, and needed by no bus that was opened: {len(missing)} of {counted(len(checks), 'check')}"
        )
    session.output.line(verdict)
    return ExitStatus.FAILED if any(check.passed is False for check in checks) else None


def _packages() -> Iterator[HostCheck]:
    owners = metadata.packages_distributions()
    for module, package in CLASHES.items():
        found = sorted(set(owners.get(module, [])))
        if util.find_spec(module) is None or package not in found:
            yield HostCheck(f"{package} is not installed", False, f"pip install {package}")
        elif len(found) > 1:
            others = [name for name in found if name != package]
            fix = f"{shell_line(['pip', 'uninstall', *others])}; pip install --force-reinstall {package}"
            yield HostCheck(f"{' and '.join(found)} both provide the module {module!r}", False, fix)
        else:
            yield HostCheck(f"{package} {metadata.version(package)}", True)


def _plugins() -> Iterator[HostCheck]:
    for plugin in plugins.survey():
        if plugin.fault:
            yield HostCheck(
                f"plugin {plugin.name} of {plugin.package}: {plugin.fault}", False, "Reinstall or remove it."
            )


def _kinds() -> Iterator[HostCheck]:
    for kind in plugins.names(plugins.TRANSPORTS):
        # A broken one is reported among the plugins.
        with suppress(PluginBroken):
            yield from plugins.load(plugins.TRANSPORTS, kind).host_checks()


def _without_itself(remedy: str) -> str:
    """A remedy without the sentence that sends here."""
    left = " ".join(part for part in re.split(r"(?<=[.?!]) +", remedy) if "proxyflash doctor" not in part)
    return left or "The lines above show what this host has, and how to install what is missing."


def _buses(session: Session, only: str | None) -> Iterator[HostCheck]:
    try:
        if only is not None and is_target(only):
            [bench], only = session.benches([only]), None
        else:
            [bench] = session.benches([])
    except TargetWrong:
        raise
    except ProxyflashError as error:
        named = session.bench_path is not None or only is not None
        yield HostCheck(f"{error.code} {error.cause}", False if named else None, error.remedy)
        return
    if only is not None and only not in bench.file.spec.bus:
        raise click.UsageError(f"{bench.file.path} has no bus {only!r}; it has: {', '.join(bench.file.spec.bus)}")
    for name in [only] if only is not None else bench.file.spec.bus:
        try:
            bench.transport(name)
        except ProxyflashError as error:
            yield HostCheck(f"bus {name}: {error.code} {error.cause}", False, _without_itself(error.remedy))
        else:
            yield HostCheck(f"bus {name} opens", True)
