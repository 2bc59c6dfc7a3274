"""The parts themselves, with nothing of ours at the other end: MCUboot swaps, reverts and survives cuts, as smpclient sees it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import serial
from proxyflash.hil_tests.real import zephyr_firmware as firmware
from proxyflash.hil_tests.real.conftest import Smpclient
from proxyflash.hil_tests.real.zephyr import Microbit, Mps2

pytestmark = pytest.mark.timeout(300)
ERASES = 100
"""Pages that MCUboot erases in the swap of these two images: 49 in each slot, and the two trailers'."""
REVERT_ERASES = 103


def test_an_upload_leaves_what_the_tests_begin_with(
    microbit: Microbit, smpclient: Smpclient, pending: bytes, old: bytes, new: bytes, new_file: Path
) -> None:
    digest = firmware.digest_of(new).hex()
    *_, told = smpclient(microbit.url, "upload", new_file, "test", digest)
    assert [(image["version"], image["hash"]) for image in told] == [
        ("0.0.0", firmware.digest_of(old).hex()),
        ("2.1.0", digest),
    ]
    assert microbit.flash() == pending


def test_an_image_on_trial_runs_and_is_taken_back(
    microbit: Microbit, smpclient: Smpclient, pending: bytes, old: bytes, new: bytes
) -> None:
    microbit.load(pending)
    assert microbit.holds(new)
    on_trial, _, _, taken_back = smpclient(microbit.url, "state", "reset", "wait", "state")
    assert [(image["version"], image["active"], image["confirmed"]) for image in on_trial] == [
        ("2.1.0", True, False),
        ("0.0.0", False, True),
    ]
    assert (taken_back[0]["version"], taken_back[0]["active"]) == ("0.0.0", True)
    assert microbit.holds(old)


def test_a_confirmed_image_stays(microbit: Microbit, smpclient: Smpclient, pending: bytes, new: bytes) -> None:
    microbit.load(pending)
    digest = firmware.digest_of(new).hex()
    *_, told = smpclient(microbit.url, "confirm", digest, "reset", "wait", "state")
    assert (told[0]["version"], told[0]["active"], told[0]["confirmed"]) == ("2.1.0", True, True)
    assert microbit.holds(new)


def test_a_cut_at_any_moment_of_a_swap_or_a_revert_ends_with_one_of_the_two(
    microbit: Microbit, pending: bytes, old: bytes, new: bytes
) -> None:
    assert microbit.cut_at(flash=pending) == [ERASES]
    assert microbit.holds(new)
    assert microbit.cut_at() == [REVERT_ERASES]
    assert microbit.holds(old)
    for cut in range(1, ERASES, 14):
        done, after = microbit.cut_at(cut, flash=pending)
        # What was being erased is erased again.
        assert (done, done + after) == (cut, ERASES + 1)
        assert microbit.holds(new)
        microbit.cut_at(cut, cut // 2 + 1)
        assert microbit.holds(old)


def test_an_image_that_was_changed_is_not_started(
    microbit: Microbit, smpclient: Smpclient, pending: bytes, old: bytes
) -> None:
    changed = bytearray(pending)
    at = changed.index(firmware.MAGIC.to_bytes(4, "little"), microbit.SLOT + microbit.SLOT_SIZE)
    changed[at + 0x4000] ^= 0x01
    microbit.load(bytes(changed))
    (told,) = smpclient(microbit.url, "state")
    assert [image["version"] for image in told] == ["0.0.0"]
    assert microbit.holds(old)


def test_a_supply_that_is_off_changes_nothing_until_it_is_on(
    microbit: Microbit, pending: bytes, old: bytes, new: bytes
) -> None:
    """By the commands that a bench file has for it."""
    command = [sys.executable, "-m", "proxyflash.hil_tests.real.qemu", str(microbit.qemu.qmp_path)]
    microbit.load(pending)
    subprocess.run([*command, "stop"], check=True)
    held = microbit.flash()
    assert microbit.holds(new)
    with serial.serial_for_url(microbit.url, timeout=0.5) as port:
        port.write(b"\n")
        assert port.read(1) == b""
        assert microbit.flash() == held
        subprocess.run([*command, "system_reset", "cont"], check=True)
        port.timeout = 60
        assert port.read_until(b"v0.0.0").endswith(b"v0.0.0")
    assert microbit.holds(old)


def test_serial_recovery_answers_where_there_is_no_application(smpclient: Smpclient) -> None:
    with Mps2() as part:
        assert smpclient(part.url, "state") == [[]]
        assert not any(part.qemu.read(part.SLOT, 1024))


def test_the_loader_starts_the_application_that_is_there(smpclient: Smpclient) -> None:
    with Mps2(application=True) as part:
        _, told = smpclient(part.url, "wait", "state")
    assert [(image["slot"], image["active"]) for image in told] == [(0, True)]
