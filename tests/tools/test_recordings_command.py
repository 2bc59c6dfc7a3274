"""`record` and `replay`: a session of each kind of part, replayed by a process that has nothing but the recording."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.benchfile import schema
from proxyflash.flashers.formats import load, save
from proxyflash.flashers.image import Segment
from proxyflash.tools import commands
from proxyflash.tools.commands.monitor import _begun
from proxyflash.tools.commands.recordings import Unwritten

from .conftest import PROGRAM, Desk, Done, Hardware

DOCUMENT = Path(__file__).parents[2] / "docs" / "recordings.md"
COMPONENTS = ["front-radar", "imu", "camera"]
BUS = {"front-radar": "powertrain", "imu": "imu-uart", "camera": "usb"}
CHANGED = 20_000
"""Which byte of the image is another one."""
DIFFERS = re.compile(r"exchange (\d+) on (\S+) \(of (\d+) recorded\) differs: recorded (.+?); now (.+?)\. If")


def recorded(desk: Desk, component: str, *more: str) -> Path:
    """A recording of a flash, alone in a folder with its image."""
    folder = desk.folder.parent / "elsewhere"
    folder.mkdir()
    assert desk.run("record", folder / "a.jsonl", "--", "flash", component, desk.image(component), *more).status == 0
    shutil.copy(desk.image(component), folder)
    return folder / "a.jsonl"


def alone(*arguments: str | Path, folder: Path) -> Done:
    """The program in a process of its own, without a bench file."""
    done = subprocess.run(
        [PROGRAM, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL
    )
    return Done(done.returncode, done.stdout, done.stderr)


def timeless(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in event.items() if key not in ("time", "seconds")} for event in events]


def outgoing(recording: Path, bus: str) -> list[Mapping[str, Any]]:
    """The recorded exchanges of a bus, counted here: not TesterPresent, not the reading of descriptors."""
    lines = [json.loads(line) for line in recording.read_text().splitlines()[1:]]
    return [
        line
        for line in lines
        if line["bus"] == bus
        and (
            (line["kind"] in ("can", "serial") and line["out"] and not line["data"].startswith("023e80"))
            or (line["kind"] == "usb" and not line["setup"].startswith("8006"))
        )
    ]


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_flash_replays_with_the_same_events_and_verdict(desk: Desk, component: str) -> None:
    folder = desk.folder.parent / "elsewhere"
    folder.mkdir()
    first = desk.run("record", folder / "a.jsonl", "--jsonl", "--", "flash", component, desk.image(component))
    assert first.status == 0
    desk.image(component).rename(folder / desk.image(component).name)
    shutil.rmtree(desk.folder)

    again = alone("replay", "a.jsonl", "--jsonl", folder=folder)
    assert (again.status, again.err) == (0, "")
    *events, verdict = again.lines
    *first_events, _ = first.lines
    assert timeless(events) == timeless(first_events)
    assert len(events) > 10
    assert (events[-1]["verdict"], events[-1]["version"]) == ("ok", "1.5.0")
    assert verdict["verdict"] == "as recorded"
    assert verdict["exchanges"] == {BUS[component]: len(outgoing(folder / "a.jsonl", BUS[component]))}
    assert not (folder / "state").exists()


@pytest.mark.parametrize("component", COMPONENTS)
def test_one_other_byte_is_told_with_its_exchange_and_both_sides(desk: Desk, component: str) -> None:
    recording = recorded(desk, component)
    image = load(desk.image(component))
    data = bytearray(image.segments[0].data)
    data[CHANGED] ^= 0x01
    other = Segment(image.segments[0].address, bytes(data))
    save(replace(image, segments=(other, *image.segments[1:])), recording.parent / desk.image(component).name)
    desk.image(component).unlink()

    done = desk.run("replay", recording)
    assert done.status == 1
    assert f"{desk.image(component).name} is not the file that was recorded" in done.err
    assert f"E-REPLAY-MISMATCH {component}: " in done.err
    assert done.err.count("E-REPLAY-MISMATCH") == 1, "reported once"
    found = DIFFERS.search(done.err)
    assert found is not None
    number, bus, count, before, now = found.groups()
    exchanges = outgoing(recording, BUS[component])
    assert (bus, int(count)) == (BUS[component], len(exchanges))
    line = exchanges[int(number) - 1]
    was, new = (bytes.fromhex(re.sub(r"^\w+#|-> | \(from.*", "", side)) for side in (before, now))
    assert was in bytes.fromhex(line.get("setup", "") + line["data"]) or was[:8].hex() == line.get("setup")
    [difference] = [index for index in range(len(was)) if was[index] != new[index]]
    assert (was[difference], new[difference]) == (data[CHANGED] ^ 1, data[CHANGED])
    assert (len(was), len(now)) == (len(new), len(before))


@pytest.mark.real_time("a step runs a script")
def test_an_update_of_three_parts_replays(desk: Desk) -> None:
    recording = desk.folder.parent / "apply.jsonl"
    assert desk.run("record", recording, "--", "apply", desk.manifest).status == 0
    done = desk.run("replay", recording)
    assert done.status == 0
    assert re.findall(r"^(\S+)  OK", done.out, re.MULTILINE) == ["host", *COMPONENTS, "replay"]


def test_a_scan_replays(desk: Desk) -> None:
    recording = desk.folder.parent / "scan.jsonl"
    first = desk.run("record", recording, "--", "scan")
    done = desk.run("replay", recording)
    assert (done.status, done.out.startswith(first.out)) == (0, True)
    assert done.out.splitlines()[-1].startswith("replay  OK  as recorded: exchanges ")


@pytest.mark.real_time("a child program")
def test_what_was_recorded_through_a_real_port_replays_without_it(hardware: Hardware) -> None:
    """The part is behind a PTY here, which has no parity and no modem lines; nor has its replay."""
    host, server = hardware.host, hardware.server
    recording = host.folder / "imu.jsonl"
    first = host.run("record", recording, "--", "flash", "imu", server.image("imu"), "--yes")
    assert first.status == 0, first.err
    host.edit(('url = "', 'url = "/not/there'))
    done = host.run("replay", recording)
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(first.out)


@pytest.mark.real_time("a child program")
def test_nothing_is_asked_where_no_hardware_is_touched(hardware: Hardware) -> None:
    host, server = hardware.host, hardware.server
    recording = host.folder / "imu.jsonl"
    assert host.run("record", recording, "--", "flash", "imu", server.image("imu"), "--yes").status == 0
    assert host.run("replay", recording, "--", "flash", "imu", server.image("imu")).status == 0


def test_a_command_that_failed_replays_as_it_failed(desk: Desk) -> None:
    recording = desk.folder.parent / "a.jsonl"
    wrong = desk.run("record", recording, "--", "flash", "imu", desk.image("front-radar"))
    assert wrong.status == 12
    assert "E-IMAGE" in wrong.err
    again = desk.run("replay", recording)
    assert again.status == 0
    assert again.err == wrong.err.replace(wrong.err.splitlines(keepends=True)[-1], "")
    assert again.out.splitlines()[-1].startswith("replay  OK  as recorded")


def test_another_outcome_is_told(desk: Desk) -> None:
    recording = recorded(desk, "imu")
    done = desk.run("replay", recording, "--", "flash", "imu", desk.image("imu"), "--expect-version", "9.9")
    assert done.status == 1
    assert "E-REPLAY-OUTCOME the command ended with 8 (E-VERSION-MISMATCH), when it was recorded with 0" in done.err


def test_less_than_was_recorded_is_told(desk: Desk) -> None:
    recording = recorded(desk, "imu")
    done = desk.run("replay", recording, "--", "flash", "imu", desk.image("imu"), "--no-boot")
    assert done.status == 1
    assert "E-REPLAY-MISMATCH" in done.err


def test_another_command_is_told_at_its_first_exchange(desk: Desk) -> None:
    recording = recorded(desk, "imu")
    done = desk.run("replay", recording, "--json", "--", "flash", "front-radar", desk.image("front-radar"))
    assert done.status == 1
    error = done.document["error"]
    assert error["code"] == "E-REPLAY-MISMATCH"
    assert "exchange 1 on powertrain (of 0 recorded)" in error["cause"]


def test_as_json_each_is_one_document(desk: Desk) -> None:
    recording = desk.folder.parent / "a.jsonl"
    kept = desk.run("record", recording, "--json", "--", "flash", "imu", desk.image("imu")).document
    lines = recording.read_text().splitlines()
    assert (kept["recording"], kept["records"], kept["dropped"]) == (str(recording), len(lines) - 1, 0)
    assert [run["version"] for run in kept["runs"]] == ["1.5.0"]
    again = desk.run("replay", recording, "--json").document
    assert (again["verdict"], [run["version"] for run in again["runs"]]) == ("as recorded", ["1.5.0"])


def test_it_is_exported_for_other_programs(desk: Desk) -> None:
    recording = desk.folder.parent / "a.jsonl"
    assert desk.run("record", recording, "--", "scan").status == 0
    folder = desk.folder.parent / "exported"
    done = desk.run("replay", recording, "--export", folder)
    assert done.status == 0
    names = ["can.log", "recording.jsonl", "recording.pcapng", "serial.txt", "usb.txt"]
    assert sorted(done.out.split()) == [str(folder / name) for name in names]
    assert sorted(path.name for path in folder.iterdir()) == names
    recorded_lines, exported = (path.read_text().splitlines()[1:] for path in (recording, folder / "recording.jsonl"))
    assert recorded_lines == exported


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: data[:-20], "ends in the middle of a line"),
        (lambda data: data[: len(data) // 2] + b"\xff" + data[len(data) // 2 + 1 :], "no JSON"),
        (lambda data: data.replace(b'"kind": "serial"', b'"kind": "cereal"', 1), "no record: kind = 'cereal'"),
        (lambda data: data.replace(b'"dropped": 0', b'"dropped": 7', 1), "lost its first 7 records"),
        (lambda data: data.replace(b'"arguments"', b'"argumends"', 1), "no command was recorded"),
        (lambda data: b":020000040800F2\n", "no JSON"),
    ],
    ids=["truncated", "garbled", "kind", "dropped", "no-command", "hex"],
)
def test_a_broken_recording(desk: Desk, spoil: Any, said: str) -> None:
    recording = recorded(desk, "imu")
    recording.write_bytes(spoil(recording.read_bytes()))
    done = desk.run("replay", recording)
    assert (done.status, done.out) == (12, "")
    assert done.err.startswith("E-RECORDING ")
    assert said in done.err


def test_where_it_can_not_be_written_nothing_is_run(desk: Desk) -> None:
    done = desk.run("record", desk.folder / "not" / "there.jsonl", "--", "flash", "imu", desk.image("imu"))
    assert done.status == 2
    assert done.err.startswith("E-RECORDING-FILE ")
    assert desk.memory() == {}
    recording = recorded(desk, "imu")
    assert desk.run("replay", recording, "--export", recording).status == 2


@pytest.mark.parametrize("content", ["S00600004844521B\n", '{"a": "proxyflash recording"}\n'])
def test_a_recording_replaces_a_recording_alone(desk: Desk, content: str) -> None:
    """Not the firmware, where the recording's own file was forgotten."""
    mine = desk.folder / "mine"
    mine.write_text(content)
    done = desk.run("record", mine, "--", "flash", "imu", desk.image("imu"))
    assert (done.status, done.err.split()[0], desk.memory()) == (2, "E-RECORDING-FILE", {})
    with pytest.raises(Unwritten, match="not a recording"), ExitStack() as stack:
        _begun(stack, mine, schema.load(desk.bench))
    assert mine.read_text() == content
    mine.write_text("")
    for _ in range(2):
        assert desk.run("record", mine, "--", "scan").status == 0


def test_an_older_recording_stays_when_nothing_can_be_run(desk: Desk) -> None:
    recording = recorded(desk, "imu")
    assert desk.run("record", recording, "--", "flash", "nobody", desk.image("imu")).status == 4
    assert not list(recording.parent.glob("*.part"))
    assert json.loads(recording.read_text().splitlines()[0])["status"] == 4


def test_the_documented_test_is_one(desk: Desk) -> None:
    """docs/recordings.md: it passes, and fails for another image."""
    folder = recorded(desk, "imu").parent
    (folder / "a.jsonl").rename(folder / "imu.jsonl")
    shutil.copy(desk.bench, folder)
    section = DOCUMENT.read_text(encoding="utf-8").partition("## In pytest")[2]
    found = re.search(r"```python\n(.+?)```", section, re.DOTALL)
    assert found is not None
    (folder / "test_imu.py").write_text(found[1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_imu.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout
    shutil.copy(desk.folder / "firmware" / "imu-1.4.2.bin", folder / "imu.bin")
    text = (folder / "test_imu.py").read_text().replace('"imu-1.5.0.hex")', '"imu.bin", address=0x08000000)')
    (folder / "test_imu.py").write_text(text)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "ReplayMismatch" in done.stdout


def test_the_documented_recording_loads(tmp_path: Path) -> None:
    from proxyflash.transports.recording.formats import load as load_recording

    found = re.search(r"```json\n(.+?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / "a.jsonl").write_text(found[1])
    assert [record.kind for record in load_recording(tmp_path / "a.jsonl").records] == ["can", "serial", "usb"]


def printable(folder: Path, bench: str) -> Path:
    """A recording of three buses, written here, and what its bench file says of them."""
    head = {"format": "proxyflash recording", "schema": 1, "bench": {"name": "bench.toml", "text": bench}}
    records = [
        {"time": 10.5, "bus": "car", "kind": "can", "out": True, "id": "7E0", "data": "0322f190cccccccc"},
        {"time": 11.0, "bus": "car", "kind": "can", "out": False, "id": "7E8", "data": "037f2231cccccccc"},
        {"time": 12.0, "bus": "car", "kind": "can", "out": False, "id": "123", "data": "0102"},
        {"time": 13.0, "bus": "uart", "kind": "serial", "out": True, "data": "44bb"},
        {"time": 14.0, "bus": "uart", "kind": "serial", "out": False, "data": "1f"},
    ]
    path = folder / "p.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in (head, *records)))
    return path


BENCH = """
[bus.car]
kind = "can"
interface = "socketcan"
channel = "can0"
[bus.uart]
kind = "serial"
port = "/dev/ttyUSB0"
[[component]]
name = "radar"
bus = "car"
protocol = "uds"
address = {request = 0x7E0}
[[component]]
name = "imu"
bus = "uart"
protocol = "stm32-uart"
"""


def printed(capsys: pytest.CaptureFixture[str], recording: Path, *more: str) -> Done:
    """Without a bench file but the recorded one."""
    capsys.readouterr()
    status = commands.run(["replay", str(recording), "--print", *more])
    return Done(status, *capsys.readouterr())


def test_a_recording_is_printed_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recording = printable(tmp_path, BENCH)
    done = printed(capsys, recording)
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines() == [
        "00:00:10.500000 car radar -> ReadDataByIdentifier 0xF190 VIN",
        "00:00:11.000000 car radar <- negative response to ReadDataByIdentifier: NRC 0x31 requestOutOfRange",
        "00:00:12.000000 car <- 123 [2] 01 02",
        "00:00:13.000000 uart imu -> Extended Erase",
        "00:00:14.000000 uart imu <- NACK",
    ]
    first, *_, last = printed(capsys, recording, "--jsonl").lines
    assert (first["component"], first["data"], first["sent"]) == ("radar", "22f190", True)
    assert last["kind"] == "result"


def test_a_recording_without_a_bench_file_is_printed_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = printed(capsys, printable(tmp_path, "[bus"))
    assert (done.status, "protocols are not known: E-BENCH" in done.err) == (0, True)
    lines = [line[16:] for line in done.out.splitlines()]
    assert lines[0] == "car -> ReadDataByIdentifier 0xF190 VIN"
    assert lines[3:] == ["uart -> 44 BB  |D.|", "uart <- 1F  |.|"]
