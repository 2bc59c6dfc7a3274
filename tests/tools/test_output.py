"""What is shown where: on a terminal, through a pipe, to a program, into a log."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import Phase
from proxyflash.tools.bars import Bars
from proxyflash.tools.output import Mode, Output
from proxyflash.tools.wording import finished_text, plan_text, size

from .conftest import NEW, Desk

pytestmark = pytest.mark.real_time("child programs at pseudo-terminals")

FLASH = ["flash", "camera", NEW["camera"]]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*[34][0-9;]*m")


def on_terminal(desk: Desk, *arguments: str, columns: int = 80, **environment: str) -> str:
    """What a command writes to a terminal, stdout and stderr together."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    names = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TERM")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    process = desk.start(
        *arguments, stdin=slave, stdout=slave, stderr=slave, env=clean | {"TERM": "xterm-256color"} | environment
    )
    os.close(slave)
    text = b""
    try:
        while data := os.read(master, 65536):
            text += data
    except OSError:
        pass  # the other end is closed
    os.close(master)
    assert process.wait(600) == 0, text
    return text.decode()


def drawn(text: str) -> list[str]:
    """The lines that were drawn, each time that they were."""
    return [ESCAPE.sub("", line) for line in re.split(r"[\r\n]+", text)]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_a_terminal_gets_one_line_that_fits_and_keeps_the_verdict(desk: Desk, columns: int) -> None:
    text = on_terminal(desk, *FLASH, columns=columns)
    lines = drawn(text)
    for phase in ("erase", "write", "verify"):
        bars = [line for line in lines if line.startswith(f"camera  {phase:<7} ")]
        assert bars, (phase, lines)
        assert all(len(line) < columns for line in bars)
        assert any("━" in line for line in bars) == (columns > 40)
    assert re.search(r"camera  write .* \d+ %", "\n".join(lines))
    plan, *verdict = [line for line in screen(text) if line and not line.startswith("    ")]
    assert plan.startswith("camera  plan    96,416 bytes of")
    assert verdict == ["camera  -> 1.5.0  OK  verified (read back), booted"]
    assert "  \x1b[32mOK\x1b[0m  verified" in text
    assert COLOUR.search(text)


def test_no_color_is_heeded(desk: Desk) -> None:
    text = on_terminal(desk, *FLASH, NO_COLOR="1")
    assert "━" in text
    assert not COLOUR.search(text)


@pytest.mark.parametrize("option", ["--quiet", "-q"])
def test_quiet_leaves_the_verdict(desk: Desk, option: str) -> None:
    text = on_terminal(desk, *FLASH, option)
    assert ESCAPE.sub("", text) == "camera  -> 1.5.0  OK  verified (read back), booted\r\n"


def test_a_dumb_terminal_gets_lines(desk: Desk) -> None:
    text = on_terminal(desk, *FLASH, "-v", TERM="dumb")
    assert "\x1b" not in text
    assert "━" not in text
    assert "camera  write   96,416 B" in text


def test_a_row_too_long_for_the_terminal_is_several_lines(desk: Desk) -> None:
    for columns in (40, 80):
        assert all(len(line) <= columns for line in drawn(on_terminal(desk, "scan", columns=columns)))
    wide = ESCAPE.sub("", on_terminal(desk, "scan", columns=120))
    assert "uds 0x7E0/0x7E8  serial RA-0019\r\n" in wide


@pytest.mark.parametrize(
    ("line", "painted"),
    [
        ("imu  OK  -> 1.5.0", "imu  <32>OK<0>  -> 1.5.0"),
        ("imu  FAILED at step 2.1: E-X", "imu  <31>FAILED<0> at step 2.1: E-X"),
        ("  imu  imus  -  -  absent  stm32-uart", "  imu  imus  -  -  <33>absent<0>  stm32-uart"),
        ("imu  absent, and optional: passed over", "imu  <33>absent<0>, and optional: passed over"),
        ("step OK of the FAILED part", "step OK of the FAILED part"),
    ],
)
def test_what_became_of_a_component_has_a_colour(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, painted: str
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for term, no_colour, shown in (("xterm", "", painted), ("xterm", "1", line), ("dumb", "", line)):
        monkeypatch.setenv("TERM", term)
        monkeypatch.setenv("NO_COLOR", no_colour)
        Output().line(line)
        assert re.sub("\x1b\\[(\\d+)m", r"<\1>", capsys.readouterr().out) == f"{shown}\n"


def test_a_document_has_no_colour(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    value = "serial x  OK  y"
    for mode in (Mode.JSON, Mode.JSONL):
        Output(mode=mode).document({"cause": value})
        assert json.loads(capsys.readouterr().out)["cause"] == value
    Output().data(value)
    assert capsys.readouterr().out == f"{value}\n"


def test_bars_of_a_narrow_terminal_cut_no_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)
    now = 0.0
    bars = Bars(lambda: now, moves=False)
    bars.show(ev.PhaseStarted("front-radar", ev.Phase.WRITE, 1_000_000))
    now = 5.0
    bars.show(ev.Progress("front-radar", ev.Phase.WRITE, 500_000, 1_000_000))
    bars.show(ev.PhaseFinished("front-radar", ev.Phase.WRITE, 1_000_000, 12.0, ""))
    bars.show(ev.PhaseStarted("front-radar", ev.Phase.VERIFY, 1_000_000))
    bars.show(ev.PhaseFinished("front-radar", ev.Phase.VERIFY, 1_000_000, 12.0, "routine 0x0202 by the part"))
    bars.show(ev.PhaseStarted("imu", ev.Phase.VERIFY, 1_000))
    bars.show(ev.PhaseFinished("imu", ev.Phase.VERIFY, 1_000, 1.0, "routine 2 by it, dependencies by 0xFF01"))
    bars.stop()
    lines = [line.rstrip() for line in drawn(capsys.readouterr().err)]
    assert all(len(line) <= 40 and "…" not in line for line in lines)
    for shown in ("write    50 %  100.0 kB/s", "write   1,000,000 B", "verify  routine 0x0202 by"):
        assert f"front-radar  {shown}" in lines
    assert "imu          verify  routine 2 by it" in lines


def test_a_pipe_gets_neither_bars_nor_escape_codes(desk: Desk) -> None:
    process = desk.start(*FLASH)
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    assert [line.split()[1] for line in out.splitlines()] == ["plan", "->"]
    assert "\x1b" not in out


@pytest.mark.parametrize("environment", [
    {"JOURNAL_STREAM": "8:12345", "INVOCATION_ID": "0" * 32},  # systemd.exec(5): a service whose output goes to the journal.
    {"CI": "true", "GITHUB_ACTIONS": "true", "TERM": "xterm-256color"},
    {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "TTY_INTERACTIVE": "1"},  # rich's, which would draw bars into a pipe.
], ids=["journald", "github", "forced"])  # fmt: skip
def test_a_log_gets_one_line_an_event(desk: Desk, environment: dict[str, str]) -> None:
    """Of several components at once, too. The log has its own times."""
    process = desk.start("apply", "--parallel", desk.manifest, stderr=subprocess.STDOUT, env=os.environ | environment)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    assert not re.search(r"[\x1b\r]|━|\d\d:\d\d:\d\d", out)
    for component in NEW:
        said = [
            line.removeprefix(component).split()[0] for line in out.splitlines() if line.startswith(f"{component}  ")
        ]
        assert said == ["step", "plan", "OK"], out


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_components_at_once_have_a_line_each_that_fits(desk: Desk, columns: int) -> None:
    text = on_terminal(desk, "apply", "--parallel", str(desk.manifest), columns=columns)
    for component in NEW:
        bars = [line for line in drawn(text) if re.match(rf"{component} +(erase|write|verify) ", line)]
        assert bars, component
        assert all(len(line) < columns for line in bars)
    left = "\n".join(screen(text))
    assert [len(re.findall(rf"^{component}  OK  -> 1.5.0", left, re.MULTILINE)) for component in NEW] == [1] * len(NEW)
    assert "write" not in left


def test_more_with_v(desk: Desk) -> None:
    done = desk.run(*FLASH[:2], desk.image("camera"), "-v")
    phases = [line.split()[1] for line in done.err.splitlines()]
    assert phases == ["connect", "compare", "erase", "write", "verify", "boot"]
    assert "Traceback" not in desk.run("-v", "flash", "camera", "none.hex").err
    assert "Traceback" in desk.run("-vv", "flash", "camera", "none.hex").err


def test_each_line_of_jsonl_is_a_document_and_looks_the_same_on_a_terminal(desk: Desk) -> None:
    done = desk.run("--jsonl", "apply", desk.manifest)
    assert (done.status, done.err) == (0, "")
    lines = done.lines
    assert {line["schema"] for line in lines} == {1}
    kinds = [line["kind"] for line in lines]
    assert set(kinds) == {
        "step",
        "action",
        "planned",
        "phase",
        "progress",
        "phase-done",
        "step-done",
        "component-done",
        "result",
    }
    assert (kinds.count("result"), kinds[-1]) == (1, "result")
    written = [line for line in lines if line["kind"] == "progress" and line["phase"] == "write"]
    for component in NEW:
        own = [line for line in written if line["component"] == component]
        assert [line["done"] for line in own] == sorted(line["done"] for line in own)
        assert own[-1]["done"] == own[-1]["total"]
    terminal = on_terminal(desk, "--jsonl", "apply", str(desk.manifest))
    assert [json.loads(line)["kind"] for line in terminal.splitlines()][-1] == "result"


def test_json_is_one_document_and_says_nothing_beside(desk: Desk) -> None:
    for arguments in (["scan"], ["plan", desk.manifest], ["info", "imu"], ["apply", desk.manifest], ["plugins"]):
        done = desk.run("--json", *arguments)
        assert (done.document["schema"], done.err) == (1, ""), arguments


def test_the_log_keeps_everything_with_times(desk: Desk) -> None:
    log = desk.folder / "log.txt"
    assert desk.run(*FLASH[:2], desk.image("camera"), "--quiet", "--log-file", log).status == 0
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ", line) for line in lines)
    assert [kind for kind in ("planned", "phase", "phase-done", "camera  -> 1.5.0  OK") if kind in log.read_text()]
    # DFU 1.1, 6.1.2: what the part did with a block.
    assert re.search(r"usb camera <- 1\.\d GETSTATUS OK, dfuDNLOAD-IDLE, bwPollTimeout ", log.read_text())
    before = len(lines)
    desk.run("scan", "--log-file", log)
    assert len(log.read_text().splitlines()) > before


def test_a_reader_that_goes_away_is_no_error(desk: Desk) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = desk.start("scan", stdout=writer)
    os.close(writer)
    _, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")


def test_a_terminal_that_knows_ascii_alone(desk: Desk) -> None:
    process = desk.start(*FLASH, "--dry-run", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    out, err = process.communicate(timeout=600)
    assert (process.returncode, err) == (0, "")
    assert out.isascii()


def test_a_file_name_that_is_no_text(desk: Desk) -> None:
    command = [*map(os.fsencode, desk.command("flash", "camera")), b"no-\xff.hex"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 12
    assert done.stderr.startswith("E-IMAGE-MISSING no-\\udcff.hex")


def test_a_fault_of_our_own_is_told_as_such(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxyflash.enumerators.bench import Bench

    def broken(self: Bench) -> None:
        raise KeyError("nobody foresaw this")

    monkeypatch.setattr(Bench, "scan", broken)
    done = desk.run("scan")
    assert done.status == 1
    assert done.err.startswith("E-UNEXPECTED KeyError: 'nobody foresaw this'. ")
    assert "Traceback" not in done.err
    assert "in broken" in desk.run("-vv", "scan").err
    assert desk.run("--json", "scan").document["error"]["code"] == "E-UNEXPECTED"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1000, "1,000 bytes"), (65536, "64 KiB"), (3 << 20, "3 MiB"), (1 << 30, "1,024 MiB")],
)
def test_sizes_as_people_write_them(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (
            {"image_bytes": 61440, "erase_units": 4, "erase_bytes": 65536, "write_bytes": 59392, "blank_bytes": 2048},
            "61,440 bytes of 1,048,576 · erase 4 units (64 KiB) · skip 2,048 blank bytes · about 7 s",
        ),
        (
            {"image_bytes": 10, "present_bytes": 10},
            "10 bytes of 1,048,576 · 10 bytes are there already · nothing to write",
        ),
        (
            {"image_bytes": 10, "erase_units": 1, "erase_bytes": 100, "write_bytes": 10, "seconds": 0.2},
            "10 bytes of 1,048,576 · erase 1 unit (100 bytes) · about 1 s",
        ),
        (
            {"image_bytes": 10, "write_bytes": 10, "replaces": "slot 1"},
            "10 bytes of 1,048,576 · replace what slot 1 holds · about 7 s",
        ),
        (
            {"image_bytes": 10, "write_bytes": 10, "rate": "9,600 bit/s"},
            "10 bytes of 1,048,576 · about 7 s at 9,600 bit/s",
        ),
    ],
)
def test_a_plan_in_one_line(fields: dict[str, Any], text: str) -> None:
    nothing = {"erase_units": 0, "erase_bytes": 0, "write_bytes": 0, "blank_bytes": 0, "present_bytes": 0, "seconds": 7}
    assert plan_text(ev.Planned("imu", memory_bytes=1 << 20, **{**nothing, **fields})) == text


def test_a_rate_is_that_of_the_phase() -> None:
    assert finished_text(ev.PhaseFinished("imu", Phase.WRITE, 10_000, 2.0)) == "10,000 B  5.0 kB/s"
    assert finished_text(ev.PhaseFinished("imu", Phase.READ, 2_000_000, 1.0)) == "2,000,000 B  2,000.0 kB/s"
    assert finished_text(ev.PhaseFinished("imu", Phase.VERIFY, 10_000, 2.0, "read back")) == "read back"
    assert finished_text(ev.PhaseFinished("imu", Phase.BOOT, 0, 2.0)) == "2.0 s"


def test_a_step_s_own_words_show_with_v(capsys: pytest.CaptureFixture[str]) -> None:
    retry = ev.Retrying("imu", Phase.WRITE, 2, 3, "E-SERIAL-TIMEOUT", "no answer")
    Output().event(retry)
    assert capsys.readouterr().err == "imu  write: E-SERIAL-TIMEOUT no answer; trying again (2 of 3)\n"
    Output(quiet=True).event(retry)
    assert capsys.readouterr().err == ""


def screen(text: str) -> list[str]:
    """What a terminal shows in the end, by the few codes that bars use: ECMA-48's CUU and EL, CR, LF."""
    rows, row = [""], 0
    for code in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if code == "\n":
            row += 1
            rows += [""] * (row == len(rows))
        elif re.fullmatch(r"\x1b\[\d*A", code):
            row -= int(code[2:-1] or 1)
        elif code == "\x1b[2K":
            rows[row] = ""
        elif not code.startswith("\x1b") and code != "\r":
            rows[row] += code
    return [line.rstrip() for line in rows]


def test_a_verdict_takes_the_line_of_its_component_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    output = Output()
    output._bars = Bars(lambda: 0.0, moves=False)
    for part in ("imu", "cam", "radar"):
        output.event(ev.PhaseStarted(part, ev.Phase.WRITE, 1000))
    output.event(ev.Progress("cam", ev.Phase.WRITE, 500, 1000))
    output.event(ev.PhaseFinished("imu", ev.Phase.WRITE, 1000, 1.0, ""))
    so_far = capsys.readouterr().err
    assert [" ".join(re.sub("[━╸]", "", line).split()) for line in screen(so_far) if line] == [
        "imu write 1,000 B 1.0 kB/s",
        "cam write 50 %",
        "radar write 0 %",
    ]
    output.verdict("imu", "OK")
    output.note("a note")
    said = capsys.readouterr()
    so_far += said.err
    assert (said.out, next(line for line in screen(so_far) if line)) == ("imu  OK\n", "a note")
    assert [line.split()[0] for line in screen(so_far) if line] == ["a", "cam", "radar"]
    output.event(ev.Progress("cam", ev.Phase.WRITE, 800, 1000))
    output.close()
    assert [line for line in screen(so_far + capsys.readouterr().err) if line] == ["a note"]
