"""A package of its own subclasses the contract: a good flasher passes, and each kind of bad one fails by name."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FLASHERS = """
from proxyflash.flashers.avr.stk500v1 import Stk500v1Flasher
from proxyflash.flashers.errors import PartWrongMode
from proxyflash.flashers.flasher import Capability
from proxyflash.flashers.memory import Range

class Good(Stk500v1Flasher):
    protocol = "acme-good"

class Hasty(Good):
    protocol = "acme-hasty"

    def memory_map(self, target=None):
        list(self.erase([Range(0x1000, 128)]))  # Before the image is checked.
        return super().memory_map(target)

class Trusting(Good):
    protocol = "acme-trusting"

    def connect(self):
        identity = super().connect()
        self.capabilities = Capability.CHECK | Capability.BOOT
        return identity

    def judge(self, segments):
        return "trust"

class Quitting(Good):
    protocol = "acme-quitting"

    def connect(self):
        identity = super().connect()
        if b"SENSORFW" not in b"".join(self.read(0, 512)):
            raise PartWrongMode("there is no application")
        return identity
"""
TESTS = """
from proxyflash.testing import CONTRACT_VERSION, MemoryContract, Sizes

assert CONTRACT_VERSION >= 1

class TestGood(MemoryContract):
    protocol = "acme-good"
    bus = {"kind": "serial", "baudrate": 115200, "dtr": False, "rts": False}
    component = {
        "version": {"send": "VER?\\r", "match": "FW ([0-9.]+)"},
        "profile": {"answer": 1.0, "entry": {"discharge": 0.001, "settle": 0.005}},
    }
    emulated = {"part": "atmega328p-optiboot", "boot_window": 20}
    sizes = Sizes(old=1000, new=1200, short=500)
    paced = 1

class TestHasty(TestGood):
    protocol = "acme-hasty"

class TestTrusting(TestGood):
    protocol = "acme-trusting"

class TestQuitting(TestGood):
    protocol = "acme-quitting"
"""
NAMES = ("good", "hasty", "trusting", "quitting")
SECONDS = 300
BAD = {
    "TestHasty": {
        "test_an_image_that_is_too_large_is_refused",
        "test_a_misplaced_image_is_refused",
        "test_a_part_that_a_plan_was_made_for_runs_again",
    },
    "TestTrusting": {
        "test_verifying_looks_at_the_part",
        "test_a_byte_that_the_flash_does_not_take_is_noticed",
    },
    "TestQuitting": {"test_supply_lost_at_each_flash_operation[0-0]"},
}
"""What each bad flasher fails."""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A folder with an installed package, and with its tests."""
    about = tmp_path / "site" / "acme_boot-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-boot\nVersion: 1.0\n")
    lines = ["[proxyflash.flashers]", *(f"acme-{name} = acme_boot:{name.title()}" for name in NAMES)]
    emulator = "proxyflash.emulators.avr.stk500v1:Stk500v1Device"
    lines += ["[proxyflash.emulators]", *(f"acme-{name} = {emulator}" for name in NAMES)]
    (about / "entry_points.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "site" / "acme_boot.py").write_text(FLASHERS)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_acme.py").write_text(TESTS)
    return tmp_path


def run(package: Path, *arguments: str) -> tuple[str, dict[str, set[str]]]:
    """What a plain pytest prints, and the names of the tests that passed and failed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", *arguments],
        cwd=package / "tests",
        env={**os.environ, "PYTHONPATH": str(package / "site")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    found = re.findall(r"^(PASSED|FAILED|ERROR|SKIPPED) test_acme\.py::\w+::(\S+)", said, re.MULTILINE)
    return said, {how: {name for outcome, name in found if outcome == how} for how, _ in found}


WHOLE = "test_an_update_that_nothing_interrupts[0]"
"""What all of them pass."""


def test_a_good_flasher_passes(package: Path) -> None:
    names = {WHOLE, "test_any_unit_of_the_wire_may_be_faulty[drop]"}.union(*BAD.values())
    said, tests = run(package, *(f"test_acme.py::TestGood::{name}" for name in names))
    assert tests == {"PASSED": names}, said


@pytest.mark.parametrize("name", BAD)
def test_a_bad_flasher_fails_by_name(package: Path, name: str) -> None:
    said, tests = run(package, *(f"test_acme.py::{name}::{test}" for test in {WHOLE} | BAD[name]))
    assert tests == {"PASSED": {WHOLE}, "FAILED": BAD[name]}, said


def test_a_failure_names_the_place_and_is_repeated_alone(package: Path) -> None:
    said, _ = run(package, "test_acme.py::TestQuitting::test_supply_lost_at_each_flash_operation[0-0]")
    match = re.search(r"supply lost at flash operation \d+ of \d+; this place alone: '(\S+)' --only-cut (\d+)", said)
    assert match, said
    again, tests = run(package, match[1], "--only-cut", match[2])
    assert match[0] in again
    assert set(tests) == {"FAILED"}
