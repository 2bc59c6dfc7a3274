"""A target in the place of the plugin's bench file, and the codes of errors in what a run prints."""

from __future__ import annotations

import os
import pty
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.enumerators.bench import Bench

from .conftest import Suite

CAMERA = "dfu:0483:df11?bus.emulated=true&pace=0&component.emulated.part=stm32f405-dfu"
IMU = """
[bus.line]
kind = "serial"
emulated = true
pace = 0.0

[[component]]
name = "imu"
bus = "line"
protocol = "stm32-uart"
emulated = {part = "stm32f405xg", boot0 = true}
"""
TESTS = """
def test_its_bootloader_answers(flasher, component):
    assert component.name.startswith("stm32-uart-")
    assert flasher.connect().part
    flasher.leave()

@pytest.mark.destructive
def test_flash(component, firmware):
    component.flash(firmware.new.image)

def test_power(component, power): pass
"""


@pytest.fixture
def imu() -> Iterator[str]:
    """A bootloader behind a port of this host."""
    with tempfile.TemporaryDirectory(prefix="pf-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "bench.toml").write_text(IMU)
        bench = Bench.open(folder / "bench.toml", state=folder)
        stack.callback(bench.close)
        served = bench.emulated_wire("line").serve("line", folder)
        stack.callback(served.close)
        yield f"stm32-uart:{served.path}"


@pytest.mark.real_time("a port of this host")
def test_a_target_on_a_port(suite: Suite, imu: str) -> None:
    """With no bench file anywhere. It is hardware: nothing is written to it unless that is allowed."""
    suite.bench.unlink()
    done = suite.run(TESTS, "--bench", imu, bench=False)
    done.assert_outcomes(passed=1, skipped=2)
    done.stdout.fnmatch_lines_random(
        ["*which is hardware; allow it: --allow-flash", "*proxyflash bench add NAME TARGET"]
    )
    assert list(suite.folder.glob("*.toml")) == []

    for version in ("1.4.2", "1.5.0"):
        made = application.make(version, "part", "Acme", 3000, start=0x8000000)
        (suite.folder / f"arm-{version}.bin").write_bytes(made)
    images = ",".join(
        f'{{file="arm-{version}.bin",version="{version}",address=0x8000000}}' for version in ("1.4.2", "1.5.0")
    )
    done = suite.run(TESTS, "--bench", f"{imu}?images=[{images}]", "--allow-flash", "-k", "flash", bench=False)
    done.assert_outcomes(passed=1)


def test_an_emulated_target(suite: Suite) -> None:
    """What the JUnit file and the pages say of the bench has none of the target's settings, which may be secrets."""
    test = "def test_it(flasher, bench):\n    assert flasher.connect() and bench.only.name == 'dfu-0483-df11'"
    report = suite.folder / "junit.xml"
    more = (f"--junitxml={report}", "--bench-report", "pages")
    suite.run(test, "--bench", CAMERA, *more, bench=False).assert_outcomes(passed=1)
    told = {item.get("name"): item.get("value") for item in ET.parse(report).iter("property")}
    assert told["bench"] == "dfu:0483:df11"
    pages = [path.read_text() for path in (suite.folder / "pages").iterdir()]
    assert len(pages) == 2
    assert not [text for text in pages if "bus.emulated" in text]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bench", "stm32-urt:/dev/ttyUSB0"], "ERROR: E-TARGET-WRONG *Write: stm32-uart:/dev/ttyUSB0"),
        (["--bench", "uds:socketcan:can0"], "ERROR: E-TARGET-WRONG *uds:socketcan:can0?request=*"),
        (["--bench", "/dev/ttyUSB77"], "ERROR: E-BENCH-MISSING * name its protocol too: stm32-uart:/dev/ttyUSB77"),
        (["--bench", CAMERA, "--bench-profile", "there_is_none.toml"], "ERROR: E-BENCH-MISSING *there_is_none.toml*"),
        (["--bench", "desk.toml", "--bench-profile", "acme.toml"], "ERROR: --bench-profile goes with a target*"),
        (["--bench-profile", "acme.toml"], "ERROR: --bench-profile goes with a target*"),
    ],
)
def test_a_wrong_target_ends_the_run(suite: Suite, arguments: list[str], said: str) -> None:
    done = suite.run("def test_it(component): pass", *arguments, bench=False)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines([said.replace("[", "[[]")])


def test_a_path_with_a_colon_is_a_bench_file(suite: Suite) -> None:
    suite.bench.rename(suite.folder / "dfu:desk.toml")
    test = "def test_it(component): assert component.name"
    suite.run(test, "--bench", "dfu:desk.toml", bench=False).assert_outcomes(passed=3)


# What is not there.

PAIR = """
def test_one(component):
    pass

def test_two(component):
    pass
"""
ABSENT = """
[bus.line]
kind = "serial"
url = "/dev/none"

[[component]]
name = "imu"
bus = "line"
protocol = "stm32-uart"
"""


def test_a_part_that_the_command_line_names_must_be_there(suite: Suite) -> None:
    """It is reported once."""
    done = suite.run(PAIR, "--bench", "stm32-uart:/dev/none", bench=False)
    done.assert_outcomes(errors=1, skipped=1)
    done.stdout.fnmatch_lines([
        "'stm32-uart-none' is absent on bench 'stm32-uart-none': E-SERIAL-ABSENT *",
        "no test of the bench was run",
        "1 skipped because their part broke",
    ])  # fmt: skip


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["one", "two"])
def test_a_green_run_without_its_parts_says_so(suite: Suite, workers: tuple[str, ...]) -> None:
    suite.bench.write_text(ABSENT)
    done = suite.run(PAIR, *workers)
    done.assert_outcomes(skipped=2)
    done.stdout.fnmatch_lines([
        "2 skipped without their hardware: serial 2",
        "'imu' is absent: 2 skipped; --require serial lets them fail",
        "no test of the bench was run",
    ])  # fmt: skip


def test_a_run_that_tested_something_does_not_say_so(suite: Suite) -> None:
    done = suite.run(PAIR, "-k", "front")
    assert "no test of the bench" not in done.stdout.str()


def test_only_what_needs_a_version_is_skipped_without_one(suite: Suite) -> None:
    tests = """
@pytest.mark.needs("version")
def test_version(component):
    assert component.look().version

def test_other(component):
    pass
"""
    part = "stm32-uart:/dev/none?bus.emulated=true&bus.baudrate=115200&component.emulated.part=stm32f405xg"
    done = suite.run(tests, "--bench", part, "-rs", bench=False)
    done.assert_outcomes(passed=1, skipped=1)
    done.stdout.fnmatch_lines([
        "1 skipped because their part can't be asked for its version",
        "SKIPPED *: version unknown: * has no question; add version.send and version.match to the target",
    ])  # fmt: skip
    suite.run(tests, "-k", "front").assert_outcomes(passed=2)


@pytest.mark.real_time("a port of this host")
def test_a_part_that_has_never_answered_is_not_called_broken(suite: Suite) -> None:
    """It runs, so far as is known: only what needs its bootloader fails."""
    tests = """
@pytest.mark.needs("read")
def test_read(component):
    pass

def test_other(component):
    pass
"""
    ours, port = pty.openpty()
    try:
        part = f"stm32-uart:{os.ttyname(port)}?bus.baudrate=115200&answer=0.1"
        done = suite.run(tests, "--bench", part, bench=False)
    finally:
        os.close(ours)
        os.close(port)
    done.assert_outcomes(errors=1, passed=1)
    done.stdout.fnmatch_lines(["'stm32-uart-*' on bench * has not answered so far: E-PART-MUTE *"])


# Codes.


def test_a_failure_names_the_code(suite: Suite) -> None:
    """Also in the summary of a narrow terminal, in the JUnit file, and of an error behind another one."""
    done = suite.run(
        """
def test_flash(component):
    component.flash("there_is_none.hex")

def test_behind(component):
    try:
        component.flash("there_is_none.hex")
    except Exception as error:
        raise AssertionError("not flashed") from error

def test_caught(component):
    with pytest.raises(Exception) as caught:
        component.flash("there_is_none.hex")
    assert str(caught.value).startswith("there_is_none.hex can't be read")
""",
        *("-k", "front", f"--junitxml={suite.folder / 'junit.xml'}"),
    )
    done.assert_outcomes(failed=2, passed=1)
    said = "ImageMissing: E-IMAGE-MISSING there_is_none.hex can't be read"
    assert sum(line.startswith("E ") and said in line for line in done.outlines) == 2
    done.stdout.fnmatch_lines(["FAILED test_it.py::test_flash[[]front] - E-IMAGE-MISSING there*"])
    messages = [item.get("message", "") for item in ET.parse(suite.folder / "junit.xml").iter("failure")]
    assert messages[0].startswith("E-IMAGE-MISSING there_is_none.hex can't be read: ")


def test_a_bench_that_can_not_be_used_names_the_code(suite: Suite) -> None:
    suite.bench.write_text(
        '[bus.line]\nkind = "serial"\nurl = "/dev/none"\n[[component]]\nname = "imu"\nbus = "line"\nprotocol = "stm32-uart"\n'
    )
    done = suite.run("def test_it(component): pass", "--require", "serial")
    done.stdout.fnmatch_lines(["*'imu' is absent on bench 'desk': E-SERIAL-ABSENT *(--require serial)"])
