"""`doctor` and `plugins`: what keeps this host from working is found, and named with its fix."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from .conftest import Desk, Done

pytestmark = pytest.mark.real_time("child programs")


def run_with(desk: Desk, packages: Path, *arguments: str) -> Done:
    """A command in an environment with more packages in it."""
    process = desk.start(*arguments, env=os.environ | {"PYTHONPATH": str(packages)})
    out, err = process.communicate(timeout=600)
    return Done(process.returncode, out, err)


def package(folder: Path, name: str, **files: str) -> Path:
    """Installs a package without a module: its metadata alone."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    for file, text in files.items():
        (info / f"{file}.txt").write_text(text)
    return folder


def test_each_check_passes_or_names_its_fix(desk: Desk) -> None:
    done = desk.run("doctor", "--json")
    checks = done.document["checks"]
    assert all(check["passed"] or check["fix"] for check in checks)
    titles = {check["title"]: check["passed"] for check in checks}
    assert [titles[f"bus {bus} opens"] for bus in ("powertrain", "imu-uart", "usb")] == [True] * 3
    assert any(title.startswith("python-can ") for title in titles)
    assert done.status == (1 if False in titles.values() else 0)


def test_it_works_without_a_bench(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    from proxyflash.tools import commands

    assert commands.run(["doctor"]) in (0, 1)


def test_a_bus_that_does_not_open(desk: Desk) -> None:
    desk.bench.write_text('[bus.line]\nkind = "serial"\nurl = "/dev/none"\n')
    done = desk.run("doctor", "line")
    assert done.status == 1
    lines = done.out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("FAIL bus line: E-SERIAL-ABSENT"))
    assert re.search("/dev/serial/by-id|Name one of these ports|Is the adapter plugged in", lines[at + 1])
    done = desk.run("doctor", "other")
    assert (done.status, "it has: line" in done.err) == (2, True)


def test_a_package_that_takes_another_s_name(desk: Desk, tmp_path: Path) -> None:
    """As the package `serial` of PyPI does to pyserial."""
    done = run_with(desk, package(tmp_path / "more", "serial", top_level="serial\n"), "doctor")
    assert done.status == 1
    assert "FAIL pyserial and serial both provide the module 'serial'" in done.out
    assert "pip uninstall serial; pip install --force-reinstall pyserial" in done.out


def test_a_broken_plugin_is_named_and_stops_nothing(desk: Desk, tmp_path: Path) -> None:
    entry = "[proxyflash.flashers]\nxcp = acme_xcp:Flasher\n"
    more = package(tmp_path / "more", "acme-xcp", entry_points=entry)
    done = run_with(desk, more, "plugins")
    assert done.status == 1
    [line] = [line for line in done.out.splitlines() if "BROKEN" in line]
    assert line.split()[:2] == ["xcp", "acme-xcp"]
    assert "No module named 'acme_xcp'" in line
    assert "FAIL plugin xcp of acme-xcp" in run_with(desk, more, "doctor").out
    scanned = run_with(desk, more, "scan")
    assert (scanned.status, scanned.err) == (0, "")


def test_the_built_in_plugins(desk: Desk) -> None:
    done = desk.run("plugins", "--json")
    found = {(item["group"].removeprefix("proxyflash."), item["name"]) for item in done.document["plugins"]}
    assert {("flashers", "uds"), ("flashers", "stm32-uart"), ("flashers", "dfu")} <= found
    assert {("steps", "microsoft/script:1"), ("steps", "proxyflash/flash:1")} <= found
    assert "BROKEN" not in desk.run("plugins").out
