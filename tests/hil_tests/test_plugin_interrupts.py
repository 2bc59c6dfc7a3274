"""Ctrl-C, and what cancels a job: real signals to a real pytest, and what becomes of the parts behind its bench."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .conftest import Outside, Suite

pytestmark = pytest.mark.real_time("a pytest of its own")

TESTS = """
from pathlib import Path

@pytest.mark.needs(name="front")
def test_it(flasher, power, component):
    flasher.connect()
    DO
    Path("there").touch()
    import time
    while True:
        time.sleep(60)

def test_never_reached(component):
    raise AssertionError
"""


@contextmanager
def start(suite: Suite, tests: str, *arguments: str, shell: str = "") -> Iterator[subprocess.Popen[str]]:
    """`shell`: commands that come before it. It is killed in the end, if it still runs."""
    suite.write(tests)
    command = [sys.executable, "-m", "pytest", *map(str, suite.arguments(*arguments))]
    with subprocess.Popen(
        ["/bin/sh", "-c", f'{shell}\nexec "$@"', "sh", *command], cwd=suite.folder,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
@pytest.mark.parametrize("left", ["pass", "power.off()"])
def test_parts_end_powered_and_running(suite: Suite, hardware: Outside, number: int, left: str) -> None:
    with start(suite, TESTS.replace("DO", left)) as process:
        wait_for(suite.folder / "there", process)
        assert hardware.part("front").application_version is None
        process.send_signal(number)
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "KeyboardInterrupt" in said
    assert hardware.version("front") == "1.4.2", said
    assert hardware.part("front").supply.is_on


def test_ctrl_c_while_the_pages_are_written_leaves_the_summary(suite: Suite) -> None:
    """The second Ctrl-C comes while the page of all tests is written."""
    (suite.folder / "conftest.py").write_text("""
import os, signal
from proxyflash.hil_tests import pages

write = pages.write_index

def interrupted(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    return write(*arguments)

pages.write_index = interrupted
""")
    test = "import os, signal\ndef test_it(bench): os.kill(os.getpid(), signal.SIGINT)\n"
    with start(suite, test, "--bench-report", "pages") as process:
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "!!! KeyboardInterrupt !!!" in said
    assert "Traceback" not in said
    assert "interrupted: not all tests were run" in (suite.folder / "pages" / "index.html").read_text()


def test_a_terminal_that_goes(suite: Suite, hardware: Outside) -> None:
    """Nobody reads any more what the run says."""
    with start(suite, TESTS.replace("DO", "power.off()")) as process:
        wait_for(suite.folder / "there", process)
        assert process.stdout is not None
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        process.wait()
    assert hardware.version("front") == "1.4.2"


def test_a_worker_whose_run_is_cancelled(suite: Suite, hardware: Outside) -> None:
    """Started in the background of a script, where SIGINT is ignored, by which pytest-xdist ends its workers."""
    with start(suite, TESTS.replace("DO", "power.off()"), "-n", "1", shell="trap '' INT") as process:
        wait_for(suite.folder / "there", process)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert hardware.version("front") == "1.4.2", said


def test_a_worker_tells_after_ctrl_c_what_it_could_not_make_safe(suite: Suite, hardware: Outside) -> None:
    suite.bench.write_text(suite.bench.read_text().replace("echo on front >control; read done <done", "exit 9"))
    with start(suite, TESTS.replace("DO", "power.off()"), "-n", "1") as process:
        wait_for(suite.folder / "there", process)
        os.killpg(process.pid, signal.SIGINT)  # As a terminal does.
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert said.count("bench 'desk': 'front' is left as it is: E-POWER front: 'exit 9' ended with 9") == 1


def test_a_second_ctrl_c_leaves_no_supply_off(suite: Suite, hardware: Outside) -> None:
    """It comes while the supply is being switched on."""
    slowly = "echo on >switching; until test -e sent; do sleep 0.05; done; echo on front >control; read done <done"
    suite.bench.write_text(suite.bench.read_text().replace("echo on front >control; read done <done", slowly))
    with start(suite, TESTS.replace("DO", "power.off()")) as process:
        wait_for(suite.folder / "there", process)
        process.send_signal(signal.SIGINT)
        wait_for(suite.folder / "switching", process)
        process.send_signal(signal.SIGINT)
        (suite.folder / "sent").touch()
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert hardware.version("front") == "1.4.2", said


def test_a_torn_part_gets_its_firmware_back(suite: Suite, hardware: Outside) -> None:
    tests = """
import os, signal
from proxyflash.flashers.events import Progress, RunContext

@pytest.mark.destructive
@pytest.mark.needs(name="front")
def test_it(component, firmware):
    def interrupt(event):
        if isinstance(event, Progress) and event.phase == "write":
            os.kill(os.getpid(), signal.SIGINT)
    component.flash(firmware.new.image, context=RunContext(interrupt))
"""
    with start(suite, tests, "--allow-flash") as process:
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert hardware.version("front") == "1.4.2", said


def test_without_leave_to_flash_it_says_how_a_torn_part_was_left(suite: Suite, hardware: Outside) -> None:
    tests = """
import os, signal
from proxyflash.flashers.events import Progress, RunContext

@pytest.mark.needs(name="front")
def test_it(component, firmware):
    def interrupt(event):
        if isinstance(event, Progress) and event.phase == "write":
            os.kill(os.getpid(), signal.SIGINT)
    component.flash(firmware.new.image, context=RunContext(interrupt))
"""
    with start(suite, tests) as process:
        said, _ = process.communicate()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, said
    assert "bench 'desk': 'front' is left as it is: it stays in its bootloader; --allow-flash would flash it" in said
    assert hardware.version("front") is None
