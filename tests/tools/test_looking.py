"""What a running application feels of a command that only looks: docs/protocols.md has it as a table, the wire as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.enumerators.described import describers
from proxyflash.flashers.describing import described
from proxyflash.testing.part import OLD
from proxyflash.testing.rig import Rig, settled
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.transports.recording import formats
from proxyflash.transports.recording.records import Record, SerialBytes, SerialLine

from .conftest import Desk

ROOT = Path(__file__).parents[2]
HEADING = "### What is sent"
MEMORY = {"start": 0x2_0000, "size": 0x8_0000, "erase_unit": 8192, "write_alignment": 8}
READABLE = {"profile": {"memory": [MEMORY], "security": {"key": "xor", "secret": "5a5a5a5a"}, "read": "memory"}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "`uds`": ("uds", {}),
    "`uds`, `probe = true`": ("uds", {"bus": {"probe": True}}),
    "`uds`, `read` in its profile": ("uds", {**READABLE, "emulated": {"part": "acme-r88"}}),
    "`canopen`": ("canopen", {}),
    "`canopen`, `probe = true`": ("canopen", {"bus": {"probe": True}}),
    "`katapult-can`": ("katapult-can", {}),
    "`katapult-uart`": ("katapult-uart", {}),
    "`mboot-can`": ("mboot-can", {}),
    "`mboot-uart`": ("mboot-uart", {}),
    "`stm32-can`": ("stm32-can", {}),
    "`stm32-fdcan`": ("stm32-fdcan", {}),
    "`xcp-can`": ("xcp-can", {}),
    "`xcp-can`, OpenBLT": ("openblt-can", {}),
    "`xcp-uart`, OpenBLT": ("openblt-uart", {}),
    "`stm32-uart`": ("stm32-uart", {}),
    "`stm32-uart`, `probe = true`": ("stm32-uart", {"bus": {"probe": True}}),
    "`stk500v1`": ("stk500v1", {}),
    "`stk500v2`": ("stk500v2", {}),
    "`avr109`, `probe = true`": ("avr109", {}),
    "`xmodem`": ("xmodem", {}),
    "`xmodem`, `probe = true`": ("xmodem", {"bus": {"probe": True}}),
    "`ymodem`": ("ymodem", {}),
    "`smp`": ("smp", {}),
    "`smp`, `recovery = true`": ("smp-recovery", {}),
    "`dfu`": ("dfu", {}),
    "`dfu`, DfuSe": ("dfuse", {}),
}
QUESTION = {b"VER?\r": "version"}
MENU = {**QUESTION, b"\r": "greet", b"LOADER": "enter", b"2": "run", b"3": "run"}
TEXTS: dict[str, dict[bytes, str]] = {
    "katapult-uart": {**QUESTION, b"~ \x1c Request Serial Bootloader!! ~": "enter"},
    "mboot-uart": QUESTION,
    "stk500v1": QUESTION,
    "stk500v2": QUESTION,
    "avr109": QUESTION,
    "stm32-uart": {**QUESTION, b"\x7f": "0x7F", b"\xf5": "0xF5"},
    "xcp-uart": QUESTION,
    "xmodem": MENU,
    "ymodem": MENU,
}
"""What goes over a line and is not a message of the protocol, and a menu's texts, by what the profile calls them."""
CAN_FRAMES = {"120 [1] 01": "version", "7F0 [2] B0 07": "enter"}
"""Frames of the application's own, which no document describes."""
LOOKS = (("info", "part"), ("flash", "part", "new.bin", "--dry-run"), ("flash", "part", "new.bin"))
COMMANDS = {
    "scan": (("scan",),),
    "info": LOOKS,
    "read": (("read", "part", "out.hex"),),
    "verify": (("verify", "part", "old.bin"),),
}


@cache
def table() -> dict[str, dict[str, str]]:
    """The document's table: protocol, command, cell."""
    _, _, text = (ROOT / "docs" / "protocols.md").read_text().partition(HEADING + "\n")
    lines = [line for line in text.partition("\n#")[0].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0]: dict(zip(COMMANDS, row[1:], strict=True)) for row in rows[2:]}


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def sent(protocol: str, bench: Bench, records: Iterable[Record]) -> Iterator[str]:
    """What the host sends, in the words of the protocol's document, and by which of its lines it resets the part."""
    texts = TEXTS.get(protocol, {})
    rest = []
    for record in records:
        if isinstance(record, SerialLine):
            changes = dict(record.changes)
            yield from (key for key in ("dtr", "rts") if key in changes)
            if changes.get("baudrate") == 1200:
                yield "1200 bit/s"
        elif isinstance(record, SerialBytes) and record.outgoing and bytes(record.data) in texts:
            yield texts[bytes(record.data)]
        else:
            rest.append(record)
    for line in described(rest, describers(bench.file)):
        words = re.sub(r"^\d+\.[\d.]+ ", "", line.words)
        words = CAN_FRAMES.get(words, words)
        # A request to a USB device that wants data is described with them.
        if (line.sent or (protocol == "dfu" and line.sent is not None)) and not words.startswith(
            ("flow control", "first frame")
        ):
            yield words


def made(
    kind: str, changed: dict[str, Any], desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Rig, Path]:
    """A part that runs its application, and the folder that the commands are given in."""
    part = type("Changed", (KINDS[kind],), {})()
    part.bus = {**part.bus, **changed.get("bus", {})}
    part.component = {**part.component, **{key: changed[key] for key in changed.keys() & {"profile"}}}
    part.emulated = {**part.emulated, **changed.get("emulated", {})}
    folder = tmp_path / "rig"
    folder.mkdir()
    rig = Rig(part, folder)
    desk.bench, desk.state = folder / "bench.toml", folder / "looked"
    monkeypatch.chdir(folder)
    return rig, folder


def test_the_table_has_each_case() -> None:
    assert list(table()) == list(CASES)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", CASES)
def test_what_is_sent(case: str, command: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, changed = CASES[case]
    rig, folder = made(kind, changed, desk, tmp_path, monkeypatch)
    # Nobody is at the terminal to say yes to a flash of what passes for hardware.
    monkeypatch.setattr(BenchComponent, "real", property(lambda self: True))
    address = () if rig.image.relocatable else ("--address", hex(rig.start))
    cell = table()[case][command]
    allowed = names(cell) + (names(table()[case]["scan"]) if command == "info" else [])
    allowed += names(table()[case]["info"]) if "as `info`" in cell else []
    allowed += names(table()[case]["scan"]) if "as `info`" in cell else []
    met = set()
    for number, words in enumerate(COMMANDS[command]):
        (folder / f"{number}.jsonl").unlink(missing_ok=True)
        done = desk.run("record", f"{number}.jsonl", "--", *words, *(address if "bin" in " ".join(words) else ()))
        assert (done.status == 2) is (cell == "refused" or words == LOOKS[2]), done.err
        with Bench.open(desk.bench, state=desk.state) as bench:
            assert settled(bench) == OLD
            for said in sent(rig.part.protocol, bench, formats.load(folder / f"{number}.jsonl").records):
                fitting = [name for name in allowed if said.startswith(name)]
                assert fitting, (words, said)
                met.update(fitting)
    assert set(names(cell)) - {"info"} <= met


@pytest.mark.parametrize("kind", ["smp", "smp-recovery", "xmodem", "ymodem"])
def test_a_slot_that_is_not_erased_alone_is_not_asked(
    kind: str, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig, folder = made(kind, {}, desk, tmp_path, monkeypatch)
    for words in (("erase", "part"), ("erase", "part", "--start", "0", "--size", "4096")):
        (folder / "erase.jsonl").unlink(missing_ok=True)
        done = desk.run("record", "erase.jsonl", "--", *words)
        assert (done.status, "E-UNSUPPORTED" in done.err) == (2, True), done.err
        with Bench.open(desk.bench, state=desk.state) as bench:
            records = formats.load(folder / "erase.jsonl").records
            assert list(sent(rig.part.protocol, bench, records)) == []
