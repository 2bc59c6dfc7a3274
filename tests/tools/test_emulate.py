"""`emulate`: parts for other programs, in a process of their own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .conftest import Desk, served

pytestmark = pytest.mark.real_time("child programs")

ECU = """
[bus.line]
kind = "can"
interface = "proxyflash"
channel = "unix:{socket}"

[[component]]
name = "radar"
bus = "line"
protocol = "uds"
address = {{request = 0x7E0, response = 0x7E8}}
profile = "acme-r77"

[profile.acme-r77]
memory = [{{start = 0x0001_0000, size = 0x7_0000, erase_unit = 4096}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
"""


def test_a_radar_in_another_process_is_flashed_over_its_socket(desk: Desk, short: Path) -> None:
    desk.state = short
    with served(desk) as wires:
        assert wires["powertrain"]["kind"] == "can"
        client = Desk(desk.folder / "client", desk._capsys)
        client.folder.mkdir()
        client.bench.write_text(ECU.format(socket=wires["powertrain"]["path"]))
        assert client.seen() == {"radar": "1.4.2"}
        done = client.run("flash", "radar", desk.image("front-radar"), "--yes")
        assert (done.status, client.seen()) == (0, {"radar": "1.5.0"})
    # What it serves is the bench's own: its flash stays.
    assert desk.seen()["front-radar"] == "1.5.0"


def test_what_it_names_is_there_and_goes_with_it(desk: Desk, short: Path) -> None:
    desk.state = short
    with served(desk) as wires:
        line = Path(wires["imu-uart"]["path"])
        assert os.ttyname(os.open(line, os.O_RDWR | os.O_NOCTTY)) == str(line.readlink())
        assert "--vhci usb" in wires["usb"]["opens"]
        done = desk.run("scan")
        assert (done.status, done.err.split()[0]) == (6, "E-BENCH-LOCKED")
    assert not line.is_symlink()
    assert not Path(wires["powertrain"]["path"]).exists()
    assert desk.run("scan").status == 0


def test_a_person_reads_how_each_is_opened(desk: Desk, short: Path) -> None:
    desk.state = short
    process = desk.start("emulate")
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0
    assert [line.split()[0] for line in lines] == ["powertrain", "imu-uart", "usb"]
    assert 'interface "proxyflash", channel "unix:' in lines[0]
    assert "/dev/pts/" in lines[1]
    assert said == "serving; Ctrl-C ends it\n"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--join", "powertrain"], 2, "write BUS=INTERFACE:CHANNEL"),
        (["--join", "usb=virtual:a"], 2, "an emulated CAN bus"),
        (["--join", "powertrain=socketcan:none0"], 4, "--join powertrain=socketcan:none0"),
        (["--vhci", "none"], 2, "--vhci none: name an emulated USB bus"),
        (["--vhci", "powertrain"], 2, "--vhci powertrain: name an emulated USB bus"),
    ],
)
def test_an_option_that_is_wrong(desk: Desk, short: Path, arguments: list[str], status: int, words: str) -> None:
    desk.state = short
    process = desk.start("emulate", *arguments)
    _, said = process.communicate(timeout=600)
    assert process.returncode == status
    assert words in said
    assert "Traceback" not in said


def test_a_bench_without_emulated_buses(desk: Desk) -> None:
    desk.bench.write_text('[bus.a]\nkind = "can"\ninterface = "virtual"\n')
    done = desk.run("emulate")
    assert (done.status, done.err.split()[0]) == (12, "E-BENCH-NAME")


def test_a_path_too_long_for_a_socket(desk: Desk) -> None:
    desk.state = desk.folder / ("x" * 60) / ("y" * 60)
    process = desk.start("emulate")
    _, said = process.communicate(timeout=600)
    assert process.returncode == 12
    assert "too long" in said
    assert "--state FOLDER" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["--acm", "usb"], "name an emulated serial bus"), (["--acm", "nothing"], "name an emulated serial bus")],
)
def test_a_bus_that_is_no_serial_line(desk: Desk, short: Path, arguments: list[str], words: str) -> None:
    desk.state = short
    process = desk.start("emulate", *arguments)
    _, said = process.communicate(timeout=600)
    assert process.returncode == 2
    assert words in said
    assert "Traceback" not in said
