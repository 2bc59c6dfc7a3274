"""`monitor` on an emulated wire: what it shows, keeps and counts, and that it disturbs nobody."""

from __future__ import annotations

import errno
import io
import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import can
import pytest
from proxyflash.emulators.can.wire import CanNode, CanWire
from proxyflash.emulators.faults import Faults
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.describing import Line, id_text
from proxyflash.tools import commands
from proxyflash.tools.commands import monitor
from proxyflash.tools.frame_counts import FrameCounts, about
from proxyflash.tools.monitor_table import MonitorTable
from proxyflash.transports import clock
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.recording.formats import load
from proxyflash.transports.recording.records import CanFlag, CanFrame
from proxyflash.transports.transport import Listening
from rich.console import Console

numbers = itertools.count()


class Car:
    """A wire with two nodes, of which one sends what a test gives it, a while after the monitor began to listen."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.name = f"monitored-{next(numbers)}"
        self.wire = CanWire(self.name, faults=Faults(None))
        self.heard: list[can.Message] = []
        self.node: CanNode = self.wire.attach("ecu", self.heard.append)
        self.wire.attach("other", lambda message: None)
        self._capsys = capsys

    def run(self, *arguments: str | Path, frames: list[tuple[int, str]]) -> tuple[int, str, str]:
        """Exit status, output, messages."""

        def send() -> None:
            clock.sleep(1.0)
            for can_id, data in frames:
                message = can.Message(arbitration_id=can_id, is_extended_id=can_id > 0x7FF, data=bytes.fromhex(data))
                assert self.node.send(message, 10.0)

        sending = clock.Thread(target=send, name="ecu")
        sending.start()
        self._capsys.readouterr()
        status = commands.run(["monitor", "--for", "3", *map(str, arguments)])
        sending.join()
        return status, *self._capsys.readouterr()

    @property
    def bus(self) -> str:
        return f"proxyflash:{self.name}"


@pytest.fixture
def car(capsys: pytest.CaptureFixture[str]) -> Iterator[Car]:
    made = Car(capsys)
    yield made
    made.wire.close()


def test_in_a_pipe_there_is_a_line_for_each_message_and_frame(car: Car, tmp_path: Path) -> None:
    frames = [
        (0x7E0, "10 0B 31 01 FF 00 44 08"),
        (0x7E8, "30 00 00"),
        (0x123, "01 02"),
        (0x7E0, "21 00 00 00 01 00 CC CC"),
        (0x7E8, "03 7F 31 78"),
    ]
    status, out, err = car.run(car.bus, "--record", tmp_path / "kept.jsonl", frames=frames)
    assert status == 0
    name = car.name
    assert [line.split(" ", 1)[1] for line in out.splitlines()] == [
        f"{name} -> first frame of 11 bytes, RoutineControl",
        f"{name} <- flow control ContinueToSend, block size 0, STmin 0 ms",
        f"{name} <- 123 [2] 01 02",
        f"{name} -> RoutineControl startRoutine 0xFF00 eraseMemory, 44 08 00 00 00 01 00",
        f"{name} <- negative response to RoutineControl: NRC 0x78 requestCorrectlyReceivedResponsePending",
    ]
    assert err.startswith("5 frames, 0 lost, recorded into ")
    kept = load(tmp_path / "kept.jsonl").records
    assert [(record.can_id, record.data.hex(" ").upper()) for record in kept if isinstance(record, CanFrame)] == frames
    assert car.heard == []


def test_a_target_is_decoded_by_its_own_ids(car: Car) -> None:
    target = f"uds:{car.bus}?request=0x123&response=0x456"
    status, out, _ = car.run(target, "--jsonl", frames=[(0x123, "02 10 02"), (0x456, "03 7F 10 22")])
    first, second, result = map(json.loads, out.splitlines())
    assert (status, first["sent"], first["words"]) == (0, True, "DiagnosticSessionControl programmingSession")
    assert (second["failed"], second["data"], result["lost"]) == (True, "7f1022", 0)
    assert result["ids"][0]["frames"] == 1


def test_ids_of_both_lengths_are_known_by_their_digits(car: Car) -> None:
    status, out, _ = car.run(car.bus, "--json", frames=[(0x4, "01"), (0x1004, "02")])
    assert (status, [item["id"] for item in json.loads(out)["ids"]]) == (0, ["004", "00001004"])
    assert id_text(frame(0x123, 1)) == "123"
    assert id_text(frame(0x123, 1, CanFlag.EXTENDED)) == "00000123"


def test_targets_on_one_bus_share_it(car: Car) -> None:
    target = f"uds:{car.bus}?request=0x123&response=0x456"
    status, out, err = car.run(car.bus, target, frames=[(0x123, "02 10 02"), (0x7E0, "02 3E 00")])
    assert status == 0
    assert [line.split(" -> ")[1] for line in out.splitlines()] == [
        "DiagnosticSessionControl programmingSession",
        "TesterPresent",
    ]
    assert err.startswith("2 frames, 0 lost")


def test_targets_of_one_bus_with_other_settings_are_refused(car: Car) -> None:
    target = f"uds:{car.bus}?request=0x123&response=0x456"
    status, out, err = car.run(target, f"{car.bus}?bitrate=500000", frames=[(0x123, "02 10 02")])
    assert (status, out) == (2, "")
    assert f"two targets give the bus {car.name} different settings" in err


def test_an_adapter_that_goes_ends_it_and_the_recording_is_kept(car: Car, tmp_path: Path) -> None:
    unplugging = clock.Timer(2.0, car.wire.close)
    unplugging.start()
    status, out, err = car.run(car.bus, "--record", tmp_path / "kept.jsonl", frames=[(0x7E0, "02 3E 00")])
    assert (status, err.split()[0]) == (1, "E-CAN-GONE")
    assert "TesterPresent" in out
    assert [record for record in load(tmp_path / "kept.jsonl").records if isinstance(record, CanFrame)]


def test_a_recording_that_has_no_room_is_told(car: Car, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(record: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(monitor, "record_line", full)
    status, _, err = car.run(car.bus, "--record", tmp_path / "kept.jsonl", frames=[(0x7E0, "02 3E 00")])
    assert (status, err.split()[0]) == (2, "E-RECORDING-FILE")
    assert "kept.jsonl: No space left on device" in err
    assert not list(tmp_path.iterdir())


BENCH = """
[bus.car]
kind = "can"
interface = "proxyflash"
channel = "{channel}"
[bus.line]
kind = "serial"
port = "/dev/ttyUSB7"
"""


def test_without_a_bench_file_the_form_of_a_target_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    assert commands.run(["monitor", "can0"]) == 12
    said = capsys.readouterr().err
    assert said.startswith("E-BENCH-MISSING ")
    assert "Or name the bus as a target, such as socketcan:can0: proxyflash help targets" in said
    assert commands.run(["monitor"]) == 12
    assert "socketcan" not in capsys.readouterr().err


def test_a_bench_in_use_is_heard_and_what_has_one_reader_is_left_out(car: Car, tmp_path: Path) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(BENCH.format(channel=car.name))
    with Bench.open(file, state=tmp_path / "state") as bench:
        bench.lock()
        options = ("--bench", file, "--state", tmp_path / "state")
        status, out, err = car.run(*options, frames=[(0x18DA10F1, "02 3E 00")])
    assert (status, out.split(" ", 1)[1]) == (0, "car -> TesterPresent\n")
    assert "line is left out: bus 'line' is of kind serial" in err


@pytest.mark.parametrize("bus", ["/dev/ttyUSB7", "dfu:0483:df11"])
def test_a_bus_with_one_reader_names_another_way(bus: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.run(["monitor", bus]) == 2
    err = capsys.readouterr().err
    assert err.startswith("E-MONITOR ")
    assert "proxyflash record FILE -- COMMAND" in err


DBC = """VERSION ""
NS_ :
BS_:
BU_: ECU
BO_ 291 Engine: 2 ECU
 SG_ Speed : 0|8@1+ (100,0) [0|25500] "rpm" ECU
 SG_ Oil : 8|8@1- (1,0) [-128|127] "degC" ECU
"""


def test_listen_only_refuses_an_adapter_that_acknowledges_before_it_opens_it(
    car: Car, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commands.run(["monitor", "robotell:/dev/none", "--listen-only"]) == 2
    assert "E-MONITOR-ACK bus 'none': the adapter acknowledges the frames of others" in capsys.readouterr().err
    assert car.run(car.bus, "--listen-only", frames=[(0x123, "01")])[0] == 0
    loud = classmethod(lambda cls, settings: Listening(settings, True, False, "it acknowledges frames"))
    monkeypatch.setattr(CanBus, "listening", loud)
    assert f"{car.name}: it acknowledges frames\n" in car.run(car.bus, frames=[(0x123, "01")])[2]


def test_signals_have_the_names_of_a_dbc_file(car: Car, tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text(DBC)
    status, out, _ = car.run(car.bus, "--dbc", tmp_path / "car.dbc", frames=[(0x123, "0C F6"), (0x123, "0C")])
    assert (status, [line.split(":: ")[1] for line in out.splitlines()]) == (
        0, ["Engine Speed = 1200 rpm, Oil = -10 degC", "Engine Speed = 1200 rpm"]
    )  # fmt: skip


def test_a_file_that_is_no_dbc_is_told(car: Car, tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text("BO_ 291")
    status, _, err = car.run(car.bus, "--dbc", tmp_path / "car.dbc", frames=[])
    assert (status, err.split()[0]) == (12, "E-DBC")


def frame(can_id: int, size: int, flags: int = 0) -> CanFrame:
    return CanFrame(0.0, "car", False, can_id, flags, bytes(size))


def test_rates_and_load() -> None:
    counts = FrameCounts({"car": (500_000, 500_000)})
    for number in range(1000):
        counts.take(frame(0x100 + number % 2, 8))
    counts.take(frame(0x4, 8, CanFlag.ERROR))
    counts.look(2.0)
    assert [(found.last.can_id, found.count, found.rate) for found in counts.sorted()] == [
        (0x100, 500, 250.0), (0x101, 500, 250.0),
    ]  # fmt: skip
    # ISO 11898-1: a frame of 8 bytes has 111 bits without stuff bits, and at most 24 of these.
    assert 0.111 < counts.loads["car"] < 0.135
    assert (counts.frames, counts.errors) == (1000, 1)


@pytest.mark.parametrize(
    ("size", "flags", "low", "high"),
    [(0, 0, 47, 55), (8, 0, 111, 135), (8, CanFlag.EXTENDED, 131, 160), (4, CanFlag.REMOTE, 47, 55)],
)
def test_a_frame_has_as_many_bits_as_iso_11898_gives_it(size: int, flags: int, low: int, high: int) -> None:
    assert low <= about(size, int(flags), (1, 1)) <= high


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_table_fits_its_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    console: Callable[..., Console] = lambda **keys: Console(  # noqa: E731
        file=shown, width=width, height=20, force_terminal=True, color_system=None
    )
    monkeypatch.setattr("proxyflash.tools.monitor_table.Console", console)
    counts = FrameCounts({})
    for number in range(60):
        counts.take(frame(number, 8))
    counts.take(CanFrame(0.0, "car", True, 0, 0, b"\x06\x27\x02\xab\xab\xab\xab"), secret=True)
    lines = [Line(0.0, "car", True, f"a message \x1b[2J of number {number}", failed=number == 3) for number in range(9)]
    with MonitorTable() as table:
        table.show(counts, lines, 7)
        last = shown.getvalue()
    assert "61 frames, 60 ids, 7 lost" in last
    assert "AB" not in last
    assert "00:00:00.000000 car -> " in last
    assert "\x1b[2J" not in last
    rows = [line for line in last.splitlines() if line.strip()]
    assert max(map(len, rows)) <= width + len("\x1b[?25l")
    assert len(rows) <= 20
