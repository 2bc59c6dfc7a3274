"""Our flasher on the micro:bit: it updates, confirms or leaves on trial, and no cut leaves anything but one of two images.

Most tests begin with the image in the second slot already, as an upload that was cut short after its last byte leaves
it: an upload takes ten seconds, and only the tests of uploads need one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import (
    ImageError,
    ImageFormat,
    ImageTooLarge,
    ImageWrongPart,
    PartError,
    RebootFailed,
)
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.flashers.programmer import FlashResult
from proxyflash.hil_tests.boot_session import running
from proxyflash.hil_tests.real import zephyr_bench
from proxyflash.hil_tests.real import zephyr_firmware as firmware
from proxyflash.hil_tests.real.qemu import SECONDS
from proxyflash.hil_tests.real.zephyr import HEADER_SIZE, Microbit, microbit_flash
from proxyflash.transports.errors import ExitStatus

pytestmark = pytest.mark.timeout(600)
SLOT_ONE = Microbit.SLOT + Microbit.SLOT_SIZE + Microbit.PAGE
"""Where the uploaded image lies."""
COMMAND = "from proxyflash.tools.cli import main; main()"
ON_TRIAL = "confirm = false"


@contextmanager
def soil(part: Microbit, folder: Path, profile: str = "") -> Iterator[BenchComponent]:
    """The component, with these lines in its profile. Each command has a bench of its own, and so has each block."""
    with Bench.open(zephyr_bench.write(folder, part, profile)) as bench:
        yield bench.component("soil")


def flashed(part: Microbit, folder: Path, image: Path, profile: str = "") -> FlashResult:
    """It is verified, and runs."""
    with soil(part, folder, profile) as component:
        result = component.flash(image)
        assert result is not None
        assert result.verified
        assert result.booted
        assert running(component).version == result.version
        return result


def version(part: Microbit, folder: Path) -> str:
    with soil(part, folder) as component:
        return running(component).version


@pytest.fixture
def uploaded(new: bytes) -> bytes:
    """The micro:bit's flash with the new image in its second slot, which nobody has asked for yet."""
    return microbit_flash(new, on_trial=False)


def test_a_new_image_is_uploaded_tried_and_stays(
    microbit: Microbit, old: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    told: list[ev.Event] = []
    with soil(microbit, tmp_path) as component:
        assert running(component).version == "0.0.0"
        result = component.flash(new_file, context=RunContext(told.append))
        assert running(component).version == "2.1.0"
    assert result is not None
    assert (result.verified, result.booted, result.version) == ("image hash in slot 1", True, "2.1.0")
    written = [event.done for event in told if isinstance(event, ev.Progress) and event.phase is Phase.WRITE]
    assert written == sorted(written)
    assert written[-1] == len(new)
    assert len(written) > 100
    assert microbit.holds(new)
    # The old one is in the other slot; and no restart brings it back.
    assert microbit.cut_at() == [0]
    assert microbit.holds(new)


def test_what_was_uploaded_before_is_not_sent_again(
    microbit: Microbit, uploaded: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    microbit.load(uploaded)
    with soil(microbit, tmp_path) as component:
        result = component.flash(new_file, boot=False)
    assert result is not None
    assert not result.booted
    assert microbit.flash() == uploaded
    assert flashed(microbit, tmp_path, new_file).version == "2.1.0"
    assert microbit.holds(new)


def test_an_image_that_is_not_confirmed_is_taken_back(
    microbit: Microbit, uploaded: bytes, old: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    microbit.load(uploaded)
    assert flashed(microbit, tmp_path, new_file, ON_TRIAL).version == "2.1.0"
    assert microbit.holds(new)
    microbit.reset()
    assert microbit.holds(old)
    assert version(microbit, tmp_path) == "0.0.0"
    # The same command again, and now it is to stay.
    flashed(microbit, tmp_path, new_file)
    assert microbit.cut_at() == [0]
    assert microbit.holds(new)


def test_a_trial_that_goes_on_is_confirmed_by_the_same_command(
    microbit: Microbit, pending: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    microbit.load(pending)
    assert flashed(microbit, tmp_path, new_file).version == "2.1.0"
    assert microbit.cut_at() == [0]
    assert microbit.holds(new)


def test_an_older_version_runs_where_the_loader_takes_it(
    microbit: Microbit, uploaded: bytes, old: bytes, new_file: Path, tmp_path: Path
) -> None:
    """The swap has left it in the other slot."""
    microbit.load(uploaded)
    flashed(microbit, tmp_path, new_file)
    assert flashed(microbit, tmp_path, tmp_path / "soil-0.0.0.bin").version == "0.0.0"
    assert microbit.cut_at() == [0]
    assert microbit.holds(old)


# What is refused before anything of the part is changed.


def corrupted(image: bytes) -> bytes:
    return image[:0x3000] + bytes([image[0x3000] ^ 0x10]) + image[0x3001:]


def cut_short(image: bytes) -> bytes:
    return image[:-200]


def without_header(image: bytes) -> bytes:
    return image[HEADER_SIZE:]


def linked_elsewhere(image: bytes) -> bytes:
    """For a part whose slot begins at 0x30000."""
    payload = bytearray(image[HEADER_SIZE : HEADER_SIZE + firmware.parts_of(image)[2]])
    payload[4:8] = (0x0003_0201).to_bytes(4, "little")
    return firmware.remade(image, (2, 1, 0), payload=bytes(payload))


def for_the_other_part(image: bytes) -> bytes:
    return firmware.find("_27c54835_mps2_an385_serial_recovery.signed.bin").read_bytes()


@pytest.mark.parametrize(
    ("made", "error"),
    [
        (corrupted, ImageFormat),
        (cut_short, ImageFormat),
        (without_header, ImageWrongPart),
        (linked_elsewhere, ImageWrongPart),
        (for_the_other_part, ImageTooLarge),
    ],
)
def test_an_image_that_can_not_be_for_it_changes_nothing(
    microbit: Microbit, old: bytes, tmp_path: Path, made: Callable[[bytes], bytes], error: type[ImageError]
) -> None:
    profile = f"run_address = 0x{Microbit.SLOT:X}" if made is linked_elsewhere else ""
    before = microbit.flash()
    path = tmp_path / "image.bin"
    path.write_bytes(made(old))
    with soil(microbit, tmp_path, profile) as component:
        with pytest.raises(error):
            component.flash(path)
        assert running(component).version == "0.0.0"
    assert microbit.flash() == before


# What goes wrong on the part.


def test_an_image_that_does_not_start_is_taken_back_by_the_next_cut(
    microbit: Microbit, old: bytes, tmp_path: Path
) -> None:
    """Its hash is right, and its first instruction is a jump to itself."""
    payload = bytearray(old[HEADER_SIZE : HEADER_SIZE + firmware.parts_of(old)[2]])
    start = int.from_bytes(payload[4:8], "little") - 1 - Microbit.SLOT - HEADER_SIZE
    payload[start : start + 2] = (0xE7FE).to_bytes(2, "little")
    mute = firmware.remade(old, (2, 2, 0), payload=bytes(payload))
    microbit.load(microbit_flash(mute, on_trial=False))
    path = tmp_path / "mute.bin"
    path.write_bytes(mute)
    with soil(microbit, tmp_path, "swap = 3") as component, pytest.raises(RebootFailed):
        component.flash(path)
    assert microbit.holds(mute)
    # QEMU's nRF51 stays deaf after bytes that nobody took, whatever resets it: another takes over the flash.
    with Microbit() as again:
        again.load(microbit.flash())
        assert again.holds(old)
        assert version(again, tmp_path) == "0.0.0"


def test_what_was_spoilt_in_the_part_is_not_started_and_is_uploaded_anew(
    microbit: Microbit, uploaded: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    """The application knows the image in the slot by its records alone."""
    spoilt = bytearray(uploaded)
    spoilt[SLOT_ONE + 0x6000] ^= 0x04
    microbit.load(bytes(spoilt))
    assert flashed(microbit, tmp_path, new_file).version == "2.1.0"
    assert microbit.holds(new)


# Cuts.


def whole_and_flashed_again(part: Microbit, old: bytes, new: bytes, new_file: Path, folder: Path) -> None:
    """After a cut one of the two runs, and the same command ends well."""
    part.reset()
    found = version(part, folder)
    assert found in ("0.0.0", "2.1.0")
    assert part.holds(new if found == "2.1.0" else old)
    assert flashed(part, folder, new_file).version == "2.1.0"
    assert part.cut_at() == [0]
    assert part.holds(new)


def flash_with_a_cut(
    part: Microbit, folder: Path, image: Path, times: int, register: int = Microbit.ERASE_PAGE
) -> None:
    """Whatever comes of it: the flasher may go on unasked when the part is there again.

    `times`, `register`: as of `Microbit.cut_when`.
    """
    with soil(part, folder, "answer = 0.5\nswap = 5") as component:
        running(component)
        cutting = threading.Thread(target=part.cut_when, args=(times, register))
        cutting.start()
        with suppress(PartError):
            component.flash(image)
        cutting.join(SECONDS)
        assert not cutting.is_alive(), "it wrote less often"


@pytest.mark.parametrize("erase", [1, 20])
def test_a_cut_while_the_slot_is_erased(
    microbit: Microbit, old: bytes, new: bytes, new_file: Path, tmp_path: Path, erase: int
) -> None:
    """Another image is in it, which is in the way."""
    microbit.load(microbit_flash(firmware.remade(old, (1, 9, 0)), on_trial=False))
    flash_with_a_cut(microbit, tmp_path, new_file, erase)
    whole_and_flashed_again(microbit, old, new, new_file, tmp_path)


@pytest.mark.parametrize("size", [4, 6000])
def test_a_cut_while_it_is_uploaded(
    microbit: Microbit, old: bytes, new: bytes, new_file: Path, tmp_path: Path, size: int
) -> None:
    """The flash controller writes words of four bytes, and the emulator stops before and after each."""
    flash_with_a_cut(microbit, tmp_path, new_file, size // 2, Microbit.CONFIG)
    whole_and_flashed_again(microbit, old, new, new_file, tmp_path)


@pytest.mark.parametrize("erase", [1, 2, 51, 99, 100])
def test_a_cut_while_it_is_swapped(
    microbit: Microbit, uploaded: bytes, old: bytes, new: bytes, new_file: Path, tmp_path: Path, erase: int
) -> None:
    microbit.load(uploaded)
    flash_with_a_cut(microbit, tmp_path, new_file, erase)
    whole_and_flashed_again(microbit, old, new, new_file, tmp_path)


@pytest.mark.parametrize("cuts", [(1,), (30, 3), (77, 1), (103,)])
def test_a_cut_while_it_is_taken_back(
    microbit: Microbit, pending: bytes, old: bytes, new: bytes, new_file: Path, tmp_path: Path, cuts: tuple[int, ...]
) -> None:
    """An image on trial that nobody has confirmed: the old one comes back, whatever happens to it on the way."""
    microbit.load(pending)
    microbit.cut_at(*cuts)
    assert microbit.holds(old)
    whole_and_flashed_again(microbit, old, new, new_file, tmp_path)


# The command line.


def command(bench: Path, *words: str | Path) -> list[str]:
    return [sys.executable, "-c", COMMAND, "--bench", str(bench), "--json", *map(str, words)]


def test_the_command_line_updates_and_tells_the_version(
    microbit: Microbit, uploaded: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    microbit.load(uploaded)
    bench = zephyr_bench.write(tmp_path, microbit)
    done = subprocess.run(command(bench, "flash", "soil", new_file, "--yes"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = subprocess.run(command(bench, "scan"), capture_output=True, text=True, check=True)
    (told,) = json.loads(found.stdout)["components"]
    assert (told["name"], told["version"], told["presence"]) == ("soil", "2.1.0", "ok")
    assert microbit.holds(new)


def test_a_command_that_was_killed_in_an_upload_goes_on_where_it_was(
    microbit: Microbit, old: bytes, new: bytes, new_file: Path, tmp_path: Path
) -> None:
    bench = zephyr_bench.write(tmp_path, microbit)
    words = command(bench, "flash", "soil", new_file, "--yes")
    running_command = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    # The part stands still meanwhile: the command has no time to end.
    with running_command as first, microbit.qemu.stopped_at(microbit.CONFIG, 3000):
        first.kill()
        first.wait()
    assert microbit.holds(old)
    assert microbit.qemu.read(SLOT_ONE, 0x1000) == new[:0x1000]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert microbit.holds(new)


def test_the_command_line_refuses_a_spoilt_file(microbit: Microbit, old: bytes, tmp_path: Path) -> None:
    bench = zephyr_bench.write(tmp_path, microbit)
    path = tmp_path / "spoilt.bin"
    path.write_bytes(corrupted(old))
    done = subprocess.run(command(bench, "flash", "soil", path, "--yes"), capture_output=True, text=True)
    assert done.returncode == ExitStatus.BAD_FILE
    assert "E-IMAGE-FORMAT" in done.stdout + done.stderr
