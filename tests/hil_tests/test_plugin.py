"""The pytest plugin: its options, its markers, what it skips and what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Outside, Suite

HEAVY = ("can", "serial", "usb", "pydantic", "click", "rich", "crcmod", "isotp", "udsoncan", "proxyflash.enumerators")


# What it costs those who don't use it.


def test_it_imports_pytest_and_the_standard_library_alone() -> None:
    listing = "import sys, proxyflash.hil_tests.plugin; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    assert "proxyflash.hil_tests.plugin" in loaded
    assert [name for name in HEAVY if name in loaded] == []


@pytest.mark.parametrize(
    ("named", "others"), [("proxyflash.hil_tests", False), ("proxyflash.hil_tests.real.test_avr", True)]
)
def test_the_suite_leaves_out_proxyflash_s_own_tests_unless_they_are_named(
    suite: Suite, named: str, others: bool
) -> None:
    done = suite.pytester.runpytest_subprocess(*suite.arguments("--pyargs", named, "--collect-only", "-q", bench=False))
    said = done.stdout.str()
    assert ("optiboot" in said) == others
    assert ("test_an_update_is_written_verified_and_runs" in said) != others
    assert "test_a_host_that_has_the_drivers_needs_no_guest" not in said


def test_a_suite_that_does_not_use_it_sees_nothing_of_it(suite: Suite) -> None:
    """Fixtures and markers of the same names are its own; nothing more is imported, and nothing is said."""
    (suite.folder / "conftest.py").write_text(
        """
import sys
import pytest

@pytest.fixture(params=["mine", "yours"])
def component(request):
    return request.param

@pytest.fixture
def power():
    return 9000

def pytest_sessionfinish():
    print("LOADED", [name for name in HEAVY if name in sys.modules])
""".replace("HEAVY", str(HEAVY))
    )
    suite.write("""
@pytest.mark.slow
@pytest.mark.destructive
@pytest.mark.needs("a rest", until="noon")
def test_mine(component, power):
    assert component in ("mine", "yours") and power == 9000

@pytest.mark.parametrize("bus", [7, 47])
def test_buses(bus):
    assert bus in (7, 47)
""")
    said = []
    for more in ((), ("-p", "no:proxyflash")):
        run = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-v", "--capture=no", *more]
        run += ["-W", "ignore::pytest.PytestUnknownMarkWarning"]
        done = subprocess.run(run, cwd=suite.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        said.append([line for line in done.stdout.splitlines() if not line.startswith(("plugins:", "====="))])
    assert said[0] == said[1]
    assert "LOADED []" in "\n".join(said[0])


# Which tests there are.


def names(suite: Suite, tests: str, *arguments: str) -> list[str]:
    """The tests that are collected, without their file."""
    done = suite.run(tests, "--collect-only", "-q", *arguments)
    assert done.ret == 0
    return [line.partition("::")[2] for line in done.outlines if "::" in line]


def test_one_test_for_each_component_that_fits(suite: Suite) -> None:
    found = names(
        suite,
        """
def test_all(component): pass

@pytest.mark.needs(name="imu")
def test_name(component): pass

@pytest.mark.needs(name=["imu", "camera"])
def test_names(component): pass

@pytest.mark.needs(group="radars")
def test_group(flasher): pass

@pytest.mark.needs(protocol="dfu")
def test_protocol(bus): pass

@pytest.mark.needs("can", "usb")
def test_buses(power): pass

@pytest.mark.needs("emulated", "serial")
def test_emulated(firmware): pass

@pytest.mark.needs("serial")
class TestJoined:
    @pytest.mark.needs(group="imus")
    def test_both(self, component): pass

def test_bench(bench): pass

def test_other(measurements, artefacts): pass
""",
    )
    assert found == [
        "test_all[front]", "test_all[imu]", "test_all[camera]", "test_name[imu]", "test_names[imu]",
        "test_names[camera]", "test_group[front]", "test_protocol[camera]", "test_buses[front]", "test_buses[camera]",
        "test_emulated[imu]", "TestJoined::test_both[imu]", "test_bench", "test_other",
    ]  # fmt: skip


def test_without_an_option_there_is_an_emulated_bench(suite: Suite) -> None:
    done = suite.run("def test_it(component):\n    assert component.emulated and component.look().version", bench=False)
    done.assert_outcomes(passed=done.parseoutcomes()["passed"])
    assert done.parseoutcomes()["passed"] >= 3


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (
            'needs("powr")',
            "'powr' is none of can, serial, udp, usb, power, version, emulated, hardware, read, digest, check, boot",
        ),
        ('needs(colour="red")', "'colour' is not a key; there are: name, group, protocol"),
    ],
)
def test_a_wrong_marker_is_told_when_it_is_collected(suite: Suite, marker: str, said: str) -> None:
    done = suite.run(f"@pytest.mark.{marker}\ndef test_it(component): pass")
    assert done.ret == pytest.ExitCode.INTERRUPTED
    done.stdout.fnmatch_lines([f"*test_it: needs: {said}"])


@pytest.mark.parametrize("option", ["--require=can,lin", "--require=CAN"])
def test_require_takes_what_it_knows(suite: Suite, option: str) -> None:
    done = suite.run("def test_it(): pass", option)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --require: '*' is none of can, serial, udp, usb, power"])


def test_a_bench_file_that_is_not_there(suite: Suite) -> None:
    suite.bench.unlink()
    done = suite.run("def test_it(): pass")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: *desk.toml: No such file or directory.*proxyflash bench init"])


def test_a_bench_file_that_does_not_hold(suite: Suite) -> None:
    suite.bench.write_text(suite.bench.read_text().replace("pace = 0.0", 'pace = "slow"', 1))
    done = suite.run("def test_it(): pass")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: *desk.toml:5: bus.powertrain.pace = 'slow': *"])


# What is skipped.

ANOTHER = "to *desk.toml, or name another: --bench FILE"
LIDARS = f"no component with group 'lidars' on bench 'desk'; add a [[component]] with group = \"lidars\" {ANOTHER}"
CAN_DFU = (
    "no component with protocol 'dfu' on a bus of kind can on bench 'desk'; "
    f'add a [bus.NAME] with kind = "can" and a [[component]] with protocol = "dfu" {ANOTHER}'
)
HARDWARE = "no hardware component on bench 'desk'; name a bench file that has one: --bench FILE"
SKIPPED = [
    ('needs("hardware")', "component", HARDWARE, ""),
    ('needs(group="lidars")', "component", LIDARS, ""),
    ('needs("can", protocol="dfu")', "component", CAN_DFU, "can"),
    ('needs("serial", name="front")', "bench", "no component with name 'front' on a bus of kind serial *", "serial"),
    ('needs("digest", name="camera")', "component", "the bootloader of 'camera' on bench 'desk' can't digest", ""),
]


@pytest.mark.parametrize(("marker", "fixture", "reason", "required"), SKIPPED)
def test_a_skip_says_what_is_missing_and_how_to_supply_it(
    suite: Suite, marker: str, fixture: str, reason: str, required: str
) -> None:
    tests = f"@pytest.mark.{marker}\ndef test_it({fixture}): pass"
    pattern = reason.replace("[", "[[]")
    done = suite.run(tests)
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines([f"SKIPPED [[]1] test_it.py:*: {pattern}"])
    done = suite.run(tests, "--require", "can,serial,usb,power")
    if required:
        done.assert_outcomes(errors=1)
        done.stdout.fnmatch_lines([f"{pattern} (--require {required})"])
    else:
        done.assert_outcomes(skipped=1)


def test_nobody_is_sent_to_the_bench_file_that_comes_with_the_package(suite: Suite) -> None:
    done = suite.run("@pytest.mark.needs(group='sonars')\ndef test_it(component): pass", bench=False)
    reason = "no component with group 'sonars' on bench 'emulated'; name a bench file that has one: --bench FILE"
    done.stdout.fnmatch_lines([f"SKIPPED [[]1] test_it.py:*: {reason}"])


def test_what_is_for_emulated_parts_alone_lacks_no_hardware(suite: Suite, hardware: Outside) -> None:
    tests = "@pytest.mark.needs('can', 'emulated')\ndef test_it(component): pass"
    done = suite.run(tests, "--require=can")
    done.assert_outcomes(skipped=1)
    reason = "no emulated component on a bus of kind can on bench 'desk'; run it without --bench, or add a bus *"
    done.stdout.fnmatch_lines(["1 skipped that are for emulated parts alone", f"SKIPPED [[]1] test_it.py:*: {reason}"])
    assert "want of hardware" not in done.stdout.str()


@pytest.mark.parametrize(("things", "on"), [("'emulated'", ""), ("'can', 'emulated'", " on a bus of kind can")])
def test_an_emulated_bench_lacks_a_component_and_no_bus(suite: Suite, things: str, on: str) -> None:
    done = suite.run(f"@pytest.mark.needs({things}, group='lidars')\ndef test_it(component): pass")
    reason = LIDARS.replace("no component", "no emulated component").replace("'lidars' on", f"'lidars'{on} on")
    done.stdout.fnmatch_lines([f"SKIPPED [[]1] test_it.py:*: {reason.replace('[[', '[[][[]')}"])


def test_a_supply_of_the_suites_own(suite: Suite, hardware: Outside) -> None:
    """Its fixture has the name of one of the plugin's, which the plugin takes for no wish for its own."""
    suite.run("""
@pytest.fixture
def power():
    return "a supply that is programmed"

def test_it(component, power):
    assert power.endswith("programmed")
""").assert_outcomes(passed=2)


def test_a_test_that_pytest_skips_needs_nothing(suite: Suite, hardware: Outside) -> None:
    hardware.unplug()
    done = suite.run("""
@pytest.mark.skip(reason="not today")
def test_it(component): pass

@pytest.mark.skipif(True, reason="not today")
@pytest.mark.needs("usb")
def test_usb(component): pass
""", "--require=can,usb")  # fmt: skip
    done.assert_outcomes(skipped=3)
    done.stdout.fnmatch_lines(["SKIPPED [[]2] test_it.py:*: not today"])


def test_a_plan_of_the_setup_opens_nothing(suite: Suite, hardware: Outside) -> None:
    hardware.unplug()
    done = suite.run("def test_it(component, power): pass", "--setup-plan")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["*test_it.py::test_it[[]front]*component*"])


@pytest.mark.parametrize(
    "test", ["@pytest.mark.needs('power')\ndef test_it(component): pass", "def test_it(power): pass"]
)
def test_a_supply_that_can_not_be_switched(suite: Suite, hardware: Outside, test: str) -> None:
    done = suite.run(test)
    done.assert_outcomes(passed=1, skipped=1)
    reason = "no power control for 'rear' on bench 'desk'; add [[]power.rear] to *desk.toml"
    done.stdout.fnmatch_lines(["1 skipped without their hardware: power 1", f"SKIPPED [[]1] test_it.py:*: {reason}"])
    done = suite.run(test, "--require=power")
    done.assert_outcomes(passed=1, errors=1)
    done.stdout.fnmatch_lines([f"{reason} (--require power)"])


def test_the_skips_are_counted_by_what_they_lack(suite: Suite) -> None:
    done = suite.run("""
@pytest.mark.needs("hardware")
def test_1(component): pass

@pytest.mark.needs("can", group="lidars")
@pytest.mark.parametrize("number", range(3))
def test_2(component, number): pass

@pytest.mark.needs("digest", name="camera")
def test_3(component): pass

def test_4(bench):
    pytest.skip("of its own")
""")
    done.assert_outcomes(skipped=6)
    done.stdout.fnmatch_lines([
        "*= proxyflash =*",
        "4 skipped without their hardware: can 3, hardware 1",
        "1 skipped because the bootloader of their part can't do what they need",
    ], consecutive=True)  # fmt: skip


def test_what_writes_to_hardware_has_to_be_allowed(suite: Suite, hardware: Outside) -> None:
    tests = """
@pytest.mark.destructive
@pytest.mark.needs(name="front")
def test_it(component, firmware):
    component.flash(firmware.new.image, expect_version="1.5.0")

@pytest.mark.destructive
def test_all(bench): pass
"""
    done = suite.run(tests)
    done.assert_outcomes(skipped=2)
    done.stdout.fnmatch_lines([
        "2 skipped without --allow-flash",
        "*: it writes to 'front' on bench 'desk', which is hardware; allow it: --allow-flash",
        "*: it writes to 'front', 'rear' on bench 'desk', which is hardware; allow it: --allow-flash",
    ])  # fmt: skip
    assert hardware.version("front") == "1.4.2"
    suite.run(tests, "--allow-flash").assert_outcomes(passed=2)
    assert hardware.version("front") == "1.5.0"


def test_emulated_parts_may_be_written_to(suite: Suite) -> None:
    done = suite.run("""
@pytest.mark.destructive
def test_it(component, firmware):
    result = component.flash(firmware.new.image, expect_version=firmware.new.version)
    assert result.version == "1.5.0" == component.look().version
""")
    done.assert_outcomes(passed=3)


def test_tests_that_lack_images(suite: Suite, hardware: Outside) -> None:
    suite.bench.write_text(suite.bench.read_text().replace(', {file = "radar-1.5.0.bin", version = "1.5.0"}', ""))
    done = suite.run("""
def test_old(firmware):
    assert firmware.old.version == "1.4.2"

def test_new(firmware):
    firmware.new

def test_made(firmware):
    firmware.made(version="2.0")
""")
    done.assert_outcomes(passed=1, skipped=5)
    done.stdout.fnmatch_lines([
        "5 skipped without test images (images of the component, in the bench file)",
        "*: 1 release wanted to test 'rear' with, the bench file has 0; add images = [[]{file = *}] to it in desk.toml",
        "*: 2 releases wanted to test 'front' with, the bench file has 1; add images = *",
        "*: firmware can be made for emulated parts only, and 'front' is hardware; mark the test: needs(\"emulated\")",
    ])  # fmt: skip


# The fixtures.


def test_the_fixtures_are_of_one_component(suite: Suite) -> None:
    done = suite.run("""
from proxyflash.transports.serial.port import SerialPort

@pytest.mark.needs(name="imu")
def test_it(bench, component, bus, flasher, firmware, artefacts):
    assert component.name == "imu" and component.bench is bench
    assert isinstance(bus, SerialPort) and bus is bench.transport("imu-uart")
    assert flasher.connect().part.startswith("STM32F40")
    assert [image.version for image in firmware.images] == ["1.4.2", "1.5.0"]
    assert firmware.old.image.size == firmware.new.path.stat().st_size
    made = firmware.made(version="7.0", size=1000)
    assert made.image.size == 1000
    assert artefacts.is_dir() and not list(artefacts.iterdir())

def test_supply(power, component):
    assert power.is_on
    power.off()
    assert not power.is_on and component.look().presence == "absent"
    power.on()
    assert power.is_on
    power.cycle()
    assert power.is_on
""")
    done.assert_outcomes(passed=4)


def test_artefacts_go_where_the_environment_says(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXYFLASH_ARTEFACTS", str(suite.folder / "kept"))
    suite.run("""
def test_it(component, artefacts):
    (artefacts / "scope.csv").write_text(component.name)
""").assert_outcomes(passed=3)
    kept = {path.parent.name: path.read_text() for path in Path(suite.folder / "kept").rglob("scope.csv")}
    assert kept == {f"test_it.py-test_it-{name}": name for name in ("front", "imu", "camera")}
