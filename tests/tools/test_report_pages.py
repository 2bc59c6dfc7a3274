"""Reports as pages: `--report`, `report --html`, `replay --html` and `replay --against`. The pages say what the commands said."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from html import unescape
from pathlib import Path
from typing import NoReturn

import pytest
from proxyflash.report_page import page
from proxyflash.report_page.story import Mood, Story, Verdict
from proxyflash.transports import private_files
from proxyflash.transports.recording.formats import head_line, record_line
from proxyflash.transports.recording.records import CanFrame

from .conftest import Desk

FLASH = ("flash", "camera", "update/camera-1.5.0.dfu")


def text_of(path: Path) -> str:
    """What a person reads on a page, without its style; words of neighbouring cells are apart."""
    text = re.sub(r"<style>.*?</style>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", text)))


@pytest.fixture(autouse=True)
def _in_the_desk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)


def test_a_flash_says_on_its_page_what_it_says_in_its_document(desk: Desk) -> None:
    done = desk.run("--json", *FLASH, "--report", "page.html")
    said, text = done.document, text_of(Path("page.html"))
    assert done.status == 0
    assert (said["written_bytes"], said["serial"]) == (96_416, "C24-7781")
    for shown in ("camera OK", "written 96,416 bytes", f"erased {said['erased_bytes']:,} bytes", said["serial"]):
        assert shown in text, shown
    assert said["verified"] in text
    assert "proxyflash --bench" in text
    assert "--report" not in text
    # DfuSe's layout of the example's part: what the file has is verified, and the file's own digest is named.
    assert re.search(r"0x08000000 0x[0-9A-F]{8} [0-9,]+ verified", text)
    digest = Path("SHA256SUMS").read_text().split("  update/camera-1.5.0.dfu")[0].split("\n")[-1].strip()
    assert digest in text
    assert Path("page.html").stat().st_mode & 0o777 == 0o600


def test_a_failure_has_its_error_and_what_passed_before(desk: Desk) -> None:
    done = desk.run("--json", "verify", "camera", desk.image("camera"), "--report", "page.html")
    text, error = text_of(Path("page.html")), done.document["error"]
    assert (done.status, error["code"]) == (8, "E-VERIFY-MISMATCH")
    assert error["cause"] in text
    assert error["remedy"] in text
    # The verdict is first, and the exchange ends with the failure.
    assert "✕ camera failed" in text[: text.index("Timeline")]
    assert "camera: E-VERIFY-MISMATCH" in text[text.index("What passed around each failure") :]
    assert "messages before these are not shown" in text
    # Which file it was, by its digest and by the size of its DfuSe elements.
    digest = hashlib.sha256(desk.image("camera").read_bytes()).hexdigest()
    assert f"image camera-1.5.0.dfu SHA-256 of the file {digest} holds 96,416 bytes" in text


def test_a_page_that_can_t_be_written_is_told_before_anything_is_done(desk: Desk) -> None:
    before = desk.memory()
    done = desk.run(*FLASH, "--report", "nowhere/page.html")
    assert (done.status, done.err[:13], desk.memory()) == (2, "E-REPORT-FILE", before)
    assert "nowhere/page.html: there is no folder nowhere" in done.err
    assert "update: this is a folder" in desk.run(*FLASH, "--report", "update").err
    assert f": {os.strerror(errno.ENAMETOOLONG)}. " in desk.run(*FLASH, "--report", "x" * 300).err
    assert "--report FILE" in desk.run("report", "--html", "page.html").err


@pytest.mark.real_time("a step runs a script")
def test_an_update_and_the_page_of_its_journal(desk: Desk) -> None:
    done = desk.run("apply", desk.manifest, "--report", "page.html")
    assert done.status == 0
    made = desk.run("report", "--html", "later.html")
    assert (made.status, Path("later.html").stat().st_mode & 0o777) == (0, 0o600)
    live, later = text_of(Path("page.html")), text_of(Path("later.html"))
    verdicts = [line.split("  ", 1) for line in done.out.splitlines() if re.match(r"\S+  OK", line)]
    assert len(verdicts) == 4
    for name, verdict in verdicts:
        for text in (live, later):
            assert f"{name} {re.sub(' +', ' ', verdict)}" in text, name
    report = json.loads(desk.run("report").out)
    for item in report["componentResults"]:
        assert all(f"holds now {item['holds']}" in text for text in (live, later) if item["holds"])
    for file in (Path(desk.manifest).parent).iterdir():
        if file.suffix != ".json":
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            assert all(
                f"{file.name} {file.stat().st_size:,} bytes, SHA-256 {digest}" in text for text in (live, later)
            ), file
    assert "4 components OK" in live
    assert "Succeeded: 4 components OK" in later
    # What passed is on the page that was made meanwhile, and not in a journal.
    assert ("powertrain" in live, "Memory" in live, "Memory" in later) == (True, True, False)
    assert later.index("This page is made of the update's journal.") < later.index("Timeline")
    # An image of 96,416 bytes touches sectors 0 to 4 of an STM32F405: 128 KiB (RM0090, table 5).
    assert re.search(r"camera backup [\d.]+ s step 4\.1: 131,072 bytes read", later)


def test_a_replay_draws_what_was_recorded_in_the_time_of_the_recording(desk: Desk) -> None:
    assert desk.run("record", "one.jsonl", "--", *FLASH, "--report", "live.html").status == 0
    assert desk.run("replay", "one.jsonl", "--html", "page.html").status == 0
    live, drawn = text_of(Path("live.html")), text_of(Path("page.html"))
    for text in (live, drawn):
        assert "written 96,416 bytes" in text
    # The recording's day and second, and its addresses.
    when = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC")
    assert when.findall(drawn) == when.findall(live)
    map_of = re.compile(r"Addresses from to bytes state (.*?) untouched", re.DOTALL)
    assert map_of.findall(drawn) == map_of.findall(live) != []


def test_a_recording_without_a_command_is_drawn_by_its_traffic(desk: Desk) -> None:
    assert desk.run("record", "one.jsonl", "--", "scan").status == 0
    lines = Path("one.jsonl").read_text().splitlines()
    head = {key: value for key, value in json.loads(lines[0]).items() if key not in ("arguments", "files")}
    Path("bare.jsonl").write_text("\n".join([json.dumps(head), *lines[1:], ""]))
    done = desk.run("replay", "bare.jsonl", "--html", "page.html")
    assert (done.status, "no command was recorded with it" in text_of(Path("page.html"))) == (0, True)
    assert f"{len(lines) - 1:,} records of" in text_of(Path("page.html"))


def test_two_recordings_and_their_first_difference(desk: Desk) -> None:
    desk.run("record", "one.jsonl", "--", *FLASH)
    lines = Path("one.jsonl").read_text().splitlines()
    place = max(place for place, line in enumerate(lines) if '"kind": "usb"' in line and '"setup": "2101' in line)
    changed = json.loads(lines[place])
    changed["data"] = "ff" + changed["data"][2:]
    Path("other.jsonl").write_text("\n".join([*lines[:place], json.dumps(changed), *lines[place + 1 :], ""]))
    same = desk.run("replay", "one.jsonl", "--against", "one.jsonl", "--html", "same.html")
    assert (same.status, "✓ The same passed on all buses" in text_of(Path("same.html"))) == (0, True)
    Path("none.jsonl").write_bytes(head_line())
    none = desk.run("replay", "none.jsonl", "--against", "none.jsonl", "--html", "none.html")
    assert (none.status, none.out) == (0, "none.jsonl and none.jsonl  nothing passed in either: nothing was compared\n")
    assert "! Nothing passed in either: nothing was compared" in text_of(Path("none.html"))
    done = desk.run("replay", "one.jsonl", "--against", "other.jsonl", "--html", "page.html")
    text = text_of(Path("page.html"))
    assert (done.status, "E-REPLAY-DIFFERENT usb: transfer 308 with 0483:df11" in done.err) == (1, True), done.err
    told = json.loads(desk.run("--json", "replay", "one.jsonl", "--against", "other.jsonl").out)
    (found,) = told["error"]["differences"]
    assert (found["bus"], found["what"]) == ("usb", "transfer 308 with 0483:df11")
    assert (found["recording"] + " -> FF", found["recording"][:5]) == (found["against"], "21 01")
    # DFU 1.1, 6.1.1: DNLOAD is request 1.
    assert "DNLOAD" in found["recording_words"]
    assert f"({found['recording_words']}); in the other one" in done.err
    assert "First difference on usb" in text
    assert text.index("one.jsonl") < text.index("other.jsonl")


def uds_recording(name: str, *frames: tuple[int, str]) -> None:
    records = [
        CanFrame(1_000.0 + number, "car", can_id == 0x7E0, can_id, 0, bytes.fromhex(data))
        for number, (can_id, data) in enumerate(frames)
    ]
    Path(name).write_bytes(head_line() + b"".join(map(record_line, records)))


def test_the_first_difference_is_in_words(desk: Desk) -> None:
    """A frame in a long message has the words of that message (ISO 15765-2, ISO 14229-1)."""
    first, flow = (0x7E0, "10 0B 31 01 FF 00 44 08"), (0x7E8, "30 00 00")
    uds_recording("one.jsonl", first, flow, (0x123, "01"), (0x7E0, "21 00 00 00 01 00"))
    uds_recording("other.jsonl", first, flow, (0x123, "01"), (0x7E0, "21 00 00 00 02 00"))
    done = desk.run("replay", "one.jsonl", "--against", "other.jsonl")
    assert done.status == 1
    assert "(RoutineControl startRoutine 0xFF00 eraseMemory, 44 08 00 00 00 01 00); in the other one" in done.err
    assert "eraseMemory, 44 08 00 00 00 02 00)" in done.err


@pytest.mark.parametrize(("one", "other"), [
    ([(0x7E8, "04 67 01 36 57")], [(0x7E8, "04 67 01 36 58")]),
    ([(0x7E0, "10 08 27 02 36 57 11 11"), (0x7E8, "30"), (0x7E0, "21 36 57")],
     [(0x7E0, "10 08 27 02 36 57 11 11"), (0x7E8, "30"), (0x7E0, "21 36 58")]),
    ([(0x7E0, "04 27 02 36 57")], [(0x7E0, "02 10 02")]),
])  # fmt: skip
def test_a_difference_shows_no_seed_and_no_key(
    desk: Desk, one: list[tuple[int, str]], other: list[tuple[int, str]]
) -> None:
    uds_recording("one.jsonl", *one)
    uds_recording("other.jsonl", *other)
    for command in (
        ("replay", "one.jsonl", "--against", "other.jsonl", "--html", "page.html"),
        ("--json", "replay", "one.jsonl", "--against", "other.jsonl"),
    ):
        done = desk.run(*command)
        assert done.status == 1
        assert "SecurityAccess" in done.out + done.err
        for shown in (done.out, done.err, text_of(Path("page.html"))):
            assert "36 57" not in shown
            assert "3657" not in shown


def test_a_page_that_fails_hides_no_failure_of_its_command(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(story: object, hidden: object) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr(page, "render", broken)
    done = desk.run("verify", "camera", "update/none.dfu", "--report", "page.html")
    assert (done.status, "E-UNEXPECTED RuntimeError: broken" in done.err) == (12, True)
    assert done.err.splitlines()[-1].startswith("E-IMAGE-MISSING")


@pytest.mark.parametrize(("image", "status"), [("firmware/camera-1.4.2.bin", 1), ("update/camera-1.5.0.dfu", 8)])
def test_a_disk_that_is_full_at_the_end(desk: Desk, monkeypatch: pytest.MonkeyPatch, image: str, status: int) -> None:
    def full(path: Path, mode: int = 0) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(private_files, "whole", full)
    done = desk.run("--json", "record", "one.jsonl", "--", "verify", "camera", image, "--report", "page.html")
    assert done.status == status
    last = done.err.splitlines()[-1]
    assert last.startswith(
        "E-OUTPUT the page can't be written: page.html: No space left on device; "
        "the recording can't be written: one.jsonl: No space left on device. Is the disk full?"
    )
    assert last.endswith("The work itself is done.") == (status == 1)
    assert (done.document["recording"], len(done.document["runs"])) == (None, 1)


def test_a_page_replaces_one_that_is_there_whole(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("verify", "camera", "firmware/camera-1.4.2.bin", "--report", "page.html")
    assert desk.run(*command).status == 0
    monkeypatch.setattr(page, "render", lambda story, hidden: "after")
    assert desk.run(*command).status == 0
    assert Path("page.html").read_text() == "after"


@pytest.mark.parametrize(
    "command",
    [
        ("verify", "camera", "firmware/camera-1.4.2.bin", "--report"),
        ("report", "--html"),
        ("replay", "one.jsonl", "--html"),
    ],
)
def test_a_page_replaces_nothing_that_is_no_page(desk: Desk, command: tuple[str, ...]) -> None:
    """Such as the firmware, where the option's own file was forgotten."""
    desk.run("record", "one.jsonl", "--", "info", "camera")
    image = desk.image("camera")
    before = image.read_bytes()
    done = desk.run(*command, image)
    assert (done.status, done.err.split()[0], image.read_bytes()) == (2, "E-REPORT-FILE", before)


def test_a_page_has_no_settings_of_a_target(desk: Desk) -> None:
    """Neither in its title nor in the command that goes on; nor has that of a replay. They may be keys of a part."""
    target = (
        "uds:proxyflash:can?bus.emulated=true&pace=0&request=0x7E0&component.emulated.part=acme-r77&security.key=xor"
        "&security.secret=5a5a5a{}&memory=[{{start=0x10000,size=0x70000,erase_unit=4096}}]"
    )
    image = desk.image("front-radar")
    for ending, status in (("5a", 0), ("5b", 1)):
        done = desk.run("flash", target.format(ending), image, "--no-boot", "--full", "--report", "page.html")
        assert (done.status == 0) == (status == 0), done.err
        text = text_of(Path("page.html"))
        assert "flash uds:proxyflash:can" in text
        assert "5a5a5a" not in text
    one = ("flash", target.format("5a"), image, "--no-boot", "--full")
    assert desk.run("record", "one.jsonl", "--", *one).status == 0
    desk.run("replay", "one.jsonl", "--html", "replayed.html", "--", *one)
    assert "5a5a5a" not in text_of(Path("replayed.html"))


def test_what_a_page_hides_is_hidden_everywhere(tmp_path: Path) -> None:
    story = Story(
        title="flash",
        summary="a:b?key=1 failed",
        mood=Mood.BAD,
        began=0.0,
        ended=1.0,
        verdicts=(Verdict("a", "E-X: in a:b?key=1", Mood.BAD),),
        error="Run: proxyflash resume 'a:b?key=1'",
    )
    page.write(story, tmp_path / "page.html", {"'a:b?key=1'": "a:b", "a:b?key=1": "a:b"})
    text = text_of(tmp_path / "page.html")
    assert "key=1" not in text
    assert "proxyflash resume a:b" in text


def test_a_page_of_a_replay_that_fails_hides_no_difference(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk.run("record", "one.jsonl", "--", "verify", "camera", "firmware/camera-1.4.2.bin").status == 0
    monkeypatch.setattr(page, "render", lambda story, hidden: 1 / 0)
    done = desk.run("replay", "one.jsonl", "--html", "page.html", "--", "info", "camera")
    assert "E-UNEXPECTED ZeroDivisionError" in done.err
    assert (done.status, done.err.splitlines()[-1][:17]) == (1, "E-REPLAY-MISMATCH")


@pytest.mark.parametrize(
    "words",
    [
        ("--print", "--html", "page.html"),
        ("--export", "folder", "--html", "page.html"),
        ("--print", "--against", "one.jsonl"),
        ("--print", "--", "scan"),
        ("--against", "one.jsonl", "--", "scan"),
    ],
)
def test_options_of_a_replay_that_exclude_each_other(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.run("record", "one.jsonl", "--", "scan").status == 0
    done = desk.run("replay", "one.jsonl", *words)
    assert (done.status, done.out, Path("folder").exists(), Path("page.html").exists()) == (2, "", False, False)


def test_a_typed_command_that_a_replay_may_not_run_is_refused_with_a_page_too(desk: Desk) -> None:
    assert desk.run("record", "one.jsonl", "--", "scan").status == 0
    done = desk.run("replay", "one.jsonl", "--html", "page.html", "--", "emulate")
    assert (done.status, done.err[:16], Path("page.html").exists()) == (2, "E-REPLAY-COMMAND", False)
