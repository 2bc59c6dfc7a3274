"""The wheel: built from a copy of this tree, installed where nothing else is, it holds what it should and runs the demo."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from proxyflash.tests.shared import once

ROOT = Path(__file__).parent.parent
PIP = (sys.executable, "-m", "pip")
pytestmark = [pytest.mark.timeout(900), pytest.mark.real_time("an installation")]


def run(*command: str | Path, folder: Path) -> str:
    """Its stdout. Without what this environment would lend to it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment |= {"HOME": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the tree as it is, without what its own builds left in it."""

    def make(folder: Path) -> None:
        ignored = shutil.ignore_patterns("build", "dist", ".venv", ".git", "*.egg-info", "__pycache__", ".hypothesis")
        source = folder / "source"
        shutil.copytree(ROOT, source, ignore=ignored, symlinks=True)
        # The build's own requirements come from the index, as they do for anybody.
        run(*PIP, "wheel", "-q", "--no-deps", "-w", folder, source, folder=folder)

    [made] = once(tmp_path_factory, "wheel", make).glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and what it requires, and nothing else."""

    def make(folder: Path) -> None:
        run(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
        run(*PIP, "--python", folder / "bin" / "python", "install", "-q", "--no-compile", wheel, folder=folder)

    return once(tmp_path_factory, "environment", make)


def test_it_holds_the_package_and_nothing_with_a_common_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"proxyflash"}
    tops = {name.split("/")[1] for name in names if name.startswith("proxyflash/")}
    assert not tops & {"setup.py", "tests", "benchmarks", "conftest.py", "build"}
    held = set(names)
    assert {f"proxyflash/docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} <= held
    assert {
        "proxyflash/py.typed",
        "proxyflash/__init__.py",
        "proxyflash/flashers/stm32/parts.toml",
        "proxyflash/emulators/uds/parts.toml",
        "proxyflash/examples/three_sensors/bench.toml",
        "proxyflash/examples/three_sensors/update/update.importmanifest.json",
        "proxyflash/examples/three_sensors/update/check-supply.sh",
        "proxyflash/examples/three_sensors/firmware/imu-1.4.2.bin",
    } <= held
    vacuum = ROOT / "examples" / "vacuum"
    for path in vacuum.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert f"proxyflash/examples/vacuum/{path.relative_to(vacuum)}" in held
    # Each data file and each module of the packages, whichever are added.
    for package in (
        "transports",
        "flashers",
        "enumerators",
        "updates",
        "emulators",
        "tools",
        "hil_tests",
        "testing",
        "examples",
    ):
        for path in (ROOT / package).rglob("*"):
            # Tests of the kernel's drivers, and of real bootloaders, are for this tree alone.
            if path.suffix in (".py", ".toml", ".bin", ".sh") and not {"__pycache__", "kernel", "real"} & set(
                path.parts
            ):
                assert f"proxyflash/{path.relative_to(ROOT)}" in held


def test_it_fits_each_version_of_python_on_this_processor(wheel: Path) -> None:
    """Its library in C is for the update agent, and knows nothing of Python: PEP 425's tag names no interpreter."""
    _, _, python, abi, platform = wheel.stem.split("-")
    assert (python, abi) == ("py3", "none")
    assert platform.startswith("linux_")
    with zipfile.ZipFile(wheel) as archive:
        [facts] = [name for name in archive.namelist() if name.endswith(".dist-info/WHEEL")]
        assert f"Tag: py3-none-{platform}\n" in archive.read(facts).decode()
        libraries = [name for name in archive.namelist() if name.endswith(".so")]
    assert libraries == (["proxyflash/tools/adu/libproxyflash_adu.so"] if shutil.which("cc") else [])


def test_it_installs_alone_and_runs_the_demo(environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    run(*PIP, "--python", python, "check", folder=tmp_path)
    where = run(python, "-c", "import proxyflash; print(proxyflash.__path__[0])", folder=tmp_path).strip()
    assert Path(where).is_relative_to(environment)
    program = environment / "bin" / "proxyflash"
    shown = run(program, "demo", "first-try", folder=tmp_path)
    scans = re.findall(r"^\$ proxyflash --state state scan\n((?:.+\n)+)", shown, re.MULTILINE)
    assert [(scan.count("1.4.2"), scan.count("1.5.0")) for scan in scans] == [(3, 0), (0, 3)]
    assert re.findall(r"^(\S+)  OK", shown, re.MULTILINE) == ["host", "front-radar", "imu", "camera"]
    assert "README.md goes on from here" in run(program, "demo", "--example", "vacuum", "vacuum", folder=tmp_path)
    assert "BROKEN" not in run(program, "plugins", folder=tmp_path)
    # The commands of the README, in the folder that the demo made.
    first_try = tmp_path / "first-try"
    assert run(program, "--state", "state", "scan", folder=first_try).count("1.5.0") == 3
    plan = run(program, "--state", "state", "plan", "update/update.importmanifest.json", folder=first_try)
    assert plan.count("(installed already)") == 3


def test_its_suite_runs_where_it_is_installed(environment: Path, tmp_path: Path) -> None:
    python = environment / "bin" / "python"
    # Beside the environment, which stays as it is for the other test.
    run(*PIP, "--python", python, "install", "-q", "--no-compile", "--target", tmp_path / "pytest", "pytest",
        folder=tmp_path)  # fmt: skip
    start = f"import sys; sys.path.append({str(tmp_path / 'pytest')!r}); import pytest; sys.exit(pytest.console_main())"
    said = run(python, "-c", start, "-q", "--pyargs", "proxyflash.hil_tests", "-k", "scan_finds or declined or protected",
               "-W", "error", folder=tmp_path)  # fmt: skip
    assert re.search(r"^15 passed, \d+ deselected", said, re.MULTILINE), said
