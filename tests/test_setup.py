"""`make setup` on hosts whose Python can't be taken: it says in one line what it needs. The Pythons are stand-ins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_dependencies import ROOT

pytestmark = pytest.mark.real_time("a program: make")

OLD = "#!/bin/sh\necho 3.9; exit 1\n"
NOT_OURS = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTHON", "VENV")
"""Of the environment: what a make around the tests leaves there, and what chooses another Python."""
ABSENT = "#!/bin/sh\nexit 127\n"
WITHOUT_VENV = '#!/bin/sh\ncase "$*" in *ensurepip*) exit 1;; *version_info*) echo 3.12;; *) exit 99;; esac\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where stand-ins for programs are put that the host would have."""
    programs = tmp_path / "programs"
    programs.mkdir()
    return programs


def stand_in(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def make(folder: Path, *arguments: str) -> tuple[str, list[str]]:
    """What `make setup` prints of itself, and its errors but for make's own last line."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_OURS}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    venv = folder.parent / "venv"
    command = ["make", "--no-print-directory", "-C", str(ROOT), "setup", f"VENV={venv}", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert not venv.exists()
    *said, last = done.stderr.splitlines()
    assert last.startswith("make: ***")
    return done.stdout, said


@pytest.mark.parametrize(("text", "found"), [(OLD, "3.9"), (ABSENT, "missing")])
def test_a_python_that_is_too_old_or_missing(folder: Path, text: str, found: str) -> None:
    python = stand_in(folder, "python-of-mine", text)
    assert make(folder, f"PYTHON={python}") == ("", [
        f"setup: needs Python 3.11 or newer; {python} is {found}. Name another Python: make setup PYTHON=/path/to/python3"
    ])  # fmt: skip


def test_no_python_of_the_host_is_new_enough(folder: Path) -> None:
    for version in ("3.14", "3.13", "3.12", "3.11"):
        stand_in(folder, f"python{version}", ABSENT)
    stand_in(folder, "python3", OLD)
    [said] = make(folder)[1]
    assert said.startswith("setup: needs Python 3.11 or newer; python3 is 3.9.")


def test_a_python_without_venv_is_named_with_its_package(folder: Path) -> None:
    python = stand_in(folder, "python-of-mine", WITHOUT_VENV)
    assert make(folder, f"PYTHON={python}") == ("", [
        f"setup: {python} can't make virtual environments. Run: sudo apt-get install python3.12-venv"
    ])  # fmt: skip


def test_the_host_s_python3_is_taken_and_else_a_newer_one_by_its_name(folder: Path) -> None:
    stand_in(folder, "python3", WITHOUT_VENV)
    [said] = make(folder)[1]
    assert said.startswith("setup: python3 can't make")
    stand_in(folder, "python3", OLD)
    for version in ("3.14", "3.13"):
        stand_in(folder, f"python{version}", ABSENT)
    stand_in(folder, "python3.12", WITHOUT_VENV)
    [said] = make(folder)[1]
    assert said.startswith("setup: python3.12 can't make")


def test_the_makefile_asks_for_the_oldest_python_of_setup_cfg() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert text.count("sys.version_info < (3, 11)") == 2
    assert "needs Python 3.11 or newer" in text
    assert sys.version_info >= (3, 11)
