"""`scan` and `info`: what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import click

from ...enumerators.bench import Bench
from ...enumerators.bench_component import BenchComponent
from ...enumerators.component import Component, Presence
from ...enumerators.errors import BenchLocked, StateFolder, StateUnsafe
from ...enumerators.scan import UNSEEN, Scan
from ...enumerators.target import TargetFile, as_toml
from ...flashers.errors import NOT_THERE, NoResponse, ProfileWrong
from ...transports.errors import ProxyflashError
from ...transports.plain import word
from ...transports.quoting import shell_line
from ..output import Output, describe
from .session import NAME, PROFILE, Session, command, target_words
from .waiting import WAIT, Wait, waits


@command("scan")
@click.argument("targets", nargs=-1, metavar="[TARGET]...", shell_complete=target_words)
@PROFILE
@WAIT
def scan(session: Session, targets: tuple[str, ...], wait: float) -> int | None:
    """Finds the components on every bus of the bench, or on the buses that are named.

    Asks each component of the file who it is, without disturbing its work. Also lists
    devices that the file does not mention yet, as TOML to paste into the file. For each component that could not be asked,
    names the key that lets scan ask. The exit status is that of the first bus that can't be used. An absent part is not a
    failure of the scan.

    With TARGETs no bench file is read. Each is a component, or a bus: proxyflash help targets

    \b
    proxyflash scan
    proxyflash --bench desk.toml scan --json
    proxyflash scan --wait 30
    proxyflash scan socketcan:can0 /dev/ttyUSB0 usb
    """
    with Wait(session, wait) as waiting:
        found = waiting.until_free(lambda: _look(session, targets))
        while (error := _missing(found)) and waiting.may_go_on(error, *_away(found)):
            found = _look(session, targets)
        waiting.all_but(*_away(found))
    faults = [fault for _, seen in found for fault in seen.faults]
    session.output.document(
        {
            "components": [_full(component) for _, seen in found for component in seen.components],
            "unlisted": [
                {"bus": item.bus, "title": item.title, "lines": item.lines}
                for _, seen in found
                for item in seen.unlisted
            ],
            "asked": [{"bus": bus, "text": text} for _, seen in found for bus, text in seen.asked],
            "unasked": [{"bus": bus, "text": text} for _, seen in found for bus, text in seen.unasked],
            "errors": [{"bus": bus, **describe(error)} for bus, error in faults],
        }
    )
    _print(session.output, found)
    if wait and error is not None and not faults:
        session.output.fault(waiting.over(error))
        return error.exit_status
    return faults[0][1].exit_status if faults else None


Found = list[tuple[Bench, Scan]]


def _look(session: Session, targets: tuple[str, ...]) -> Found:
    return [(bench, _scanned(bench)) for bench in session.benches(targets)]


def _missing(found: Found) -> ProxyflashError | None:
    """Why something that should be there isn't."""
    for _, seen in found:
        for _, error in seen.faults:
            if isinstance(error, NOT_THERE):
                return error
    names = ", ".join(_away(found))
    return (
        NoResponse(f"{names} can't be seen", remedy="Is it powered and wired, and its address right?")
        if names
        else None
    )


def _away(found: Found) -> list[str]:
    """The components that should be there, and aren't."""
    return [
        component.name
        for bench, seen in found
        for component in seen.components
        if component.presence is Presence.ABSENT and not bench.unplugged(component)
    ]


def look(session: Session) -> Scan:
    """What is there. Raises errors that keep every bus from being used, not those of one bus."""
    return _scanned(session.bench)


def _scanned(bench: Bench) -> Scan:
    found = bench.scan()
    for _, error in found.faults:
        if isinstance(error, BenchLocked | StateFolder | StateUnsafe):
            raise error
    return found


def _print(out: Output, found: Found) -> None:
    rows = [_row(component) for _, seen in found for component in seen.components]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(7)]
    for bench, seen in found:
        _print_buses(out, bench, seen, widths)
    for bench, seen in found:
        _print_unlisted(out, bench, seen)


def _print_buses(out: Output, bench: Bench, found: Scan, widths: Sequence[int]) -> None:
    heads = {
        bus: f"{bus} ({spec.kind}{', emulated' if spec.emulated else ''})" for bus, spec in bench.file.spec.bus.items()
    }
    if bench.file.hosted:
        heads[""] = "host"
    for bus, head in heads.items():
        out.line(head)
        for component in found.components:
            if component.bus == bus:
                cells = [cell.ljust(width) for cell, width in zip(_row(component), widths, strict=True)]
                out.row([f"  {cells[0]}", *cells[1:]])
        seen = [part for part in found.components if part.bus == bus and part.presence not in UNSEEN]
        if out.verbosity or not (seen or any(item.bus == bus for item in found.unlisted)):
            for name, text in (*found.asked, *found.unasked):
                if name == bus:
                    out.line(f"  {text}")
            for name, settings in found.onward:
                if name == bus and isinstance(bench.file, TargetFile):
                    out.line(f"  to go on: {shell_line(bench.file.scan_with(settings))}")
        for name, error in found.faults:
            if name == bus:
                out.fault(error, indent="  ")


def _print_unlisted(out: Output, bench: Bench, found: Scan) -> None:
    if found.unlisted:
        out.line()
        if isinstance(bench.file, TargetFile):
            out.line("Found, and not named; for a bench file, paste:")
            out.line()
            out.lines(as_toml({"bus": bench.file.raw["bus"]}))
        else:
            out.line("Found, and not in the bench file; to add, paste:")
    for item in found.unlisted:
        out.line()
        out.line(f"# {item.title}")
        if isinstance(bench.file, TargetFile):
            out.line(f"# {shell_line(['proxyflash', 'info', bench.file.target_of(item)])}")
        out.lines(item.lines.split("\n"))


def _row(component: Component) -> tuple[str, ...]:
    part = " ".join(word(text) for text in (component.manufacturer, component.model) if text)
    serial = word(component.properties.get("serial", ""))
    return (
        component.name,
        word(component.group) or "-",
        part or "-",
        word(component.version) or "-",
        component.presence.value,
        word(component.where),
        f"serial {serial}" if serial else "",
    )


def _full(component: Component) -> dict[str, object]:
    return component.record() | {
        "presence": component.presence.value,
        "bus": component.bus,
        "protocol": component.protocol,
        "where": component.where,
    }


@command("info")
@NAME
@waits
def info(session: Session, name: str) -> int | None:
    """Everything known of one component: identity, memory, what its bootloader can do.

    Enters the part's bootloader if only the bootloader can answer, and leaves the part as it was found. Such a part is
    shown as `bootloader`. What can't be known is shown with the reason.

    \b
    proxyflash info imu
    proxyflash info dfu:0483:df11
    """
    component = session.component(name)
    with session.programmer(name) as programmer:
        seen = component.look()
        identity = programmer.look()
        unknown = {}
        try:
            regions = programmer.memory_map().regions
        except ProfileWrong as error:
            # A part reports who it is without a profile of its memory.
            regions, unknown["memory"] = (), f"{error.cause}. {error.remedy}"
        if programmer.connected and seen.presence in UNSEEN:
            seen = replace(seen, presence=Presence.BOOTLOADER)
        able = [str(flag.name).lower() for flag in programmer.bootloader.capabilities]
    facts = {
        "part": identity.part,
        "serial": identity.serial or seen.properties.get("serial", ""),
        "manufacturer": identity.manufacturer or seen.manufacturer,
        "version": identity.version or seen.version,
        "bootloader": identity.bootloader,
        **identity.details,
    }
    if not facts["version"]:
        unknown["version"] = _why_no_version(component, seen)
    if not facts["part"] and not facts["bootloader"]:
        unknown["bootloader"] = "this protocol reports neither the bootloader nor the part"
    session.output.document(
        {
            "component": _full(seen),
            "identity": facts,
            "unknown": unknown,
            "capabilities": able,
            "memory": [
                {
                    "name": region.name,
                    "start": region.start,
                    "size": region.size,
                    "erase_units": [{"count": run.count, "size": run.size} for run in region.units],
                    "write_alignment": region.write_alignment,
                    "readable": region.readable,
                    "writable": region.writable,
                }
                for region in regions
            ],
        }
    )
    out = session.output
    out.line(f"{component.name}  {seen.presence.value}  {word(seen.where)}")
    said = {key: f"not known: {why}" for key, why in unknown.items()}
    rows = [
        (word(key.replace("_", " ")), text) for key, value in facts.items() if (text := word(value) or said.get(key))
    ]
    for region in regions:
        units = ", ".join(f"{run.count} x {run.size:,}" for run in region.units)
        rows.append(
            ("memory", f"{word(region.name)}  0x{region.start:08X}..0x{region.end - 1:08X}  erase units {units}")
        )
    if "memory" in said:
        rows.append(("memory", said["memory"]))
    rows.append(("can", ", ".join(able) or "write only"))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        out.line(f"  {key:<{width}}  {value}")
    return None


def _why_no_version(component: BenchComponent, seen: Component) -> str:
    """Why the version of a component's application isn't known."""
    entry, file = component.entry, component.bench.file
    if seen.presence is not Presence.BOOTLOADER:
        return "its application does not report one"
    if entry.spec.version is not None:
        return "its application did not answer the question of `version`, and its bootloader does not report one"
    if file.spec.bus[entry.spec.bus].kind == "serial" and not entry.flasher.probes_application:
        where = "in the target" if isinstance(file, TargetFile) else "of its component"
        return (
            f"its bootloader does not report one. With version.send and version.match {where} its application is asked"
        )
    return "the part is in its bootloader, which does not report one"
