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


@cache
def stm32flash() -> str:
    """The program. Raises Missing."""
    found = shutil.which("stm32flash")
    if found is None:
        raise Missing("stm32flash is not installed (Debian: stm32flash)")
    return found


@cache
def stm32loader() -> Path:
    """The interpreter of stm32loader's own environment. Raises Missing."""
    home = PEERS / "stm32loader"
    python = home / "bin" / "python"
    with _locked(home):
        if not (home / "ready").exists():
            _step([sys.executable, "-m", "venv", str(home)], STM32LOADER)
            _step([str(python), "-m", "pip", "-q", "install", STM32LOADER], STM32LOADER)
            (home / "ready").touch()
    return python


@cache
def library(requirement: str) -> Path:
    """A folder that holds one pure Python package alone, to be put into a search path. Raises Missing."""
    home = CACHE / requirement.replace("==", "-")
    with _locked(home):
        if not (home / "ready").exists():
            pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
            _step([*pip, "install", "--no-deps", "--upgrade", "--target", str(home), requirement], requirement)
            (home / "ready").touch()
    return home


@contextmanager
def _locked(home: Path) -> Iterator[None]:
    """Two runs at once make one environment."""
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _step(command: list[str], requirement: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise Missing(f"{requirement} is not installed (PyPI: {requirement.partition('=')[0]}): {said[:120]}")
