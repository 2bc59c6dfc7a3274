"""Other tools, and where they are: Debian's in the PATH, PyPI's in a folder of their own, made when it is missing."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from .measuring import CACHE, ROOT, Missing

PEERS = ROOT / "build" / "peers"
"""The tests keep theirs here too."""
STM32LOADER = "stm32loader==0.7.1"
NO_MODEM_LINES = """
import runpy, sys, serial
serial.Serial._update_dtr_state = serial.Serial._update_rts_state = lambda port: None
sys.argv[0] = "stm32loader"
runpy.run_module("stm32loader", run_name="__main__")
"""
"""Runs stm32loader: a pseudo-terminal has no modem lines, and it has no option to leave them alone."""


def installed(program: str, package: str = "") -> str:
    """The path of a program of the Debian package of that name, by default the program's own. Raises Missing."""
    found = shutil.which(program)
    if found is None:
        raise Missing(f"{program} is not installed (Debian: {package or program})")
    return found


@cache
def stm32loader() -> Path:
    """The interpreter of stm32loader's own environment. Raises Missing."""
    return environment(STM32LOADER)


def environment(requirement: str, *more: str) -> Path:
    """The interpreter of an environment that holds a program of PyPI, and what else it needs. Raises Missing."""
    home = PEERS / requirement.partition("==")[0]
    python = home / "bin" / "python"
    with locked(home):
        if not (home / "ready").exists():
            step([sys.executable, "-m", "venv", str(home)], requirement)
            step([str(python), "-m", "pip", "-q", "install", requirement, *more], requirement)
            (home / "ready").touch()
    return python


@cache
def library(requirement: str) -> Path:
    """A folder that holds one pure Python package alone, to be put into a search path. Raises Missing."""
    home = CACHE / requirement.replace("==", "-")
    with locked(home):
        if not (home / "ready").exists():
            pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
            step([*pip, "install", "--no-deps", "--upgrade", "--target", str(home), requirement], requirement)
            (home / "ready").touch()
    return home


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Two runs at once make one environment."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def step(command: list[str], requirement: str) -> None:
    """Runs it. Raises Missing, in pip's words, where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise Missing(f"{requirement} is not installed (PyPI: {requirement.partition('=')[0]}): {said[:120]}")
