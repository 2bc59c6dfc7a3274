"""Recordings that somebody else made: a replay runs no command of theirs and writes no file that they name."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from proxyflash.emulators.replay.session import Replay, ReplayUnanswered
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.commands import CommandFailed
from proxyflash.enumerators.errors import ComponentUnknown
from proxyflash.tools import commands, replayable
from proxyflash.transports import plugins
from proxyflash.transports.outside import Outside
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.records import Answer
from proxyflash.updates.engine.results import ActionResult, asked
from proxyflash.updates.errors import StepFailed

from .conftest import Desk, Done

ECU = """
[bus.p]
kind = "can"
interface = "socketcan"
channel = "vcan0"
[[component]]
name = "x"
bus = "p"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
"""
MEMORY = 'memory = [{name = "f", start = 0, size = 65536}]'
HOST = '[[component]]\nname = "h"\nversion_from = {command = "touch PWNED; echo 1.0"}\n'


class Victim:
    """An empty folder with a recording beside it, in which every command is run."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.recording = folder.parent / "evil.jsonl"
        self._capsys = capsys

    def given(self, text: str | None, *arguments: str, records: tuple[dict[str, Any], ...] = (), **head: Any) -> None:
        first = {"format": "proxyflash recording", "schema": 1, "dropped": 0, "arguments": list(arguments), "status": 0}
        if text is not None:
            first["bench"] = {"name": "bench.toml", "text": text}
        lines = [first | head, *records]
        self.recording.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    def replay(self, *more: str) -> Done:
        self._capsys.readouterr()
        status = commands.run(["replay", str(self.recording), *more])
        return Done(status, *self._capsys.readouterr())

    def code(self, *more: str) -> str:
        """The code of the error that is reported last; nothing was written."""
        done = self.replay(*more)
        assert done.status != 0
        assert list(self.folder.iterdir()) == []
        code: str = done.err.splitlines()[-1].split()[0]
        return code


@pytest.fixture
def victim(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Victim]:
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PROXYFLASH_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    yield Victim(folder, capsys)
    assert list(folder.iterdir()) == []
    assert not (tmp_path / "state").exists()


# Shell commands.


@pytest.mark.parametrize("typed", [(), ("--", "scan"), ("--json",), ("--pace", "1")], ids=str)
def test_the_command_that_tells_a_version_is_not_run(victim: Victim, typed: tuple[str, ...]) -> None:
    victim.given(HOST, "scan")
    done = victim.replay(*typed)
    assert done.status == 1
    assert "E-REPLAY-UNANSWERED" in done.out + done.err
    assert "touch PWNED" in done.out + done.err


def test_a_recording_can_not_say_that_it_ended_so(victim: Victim) -> None:
    victim.given(HOST, "scan", status=1)
    assert victim.code() == "E-REPLAY-UNANSWERED"


def test_the_recorded_answer_is_given_instead(victim: Victim) -> None:
    answer = {"time": 1.0, "bus": "", "kind": "answer", "question": "command: touch PWNED; echo 1.0", "text": "7.7\n"}
    victim.given(HOST, "scan", records=(answer,))
    done = victim.replay()
    assert (done.status, "h  -  -  7.7  ok" in done.out) == (0, True)


def test_a_file_of_this_host_is_not_asked_for_a_version(victim: Victim) -> None:
    file = victim.recording.with_name("version")
    file.write_text("6.6")
    victim.given(f'[[component]]\nname = "h"\nversion_from = {{file = "{file}"}}\n', "scan")
    done = victim.replay()
    assert (done.status, "6.6" in done.out) == (1, False)
    assert "E-REPLAY-UNANSWERED" in done.err


def test_supplies_are_not_switched(victim: Victim) -> None:
    power = '[power.x]\noff = "touch PWNED"\non = "touch PWNED"\nvolts = "touch PWNED"\n'
    victim.given(f"{ECU}boot_timeout = 0.1\nprofile = {{{MEMORY}}}\n{power}", "reset", "x")
    assert victim.code() == "E-REPLAY-MISMATCH"


def test_every_command_of_a_bench_goes_one_way(tmp_path: Path) -> None:
    """Those of checks, partitions, applications and restarts are run by the bench too, and by nothing else."""
    (tmp_path / "bench.toml").write_text("")
    marker = tmp_path / "marker"
    record = Answer(1.0, "", "command: true", "said")
    failed = Answer(2.0, "", "command: false", "it ended with 1", True)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "s", replay=Replay(Recording((record, failed)))) as bench:
        assert bench.commands.run("true") == "said"
        assert bench.commands.run("true") == "said", "the last answer comes again"
        with pytest.raises(CommandFailed, match="it ended with 1"):
            bench.commands.run("false")
        with pytest.raises(ReplayUnanswered):
            bench.commands.run(f"touch {marker}")
    assert not marker.exists()


STARTERS = (
    "Popen(", "subprocess.run", "subprocess.call", "subprocess.check", "subprocess.get", "import Popen", "os.system",
    "os.popen", "os.exec", "os.spawn", "os.posix_spawn",
)  # fmt: skip


def test_programs_are_started_in_one_place_alone() -> None:
    root = Path(commands.__file__).parents[2]
    packages = ("transports", "flashers", "enumerators", "updates", "emulators")
    starters = {
        str(path.relative_to(root))
        for package in packages
        for path in (root / package).rglob("*.py")
        if any(word in path.read_text(encoding="utf-8") for word in STARTERS)
    }
    # A key library's own process, which a replay doesn't start; `ip`, which `monitor` asks, and a replay runs no `monitor`.
    assert starters == {"enumerators/child_programs.py", "flashers/keys/making.py", "transports/can/host.py"}
    assert "monitor" not in replayable.TYPED


@pytest.mark.real_time("a step runs a script")
def test_steps_that_reach_the_host_are_not_run_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = desk.folder.parent / "apply.jsonl"
    assert desk.run("record", recording, "--", "apply", desk.manifest).status == 0

    def started(*arguments: Any, **settings: Any) -> None:
        pytest.fail(f"started {arguments}")

    monkeypatch.setattr(subprocess, "Popen", started)
    again = desk.run("replay", recording)
    assert again.status == 0, again.err
    assert "host  OK" in again.out
    lines = recording.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"step ' not in line]
    assert len(kept) < len(lines)
    recording.write_text("".join(kept))
    without = desk.run("replay", recording)
    assert without.status == 1
    assert "E-REPLAY-UNANSWERED host: the recording has no answer to this: step 1 on host: " in without.err


def test_of_all_handlers_only_two_are_run_by_a_replay() -> None:
    handlers = {name: plugins.load(plugins.STEPS, name) for name in plugins.names(plugins.STEPS)}
    run = {name for name, handler in handlers.items() if handler.buses_only}
    assert run == {"proxyflash/flash:1", "proxyflash/check:1"}


@pytest.mark.parametrize("action", ["partition", "app"])
def test_handlers_of_the_host_are_asked_nothing(action: str) -> None:
    """Neither their actions nor their clean-up are called: the recorded result is theirs."""

    def called() -> ActionResult:
        pytest.fail("called")

    question = f"step 1.1 on {action}: install"
    recorded = Answer(1.0, "", question, '{"code": 600, "extended": 0, "details": "it was so"}')
    broken = Answer(1.0, "", "broken", '{"code": "600"}')
    failed = Answer(1.0, "", "failed", "no space left", True)
    outside = Outside(lambda: None, Replay(Recording((recorded, broken, failed))))
    assert asked(outside, question, called) == ActionResult(600, 0, "it was so")
    for other, said in (("broken", "is broken"), ("failed", "no space left")):
        with pytest.raises(StepFailed, match=said):
            asked(outside, other, called)
    with pytest.raises(ReplayUnanswered):
        asked(outside, "another", called)


# Code, buses and files.


def test_a_module_that_makes_keys_is_not_imported(
    victim: Victim, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "evil_keys.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(modules)
    profile = f'profile = {{{MEMORY}, security = {{key = "evil_keys:f"}}}}\n'
    victim.given(ECU + profile, "info", "x")
    assert victim.code() == "E-REPLAY-MISMATCH"


@pytest.mark.parametrize(
    "bus",
    [
        'kind = "serial"\nurl = "spy:///dev/null?file=PWNED"',
        'kind = "serial"\nurl = "alt:///dev/null?class=VTIMESerial"',
        'kind = "serial"\nurl = "hwgrep://tty"',
        'kind = "serial"\nurl = "socket://127.0.0.1:1"',
        'kind = "can"\ninterface = "usb2can"\nchannel = "x"',
        'kind = "can"\ninterface = "udp_multicast"\nchannel = "239.0.0.1"',
        'kind = "can"\nemulated = true',
        'kind = "usb"\nemulated = true',
    ],
)
def test_no_other_bus_is_opened_than_the_recorded_one(victim: Victim, bus: str) -> None:
    victim.given(f"[bus.b]\n{bus}\n", "scan")
    done = victim.replay()
    assert done.status == 0, done.err
    assert done.out.endswith("exchanges 0 on b\n")


def test_a_kind_of_bus_that_is_not_recorded_is_refused(victim: Victim) -> None:
    victim.given('[bus.b]\nkind = "udp"\nhost = "127.0.0.1"\n', "scan")
    done = victim.replay()
    assert done.status == 1
    assert "E-RECORDING buses of kind 'udp' can't be replayed" in done.err


def test_no_part_is_emulated(tmp_path: Path) -> None:
    (tmp_path / "bench.toml").write_text('[bus.b]\nkind = "can"\nemulated = true\n')
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "s", replay=Replay(Recording(()))) as bench:
        bench.check()
        with pytest.raises(ComponentUnknown, match="replayed"):
            bench.emulated_wire("b")


# The recorded command line.

REFUSED = [
    ("manifest", "key", "PWNED.pem"),
    ("--log-file", "PWNED", "scan"),
    ("scan", "--log-file=PWNED"),
    ("scan", "--log-file", "PWNED"),
    ("read", "x", "PWNED"),
    ("image", "x.hex", "--to", "PWNED"),
    ("emulate",),
    ("demo", "PWNED"),
    ("record", "PWNED", "--", "scan"),
    ("replay", "evil.jsonl", "--export", "PWNED"),
    ("bench", "init", "PWNED"),
    ("vm", "PWNED"),
    ("doctor",),
    ("resume",),
    ("rollback", "--yes"),
    ("-vvh",),
    ("--help",),
    ("--", "manifest", "key", "PWNED"),
    ("--", "scan", "--log-file", "PWNED"),
    ("-q", "--", "scan", "--log-file=PWNED"),
    ("--json", "--", "scan"),
    ("--", "scan", "--help"),
    ("--json=x", "scan"),
    ("scan", "--start"),
    ("",),
]


@pytest.mark.parametrize("arguments", REFUSED, ids=" ".join)
def test_a_recorded_command_line_writes_nothing(victim: Victim, arguments: tuple[str, ...]) -> None:
    victim.given(ECU, *arguments)
    assert victim.code() == "E-REPLAY-COMMAND"


def test_the_recorded_bench_and_state_are_left_out(victim: Victim) -> None:
    own = victim.recording.with_name("own.toml")
    own.write_text(HOST)
    victim.given('[bus.b]\nkind = "can"\n', "--bench", str(own), f"--state={victim.folder / 'PWNED'}", "scan", "-q")
    assert victim.replay().status == 0


@pytest.mark.parametrize("arguments", [("doctor",), ("manifest", "key", "x"), ("-q", "--log-file", "scan", "emulate")])
def test_a_typed_command_uses_the_buses_too(victim: Victim, arguments: tuple[str, ...]) -> None:
    victim.given(ECU, "scan")
    assert victim.code("--", *arguments) == "E-REPLAY-COMMAND"


def test_a_typed_command_writes_what_it_names(victim: Victim) -> None:
    victim.given('[bus.b]\nkind = "can"\n', "scan")
    log = victim.recording.with_name("log")
    assert victim.replay("--", "--log-file", str(log), "scan").status == 0
    assert log.exists()


def test_every_option_of_the_commands_is_allowed_or_refused_on_purpose() -> None:
    """Whoever adds an option decides whether a recording may have it."""
    refused = {"--log-file", "--out", "--version", "--help", "-h"}
    known = replayable.FLAGS | replayable.VALUES | replayable.LEFT_OUT | refused
    for name in replayable.RECORDED:
        command = commands.cli.get_command(click.Context(commands.cli), name)
        assert command is not None
        for parameter in command.params:
            if not isinstance(parameter, click.Option):
                continue
            for option in (*parameter.opts, *parameter.secondary_opts):
                short = option.startswith("-") and not option.startswith("--")
                assert option[1:] in replayable.SHORT if short else option in known, (name, option)
                if option in replayable.FLAGS:
                    assert parameter.is_flag or parameter.count
                elif option in replayable.VALUES:
                    assert not isinstance(parameter.type, (click.Path, click.File)), "it may be written to"


# Broken ones.

CAN = {"time": 1.0, "kind": "can", "out": True, "id": "1", "data": ""}


@pytest.mark.parametrize(
    ("head", "records"),
    [
        ({"files": 5}, ()),
        ({"files": [{"argument": 7, "sha256": "0" * 64}]}, ()),
        ({"files": [{"argument": True, "sha256": "0" * 64}]}, ()),
        ({"arguments": ["flash", "x", "a\0b"]}, ()),
        ({"arguments": ["flash", "\ud800"]}, ()),
        ({"arguments": "scan"}, ()),
        ({"arguments": ["a"] * 100_000}, ()),
        ({"status": "x"}, ()),
        ({"status": -1}, ()),
        ({"dropped": 10**100}, ()),
        ({"bench": {"name": "b", "text": "\ud800"}}, ()),
        ({"bench": {"name": "b", "text": 5}}, ()),
        ({"bench": 5}, ()),
        ({"schema": True}, ()),
        ({}, (CAN | {"bus": "\ud800"},)),
        ({}, (CAN | {"bus": "b" * 70_000},)),
        ({}, (CAN | {"bus": "a\n(0) b 1#00\n"},)),
        ({}, (CAN | {"bus": "a b"},)),
        ({}, (CAN | {"bus": "../x"},)),
        ({}, (CAN | {"bus": ""},)),
        ({}, (CAN | {"bus": "b", "time": 9e10},)),
        ({}, (CAN | {"bus": "b", "time": 10**400},)),
        ({}, (CAN | {"bus": "b", "time": float("inf")},)),
        ({}, ({"time": 1.0, "bus": "s", "kind": "line", "changes": {"baudrate": 10**4000}},)),
        ({}, ({"time": 1.0, "bus": "s", "kind": "line", "changes": {"parity": "\x1b[2J"}},)),
    ],
    ids=range(25),
)
def test_a_broken_recording_is_a_documented_error(
    victim: Victim, head: dict[str, Any], records: tuple[dict[str, Any], ...]
) -> None:
    victim.given("", "scan", records=records, **head)
    assert victim.code() == "E-RECORDING"
    assert victim.code("--export", str(victim.recording.with_name("out"))) == "E-RECORDING"
    assert not victim.recording.with_name("out").exists()


LONG = "7" * 1_000_000


@pytest.mark.parametrize(
    ("head", "record"),
    [
        ({}, CAN | {"bus": "b", "id": LONG}),
        ({}, CAN | {"bus": "b", "id": f"{LONG}g"}),
        ({}, CAN | {"bus": "b", "data": LONG}),
        ({}, CAN | {"bus": "b", "flags": [LONG]}),
        ({}, CAN | {"bus": LONG}),
        ({}, CAN | {"bus": "b", LONG: 1}),
        ({}, CAN | {"bus": "b", "kind": LONG}),
        ({}, {"time": 1.0, "bus": "s", "kind": "line", "changes": {LONG: 1}}),
        ({"schema": LONG}, CAN),
    ],
    ids=range(9),
)
def test_an_error_quotes_the_start_of_a_long_value(
    victim: Victim, head: dict[str, Any], record: dict[str, Any]
) -> None:
    """Also as JSON, and what follows the value is still seen."""
    victim.given("", "scan", records=(record,), **head)
    done = victim.replay()
    assert len(done.err) < 1000
    assert "Record it again" in done.err or "too old" in done.err
    assert len(victim.replay("--json").out) < 1000


def test_an_error_quotes_the_start_of_a_long_option(victim: Victim) -> None:
    victim.given("", "scan", f"--{'x' * 4000}")
    done = victim.replay()
    assert (done.err.split()[0], len(done.err) < 1000) == ("E-REPLAY-COMMAND", True)
    assert "which a replay doesn't obey" in done.err


@pytest.mark.parametrize("name", ["a" * 300, "a\0b", "..", "/etc/passwd", "b\n"])
def test_the_recorded_name_of_a_bench_names_no_file(victim: Victim, name: str) -> None:
    victim.given(None, "scan", bench={"name": name, "text": '[bus.b]\nkind = "can"\n'})
    assert victim.replay().status == 0


def test_a_key_that_stands_twice_is_refused(victim: Victim) -> None:
    head = '{"format":"proxyflash recording","schema":1,"arguments":["scan"],"arguments":["doctor"]}\n'
    victim.recording.write_text(head)
    assert victim.code() == "E-RECORDING"


def test_a_usb_configuration_that_is_too_short_is_refused(victim: Victim) -> None:
    device = "120100020000004083 0411df002201020301".replace(" ", "")
    seen = {"root": 1, "address": 2, "ports": [1], "speed": 2, "device": device, "configurations": ["0902"]}
    victim.given(
        '[bus.usb]\nkind = "usb"\n',
        "scan",
        records=({"time": 1.0, "bus": "usb", "kind": "devices", "devices": [seen]},),
    )
    assert victim.code() == "E-RECORDING"


# Who may read them, and what is in them.


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777], ids=oct)
def test_recordings_are_for_their_owner_alone(desk: Desk, umask: int) -> None:
    recording, out = desk.folder.parent / "a.jsonl", desk.folder.parent / "out"
    recording.touch()
    recording.chmod(0o666)
    before = os.umask(umask if umask != 0o777 else 0o077)
    try:
        assert desk.run("record", recording, "--", "scan").status == 0
        os.umask(umask)
        assert desk.run("replay", recording, "--export", out).status == 0
    finally:
        os.umask(before)
    assert mode(recording) == 0o600
    assert mode(out) == 0o700
    assert {mode(path) for path in out.iterdir()} == {0o600}


def test_a_link_in_the_place_of_a_recording_is_replaced(victim: Victim) -> None:
    precious = victim.recording.with_name("precious")
    precious.write_text("precious")
    out = victim.recording.with_name("out")
    out.mkdir()
    victim.given("", "scan", records=(CAN | {"bus": "b"},))
    (out / "recording.jsonl").symlink_to(precious)
    assert victim.code("--export", str(out)) == "E-RECORDING-FILE"
    older = victim.recording.with_name("older.jsonl")
    older.write_bytes(before := victim.recording.read_bytes())
    (out / "recording.jsonl").unlink()
    (out / "recording.jsonl").symlink_to(older)
    for name in ("can.log", "recording.pcapng"):
        (out / name).symlink_to(precious)
    assert victim.replay("--export", str(out)).status == 0
    assert (precious.read_text(), older.read_bytes()) == ("precious", before)
    assert not any(path.is_symlink() for path in out.iterdir())
    for name in ("dangling", "precious"):
        if name == "dangling":
            victim.recording.with_name(name).symlink_to("nowhere")
        assert victim.code("--export", str(victim.recording.with_name(name))) == "E-RECORDING-FILE"


def test_a_recording_has_no_secret_of_the_bench(desk: Desk) -> None:
    secret = "5a5a5a5a"
    assert secret in desk.bench.read_text()
    desk.bench.write_text("# supply: telnet admin:hunter2@pdu\n" + desk.bench.read_text())
    recording = desk.folder.parent / "a.jsonl"
    assert desk.run("record", recording, "--", "flash", "front-radar", desk.image("front-radar")).status == 0
    text = recording.read_text()
    assert (secret in text, "hunter2" in text) == (False, False)
    desk.bench.unlink()
    assert commands.run(["replay", str(recording)]) == 0


def test_the_recorded_key_is_sent_without_the_function_that_makes_it(desk: Desk) -> None:
    """Only its record counts: another key there is another exchange."""
    recording = desk.folder.parent / "a.jsonl"
    assert desk.run("record", recording, "--", "flash", "front-radar", desk.image("front-radar")).status == 0
    lines = [json.loads(line) for line in recording.read_text().splitlines()]
    keys = [line for line in lines if line.get("question", "").startswith("UDS key of level 1 for the seed ")]
    assert len(keys) == 1
    sent = bytes.fromhex(keys[0]["text"])
    assert len(sent) == 4
    keys[0]["text"] = bytes(byte ^ 0xFF for byte in sent).hex()
    recording.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = desk.run("replay", recording)
    assert done.status == 1
    assert "E-REPLAY-MISMATCH" in done.err
