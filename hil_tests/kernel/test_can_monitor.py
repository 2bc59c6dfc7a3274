"""`proxyflash monitor` on a vcan, in a process of its own: beside can-utils, and beside a flash that the kernel carries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import can
import pytest
from proxyflash.hil_tests.kernel.can_lab import Program, candump, listening, program
from proxyflash.hil_tests.kernel.conftest import ip
from proxyflash.hil_tests.kernel.uds_lab import Radar, flash, profile, socketcan
from proxyflash.hil_tests.kernel.waiting import LONG, wait_until
from proxyflash.tools import commands
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.recording.formats import load
from proxyflash.transports.recording.records import CanFrame

SECONDS = 600.0
"""A limit that only ends what hangs. In a guest without KVM the monitor's start alone takes tens of seconds."""
LAST = "7FF [2] BE EF"
"""The frame that a test sends when all other frames have passed, as the monitor writes it."""


def send(interface: str, *frames: str) -> None:
    """Sends frames by cansend, in its notation."""
    for frame in frames:
        subprocess.run(program("cansend", interface, frame), check=True, timeout=LONG)


@contextmanager
def monitor(interface: str, folder: Path, *options: str | Path) -> Iterator[Program]:
    """The monitor, from when it hears the interface; what it writes to stdout and stderr is in one file."""
    command = (sys.executable, "-m", "proxyflash.tools", "monitor", f"socketcan:{interface}", *options)
    with listening(interface, folder / "said", *command, seconds=SECONDS) as running:
        yield running


def ended(running: Program) -> tuple[list[str], list[str]]:
    """Ends it as Ctrl-C does, when it has shown the last frame: a line for each message and frame, and what it reports."""
    wait_until(lambda: any(LAST in line for line in running.lines), "the monitor shows the last frame", SECONDS)
    lines = running.end(SECONDS)
    assert running.process.returncode == 0, lines
    passed = [line for line in lines if line[2:3] == ":"]
    return passed, [line for line in lines if line not in passed]


def words(lines: list[str]) -> list[str]:
    """Without their times and the name of the bus."""
    return [line.split(" ", 2)[2] for line in lines]


def test_frames_of_others_and_their_recording(vcan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.jsonl"
    with monitor(vcan, tmp_path, "--listen-only", "--record", kept) as running:
        send(vcan, "123#0102", "123#R", "18DA10F1#023E00")
        with can.Bus(interface="socketcan", channel=vcan) as bus:
            bus.send(can.Message(arbitration_id=0x7E0, is_extended_id=False, data=bytes.fromhex("0322F18C")))
            bus.send(can.Message(arbitration_id=0x7E8, is_extended_id=False, data=bytes.fromhex("037F2231")))
            bus.send(can.Message(arbitration_id=0x7E0, is_extended_id=False, data=bytes.fromhex("0627025A5A5A5A")))
        send(vcan, "7FF#BEEF")
        passed, reported = ended(running)
    assert words(passed) == [
        "<- 123 [2] 01 02",
        "<- 123 remote request, 0 bytes",
        "-> TesterPresent",
        "-> ReadDataByIdentifier 0xF18C ECUSerialNumber",
        "<- negative response to ReadDataByIdentifier: NRC 0x31 requestOutOfRange",
        "-> SecurityAccess sendKey 0x02, 4 bytes",
        f"<- {LAST}",
    ]
    assert reported == [f"7 frames, 0 lost, recorded into {kept}"]
    frames = [(record.can_id, record.data) for record in load(kept).records if isinstance(record, CanFrame)]
    assert (0x7E0, bytes.fromhex("0627025A5A5A5A")) in frames
    capsys.readouterr()
    assert commands.run(["replay", "--print", str(kept)]) == 0
    assert capsys.readouterr().out.splitlines() == passed


def test_beside_a_flash(vcan: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each frame that candump hears is shown, recorded, or counted as lost; the flash is undisturbed."""
    kept = tmp_path / "kept.jsonl"
    radar = Radar(tmp_path, socketcan(vcan))
    try:
        with (
            candump(vcan, tmp_path / "log") as dump,
            monitor(vcan, tmp_path, "--listen-only", "--record", kept) as running,
        ):
            with CanBus.open("powertrain", {"interface": "socketcan", "channel": vcan}) as bus:
                assert flash(bus, profile(backend="kernel")).verified
            assert radar.runs == "1.5.0"
            send(vcan, "7FF#BEEF")
            wait_until(lambda: any("7FF#BEEF" in line for line in dump.lines), "candump hears the last frame", SECONDS)
            passed, reported = ended(running)
    finally:
        radar.close()
    [summary] = reported
    frames, lost = (int(word.split()[0].replace(",", "")) for word in summary.split(", recorded")[0].split(", "))
    assert frames + lost == len(dump.lines)
    assert sum(isinstance(record, CanFrame) for record in load(kept).records) == frames
    if not lost:
        said = "\n".join(words(passed))
        for expected in (
            "-> DiagnosticSessionControl programmingSession",
            "-> SecurityAccess requestSeed",
            "-> RoutineControl startRoutine 0xFF00 eraseMemory",
            "-> RequestDownload",
            "-> TransferData 0x01",
            "-> RequestTransferExit",
            "-> ECUReset hardReset",
        ):
            assert expected in said, expected
    capsys.readouterr()
    assert commands.run(["replay", "--print", str(kept)]) == 0
    assert capsys.readouterr().out.splitlines() == passed


def test_an_interface_that_goes_down_ends_it(vcan: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept.jsonl"
    with monitor(vcan, tmp_path, "--record", kept) as running:
        send(vcan, "7FF#BEEF")
        wait_until(lambda: any(LAST in line for line in running.lines), "the monitor shows the frame", SECONDS)
        ip("link", "set", vcan, "down")
        assert running.process.wait(SECONDS) == 1
        assert "E-CAN" in running.lines[-1]
    assert [record.can_id for record in load(kept).records if isinstance(record, CanFrame)] == [0x7FF]
