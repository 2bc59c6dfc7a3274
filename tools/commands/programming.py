"""`flash`, `verify`, `read`, `erase`, `reset`: what is done to one component."""

from __future__ import annotations

import hashlib
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import click

from ...enumerators.bench_component import BenchComponent
from ...flashers.errors import Cancelled, ImageNotWritten, RebootFailed, Unsupported, VerifyMismatch
from ...flashers.flasher import Capability, SlotAccess
from ...flashers.formats import keeps_addresses
from ...flashers.formats import save as save_image
from ...flashers.image import FirmwareImage, join
from ...flashers.memory import Erase, Range, listed
from ...flashers.programmer import FlashResult, Programmer
from ...flashers.slot_strategy import unerasable
from ...transports import named_files
from ...transports.errors import ExitStatus, ProxyflashError, in_attempts
from ...transports.plain import word
from ...transports.quoting import shell_line
from ..output import is_terminal
from ..wording import size
from .outputs import FORCE, refuse_firmware
from .reporting import reports
from .session import NAME, NUMBER, TRACE, Session, command
from .waiting import waits

IMAGE = click.argument("image", type=click.Path(path_type=Path))
ADDRESS = click.option("--address", type=NUMBER, help="Where a raw binary goes.")
FORMAT = click.option("--format", "format", metavar="NAME", help="The file's format, which is then not guessed.")
ONLY = click.option(
    "--only", multiple=True, metavar="MEMORY", help="Write this memory of the part, and leave out what is for others."
)
YES = click.option("-y", "--yes", is_flag=True, help="Don't ask before erasing real hardware.")


class NotConfirmed(ProxyflashError):
    """Something would be erased or executed on real hardware, and there is no terminal to ask on."""

    code = "E-NOT-CONFIRMED"
    exit_status = ExitStatus.USAGE
    default_remedy = "Add --yes."


@command("flash")
@NAME
@IMAGE
@ADDRESS
@FORMAT
@ONLY
@YES
@click.option("--dry-run", is_flag=True, help="Everything but what writes.")
@click.option("--verify/--no-verify", default=True, help="Whether the part's memory is compared afterwards.")
@click.option("--boot/--no-boot", default=True, help="Whether the application is started afterwards.")
@click.option("--full", is_flag=True, help="Write everything, also what the part holds already.")
@click.option("--expect-version", metavar="VERSION", help="What the application must report afterwards.")
@reports
@TRACE
@waits
def flash(
    session: Session,
    name: str,
    image: Path,
    address: int | None,
    format: str | None,
    only: tuple[str, ...],
    yes: bool,
    dry_run: bool,
    verify: bool,
    boot: bool,
    full: bool,
    expect_version: str | None,
) -> int | None:
    """Plans, erases, writes, verifies, boots.

    Everything is checked before the first erase. What the part holds already is skipped, so after a cut or a Ctrl-C the
    same command goes on with what is missing.

    \b
    proxyflash flash imu imu-1.5.0.hex
    proxyflash flash imu imu.bin --address 0x08000000
    proxyflash flash panel panel.elf --only flash
    proxyflash flash imu imu-1.5.0.hex --dry-run
    proxyflash flash stm32-uart:/dev/ttyUSB0 fw.hex
    """
    component = session.component(name, image)
    loaded = _loaded(session, component, image, address, format, only)
    session.stop_safely()
    with session.programmer(name) as programmer:
        plan = programmer.plan(loaded, compare=not full)
        if not dry_run:
            if not plan.nothing_to_do:
                gone = (
                    f"replace what {plan.replaces} of {component.name} holds"
                    if plan.replaces
                    else f"erase {size(plan.erased_bytes)} of {component.name}"
                )
                what = f"{gone} and write {image.name}?"
                confirm_erase(session, component, yes, what)
            result = component.carry_out(programmer, plan, verify=verify, boot=boot, expect_version=expect_version)
    if dry_run:
        session.told(component.name, "OK  dry run: nothing was written")
        session.output.document({"component": component.name, "verdict": "dry run"})
        session.output.line(f"{component.name}  dry run: nothing was written")
        return None
    session.output.document({"component": component.name, "verdict": "ok", **_result_fields(result)})
    session.output.line(verdict(result))
    session.told(
        component.name,
        verdict(result).removeprefix(f"{component.name}  "),
        ("erased", f"{result.erased_bytes:,} bytes"),
        ("written", f"{result.written_bytes:,} bytes{in_attempts(result.attempts)}"),
    )
    return None


def verdict(result: FlashResult) -> str:
    """The last line for one component, from what was read back."""
    version = f"-> {word(result.version)}  " if result.version else ""
    verified = f"verified ({word(result.verified)})" if result.verified else "NOT verified (--no-verify)"
    written = "" if result.written_bytes else ", nothing to write"
    booted = ", booted" if result.booted else ", not booted"
    return f"{result.component}  {version}OK  {verified}{written}{booted}"


def _loaded(
    session: Session,
    component: BenchComponent,
    path: Path,
    address: int | None,
    format: str | None,
    only: tuple[str, ...],
) -> FirmwareImage:
    """The image. What a page says of it is known from now on, also where the file is not an image. Raises as `load`."""
    facts = [("image", path.name)]
    if session.watcher is not None:
        with suppress(OSError, ValueError), named_files.opened(path) as file:
            facts.append(("SHA-256 of the file", hashlib.file_digest(file, "sha256").hexdigest()))
        session.watcher.facts[component.name] = tuple(facts)
    image = component.load(path, address=address, format=format, only=only)
    if session.watcher is not None:
        facts += [
            ("holds", f"{image.size:,} bytes"),
            *([("version of the file", image.version)] if image.version else []),
        ]
        session.watcher.facts[component.name] = tuple(facts)
    return image


def _result_fields(result: FlashResult) -> dict[str, object]:
    return {
        "version": result.version,
        "verified": result.verified,
        "booted": result.booted,
        "erased_bytes": result.erased_bytes,
        "written_bytes": result.written_bytes,
        "attempts": result.attempts,
        "seconds": round(result.seconds, 3),
        "part": result.identity.part,
        "serial": result.identity.serial,
    }


@command("verify")
@NAME
@IMAGE
@ADDRESS
@FORMAT
@ONLY
@reports
@TRACE
@waits
def verify(
    session: Session, name: str, image: Path, address: int | None, format: str | None, only: tuple[str, ...]
) -> int | None:
    """Compares a component's memory with an image.

    \b
    proxyflash verify imu imu-1.5.0.hex
    """
    component = session.component(name, image)
    loaded = _loaded(session, component, image, address, format, only)
    session.stop_safely()
    try:
        with session.programmer(name) as programmer:
            method = programmer.verify(loaded)
    except VerifyMismatch as error:
        at = session.arguments.index("verify")
        flash = shell_line(("proxyflash", *session.arguments[:at], "flash", *session.arguments[at + 1 :]))
        raise error.advised(f"Is it the right file? To write it: {flash}") from error
    session.output.document({"component": component.name, "verdict": "ok", "verified": method})
    session.output.line(f"{component.name}  OK  holds {image.name}  ({word(method)})")
    session.told(component.name, f"OK  holds {image.name}  ({method})")
    return None


@command("read")
@NAME
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--start", type=NUMBER, help="The first address; else all memory that can be read.")
@click.option("--size", "count", type=NUMBER, help="Bytes, from --start on.")
@FORCE
@waits
def read(session: Session, name: str, out: Path, start: int | None, count: int | None, force: bool) -> int | None:
    """Reads a component's memory into a file; the file's ending picks the format. A file that is there stays, unless
    --force is given.

    \b
    proxyflash read imu backup.hex
    proxyflash read imu page.bin --start 0x08000000 --size 0x400
    """
    if (start is None) != (count is None):
        raise click.UsageError("--start and --size go together")
    component = session.component(name, out)
    refuse_firmware(out, force=force)
    session.stop_safely()
    with session.programmer(name) as programmer:
        programmer.refuse_unreadable()
        memory = programmer.memory_map()
        if start is None or count is None:
            regions = [region for region in memory.regions if region.readable]
            ranges = [Range(region.start, region.size) for region in regions]
            if not keeps_addresses(out) and any(low.end != high.start for low, high in pairwise(ranges)):
                raise ImageNotWritten(
                    f"{component.name} has several memories ({', '.join(region.name for region in regions)}), and a {out.suffix} "
                    "file has no addresses to tell them apart",
                    remedy="Name a file that ends in .hex or .s19, or read one memory: --start and --size.",
                )
        else:
            ranges = [_inside(programmer, Range(start, count))]
        segments = programmer.read(ranges)
        of_slot = isinstance(programmer.bootloader.access(), SlotAccess)
    save_image(FirmwareImage(join(segments), "memory", component.name, target=memory.target), out, of_slot=of_slot)
    total = sum(segment.size for segment in segments)
    session.output.document({"component": component.name, "verdict": "ok", "file": str(out), "bytes": total})
    session.output.line(f"{component.name}  OK  {total:,} bytes into {out}")
    if not keeps_addresses(out) and ranges[0].start != memory.regions[0].start:
        session.output.note(f"{out} has no addresses. To flash it back: --address 0x{ranges[0].start:08X}")
    return None


def _inside(programmer: Programmer, wanted: Range) -> Range:
    memory = programmer.memory_map()
    region = memory.region_of(wanted.start)
    if wanted.size == 0 or region is None or wanted.end > region.end:
        raise Unsupported(
            f"{wanted.size:,} bytes from 0x{wanted.start:08X} on are not in one memory of this part",
            remedy=f"Give --start and --size of at least one byte within one of its memories: {listed(memory.regions)}.",
        )
    return wanted


@command("erase")
@NAME
@click.option("--start", type=NUMBER, help="The first address; else all memory that is written to.")
@click.option("--size", "count", type=NUMBER, help="Bytes, from --start on; whole erase units are erased.")
@YES
@waits
def erase(session: Session, name: str, start: int | None, count: int | None, yes: bool) -> int | None:
    """Erases a component's memory. It stays in its bootloader.

    \b
    proxyflash erase imu --start 0x08020000 --size 0x20000
    """
    if (start is None) != (count is None):
        raise click.UsageError("--start and --size go together")
    component = session.component(name)
    session.stop_safely()
    with session.programmer(name) as programmer:
        programmer.refuse_unerasable()
        if start is None or count is None:
            regions = [
                item for item in programmer.memory_map().regions if item.writable and item.erase is not Erase.NEVER
            ]
            ranges = [Range(region.start, region.size) for region in regions]
            if not ranges:
                raise unerasable()
        else:
            ranges = [_inside(programmer, Range(start, count))]
        confirm_erase(session, component, yes, f"erase {', '.join(map(str, ranges))} of {component.name}?")
        total = programmer.erase(ranges)
    session.output.document({"component": component.name, "verdict": "ok", "erased_bytes": total})
    session.output.line(f"{component.name}  OK  {total:,} bytes erased; it is in its bootloader")
    return None


@command("reset")
@NAME
@waits
def reset(session: Session, name: str) -> int | None:
    """Restarts a component: by its supply where the bench can cut that, else through its bootloader.

    \b
    proxyflash reset imu
    """
    component = session.component(name)
    seconds = component.entry.spec.boot_timeout
    with session.working_on(component.name):
        if component.power_cycle():
            how = "power cycled"
            version = component.await_version()
            if version is None and component.can_be_asked:
                raise RebootFailed(f"the application did not answer within {seconds:g} s after the supply came back")
        else:
            how = "reset"
            with session.programmer(name) as programmer:
                programmer.connect()
                if not programmer.bootloader.capabilities & Capability.BOOT:
                    raise Unsupported("its bootloader has no way to start the application; cut its supply by hand")
                version = component.start(programmer)
    session.output.document({"component": component.name, "verdict": "ok", "how": how, "version": version})
    session.output.line(f"{component.name}  {f'-> {word(version)}  ' if version else ''}OK  {how}")
    return None


def confirm_erase(session: Session, component: BenchComponent, yes: bool, question: str) -> None:
    """Asks once on a terminal before real hardware is erased. Raises NotConfirmed, Cancelled."""
    if not yes and component.real:
        ask(session, question, component=component.name)


def ask(session: Session, question: str, component: str | None = None) -> None:
    """Goes on when a person says yes. Raises NotConfirmed where nobody can be asked, Cancelled at a no."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stderr):
        raise NotConfirmed(f"this would {question.rstrip('?')}, and nobody is there to say yes", component=component)
    if session.answer(f"{question} [y/N]:").lower() not in ("y", "yes"):
        raise Cancelled("not confirmed; nothing was changed", touched=False, component=component)
