"""Flashes of boards with Katapult, recorded and replayed by processes of their own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.tests.flashers.test_contract import KINDS

from .conftest import PROGRAM

pytestmark = pytest.mark.real_time("programs are run")
START = 0x08002000


@pytest.mark.parametrize("protocol", ["katapult-can", "katapult-uart"])
def test_a_flash_replays(protocol: str, tmp_path: Path) -> None:
    for version in ("1.4.2", "1.5.0"):
        data = application.make(version, "part", "Acme", 3000, start=START)
        (tmp_path / f"{version}.bin").write_bytes(data)
    (tmp_path / "bench.toml").write_text(KINDS[protocol]().bench_file(firmware="1.4.2.bin"))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [PROGRAM, "--state", "state", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    flash = ("flash", "part", "1.5.0.bin", "--address", hex(START), "--yes")
    assert "1.5.0" in run("record", "a.jsonl", "--", *flash)
    (tmp_path / "bench.toml").unlink()
    assert "1.5.0" in run("replay", "a.jsonl")
    printed = run("replay", "a.jsonl", "--print")
    assert "SEND BLOCK 0x08002000" in printed
    assert "COMPLETE" in printed
