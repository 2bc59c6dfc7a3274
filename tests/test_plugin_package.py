"""A package of somebody else's, with a kind of bus of its own and all that belongs to one, in an environment of its own.

The package is `tests/plugin_package`. It is installed beside proxyflash, and no line of proxyflash knows of it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.tests.environments import python_with, run

PACKAGE = Path(__file__).parent / "plugin_package"
BASE = 0x1000
"""Where the part's flash begins."""
BENCH = """\
[bus.ring]
kind = "loop"
emulated = true
pace = 0.0
{more}

[[component]]
name = "pump"
group = "pumps"
bus = "ring"
protocol = "loop-boot"
address = {{node = 3}}
manufacturer = "Loop"
model = "M1"
emulated = {{serial = "P-3", firmware = "old.bin", label = "first"}}

[[component]]
name = "valve"
group = "valves"
bus = "ring"
protocol = "loop-boot"
address = {{node = 4}}
manufacturer = "Loop"
model = "M1"
emulated = {{serial = "V-4", firmware = "old.bin"}}
"""
pytestmark = [pytest.mark.timeout(900), pytest.mark.real_time("an installation, child programs")]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return python_with(PACKAGE, tmp_path_factory)


@dataclass
class Desk:
    """A folder with a bench of two parts on a ring, and a newer firmware for them."""

    python: Path
    folder: Path

    def __post_init__(self) -> None:
        self.bench()
        for name, version in (("old", "1.0.0"), ("new", "1.1.0")):
            data = application.make(version, "M1", "Loop", 20_000, start=BASE)
            (self.folder / f"{name}.bin").write_bytes(data)

    def bench(self, more: str = "") -> None:
        (self.folder / "bench.toml").write_text(BENCH.format(more=more), encoding="utf-8")

    def command(self, *words: str, state: str = "state") -> tuple[str | Path, ...]:
        return self.python, "-m", "proxyflash.tools", "--state", state, *words

    def run(self, *words: str, state: str = "state", **environment: str) -> str:
        return run(*self.command(*words, state=state), folder=self.folder, **environment)

    def json(self, *words: str, state: str = "state", **environment: str) -> dict[str, Any]:
        """The one JSON document that it prints."""
        document: dict[str, Any] = json.loads(self.run("--json", *words, state=state, **environment))
        return document

    def versions(self, *words: str, state: str = "state") -> dict[str, str]:
        found = self.json(*words, "scan", state=state)["components"]
        return {item["name"]: item["version"] for item in found}

    @contextmanager
    def emulating(self) -> Iterator[str]:
        """The parts served by a process of its own; the socket's path."""
        command = self.command("--json", "emulate", state="served")
        with subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                served = json.loads("".join(iter(process.stdout.readline, "}\n")) + "}")["served"]
                assert served["ring"]["kind"] == "loop"
                yield served["ring"]["path"]
            finally:
                process.terminate()


@pytest.fixture
def desk(python: Path, tmp_path: Path) -> Desk:
    return Desk(python, tmp_path)


def test_each_of_its_classes_is_listed_and_works(desk: Desk) -> None:
    listed = [item for item in desk.json("plugins")["plugins"] if item["package"] == "proxyflash-loop"]
    entries = (PACKAGE / "setup.cfg").read_text(encoding="utf-8").partition("[options.entry_points]")[2]
    groups = re.findall(r"^proxyflash\.\w+", entries, re.MULTILINE)
    assert sorted(item["group"] for item in listed) == sorted(groups)
    assert not [item for item in listed if item["fault"]]


def test_it_scans_and_finds_a_part_that_the_bench_file_lacks(desk: Desk) -> None:
    assert desk.versions() == {"pump": "1.0.0", "valve": "1.0.0"}
    assert "loop-boot node 3" in desk.run("scan")
    with desk.emulating() as socket:
        real = desk.folder / "real.toml"
        real.write_text(f'[bus.ring]\nkind = "loop"\nsocket = "{socket}"\nprobe = true\n', encoding="utf-8")
        found = desk.run("--bench", "real.toml", "scan")
    assert 'protocol = "loop-boot"\naddress = {node = 3}' in found
    assert 'protocol = "loop-boot"\naddress = {node = 4}' in found


def test_it_flashes_a_file_of_its_own_format(desk: Desk) -> None:
    desk.run("image", "new.bin", "--address", hex(BASE), "--to", "new.loop")
    assert desk.json("image", "new.loop")["format"] == "loop"
    result = desk.json("flash", "pump", "new.loop", "--yes")
    assert result["verified"]
    assert desk.versions() == {"pump": "1.1.0", "valve": "1.0.0"}
    desk.run("verify", "pump", "new.loop")


def test_emulated_parts_are_flashed_by_another_process(desk: Desk) -> None:
    with desk.emulating() as socket:
        text = BENCH.format(more="").replace("emulated = true\npace = 0.0", f'socket = "{socket}"')
        (desk.folder / "real.toml").write_text(re.sub(r"^emulated = .*\n", "", text, flags=re.MULTILINE))
        desk.run("--bench", "real.toml", "flash", "valve", "new.bin", "--yes")
        assert desk.versions("--bench", "real.toml") == {"pump": "1.0.0", "valve": "1.1.0"}
        rings = str(Path(socket).parent)
        assert "rings: " in desk.run("--bench", "real.toml", "doctor", "ring", PROXYFLASH_LOOP_SOCKETS=rings)
        desk.run("bench", "init", "found.toml", PROXYFLASH_LOOP_SOCKETS=rings)
    assert f'kind = "loop"\nsocket = "{socket}"' in (desk.folder / "found.toml").read_text()


def test_what_was_recorded_replays(desk: Desk) -> None:
    desk.run("record", "pump.jsonl", "--", "flash", "pump", "new.bin", "--yes")
    assert "as recorded: exchanges" in desk.run("replay", "pump.jsonl", state="other")
    desk.run("replay", "pump.jsonl", "--export", "exported")
    assert re.match(r"[0-9:.]+ ring ->   3 01 01\n", (desk.folder / "exported" / "loop.txt").read_text())
    # A recording with other frames than the host sends.
    lines = (desk.folder / "pump.jsonl").read_text().splitlines()
    number = next(index for index, line in enumerate(lines) if '"kind": "loop"' in line)
    lines[number] = lines[number].replace('"data": "0101"', '"data": "0808"')
    (desk.folder / "pump.jsonl").write_text("\n".join(lines) + "\n")
    failed = subprocess.run(desk.command("replay", "pump.jsonl"), cwd=desk.folder, capture_output=True, text=True)
    assert failed.stderr.startswith("E-REPLAY-MISMATCH pump: exchange 1 on ring (of")


def test_an_update_runs_with_its_step_handler_and_is_rolled_back(desk: Desk) -> None:
    create = ("manifest", "create", "--provider", "Loop", "--version", "1.1.0", "--name")
    desk.run(*create, "app", "--group", "pumps", "new.bin")
    label = ("--handler", "loop/label:1", "--property", "label=second")
    desk.run(*create, "label", "--group", "pumps", *label, "new.bin")
    children = [f"Loop.{name}.1.1.0.importmanifest.json" for name in ("app", "label")]
    desk.run(*create, "all", *(word for child in children for word in ("--child", child)), "-o", "all.json")
    desk.run("apply", "all.json", "--yes")
    assert desk.versions() == {"pump": "1.1.0", "valve": "1.0.0"}
    [kept] = (desk.folder / "state").rglob("pump.label")
    assert kept.read_text() == "second"
    desk.run("rollback", "--yes")
    assert (desk.versions()["pump"], kept.read_text()) == ("1.0.0", "first")


def test_the_bench_suite_runs_on_it(desk: Desk) -> None:
    suite = (desk.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--pyargs", "proxyflash.hil_tests",
             "--bench", "bench.toml", "--simulated-time", "-m", "not slow", "-W", "error")  # fmt: skip
    said = run(*suite, folder=desk.folder)
    passed = re.search(r"^(\d+) passed", said, re.MULTILINE)
    assert passed is not None, said
    assert int(passed[1]) > 50


def test_its_bootloader_passes_through_the_contract_kit(desk: Desk) -> None:
    tests = shutil.copy(PACKAGE / "contract_loop.py", desk.folder)
    said = run(desk.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests, folder=desk.folder)
    assert re.search(r"^\d+ passed in", said, re.MULTILINE), said


def test_a_test_needs_its_kind_of_bus(desk: Desk) -> None:
    (desk.folder / "test_ring.py").write_text(textwrap.dedent('''
        import pytest

        @pytest.mark.needs("loop")
        def test_it_answers(component):
            assert component.look().version == "1.0.0"
    '''))  # fmt: skip
    said = run(desk.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--bench", "bench.toml", "--require", "loop",
               "test_ring.py", folder=desk.folder)  # fmt: skip
    assert "2 passed" in said
