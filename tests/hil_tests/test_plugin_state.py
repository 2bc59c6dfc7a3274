"""What a bench test finds and leaves: parts brought back, what broke reported once, everything safe at the end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from proxyflash.enumerators.state import bench_folder

from .conftest import POWER, Outside, Suite

pytestmark = pytest.mark.real_time("a pytest of its own")

# Brought back between tests.


def test_each_test_finds_its_part_powered_and_running(suite: Suite) -> None:
    done = suite.run("""
def test_off(component, power):
    power.off()

def test_after_off(component):
    assert component.look().presence == "ok"

def test_bootloader(flasher):
    flasher.connect()

def test_after_bootloader(component):
    assert component.look().presence == "ok"

def test_cut(component, bench, firmware):
    bench.emulated_device(component.name).supply.cut_at(20)
    with pytest.raises(Exception):
        component.flash(firmware.new.image)
    assert not bench.emulated_device(component.name).supply.is_on

def test_after_cut(component):
    assert component.look().presence == "ok"
    assert component.look().version in ("1.4.2", "1.5.0")
""")
    done.assert_outcomes(passed=18)


def test_faults_that_a_test_orders_end_with_it(suite: Suite) -> None:
    done = suite.run("""
from dataclasses import replace

@pytest.mark.parametrize("fault", ["drop", "disconnect_after"])
def test_fault(component, bench, fault):
    faults = bench.emulated_wire(component.entry.spec.bus).faults
    faults.plan = replace(faults.plan, **{fault: 1})
    try:
        component.look()
    except Exception as error:
        assert "GONE" in error.code

@pytest.mark.parametrize("number", range(2))
def test_after(component, number):
    assert component.look().presence == "ok"

@pytest.mark.parametrize("number", range(2))
def test_planned(component, bench, number):
    bench.emulated_device(component.name).supply.cut_at(1)

def test_flash(component, firmware):
    component.flash(firmware.new.image)
""")
    done.assert_outcomes(passed=21)


def test_what_comes_in_late_is_not_for_the_next_test(suite: Suite) -> None:
    """Of a part that can't be asked for its version: to ask would forget it too."""
    suite.bench.write_text(re.sub("^version = .*$", "", suite.bench.read_text(), flags=re.MULTILINE))
    done = suite.run("""
@pytest.mark.needs(name="imu")
def test_late(bus, bench):
    bench.emulated_wire("imu-uart").device.send(b"late")

@pytest.mark.needs(name="imu")
def test_hears_nothing(bus):
    assert bus.drain() == b""
""")
    done.assert_outcomes(passed=2)


def test_buses_stay_open(suite: Suite) -> None:
    done = suite.run("""
SEEN = set()

@pytest.mark.needs("can")
@pytest.mark.parametrize("number", range(3))
def test_it(bus, bench, number):
    SEEN.add((id(bus), id(bench)))
    assert len(SEEN) == 1
""")
    done.assert_outcomes(passed=3)


def test_each_run_begins_with_parts_as_from_the_factory(suite: Suite) -> None:
    tests = """
@pytest.mark.needs("can")
def test_it(component, firmware):
    assert component.look().version == "1.4.2"
    component.flash(firmware.new.image)
"""
    suite.run(tests).assert_outcomes(passed=1)
    suite.run(tests).assert_outcomes(passed=1)


def test_an_emulated_part_without_a_firmware_stays_without(suite: Suite) -> None:
    suite.bench.write_text(suite.bench.read_text().replace(', firmware = "radar.bin"', ""))
    done = suite.run("""
@pytest.mark.needs("can")
@pytest.mark.parametrize("number", range(2))
def test_it(component, number):
    assert component.look().presence == "bootloader"
""")
    done.assert_outcomes(passed=2)


def test_hardware_is_brought_back_by_its_protocol(suite: Suite, hardware: Outside) -> None:
    """rear has no power control."""
    done = suite.run("""
def test_bootloader(flasher):
    flasher.connect()

def test_after(component):
    assert component.look().presence == "ok"
""")
    done.assert_outcomes(passed=4)
    assert hardware.switched == []


TORN = """
@pytest.mark.destructive
@pytest.mark.needs(name={name!r})
def test_torn(component, firmware):
    from proxyflash.flashers.errors import Cancelled
    from proxyflash.flashers.events import Progress, RunContext
    seen = []
    def writes():
        return any(isinstance(event, Progress) and event.phase == "write" for event in seen)
    with pytest.raises(Cancelled):
        component.flash(IMAGE, context=RunContext(seen.append, writes))
    assert component.look().presence == "bootloader"

@pytest.mark.needs(name={name!r})
def test_after(component):
    assert component.look().version == "1.4.2"

@pytest.mark.needs(name={name!r})
def test_last(component):
    pass
"""


def test_a_torn_part_gets_the_release_that_it_ran(suite: Suite, hardware: Outside) -> None:
    done = suite.run(TORN.format(name="front").replace("IMAGE", "firmware.new.image"), "--allow-flash")
    done.assert_outcomes(passed=3)
    assert hardware.version("front") == "1.4.2"


def test_a_torn_part_without_releases_is_broken(suite: Suite, hardware: Outside) -> None:
    done = suite.run(
        TORN.format(name="rear").replace("IMAGE", "'radar-1.5.0.bin'").replace(", firmware", ""), "--allow-flash"
    )
    done.assert_outcomes(passed=1, errors=1, skipped=1)
    cause = "it stays in its bootloader; with images in the bench file it would be flashed"
    done.stdout.fnmatch_lines([f"*'rear' is broken since test_it.py::test_torn[[]rear]: {cause}"])


# What breaks.


def test_a_part_that_falls_silent_is_told_once(suite: Suite, hardware: Outside) -> None:
    """The first test fails on its own; from then on the part is known to be broken, and the other one is not."""
    suite.bench.write_text(suite.bench.read_text().partition("[power.front]")[0])
    done = suite.run("""
def test_before(component):
    pass

def test_cut(component, flasher):
    if component.name == "front":
        outside("off front")
    flasher.connect()

def test_after(component):
    pass

def test_bench(bench):
    pass
""")
    done.assert_outcomes(passed=5, failed=1, skipped=1)
    why = "nothing answers at uds 0x7E0/0x7E8 on bus 'powertrain', and no [[]power.front] to restart it by"
    done.stdout.fnmatch_lines([
        "1 skipped because their part broke",
        f"SKIPPED *: 'front' is broken since test_it.py::test_cut[[]front]: {why}",
        "FAILED test_it.py::test_cut[[]front] - *",
    ])  # fmt: skip


def test_a_part_that_a_passing_test_lost_is_told_once_by_the_next(suite: Suite, hardware: Outside) -> None:
    suite.bench.write_text(suite.bench.read_text().partition("[power.front]")[0])
    done = suite.run("""

@pytest.mark.needs(name="front")
def test_cut(component):
    outside("off front")

@pytest.mark.needs(name="front")
@pytest.mark.parametrize("number", range(3))
def test_after(component, number):
    pass
""")
    done.assert_outcomes(passed=1, errors=1, skipped=2)
    done.stdout.fnmatch_lines(["'front' is broken since test_it.py::test_cut[[]front]: nothing answers at uds 0x7E0*"])


def test_an_adapter_that_is_gone_takes_all_parts_of_its_bus(suite: Suite, hardware: Outside) -> None:
    done = suite.run("""

def test_before(component):
    pass

@pytest.mark.needs(name="front")
def test_unplug(component, flasher):
    outside("unplug")
    flasher.connect()

def test_after(component):
    pass

def test_without():
    pass
""")
    done.assert_outcomes(passed=3, failed=1, skipped=2)
    done.stdout.fnmatch_lines([
        "2 skipped because their part broke",
        "SKIPPED *: 'front' is broken since test_it.py::test_unplug[[]front]: E-CAN-GONE powertrain: *",
        "SKIPPED *: 'rear' is broken since test_it.py::test_unplug[[]front]: E-CAN-GONE powertrain: *",
    ])  # fmt: skip


def test_a_supply_that_can_not_be_switched_breaks_its_part(suite: Suite, hardware: Outside) -> None:
    text = suite.bench.read_text().replace("echo off front >control; read done <done", "echo no such hub; exit 3")
    suite.bench.write_text(text)
    done = suite.run("""
def test_cycle(power):
    power.cycle()

def test_after(component):
    pass
""", "--require=can")  # fmt: skip
    done.assert_outcomes(passed=1, failed=1, skipped=2)
    done.stdout.fnmatch_lines(["*'front' is broken since test_it.py::test_cycle[[]front]: *ended with 3: no such hub*"])
    assert hardware.switched == ["on front"]


@pytest.mark.parametrize("gone", ["part", "adapter"])
def test_what_is_absent_from_the_start_is_skipped_or_required(suite: Suite, hardware: Outside, gone: str) -> None:
    if gone == "part":
        hardware.part("rear").supply.off()
        missing, passed = "nothing answers at uds 0x7E1/0x7E9 on bus 'powertrain'", 2
    else:
        hardware.unplug()
        missing, passed = "*", 0
    tests = """
def test_one(component):
    pass

def test_all(bench):
    pass
"""
    done = suite.run(tests)
    done.assert_outcomes(passed=passed or 1, skipped=1 if passed else 2)
    done.stdout.fnmatch_lines([
        f"{1 if passed else 2} skipped without their hardware: can {1 if passed else 2}",
        f"SKIPPED *: 'rear' is absent on bench 'desk': {missing}",
    ])  # fmt: skip
    done = suite.run(tests, "--require", "can")
    done.assert_outcomes(passed=passed or 1, errors=1 if passed else 2)
    done.stdout.fnmatch_lines([f"'rear' is absent on bench 'desk': {missing} (--require can)"])


def test_a_supply_that_was_left_off_is_switched_on(suite: Suite, hardware: Outside) -> None:
    """By a run that was killed. It is tried once: a part that isn't there has no time spent on it in each test."""
    tests = """
@pytest.mark.parametrize("number", range(2))
@pytest.mark.needs(name="front")
def test_it(component, number):
    assert component.look().version == "1.4.2"
"""
    hardware.part("front").supply.off()
    suite.run(tests).assert_outcomes(passed=2)
    assert hardware.switched == ["on front"]
    hardware.part("front").supply.off()
    suite.bench.write_text(suite.bench.read_text().replace("echo on front >control; read done <done", "echo on >>log"))
    suite.bench.write_text(suite.bench.read_text().replace("boot_timeout = 3", "boot_timeout = 0.5"))
    suite.run(tests).assert_outcomes(skipped=2)
    assert (suite.folder / "log").read_text() == "on\n"


# The end.


def test_at_the_end_parts_are_powered_and_run(suite: Suite, hardware: Outside) -> None:
    suite.run("""
@pytest.mark.needs(name="front")
def test_off(power):
    power.off()

@pytest.mark.needs(name="rear")
def test_bootloader(flasher):
    flasher.connect()
""").assert_outcomes(passed=2)
    assert hardware.switched == ["off front", "on front"]
    assert [hardware.version(name) for name in ("front", "rear")] == ["1.4.2", "1.4.2"]


def test_what_can_not_be_made_safe_fails_the_run(suite: Suite, hardware: Outside) -> None:
    suite.bench.write_text(suite.bench.read_text().replace("echo on front >control; read done <done", "exit 9"))
    done = suite.run("""
@pytest.mark.needs(name="front")
def test_off(power):
    power.off()
""")
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["bench 'desk': 'front' is left as it is: E-POWER front: 'exit 9' ended with 9.*"])


def test_all_supplies_are_on_before_any_part_is_waited_for(suite: Suite, hardware: Outside) -> None:
    """front doesn't come back."""
    text = suite.bench.read_text().replace("echo on front >control; read done <done", "echo front >>log")
    rear = POWER.format(name="rear").replace("echo on rear", "echo rear >>log; echo on rear")
    suite.bench.write_text(text.replace("boot_timeout = 3", "boot_timeout = 0.5", 1) + rear)
    done = suite.run("""
@pytest.mark.needs(group="radars")
def test_off(bench, request):
    run = request.getfixturevalue("_proxyflash_run")
    for name in ("front", "rear"):
        run.parts.of(name).power.off()
""")
    done.assert_outcomes(passed=1)
    assert (suite.folder / "log").read_text().split()[:2] == ["front", "rear"]
    assert hardware.part("rear").supply.is_on
    done.stdout.fnmatch_lines(["bench 'desk': 'front' is left as it is: nothing answers *"])


# One process at a time.

HOLD = """
import sys
from pathlib import Path
from proxyflash.enumerators.state import BenchLock
with BenchLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_bench_that_another_process_uses(suite: Suite, hardware: Outside, tmp_path: Path) -> None:
    folder = bench_folder(tmp_path / "state", suite.bench)
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        done = suite.run("""
def test_one(component):
    pass

def test_all(bench):
    pass

def test_without():
    pass
""")
        process.communicate("")
    done.assert_outcomes(passed=1, errors=1, skipped=2)
    said = f"E-BENCH-LOCKED this bench is in use by process {process.pid} since *"
    done.stdout.fnmatch_lines([
        f"bench 'desk': {said}",
        "2 skipped because the bench was out of use",
        f"SKIPPED [[]1] *: bench 'desk' is out of use since test_it.py::test_one[[]front]: {said}",
    ])  # fmt: skip
    assert "another exception" not in done.stdout.str()


def test_the_bench_is_locked_until_the_end(suite: Suite, hardware: Outside) -> None:
    tests = """
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.errors import BenchLocked

def test_it(component):
    with pytest.raises(BenchLocked), Bench.open("desk.toml") as other:
        other.scan()
"""
    suite.run(tests).assert_outcomes(passed=2)
    suite.run(tests).assert_outcomes(passed=2)
