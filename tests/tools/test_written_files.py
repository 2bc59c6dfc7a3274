"""What a command writes replaces no file of another kind: a word of the command line was forgotten or swapped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.tests.updates.authoring import private_key
from proxyflash.transports.recording.formats import save_all

from .conftest import Desk

OF_UPDATE = ("--provider", "Contoso", "--name", "imus", "--version", "1.5.0", "--group", "imus")
MANIFEST = "update/Contoso.host.1.5.importmanifest.json"
WRITERS: dict[str, tuple[str, ...]] = {
    "read": ("read", "camera", "@", "--start", "0x08000000", "--size", "16"),
    "image --to": ("image", "firmware/camera-1.4.2.bin", "--address", "0x08000000", "--to", "@"),
    "manifest create": ("manifest", "create", "update/other.hex", *OF_UPDATE, "-o", "@"),
    "manifest sign": ("manifest", "sign", MANIFEST, "--key", "keys/release.pem", "-o", "@"),
    "manifest key": ("manifest", "key", "@"),
    "bench init": ("bench", "init", "@"),
    "plan --out": ("plan", MANIFEST, "--out", "@"),
    "report --bundle": ("report", "--bundle", "@"),
    "report --trace": ("report", "--trace", "@"),
    "report --html": ("report", "--html", "@"),
    "--report": ("verify", "camera", "firmware/camera-1.4.2.bin", "--report", "@"),
    "--trace": ("verify", "camera", "firmware/camera-1.4.2.bin", "--trace", "@"),
    "--log-file": ("--log-file", "@", "scan"),
    "record": ("record", "@", "--", "info", "camera"),
    "replay --html": ("replay", "one.jsonl", "--html", "@"),
    "adu enumerator --conf": ("adu", "enumerator", "agent", "--conf", "@"),
}
"""Each command, and the place of the file that it writes."""


@pytest.fixture(autouse=True)
def _here(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)


@pytest.fixture
def busy_desk(desk: Desk) -> Desk:
    """With an update, a recording and keys, so that nothing else is against what a command writes."""
    Path("update/other.hex").write_bytes(desk.image("imu").read_bytes())
    assert desk.run("manifest", "create", "update/other.hex", *OF_UPDATE).status == 0
    child = "update/Contoso.imus.1.5.0.importmanifest.json"
    of_host = ("--provider", "Contoso", "--name", "host", "--version", "1.5", "--child", child)
    assert desk.run("manifest", "create", *of_host).status == 0
    assert desk.run("apply", MANIFEST, "--yes").status == 0
    assert desk.run("record", "one.jsonl", "--", "info", "camera").status == 0
    Path("keys").mkdir()
    for name in ("root", "release"):
        Path(f"keys/{name}.pem").write_bytes(private_key(name).pem())
    assert desk.run("manifest", "key", "keys/root.pem").status == 0
    assert desk.run("manifest", "key", "keys/release.pem", "--root", "keys/root.pem").status == 0
    return desk


@pytest.mark.parametrize("command", WRITERS.values(), ids=WRITERS)
def test_a_firmware_file_stays(busy_desk: Desk, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """Not one of them does anything before it looks."""
    from proxyflash.enumerators.component import Unlisted
    from proxyflash.enumerators.probers.usb import UsbProber

    monkeypatch.setattr(UsbProber, "attached", classmethod(lambda cls: [Unlisted("", "usb", "usb", 'kind = "usb"')]))
    image = Path("update/imu-1.5.0.hex").absolute()
    before = image.read_bytes()
    done = busy_desk.run(*(str(image) if word == "@" else word for word in command))
    assert done.status in (1, 2, 12)
    assert done.err.startswith("E-")
    assert "there" in done.err or "not a key" in done.err, done.err
    assert done.err.count(str(image)) == 1
    assert image.read_bytes() == before


@pytest.mark.parametrize("command", ["read", "image --to"])
def test_force_overwrites_firmware(desk: Desk, command: str) -> None:
    out = Path("old.hex")
    out.write_bytes(b"mine")
    words = [str(out) if word == "@" else word for word in WRITERS[command]]
    refused = desk.run(*words)
    assert (refused.status, out.read_bytes()) == (1, b"mine")
    assert refused.err == "E-IMAGE-WRITE old.hex is there already. Name another file, or add --force.\n"
    assert desk.run(*words, "--force").status == 0
    assert out.read_bytes().startswith(b":")


def test_an_empty_file_is_nothing_to_lose(desk: Desk) -> None:
    Path("empty.hex").touch()
    assert desk.run("read", "camera", "empty.hex", "--start", "0x08000000", "--size", "16").status == 0


def test_a_read_is_refused_before_the_part_is_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxyflash.enumerators.bench_component import BenchComponent

    Path("backup.hex").write_bytes(b"mine")
    monkeypatch.setattr(BenchComponent, "programmer", lambda *_, **__: pytest.fail("the part is asked"))
    assert desk.run("read", "camera", "backup.hex").status == 1


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("no/backup.hex", "no/backup.hex can't be written: there is no folder no."),
        ("backup.docx", "backup.docx: no firmware format has this ending."),
        ("firmware", "firmware: no firmware format has this ending."),
        ("folder.hex", "folder.hex can't be written: this is a folder."),
    ],
)
@pytest.mark.parametrize("more", [(), ("--force",)], ids=["", "force"])
def test_where_nothing_can_be_written_the_part_is_not_asked(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, out: str, said: str, more: tuple[str, ...]
) -> None:
    """A memory takes minutes to read."""
    from proxyflash.enumerators.bench_component import BenchComponent

    Path("folder.hex").mkdir()
    monkeypatch.setattr(BenchComponent, "programmer", lambda *_, **__: pytest.fail("the part is asked"))
    done = desk.run("read", "camera", out, *more)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith(f"E-IMAGE-WRITE {said} Name ")


def test_a_link_is_written_where_it_leads(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own folder may be read-only, and its target's folder may not be there."""
    from proxyflash.enumerators.bench_component import BenchComponent
    from proxyflash.tools.commands.outputs import refuse_firmware

    Path("out.hex").symlink_to("no/backup.hex")
    Path("there.hex").symlink_to("free/backup.hex")
    Path("free").mkdir()
    folder = Path.cwd() / "free"
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) == folder)
    refuse_firmware(Path("there.hex"), force=False)
    monkeypatch.undo()
    monkeypatch.chdir(desk.folder)
    monkeypatch.setattr(BenchComponent, "programmer", lambda *_, **__: pytest.fail("the part is asked"))
    done = desk.run("read", "camera", "out.hex")
    assert (done.status, done.out) == (1, "")
    assert f"out.hex can't be written: there is no folder {desk.folder.resolve() / 'no'}." in done.err


def test_a_manifest_replaces_the_same_update_s_alone(busy_desk: Desk) -> None:
    def create(version: str) -> int:
        words = [*OF_UPDATE[:4], "--version", version, "--group", "imus", "-o", "update/new.json"]
        return busy_desk.run("manifest", "create", "update/other.hex", *words).status

    assert [create("1.5.0"), create("1.5.0"), create("1.6.0")] == [0, 0, 2]
    assert json.loads(Path("update/new.json").read_text())["updateId"]["version"] == "1.5.0"
    # What is signed of an import manifest does not take its place either.
    before = Path(MANIFEST).read_bytes()
    done = busy_desk.run("manifest", "sign", MANIFEST, "--key", "keys/release.pem", "-o", MANIFEST)
    assert (done.status, done.err.split()[0], Path(MANIFEST).read_bytes()) == (2, "E-MANIFEST-OUTPUT", before)
    words = ("manifest", "sign", MANIFEST, "--key", "keys/release.pem")
    assert [busy_desk.run(*words).status, busy_desk.run(*words).status] == [0, 0]


def _another_key(desk: Desk) -> None:
    Path("new.jwk").write_bytes(Path("keys/root.jwk").read_bytes())


def _another_word(desk: Desk) -> None:
    Path("new.sjwk").write_bytes(Path("keys/release.sjwk").read_bytes())


@pytest.mark.parametrize("put", [_another_key, _another_word])
def test_what_is_public_of_another_key_stays(busy_desk: Desk, put: Callable[[Desk], None]) -> None:
    """And no private key is made for which there is no public one."""
    put(busy_desk)
    there = {path: path.read_bytes() for path in Path().glob("new.*")}
    done = busy_desk.run("manifest", "key", "new.pem", "--root", "keys/root.pem")
    assert (done.status, done.err.split()[0]) == (2, "E-MANIFEST-OUTPUT")
    assert {path: path.read_bytes() for path in Path().glob("new.*")} == there


def test_a_folder_with_files_of_others_gets_no_export(busy_desk: Desk) -> None:
    """Their names are common: can.log, usb.txt."""
    out = Path("out")
    out.mkdir()
    (out / "can.log").write_text("mine")
    done = busy_desk.run("replay", "one.jsonl", "--export", "out")
    assert (done.status, done.err.split()[0]) == (2, "E-RECORDING-FILE")
    assert [path.name for path in out.iterdir()] == ["can.log"]
    (out / "can.log").unlink()
    for _ in range(2):
        assert busy_desk.run("replay", "one.jsonl", "--export", "out").status == 0


def test_an_export_leaves_nothing_of_an_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    save_all([], out)
    (out / "can.log").write_text("(0.0) can0 7E0#00")
    save_all([], out)
    assert [path.name for path in out.iterdir()] == ["recording.jsonl"]


def test_a_log_goes_on(desk: Desk) -> None:
    for _ in range(2):
        assert desk.run("--log-file", "log.txt", "info", "camera").status == 0


def test_an_agent_s_image_of_the_same_name_stays(desk: Desk) -> None:
    Path("made").mkdir()
    Path("made/imu-1.5.0.hex").write_bytes(b"mine")
    words = ("adu", "script", "update/imu-1.5.0.hex", *OF_UPDATE, "--to", "made")
    done = desk.run(*words)
    assert (done.status, done.err.split()[0]) == (1, "E-TARGET")
    assert Path("made/imu-1.5.0.hex").read_bytes() == b"mine"
    Path("made/imu-1.5.0.hex").unlink()
    assert [desk.run(*words).status, desk.run(*words).status] == [0, 0]
