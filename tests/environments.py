"""Python environments in which tests install packages that proxyflash does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from proxyflash.tests.shared import once


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """Its stdout. Without what this environment would lend to it."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PROXY"))}
    done = subprocess.run(
        command, cwd=folder, env=own | environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def python_with(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that sees what this one has, and has the package, of which a copy is installed."""

    def make(folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
        ours = sysconfig.get_path("purelib")
        theirs = sysconfig.get_path("purelib", vars={"base": str(folder)})
        # As a site folder, whose own .pth files count: that of an editable proxyflash too.
        Path(theirs, "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n", encoding="utf-8")
        source = shutil.copytree(package, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
        pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
        run(*pip, "install", "-q", "--no-deps", "--no-build-isolation", "--no-index", source, folder=folder)

    return once(tmp_path_factory, package.name, make) / "bin" / "python"
