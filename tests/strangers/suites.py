"""Other projects' own test suites, fetched from the package index and run as programs: none of their code is kept here."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
from importlib.metadata import version
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PEERS = HERE.parents[1] / "build" / "peers"


def fetch(project: str, folder: str) -> Path:
    """Where `folder` of the source distribution of the installed version of a project is unpacked.

    That folder alone: the project itself is the installed one. Skips where the package index can't be reached.
    """
    release = f"{project}-{version(project)}"
    home = PEERS / release
    PEERS.mkdir(parents=True, exist_ok=True)
    with (PEERS / f"{release}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "ready").exists():
            home.mkdir(exist_ok=True)
            command = (sys.executable, "-m", "pip", "-q", "download", "--no-deps", "--no-binary", ":all:", "-d", home)
            done = subprocess.run([*map(str, command), release.replace("-" + version(project), "==" + version(project))],
                                  capture_output=True, text=True)  # fmt: skip
            if done.returncode:
                pytest.skip(f"the suite of {release} is not installed, and can't be: {done.stderr.strip()[-200:]}")
            with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
                for member in archive.getmembers():
                    member.name = member.name.partition("/")[2]
                    if member.name.startswith(f"{folder}/"):
                        archive.extract(member, home, filter="data")
            (home / "ready").touch()
    return home


def run(home: Path, plugin: str, report: Path, *tests: str) -> dict[str, str]:
    """How each test ended ("passed", "skipped" or "failed"), by "module::Class::test". `plugin`: a module of this folder
    that points the suite at the emulated buses."""
    python_path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": python_path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    for name in ("CI", "GITHUB_ACTIONS", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    command = (sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "--rootdir", home, "-p", "no:cacheprovider",
               "-p", plugin, f"--junitxml={report}", *tests)  # fmt: skip
    done = subprocess.run([*map(str, command)], cwd=home, env=environment, capture_output=True, text=True, timeout=100)
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
