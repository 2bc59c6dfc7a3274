"""The FIFO by which other programs switch supplies and wires of served parts, as a shell does it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.emulators.control import Control
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.stm32.device import Stm32UartDevice
from proxyflash.enumerators.bench import Bench

pytestmark = pytest.mark.real_time("a pipe of the kernel")

EMULATED = Path(__file__).parents[2] / "hil_tests" / "benches" / "emulated.toml"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with Bench.open(EMULATED, state=tmp_path / "state") as bench:
        yield bench


@pytest.fixture
def control(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "control"
    made = Control(path, {"imu": bench.emulated_device("imu")}, {"imu-uart": bench.emulated_wire("imu-uart")})
    yield path
    made.close()
    assert not list(tmp_path.glob("control*"))
    assert "control" not in {thread.name for thread in threading.enumerate()}


def told(control: Path, line: str) -> str:
    script = 'printf "%s\\n" "$1" >"$2" && read -r answer <"$2.answer" && printf %s "$answer"'
    done = subprocess.run(["sh", "-c", script, "sh", line, str(control)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_supply(bench: Bench, control: Path) -> None:
    imu = bench.emulated_device("imu")
    assert told(control, "off imu") == "ok"
    assert not imu.supply.is_on
    assert bench.component("imu").look().version == ""
    assert told(control, "on imu") == "ok"
    assert bench.component("imu").look().version == "1.4.2"


def test_a_reset_line(bench: Bench, control: Path) -> None:
    """The wiring is on the host's side; the control pulls the line itself."""
    imu = bench.emulated_device("imu")
    assert isinstance(imu, Stm32UartDevice)
    imu.flash.load(imu.flash.base, b"\xff" * 4096)
    assert imu.application_version == "1.4.2"
    assert told(control, "reset imu") == "ok"
    assert imu.application_version is None
    assert imu.board.stage is Stage.LOADER


def test_a_part_without_a_reset_line_is_powered_anew(bench: Bench, tmp_path: Path) -> None:
    radar = bench.emulated_device("front-radar")
    seen: list[bool] = []
    radar.supply.listen(seen.append)
    radar.reset()
    assert seen == [False, True]


def test_a_wire(bench: Bench, control: Path) -> None:
    assert told(control, "cut imu-uart") == "ok"
    assert bench.component("imu").look().version == ""
    assert told(control, "join imu-uart") == "ok"
    assert bench.component("imu").look().version == "1.4.2"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("off camera", "'camera' is none of imu"),
        ("cut usb", "'usb' is none of imu-uart"),
        ("explode imu", "'explode' is none of off, on, reset, cut, join"),
        ("", "'' is none of off, on, reset, cut, join"),
    ],
)
def test_what_it_does_not_know(control: Path, line: str, answer: str) -> None:
    assert told(control, line) == answer
    assert told(control, "on imu") == "ok"


def test_what_lies_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        Control(path, {}, {})
    assert path.read_text() == "mine"
