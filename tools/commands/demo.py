"""`demo`: the main job on an emulated bench, from nothing."""

from __future__ import annotations

import shutil
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import click

from ...transports.errors import ExitStatus, ProxyflashError
from ..output import Mode
from .session import Session, command

EXAMPLE = "three_sensors"
BENCH = "bench.toml"
STATE = "state"
MANIFEST = "update/update.importmanifest.json"


class DemoFolder(ProxyflashError):
    code = "E-DEMO-FOLDER"
    exit_status = ExitStatus.USAGE
    default_remedy = "Name an empty folder, or one that isn't there yet."


@command("demo")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def demo(session: Session, folder: Path | None) -> int | None:
    """Updates three emulated sensors, on CAN, a serial line and USB, from one manifest.

    Copies the example into FOLDER (else a new temporary one), then scans, plans, applies and scans again, and says
    which commands it ran.

    \b
    proxyflash demo
    proxyflash demo ./first-try
    """
    from .. import commands

    out = session.output
    target = _copy(folder)
    common = ["--bench", str(target / BENCH), "--state", str(target / STATE)]
    collected: list[dict[str, Any]] = []
    out.collected = collected
    out.line(f"$ cd {target}")
    status = 0
    for step in (["scan"], ["plan", MANIFEST], ["apply", MANIFEST], ["scan"]):
        shown = f"proxyflash --state {STATE} {' '.join(step)}"
        out.line()
        out.line(f"$ {shown}")
        arguments = [str(target / word) if word == MANIFEST else word for word in step]
        status = commands.run([*common, *arguments], out)
        if status:
            break
    out.collected = None
    out.document({"folder": str(target), "runs": collected} if out.mode is Mode.JSON else {"folder": str(target)})
    return status


def _copy(folder: Path | None) -> Path:
    target = folder if folder is not None else Path(tempfile.mkdtemp(prefix="proxyflash-demo-"))
    try:
        if target.exists() and any(target.iterdir()):
            raise DemoFolder(f"{target} is not empty")
        with as_file(files("proxyflash.examples") / EXAMPLE) as example:
            shutil.copytree(example, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    except OSError as error:
        raise DemoFolder(f"{error.filename or target}: {error.strerror}") from error
    return target
