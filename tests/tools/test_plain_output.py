"""What a part, a manifest or a file says is shown, never obeyed: hostile texts in each field, through each way out.

No raw control character, escape sequence or bidirectional mark reaches stdout, stderr or the log file, and no text
makes a line of its own. JSON documents hold the exact texts, in ASCII.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import re
import shutil
import socket
import struct
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest
from proxyflash.enumerators.state import bench_folder
from proxyflash.flashers import events as ev
from proxyflash.tools.bars import Bars
from proxyflash.tools.output import Mode, Output
from proxyflash.tools.vm.errors import VmPanic
from proxyflash.transports.plain import CAUSE, WORD
from proxyflash.updates.engine.journal import Journal
from proxyflash.updates.engine.store import Store

from .conftest import Desk, Done

HOSTILE = "C24\x1b[2J\x1b]0;PWNED\x07\u202eabc\nE-FAKE all is well"
SHOWN = r"C24\x1b[2J\x1b]0;PWNED\x07\u202eabc\nE-FAKE all is well"
ASCII = HOSTILE.replace("\u202e", "")
"""For wires that carry ASCII."""
OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
STAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d ")


def clean(text: str) -> None:
    """No character that is obeyed, but for our own ends of lines; and no line that a text has made."""
    lines = text.split("\n")
    bad = {character for line in lines for character in line if unicodedata.category(character) in OBEYED}
    assert not bad, text
    assert not [line for line in lines if line.lstrip().startswith("E-FAKE")], text


def checked(desk: Desk, *arguments: str | Path, shown: str = SHOWN) -> Done:
    """Runs a command with a log file: all that it says is clean, and the hostile text is in it."""
    log = desk.folder / "proxyflash.log"
    log.unlink(missing_ok=True)
    done = desk.run("--log-file", log, *arguments)
    for text in (done.out, done.err, log.read_text(encoding="utf-8")):
        clean(text)
    assert shown in done.out + done.err
    assert shown in log.read_text(encoding="utf-8")
    assert all(STAMP.match(line) for line in log.read_text(encoding="utf-8").splitlines())
    return done


# USB.


@pytest.fixture
def camera(desk: Desk) -> Desk:
    """A bench whose camera has a hostile serial number, product and manufacturer."""
    text = json.dumps(HOSTILE)
    desk.edit(
        ('serial = "C24-7781"', f"serial = {text}, product = {text}, manufacturer = {text}"),
        ('manufacturer = "Fabrikam"\nmodel = "C-24"\n', ""),
    )
    return desk


@pytest.mark.parametrize("command", [["scan"], ["info", "camera"]])
def test_usb_strings(camera: Desk, command: list[str]) -> None:
    done = checked(camera, *command)
    assert done.status == 0


def test_a_usb_device_to_paste(camera: Desk) -> None:
    """The lines that `scan` prints for the bench file are one device, and hold again."""
    text = camera.bench.read_text()
    camera.bench.write_text(text.replace("runtime_vendor_id = 0x1209", "runtime_vendor_id = 0x1208"))
    done = checked(camera, "scan")
    pasted = done.out.partition("to add, paste:")[2]
    camera.bench.write_text(text + pasted)
    assert camera.run("bench", "check").status == 0


def test_json_holds_the_exact_text(camera: Desk) -> None:
    done = camera.run("scan", "--json")
    assert done.out.isascii()
    [found] = [item for item in done.document["components"] if item["name"] == "camera"]
    assert found["properties"]["serial"] == HOSTILE
    lines = camera.run("info", "camera", "--jsonl").out
    assert lines.isascii()
    assert json.loads(lines.splitlines()[-1])["identity"]["serial"] == HOSTILE


# Serial lines.


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine has the time that it takes."""
    monkeypatch.setattr("proxyflash.enumerators.records.SIGHT_SECONDS", 60.0)


@contextmanager
def talking(answer: bytes) -> Iterator[str]:
    """A serial line whose application answers the bench file's question so; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    line, _ = listening.accept()
                except OSError:
                    return
                with line:
                    while heard := line.recv(4096):
                        if b"V?" in heard:
                            line.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"socket://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


SERIAL = """
[bus.line]
kind = "serial"
url = "{url}"

[[component]]
name = "imu"
bus = "line"
protocol = "{protocol}"
{profile}
version = {{send = "V?\\r", match = "FW ([^\\r]*)\\r", timeout = 20}}
"""
PROFILES = {
    "stm32-uart": "",
    "stk500v1": 'profile = {part = "ATmega328P"}',
    "stk500v2": 'profile = {part = "ATmega2560"}',
    "avr109": 'profile = {part = "ATmega32U4"}',
    "smp": "profile = {answer = 0.3, quiet = 0.01}",
    "xmodem": 'profile = {loader = "gecko", slot_size = 1000}',
    "ymodem": 'profile = {loader = "st-iap", slot_size = 1000}',
}


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("protocol", PROFILES)
@pytest.mark.real_time("a peer at a socket")
def test_the_version_that_a_part_on_a_serial_line_tells(desk: Desk, protocol: str) -> None:
    with talking(b"FW " + ASCII.encode() + b"\r") as url:
        desk.bench.write_text(SERIAL.format(url=url, protocol=protocol, profile=PROFILES[protocol]))
        done = checked(desk, "scan", shown=SHOWN.replace(r"\u202e", ""))
        told = desk.run("scan", "--json").document["components"][0]["version"]
    assert done.status == 0
    assert told == ASCII


@pytest.mark.usefixtures("patient")
@pytest.mark.real_time("a peer at a socket")
def test_a_long_version_is_cut_for_a_person(desk: Desk) -> None:
    with talking(b"FW " + b"1" * 4000 + b"\r") as url:
        desk.bench.write_text(SERIAL.format(url=url, protocol="stm32-uart", profile=""))
        done = desk.run("scan")
        told = desk.run("scan", "--json").document["components"][0]["version"]
    assert "1" * WORD + "…" in done.out
    assert max(map(len, done.out.splitlines())) < 2 * WORD
    assert told == "1" * 4000


# SMP.


WEATHER = """
[bus.lan]
kind = "udp"
host = "127.0.0.1"
port = {port}

[[component]]
name = "weather"
bus = "lan"
protocol = "smp-udp"
"""
Answer = Callable[[int, int], dict[str, Any]]
"""The answer to a request, of which the group and the command are given."""


@contextmanager
def answering(answer: Answer) -> Iterator[int]:
    """A part that speaks SMP; its UDP port."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                packet, address = ours.recvfrom(4096)
                if not packet:
                    return
                op, _, _, group, sequence, command = struct.unpack(">BBHHBB", packet[:8])
                text = cbor2.dumps(answer(group, command))
                ours.sendto(struct.pack(">BBHHBB", op + 1, 0, len(text), group, sequence, command) + text, address)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = ours.getsockname()[1]
        yield port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", ("127.0.0.1", port))
        thread.join()


@pytest.mark.usefixtures("patient")
@pytest.mark.real_time("a peer at a socket")
def test_the_reason_of_an_smp_refusal(desk: Desk) -> None:
    with answering(lambda group, command: {"rc": 7, "rsn": HOSTILE}) as port:
        desk.bench.write_text(WEATHER.format(port=port))
        done = checked(desk, "info", "weather")
        identity = desk.run("info", "weather", "--json").document["identity"]
    assert done.status == 0
    assert [value for value in identity.values() if HOSTILE in value]


def boasting(group: int, command: int) -> dict[str, Any]:
    """Every text that an application may tell of itself (os management 7, 8; image management 0)."""
    image = {"slot": 0, "version": HOSTILE, "hash": b"\1" * 32, "active": True, "confirmed": True, "bootable": True}
    told: dict[tuple[int, int], dict[str, Any]] = {
        (0, 0): {"r": "?"},
        (0, 7): {"output": HOSTILE},
        (0, 8): {"bootloader": HOSTILE},
        (1, 0): {"images": [image]},
    }
    return told.get((group, command), {"rc": 8})


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("command", [["scan"], ["info", "weather"]])
@pytest.mark.real_time("a peer at a socket")
def test_the_version_and_the_names_that_an_smp_part_tells(desk: Desk, command: list[str]) -> None:
    """The flasher keeps their printable characters alone, also for a JSON document."""
    kept = "".join(" " if unicodedata.category(character) in OBEYED else character for character in HOSTILE)
    with answering(boasting) as port:
        desk.bench.write_text(WEATHER.format(port=port))
        done = checked(desk, *command, shown=kept)
        told = desk.run(*command, "--json").out
    assert done.status == 0
    assert told.isascii()
    texts = texts_of(json.loads(told))
    assert kept in texts
    assert not [text for text in texts if {unicodedata.category(character) for character in text} & OBEYED]


# UDS.


def test_uds_identifiers_are_plain_and_bounded(desk: Desk) -> None:
    """A diagnostic identifier may have 4,000 characters, of which the flasher keeps 128."""
    desk.edit(('serial = "RA-0019"', f'serial = "{"A" * 4000}"'))
    done = desk.run("scan")
    clean(done.out)
    assert "A" * 128 + "..." in done.out
    assert "A" * 129 not in done.out
    told = desk.run("info", "front-radar")
    clean(told.out)
    assert "A" * 128 + "..." in told.out
    assert max(map(len, told.out.splitlines())) < 2 * WORD


def test_uds_identifiers_with_control_characters_are_hexadecimal(desk: Desk) -> None:
    desk.edit(('serial = "RA-0019"', f"serial = {json.dumps(ASCII)}"))
    done = desk.run("scan", "--json")
    clean(desk.run("scan").out)
    [radar] = [item for item in done.document["components"] if item["name"] == "front-radar"]
    assert radar["properties"]["serial"] == ASCII.encode().hex().upper()


# Manifests.

Edit = Callable[[dict[str, Any]], None]


def rewritten(path: Path, edit: Edit) -> None:
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))


@pytest.mark.real_time("a step runs a script")
def test_the_description_of_an_update_and_of_its_steps(desk: Desk) -> None:
    def describe(manifest: dict[str, Any]) -> None:
        manifest["description"] = HOSTILE
        for step in manifest["instructions"]["steps"]:
            step["description"] = HOSTILE

    rewritten(desk.manifest, describe)
    for member in ("imu", "radar", "camera"):
        rewritten(desk.manifest.with_name(f"{member}.importmanifest.json"), describe)
    assert checked(desk, "manifest", "check", desk.manifest).status == 0
    assert checked(desk, "plan", desk.manifest).status == 0
    assert checked(desk, "apply", desk.manifest, "-v").status == 0


@pytest.mark.real_time("a step runs a script")
def test_the_names_of_files(desk: Desk) -> None:
    """A file that is there, through to its flashing; and a file that is not."""
    manifest = desk.manifest.with_name("camera.importmanifest.json")
    name = f"{HOSTILE}.dfu"
    shutil.move(desk.image("camera"), manifest.with_name(name))

    def name_it(document: dict[str, Any]) -> None:
        document["files"][0]["filename"] = name
        document["instructions"]["steps"][0]["files"] = [name]

    rewritten(manifest, name_it)
    assert checked(desk, "manifest", "check", desk.manifest).status == 0
    assert checked(desk, "plan", desk.manifest).status == 0
    done = desk.run("apply", desk.manifest)
    clean(done.out + done.err)
    assert done.status == 0
    manifest.with_name(name).unlink()
    assert checked(desk, "plan", desk.manifest).status != 0
    assert checked(desk, "manifest", "check", desk.manifest).status != 0


def test_the_name_of_a_handler(desk: Desk) -> None:
    handler = "x\x1b[2J\u202e\x07/y:1"

    def name_it(document: dict[str, Any]) -> None:
        document["instructions"]["steps"][0]["handler"] = handler

    rewritten(desk.manifest, name_it)
    for command in ("manifest check", "plan", "apply"):
        done = checked(desk, *command.split(), desk.manifest, shown=r"x\x1b[2J\u202e\x07/y:1")
        assert done.status != 0


def test_the_properties_and_the_compatibility(desk: Desk) -> None:
    def put_in(document: dict[str, Any]) -> None:
        document["compatibility"] = [{HOSTILE[:20]: HOSTILE}]
        document["instructions"]["steps"][0]["handlerProperties"]["more"] = HOSTILE

    rewritten(desk.manifest, put_in)
    checked(desk, "manifest", "check", desk.manifest)


@pytest.mark.real_time("a step runs a script")
def test_what_a_script_says_of_itself(desk: Desk) -> None:
    """The details of a result file, in the verdict, the report and the history."""
    script = desk.manifest.with_name("check-supply.sh")
    details = json.dumps({"resultCode": 0, "extendedResultCode": 7, "resultDetails": HOSTILE})
    text = f"""#!/bin/sh
while [ "$1" != --result-file ]; do shift; done
cat >"$2" <<'END'
{details}
END
"""
    script.write_text(text)

    def resize(document: dict[str, Any]) -> None:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        document["files"][0] |= {"sizeInBytes": len(text), "hashes": {"sha256": digest}}

    rewritten(desk.manifest, resize)
    assert checked(desk, "apply", desk.manifest).status != 0
    report = desk.run("report")
    clean(report.out)
    assert HOSTILE in texts_of(json.loads(report.out))
    clean(desk.run("history").out)


def texts_of(value: Any) -> list[str]:
    """All texts in a JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in texts_of(item)] if isinstance(value, list) else [str(value)]


def test_the_history_s_name_of_an_update(desk: Desk) -> None:
    """A journal that was written by something else."""
    journal = Journal.create(Store(bench_folder(desk.state, desk.bench)).create().journal)
    journal.append("begin", {"update": HOSTILE + "x" * 1000, "tasks": 0})
    journal.close()
    done = checked(desk, "history")
    assert max(map(len, done.out.splitlines())) < 2 * WORD
    assert desk.run("history", "--json").document["updates"][0]["update"] == HOSTILE + "x" * 1000
    checked(desk, "resume")


# Files of the host.


def test_who_holds_the_bench(desk: Desk) -> None:
    lock = bench_folder(desk.state, desk.bench) / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write(ASCII)
        held.flush()
        done = checked(desk, "scan", shown="another process")
    assert "E-BENCH-LOCKED" in done.err
    assert "PWNED" not in done.err


def test_the_name_of_the_bench_file(desk: Desk) -> None:
    folder = desk.folder / HOSTILE
    folder.mkdir()
    desk.bench = desk.bench.rename(folder / "bench.toml")
    checked(desk, "bench", "check")
    desk.bench = folder / "none.toml"
    assert "E-BENCH-MISSING" in checked(desk, "scan").err


def test_the_name_of_a_key(desk: Desk) -> None:
    """It is refused where a key is made, and in the file of a root key that came from elsewhere."""
    key, root = desk.folder / "key.pem", desk.folder / "root.pem"
    assert checked(desk, "manifest", "key", root, "--kid", HOSTILE).status != 0
    assert not root.exists()
    assert desk.run("manifest", "key", root, "--kid", "root").status == 0
    assert desk.run("manifest", "key", key, "--kid", "key", "--root", root).status == 0
    deployment = desk.manifest.with_name("signed.deployment.json")
    assert desk.run("manifest", "sign", desk.manifest, "--key", key, "-o", deployment).status == 0
    public = root.with_suffix(".jwk")
    assert desk.run("manifest", "check", deployment, "--root", public).status == 0
    public.write_text(json.dumps(json.loads(public.read_text()) | {"kid": HOSTILE}))
    assert checked(desk, "manifest", "check", deployment, "--root", public).status != 0


@pytest.mark.parametrize(
    "words", [["image", HOSTILE], ["flash", "imu", HOSTILE], [HOSTILE], ["scan", HOSTILE], ["flash", HOSTILE, "x"]]
)
def test_the_words_of_the_command_line(desk: Desk, words: list[str]) -> None:
    """A file name that a shell's pattern stood for, a wrong option."""
    done = desk.run(*words)
    assert done.status != 0
    clean(done.out + done.err)
    assert "PWNED" in done.err


def test_a_traceback(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise ValueError(HOSTILE)

    monkeypatch.setattr("proxyflash.enumerators.bench.Bench.scan", fail)
    done = desk.run("scan", "-vv")
    clean(done.err)
    assert f"ValueError: {SHOWN}" in done.err
    assert "E-UNEXPECTED" in done.err
    assert "Traceback (most recent call last):\n  File " in done.err


# The ways out by themselves.


@pytest.mark.parametrize("way", ["line", "note", "alarm"])
def test_each_way_out_is_one_plain_line(way: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Whatever the commands themselves have done to the text before."""
    with (tmp_path / "log").open("w") as log:
        getattr(Output(log=log), way)(HOSTILE)
    said = capsys.readouterr()
    assert said.out + said.err == f"{SHOWN}\n"
    kept = (tmp_path / "log").read_text(encoding="utf-8")
    assert STAMP.sub("", kept) == f"{SHOWN}\n"


def test_lines_of_our_own_stay_lines(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output()
    out.lines(["one", HOSTILE])
    out.usage(["two", HOSTILE])
    said = capsys.readouterr()
    assert (said.out, said.err) == (f"one\n{SHOWN}\n", f"two\n{SHOWN}\n")


def test_a_question_that_a_person_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    Output().question(f"flash {HOSTILE}? [y/N]:")
    assert capsys.readouterr().err == f"flash {SHOWN}? [y/N]: "


def test_events_of_an_engine(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as log:
        out = Output(log=log)
        out.event(ev.Retrying("imu", ev.Phase.WRITE, 1, 3, "E-X", HOSTILE + "y" * 10 * CAUSE))
    said = capsys.readouterr().err
    clean(said)
    assert SHOWN in said
    assert len(said) < CAUSE + 200
    clean((tmp_path / "log").read_text())
    out = Output(mode=Mode.JSONL)
    out.event(ev.Retrying("imu", ev.Phase.WRITE, 1, 3, "E-X", HOSTILE))
    assert json.loads(capsys.readouterr().out)["cause"] == HOSTILE


def test_bars_obey_no_markup(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    name = "[bold]x[/bold] :smile: [red"
    bars = Bars()
    bars.show(ev.PhaseStarted(name, ev.Phase.WRITE, 10))
    bars.show(ev.PhaseFinished(name, ev.Phase.WRITE, 10, 1.0, f"[b]{HOSTILE}"))
    bars.say(f"[red]{HOSTILE} :smile:")
    bars.stop()
    said = capsys.readouterr().err
    clean(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", said))
    assert name in said
    assert f"[red]{SHOWN} :smile:" in said
    assert f"[b]{SHOWN}" in said


def test_the_console_of_a_guest(capsys: pytest.CaptureFixture[str]) -> None:
    """Its last lines are lines of ours, and what they hold makes none."""
    Output().error(VmPanic("the guest's kernel panicked", console=["one", HOSTILE, "three"]))
    said = capsys.readouterr().err
    clean(said)
    assert said.splitlines()[1:] == ["  | one", f"  | {SHOWN}", "  | three"]


# What stays out of all of it.


@pytest.mark.parametrize("options", [[], ["-vv"], ["--json"], ["--jsonl"]])
def test_secrets_are_in_no_output_and_in_no_log(desk: Desk, options: list[str]) -> None:
    secret = "5ec2e75ec2e75ec2"
    desk.edit(
        ('secret = "5a5a5a5a"', f'secret = "{secret}"'),
        ('part = "acme-r77", ', f'part = "acme-r77", secret = "{secret}", '),
    )
    log = desk.folder / "log"
    for command in (["scan"], ["info", "front-radar"], ["flash", "front-radar", str(desk.image("front-radar"))]):
        done = desk.run("--log-file", log, *options, *command)
        assert done.status == 0, done.err + done.out
        assert secret not in (done.out + done.err).lower()
    assert secret not in log.read_text().lower()
