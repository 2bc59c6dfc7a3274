"""`desk`: the example's bench in a folder of its own, its wires and parts as fast as they can be.

`hardware`: its IMU behind a serial port that another process serves, as real hardware looks from here.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.tools import commands

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"
PROGRAM = Path(sys.executable).parent / "proxyflash"
NEW = {
    "imu": "update/imu-1.5.0.hex",
    "front-radar": "update/radar-1.5.0.s19",
    "camera": "update/camera-1.5.0.dfu",
}
MANIFEST = "update/update.importmanifest.json"


HARDWARE = """
[bus.line]
kind = "serial"
url = "{port}"
baudrate = 115_200

[[component]]
name = "imu"
group = "imus"
bus = "line"
protocol = "stm32-uart"
profile = {{part = "STM32F40x"}}
version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}
"""


@dataclass(frozen=True, slots=True)
class Done:
    """What one call of the command line came to."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


class Desk:
    """Runs the command line in its folder, with its bench file and its state."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.bench = folder / "bench.toml"
        self._capsys = capsys

    def run(self, *arguments: str | Path) -> Done:
        """In this process."""
        self._capsys.readouterr()
        status = commands.run(self.arguments(*arguments))
        return Done(status, *self._capsys.readouterr())

    def command(self, *arguments: str | Path) -> list[str]:
        """For a process of its own."""
        return [str(PROGRAM), *self.arguments(*arguments)]

    def arguments(self, *arguments: str | Path) -> list[str]:
        return ["--bench", str(self.bench), "--state", str(self.state), *map(str, arguments)]

    def start(self, *arguments: str | Path, shell: str = "", **settings: Any) -> subprocess.Popen[str]:
        """`shell`: commands that come before it."""
        settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **settings}
        command = self.command(*arguments)
        if shell:
            command = ["/bin/sh", "-c", f'{shell}\nexec "$@"', "sh", *command]
        return subprocess.Popen(command, text=True, cwd=self.folder, **settings)

    def edit(self, *changes: tuple[str, str]) -> None:
        """Changes the bench file; each old text is there exactly once."""
        text = self.bench.read_text()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        self.bench.write_text(text)

    def edit_all(self, old: str, new: str) -> None:
        """Changes every such text of the bench file."""
        self.bench.write_text(self.bench.read_text().replace(old, new))

    def image(self, component: str) -> Path:
        return self.folder / NEW[component]

    @property
    def manifest(self) -> Path:
        return self.folder / MANIFEST

    def seen(self) -> Mapping[str, str]:
        """What `scan` shows of each component: its version, or its presence where it reports none."""
        found = self.run("scan", "--json").document["components"]
        return {item["name"]: item["version"] or item["presence"] for item in found}

    def memory(self) -> dict[str, bytes]:
        """The contents of the emulated parts' flash."""
        return {path.name: path.read_bytes() for path in sorted(self.state.rglob("*.flash"))}


@contextmanager
def served(desk: Desk) -> Iterator[dict[str, Any]]:
    """`proxyflash emulate` in a process of its own, until the end of the block; what it serves."""
    process = desk.start("emulate", "--jsonl")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield json.loads(line)["served"]
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def make_desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Desk]:
    """Makes a bench. `pace`: 0.0 takes no time, 1.0 the time that wires and parts take."""

    def make(pace: float = 0.0, name: str = "desk") -> Desk:
        folder = tmp_path / name
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
        desk = Desk(folder, capsys)
        # To wait for ECUs that are not in the file takes a while.
        desk.bench.write_text(re.sub("^probe = .*ECUs.*$", "", desk.bench.read_text(), flags=re.MULTILINE))
        text = desk.bench.read_text()
        desk.bench.write_text(re.sub("^emulated = true$", f"emulated = true\npace = {pace}", text, flags=re.MULTILINE))
        return desk

    return make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


@pytest.fixture
def short() -> Iterator[Path]:
    """A state folder with a short path: there is a limit to that of a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="pf-") as folder:
        yield Path(folder)


@dataclass
class Hardware:
    """`host`: the bench with the real port. `server`: the emulated part behind it, which starts in its bootloader."""

    host: Desk
    server: Desk

    def in_bootloader(self) -> bool:
        """Whether its bootloader answers, and its application doesn't. Who looks leaves it there."""
        return self.host.seen() == {"imu": "absent"} and self.host.run("info", "imu").status == 0


@pytest.fixture
def hardware(
    make_desk: Callable[..., Desk], short: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Iterator[Hardware]:
    server = make_desk(name="server")
    server.state = short
    server.edit(('wiring = "dtr-reset,!rts-boot0"', "boot0 = true"))
    with served(server) as wires:
        folder = tmp_path / "host"
        folder.mkdir()
        (folder / "bench.toml").write_text(HARDWARE.format(port=wires["imu-uart"]["path"]))
        yield Hardware(Desk(folder, capsys), server)
