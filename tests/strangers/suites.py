"""Other projects' own test suites, fetched from the package index and run as programs: none of their code is kept here."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

import pytest
from proxyflash.benchmarks import peers
from proxyflash.benchmarks.measuring import Missing

HERE = Path(__file__).parent


def fetch(project: str, folder: str) -> Path:
    """Where `folder` of the source distribution of the installed version of a project is unpacked.

    That folder alone: the project itself is the installed one. Skips where the package index can't be reached.
    """
    release = f"{project}=={version(project)}"
    home = peers.PEERS / release.replace("==", "-")
    pip = [sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--no-binary", ":all:", "-d", str(home)]
    with peers.locked(home):
        if not (home / "ready").exists():
            try:
                peers.step([*pip, release], release)
            except Missing as missing:
                pytest.skip(f"the suite of {missing}")
            with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
                for member in archive.getmembers():
                    member.name = member.name.partition("/")[2]
                    if member.name.startswith(f"{folder}/"):
                        archive.extract(member, home, filter="data")
            (home / "ready").touch()
    return home


def files(folder: Path) -> set[str]:
    """The modules of a suite."""
    return {path.stem for path in folder.glob("*.py")} - {"__init__"}


def run(home: Path, plugin: str, report: Path, *arguments: str) -> dict[str, str]:
    """How each test ended ("passed", "skipped" or "failed"), by "module::Class::test". `plugin`: a module of this folder
    that points the suite at the emulated buses. `arguments`: pytest's: which tests."""
    python_path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": python_path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in ("CI", "GITHUB_ACTIONS", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    # -s: python-can's Printer closes the stdout that its module was imported under, if that is another one.
    command = (sys.executable, "-m", "pytest", "-q", "-s", "-c", os.devnull, "--rootdir", home, "-p", "no:cacheprovider",
               "-p", plugin, f"--junitxml={report}", *arguments)  # fmt: skip
    done = subprocess.run([*map(str, command)], cwd=home, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    sys.stdout.write(done.stdout)
    return {_name(case): _outcome(case) for case in ElementTree.parse(report).iter("testcase")}


def _name(case: ElementTree.Element) -> str:
    return "::".join([*case.attrib["classname"].split(".")[1:], case.attrib["name"]])


def _outcome(case: ElementTree.Element) -> str:
    kinds = {child.tag for child in case}
    return "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"


def differences(outcomes: dict[str, str], known: dict[str, str]) -> dict[str, str]:
    """The tests that fail and aren't known to, and the known ones that pass or are no longer there."""
    wrong = {name: end for name, end in outcomes.items() if (end == "failed") != (name in known)}
    return wrong | {name: "is not in the suite" for name in known if name not in outcomes}
