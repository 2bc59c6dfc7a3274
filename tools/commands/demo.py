"""`demo`: the main job on an emulated bench, from nothing."""

from __future__ import annotations

import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import click

from ...transports import clock, private_files
from ...transports.errors import ExitStatus, ProxyflashError
from ...transports.quoting import shell_line
from ..output import Mode, Output
from .session import Session, command

EXAMPLES = {
    "three_sensors": "update/update.importmanifest.json",
    "vacuum": "updates/1-bundle/update.importmanifest.json",
}
"""The folders of `proxyflash.examples`, each with the update that the demo carries out."""
FOLDER = files("proxyflash.examples")
BENCH = "bench.toml"
STATE = "state"
README = "README.md"


class DemoFolder(ProxyflashError):
    """The demo's folder holds something already, or can't be written."""

    code = "E-DEMO-FOLDER"
    exit_status = ExitStatus.USAGE
    default_remedy = "Name an empty folder, or a new one."


@command("demo")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
@click.option("--example", type=click.Choice(list(EXAMPLES)), default="three_sensors", show_default=True)
@click.option("--simulated-time", is_flag=True, help="Run on a simulated clock; print how long real wires take.")
def demo(session: Session, folder: Path | None, example: str, simulated_time: bool) -> int | None:
    """Updates emulated parts from one manifest: three sensors, on CAN, a serial line and USB.

    Copies the example into FOLDER (else a new temporary one), then scans, plans, applies and scans again, and says
    which commands it ran. The example "vacuum" is a robot with a partition, an application, motors and cameras; its
    README.md goes on with five more updates.

    With --simulated-time the emulated wires take no real time. The example's own scripts run in real time. At the end
    the demo prints the simulated seconds of each command: so long takes the same on real wires.

    \b
    proxyflash demo
    proxyflash demo --simulated-time
    proxyflash demo ./first-try
    proxyflash demo --example vacuum ./vacuum
    """
    from .. import commands

    out = session.output
    target = _copy(FOLDER / example, folder)
    manifest = EXAMPLES[example]
    # A folder may be called like an option.
    here = target.absolute()
    common = ["--bench", str(here / BENCH), "--state", str(here / STATE)]
    collected: list[dict[str, Any]] = []
    out.collected = collected
    out.line(f"$ {shell_line(['cd', *(['--'] if str(target).startswith('-') else []), target])}")
    status, times = 0, Times() if simulated_time else None
    for step in (["scan"], ["plan", manifest], ["apply", manifest], ["scan"]):
        out.line()
        out.line(f"$ {shell_line(['proxyflash', '--state', STATE, *step])}")
        arguments = [str(here / word) if word == manifest else word for word in step]
        with times.of(step[0]) if times else nullcontext():
            status = commands.run([*common, *arguments], out)
        if status:
            break
    out.collected = None
    document: dict[str, Any] = {"folder": str(target)}
    if times:
        times.show(out)
        document |= times.document
    if not status and (target / README).exists():
        out.line()
        out.line(f"{target / README} goes on from here")
    out.document(document | {"runs": collected} if out.mode is Mode.JSON else document)
    return status


class Times:
    """What each command takes on a simulated clock of its own, and all of them in real time."""

    def __init__(self) -> None:
        self._began = clock.monotonic()
        self._seconds: list[tuple[str, float]] = []

    @contextmanager
    def of(self, command: str) -> Iterator[None]:
        from ...transports.simulated_clock import SimulatedClock

        # The example's scripts use nothing of its bench.
        simulated = SimulatedClock(epoch=clock.time(), runs_programs=True)
        try:
            with clock.use(simulated):
                yield
        finally:
            self._seconds.append((command, simulated.elapsed))

    @property
    def document(self) -> dict[str, Any]:
        return {
            "simulated": [{"command": command, "seconds": round(seconds, 3)} for command, seconds in self._seconds],
            "simulated_seconds": round(sum(seconds for _, seconds in self._seconds), 3),
            "real_seconds": round(clock.monotonic() - self._began, 3),
        }

    def show(self, out: Output) -> None:
        told = self.document
        lines = [(item["command"], item["seconds"]) for item in told["simulated"]]
        lines.append(("total", told["simulated_seconds"]))
        width = len("real time")
        out.line()
        out.line("simulated time, as long as real wires take:")
        for name, seconds in lines:
            out.line(f"  {name:{width}}  {seconds:8.1f} s")
        out.line(f"  {'real time':{width}}  {told['real_seconds']:8.1f} s")


def _copy(source: Traversable, folder: Path | None) -> Path:
    target = folder if folder is not None else Path(tempfile.mkdtemp(prefix="proxyflash-demo-"))
    try:
        if target.exists() and any(target.iterdir()):
            raise DemoFolder(f"{target} is not empty")
        # Refuses a folder in which another user could exchange what is copied and run.
        private_files.folder(target / STATE)
        with as_file(source) as example:
            _copy_files(example, target)
    except OSError as error:
        raise DemoFolder(f"{error.filename or target}: {error.strerror}") from error
    return target


def _copy_files(source: Path, target: Path) -> None:
    """Without the modes of the source: a clone or an installation may let a group write, or nobody."""
    for path in source.iterdir():
        copy = target / path.name
        if path.name == "__pycache__":
            continue
        if path.is_dir():
            copy.mkdir(0o755)
            _copy_files(path, copy)
        else:
            shutil.copyfile(path, copy)
            mode = stat.S_IMODE(copy.stat().st_mode) & ~0o022
            copy.chmod(mode | (mode & 0o444) >> 2 if path.stat().st_mode & stat.S_IXUSR else mode)
