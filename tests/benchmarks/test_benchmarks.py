"""The benchmarks work: every row comes, each side does its job, the limits are counted right. Not how fast anything is."""

from __future__ import annotations

import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.benchmarks import can_frames, dfu, measuring, peers, serving, simulated, stm32, turns
from proxyflash.benchmarks.__main__ import BENCHMARKS, QUICK
from proxyflash.benchmarks.can_frames import Bus
from proxyflash.benchmarks.measuring import Comparison, Failed, Missing, Run, Side
from proxyflash.benchmarks.serving import Served
from proxyflash.benchmarks.table import Row, printed
from proxyflash.transports import plugins
from proxyflash.transports.can.bits import frame_seconds

OURS = ["proxyflash flash", "proxyflash, in process", simulated.SIDE]
SIDES = {
    "start": ["python -c pass", "proxyflash --help", "proxyflash flash, first byte"],
    "stm32": 2 * ["limit", "stm32flash", "stm32loader", *OURS],
    "avr": 2 * ["limit", "avrdude", *OURS],
    "ymodem": ["limit", "sb", *OURS],
    "uds": 3 * ["limit", "udsoncan script", *OURS],
    "dfu": 2 * ["limit", "pyfu-usb, in process", *OURS[1:], dfu.PYFU_SIMULATED, "limit", *OURS[1:]],
    "smp": 2 * ["smpclient", "proxyflash, window 1", "proxyflash, window 3"],
    "memory": ["bincopy", "intelhex", "proxyflash"],
    "updates": ["4 steps", "16 steps"],
    "monitor": ["lines in a pipe", "lines and a recording"],
}


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """pytest's own is too long for the path of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="pf-") as name:
        yield Path(name)


def test_every_benchmark_is_tried() -> None:
    assert {*SIDES, "simulated"} == set(BENCHMARKS)


@pytest.mark.real_time("peer programs, and real time is measured")
@pytest.mark.parametrize("name", SIDES)
def test_every_row_comes(name: str, short_folder: Path) -> None:
    rows = BENCHMARKS[name](QUICK, short_folder, lambda text: None)
    assert [row.side.removesuffix(": wire and part") for row in rows] == SIDES[name]
    lacking = [row.note for row in rows if row.seconds is None]
    for row in rows:
        figures = (row.seconds, row.of_limit, row.to_reference)
        assert all(figure is None or figure > 0 for figure in figures)
        assert row.note in lacking or row.seconds is not None
    if lacking:
        pytest.skip("; ".join(lacking))


class TestMeasuring:
    def comparison(self, *sides: Side) -> Comparison:
        return Comparison("race", {"walk": 1.0}, sides, 2048)

    def test_sides_alternate_and_the_quickest_run_counts(self, tmp_path: Path) -> None:
        order: list[str] = []
        times = {"hare": [4.0, 2.0, 3.0], "tortoise": [8.0, 9.0, 7.0]}

        def side(name: str, *, ours: bool = False) -> Side:
            def run(folder: Path) -> Run:
                assert list(folder.iterdir()) == []
                order.append(name)
                return Run(times[name].pop(0))

            return Side(name, run, ours)

        rows = measuring.rows(self.comparison(side("hare"), side("tortoise", ours=True)), 3, tmp_path, print)
        assert order == ["hare", "tortoise"] * 3
        assert rows == [
            Row("race", "limit: wire and part", 1.0, 1.0, note="walk 1.00 s"),
            Row("race", "hare", 2.0, 0.5, 1.0),
            Row("race", "tortoise", 7.0, 1 / 7, 3.5),
        ]

    def test_what_is_missing_has_a_row_that_says_so(self, tmp_path: Path) -> None:
        def absent(folder: Path) -> Run:
            raise Missing("hare is not installed (Debian: hare)")

        sides = (Side("hare", absent), Side("us", lambda folder: Run(2.0), ours=True))
        rows = measuring.rows(self.comparison(*sides), 2, tmp_path, print)
        assert rows[1:] == [
            Row("race", "hare", note="hare is not installed (Debian: hare)"),
            Row("race", "us", 2.0, 0.5, None),
        ]
        assert "hare is not installed (Debian: hare)" in printed(rows)

    def test_stm32flash_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(Missing, match=r"stm32flash is not installed \(Debian: stm32flash\)"):
            peers.installed("stm32flash")

    def test_a_part_that_holds_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "flash").write_bytes(b"abcdef")
        served = Served("", tmp_path / "flash")
        served.holds(b"abc")
        with pytest.raises(Failed, match="1 of 3 bytes differ"):
            served.holds(b"abX")

    def test_a_program_that_does_not_end(self, tmp_path: Path) -> None:
        with pytest.raises(Failed, match="sleep ended with -9"):
            measuring.program(["sleep", "600"], tmp_path / "out", seconds=0.2)

    def test_a_program_that_fails(self, tmp_path: Path) -> None:
        with pytest.raises(Failed, match="ended with 3: said"):
            measuring.program(["sh", "-c", "echo said; exit 3"], tmp_path / "out")

    def test_the_processor_time_of_a_program_and_of_what_it_starts(self, tmp_path: Path) -> None:
        work = f"{sys.executable} -c 'import time\nwhile time.process_time() < 0.2: pass'"
        took = measuring.program(["sh", "-c", f"{work}; true"], tmp_path / "out")
        assert took.busy is not None
        assert 0.2 <= took.busy <= took.seconds + 0.1

    def test_the_least_processor_time_counts_for_each_kib(self, tmp_path: Path) -> None:
        each = iter([Run(2.0, busy=0.5), Run(3.0, busy=0.4)])
        rows = measuring.rows(self.comparison(Side("us", lambda folder: next(each), ours=True)), 2, tmp_path, print)
        assert rows[1].seconds == 2.0
        assert rows[1].host == pytest.approx(200.0)


class TestSimulated:
    """On the simulated clock a figure is the same on every machine, so it may be asserted."""

    @pytest.mark.parametrize("name", simulated.JOBS)
    def test_the_share_of_the_limit(self, name: str, tmp_path: Path) -> None:
        job = simulated.JOBS[name]()
        row = simulated.row(job, tmp_path / "job")
        assert row.of_limit is not None
        assert job.to_reach <= row.of_limit <= 1.0
        assert row.host is not None
        assert row.host > 0

    def test_less_than_98_percent_is_explained(self) -> None:
        jobs = [make() for make in simulated.JOBS.values()]
        assert all(job.to_reach == 0.98 or (0.955 <= job.to_reach < 0.98 and job.rest) for job in jobs)

    def test_every_family_that_has_an_emulated_part(self) -> None:
        families = {tomllib.loads(make().bench)["component"][0]["protocol"] for make in simulated.JOBS.values()}
        assert families == set(plugins.names(plugins.EMULATORS))

    def test_who_asks_while_the_device_is_to_be_let_alone_is_ahead_of_the_limit(self, tmp_path: Path) -> None:
        """DFU 1.1, 6.1.2: the host shall wait for bwPollTimeout, which is whole milliseconds."""
        peer = dfu.pyfu_simulated("slot-dfu", "DFU 1.1", 16 * 1024, tmp_path)
        if peer.seconds is None:
            pytest.skip(peer.note)
        ours = simulated.row(simulated.usb_dfu("slot-dfu", "DFU 1.1", 16 * 1024, verify=False), tmp_path / "ours")
        assert peer.of_limit is not None
        assert ours.of_limit is not None
        assert ours.of_limit < 1.0 < peer.of_limit
        assert int(peer.note.removesuffix(" transfers").replace(",", "")) > 1000

    def test_the_same_figure_each_time(self, tmp_path: Path) -> None:
        job = simulated.JOBS["dfu"]()
        first, second = (simulated.row(job, tmp_path / name).seconds for name in "ab")
        assert first == second


class TestLimits:
    @settings(max_examples=200, deadline=None)
    @given(st.integers(0, 0x7FF), st.sampled_from(can_frames.SIZES), st.binary(max_size=64), st.booleans())
    def test_frames_are_as_long_as_those_of_the_emulated_wire(
        self, identifier: int, size: int, data: bytes, fd: bool
    ) -> None:
        """Two programs that share nothing count the same bits."""
        frame = data[:size].ljust(size, b"\xcc") if fd else data[:8]
        bus = Bus(500_000, 2_000_000 if fd else None)
        message = can.Message(arbitration_id=identifier, is_extended_id=False, data=frame, is_fd=fd, bitrate_switch=fd)
        assert can_frames.seconds(bus, identifier, frame) == pytest.approx(frame_seconds(message, 500_000, 2_000_000))

    def test_a_message_is_cut_as_iso_15765_2_says(self) -> None:
        """1026 bytes: 6 in the first frame, then 145 frames of 7 and one of 5; a flow control frame between."""
        bus = Bus(500_000)
        pdu = bytes(range(256)) * 4 + b"\x12\x34"
        frames = list(can_frames._frames(bus, 0x7E0, 0x7E8, pdu))
        assert len(frames) == 1 + 1 + 146
        assert frames[0] == (0x7E0, b"\x14\x02" + pdu[:6])
        assert frames[1] == (0x7E8, b"\x30\x00\x00" + b"\xcc" * 5)
        assert frames[2] == (0x7E0, b"\x21" + pdu[6:13])
        assert frames[17] == (0x7E0, b"\x20" + pdu[111:118])
        assert frames[-1] == (0x7E0, b"\x22" + pdu[1021:] + b"\xcc\xcc")

    def test_stm32(self) -> None:
        """By hand: 20 KiB of an STM32F405 are two sectors of 16 KiB (0.25 s each), 5120 words of 16 us, 80 blocks."""
        byte = 11 / 115_200
        moved = 80 * (12 + 256) * byte
        assert stm32.limit(20 * 1024, 115_200) == pytest.approx(
            {
                "connect": 26 * byte,
                "erase": 0.5 + 11 * byte,
                "write": moved + 5120 * 16e-6,
                "verify": moved,
                "boot": 9 * byte,
            }
        )

    def test_usb(self) -> None:
        """USB 2.0, table 5-2: with 64 bytes of data a control transfer is 109 bytes long; 64 more are 77 more."""
        assert dfu.transfer(64) == pytest.approx(109 * 8 / 12e6)
        assert dfu.transfer(128) == pytest.approx(186 * 8 / 12e6)


def test_what_a_recording_shows_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two answers of it, after 100 and 300 µs; what it sent after a second had nothing to do with the byte before."""
    lines = ["1.000000 > 7f", "1.000500 < 79", "1.000600 > 11ee", "1.000700 > 00", "1.001000 < 79", "1.001010 < 0102"]
    (tmp_path / serving.RECORDING).write_text("\n".join([*lines, "1.001310 > 55", "1.002000 < 79", "2.100000 > 21de"]))
    found = turns.read(tmp_path / serving.RECORDING)
    assert [round(1e6 * each) for each in found.seconds] == [100, 300]
    assert (found.sent, found.received) == (7, 5)
    monkeypatch.setattr(turns, "KEPT", tmp_path / "kept")
    assert turns.noted(Run(1.0), tmp_path, "test").note == "2 turns of 200 µs, 0.00 s; 7 bytes out, 5 in"
    assert [file.name for file in turns.KEPT.iterdir()] == ["test"]
