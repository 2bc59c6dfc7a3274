"""A FIFO or a device in the place of a file that the user names: a documented error, without waiting or reading for ever."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from .conftest import Desk

pytestmark = pytest.mark.timeout(60)
IMAGE = "update/imu-1.5.0.hex"
NAMES = ("--provider", "Contoso", "--name", "x", "--version", "1.0")
KEY = ("manifest", "sign", "update/update.importmanifest.json")
READ = [
    ("E-RECORDING", ("replay", "@")),
    ("E-RECORDING", ("replay", "@", "--export", "out")),
    ("E-BENCH-MISSING", ("scan", "--bench", "@")),
    ("E-IMAGE-MISSING", ("image", "@")),
    ("E-IMAGE-MISSING", ("flash", "imu", "@", "--yes")),
    ("E-IMAGE-MISSING", ("verify", "imu", "@")),
    ("E-IMAGE-MISSING", ("adu", "script", "@", *NAMES, "--group", "x", "--to", "out")),
    ("E-MANIFEST-MISSING", ("manifest", "check", "@")),
    ("E-MANIFEST-MISSING", ("plan", "@")),
    ("E-MANIFEST-MISSING", ("apply", "@")),
    ("E-MANIFEST-MISSING", ("manifest", "create", *NAMES, "--child", "@")),
    ("E-FILE-MISSING", ("manifest", "create", "@", *NAMES, "--group", "x")),
    ("E-KEY-FILE", (*KEY, "--key", "@")),
    ("E-KEY-FILE", (*KEY, "--key", "key.pem", "--sjwk", "@")),
]
WRITTEN = [
    ("E-LOG", ("scan", "--log-file", "@")),
    ("E-RECORDING-FILE", ("record", "@", "--", "scan")),
    ("E-IMAGE-WRITE", ("image", IMAGE, "--to", "@.hex")),
    ("E-MANIFEST-OUTPUT", ("manifest", "create", "imu.hex", *NAMES, "--group", "x", "-o", "@")),
]


def refused(desk: Desk, monkeypatch: pytest.MonkeyPatch, name: str, code: str, arguments: tuple[str, ...]) -> None:
    monkeypatch.chdir(desk.folder)
    done = desk.run(*(word.replace("@", name) for word in arguments))
    said = done.err.strip().splitlines()[-1]
    assert (done.status != 0, said.split()[0]) == (True, code), said
    assert name in said


@pytest.mark.parametrize("kind", ["fifo", "/dev/zero"])
@pytest.mark.parametrize(
    ("code", "arguments"), READ, ids=lambda item: item if isinstance(item, str) else " ".join(item)
)
def test_what_is_read(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, kind: str, code: str, arguments: tuple[str, ...]
) -> None:
    from proxyflash.tests.updates.authoring import private_key

    os.mkfifo(desk.folder / "fifo")
    if "key.pem" in arguments:
        (desk.folder / "key.pem").write_bytes(private_key("release").pem())
    refused(desk, monkeypatch, kind, code, arguments)


def test_the_firmware_of_an_emulated_part(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    os.mkfifo(desk.folder / "fifo")
    desk.edit_all("firmware/imu-1.4.2.bin", "fifo")
    done = desk.run("info", "imu")
    assert (done.status, "fifo: not a regular file" in done.err) == (12, True), done.err


@pytest.mark.parametrize(("code", "arguments"), WRITTEN, ids=lambda item: item if isinstance(item, str) else item[0])
def test_what_is_written(desk: Desk, monkeypatch: pytest.MonkeyPatch, code: str, arguments: tuple[str, ...]) -> None:
    """Stands for a device as well: a file would take its place, for root even that of /dev/null."""
    name = "fifo.hex" if "@.hex" in arguments else "fifo"
    os.mkfifo(desk.folder / name)
    shutil.copy(desk.folder / IMAGE, desk.folder / "imu.hex")
    refused(desk, monkeypatch, "fifo", code, arguments)
    assert stat.S_ISFIFO((desk.folder / name).stat().st_mode)


def test_a_link_to_a_file_is_followed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(desk.folder)
    Path("latest.hex").symlink_to(IMAGE)
    Path("other.toml").symlink_to("bench.toml")
    assert desk.run("--bench", "other.toml", "flash", "imu", "latest.hex").status == 0
