"""Recordings that are mutated at random: loaded, exported, replayed as tracks and by the command line."""

from __future__ import annotations

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from proxyflash.tests.fuzz.recordings import CONFIGURATION, DEVICE, HEAD, SEEDS, recording
from proxyflash.tools import commands

VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, -1, 0, 5, 255, 2**31, 2**70, 10**300, 1e308, float("nan"), float("inf"), -0.5, 4e9, "", "a", "\0", "\ud800",
     "a\n(0) b 1#00\n", "\x1b[2J", "\u202e", "b" * 70_000, "00" * 9, [], [[]], {}, {"a": {}}, ["fd", "remote", "error"]]
)  # fmt: skip


def places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a JSON document, but the document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in inner for found in ((*place, key), *places(item, (*place, key)))]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One of the good recordings with one or two values that are other ones, or lines that are doubled or cut."""
    lines = [json.loads(line) for line in draw(st.sampled_from(SEEDS)).splitlines()]
    for _ in range(draw(st.integers(1, 2))):
        line = draw(st.sampled_from(lines))
        place = draw(st.sampled_from(places(line)))
        for key in place[:-1]:
            line = line[key]
            if not isinstance(line, (dict, list)):
                break
        else:
            if isinstance(line, dict) or place[-1] < len(line):
                line[place[-1]] = deepcopy(draw(VALUES))
    data = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutated() | st.binary(max_size=200) | st.binary(max_size=200).map(HEAD.__add__))
@example(SEEDS[0])
@example(SEEDS[1])
@example(SEEDS[2])
@example(SEEDS[3])
def test_whatever_stands_in_it_it_ends_in_documented_errors(data: bytes) -> None:
    recording(data)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(descriptor=st.binary(max_size=60), device=st.binary(min_size=18, max_size=18), whole=st.booleans())
@example(descriptor=b"", device=bytes.fromhex(DEVICE), whole=False)
def test_usb_descriptors_of_every_kind_are_read_or_refused(descriptor: bytes, device: bytes, whole: bool) -> None:
    """Behind a good configuration descriptor, and in its place."""
    configuration = (bytes.fromhex(CONFIGURATION) if whole else b"") + descriptor
    text = SEEDS[2].decode().replace(CONFIGURATION, configuration.hex()).replace(DEVICE, device.hex())
    recording(text.encode())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_good_ones_are_taken(seed: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(seed)
    assert commands.run(["replay", str(tmp_path / "a.jsonl"), "--export", str(tmp_path / "out")]) == 0
    exported = (tmp_path / "out" / "recording.jsonl").read_bytes().splitlines()
    assert list(map(json.loads, exported[1:])) == list(map(json.loads, seed.splitlines()[1:]))


BENCH = """
[bus.b]
kind = "can"
interface = "socketcan"
channel = "vcan0"
[bus.s]
kind = "serial"
url = "/dev/ttyUSB0"
[bus.usb]
kind = "usb"
[[component]]
name = "camera"
bus = "usb"
protocol = "dfu"
address = {vendor_id = 0x0483, product_id = 0xDF11}
[[component]]
name = "host"
version_from = {command = "x"}
"""


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=mutated())
def test_the_command_line_ends_in_documented_errors(
    data: bytes, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("fuzzed")
    head, _, rest = data.partition(b"\n")
    if head.endswith(b"}"):
        head = head[:-1] + b', "bench": ' + json.dumps({"name": "bench.toml", "text": BENCH}).encode() + b"}"
    (folder / "a.jsonl").write_bytes(head + b"\n" + rest)
    monkeypatch.setenv("PROXYFLASH_STATE", str(folder / "state"))
    for more in ([], ["--export", str(folder / "out")]):
        log = folder / "log"
        status = commands.run(["--log-file", str(log), "-q", "replay", str(folder / "a.jsonl"), *more])
        said = log.read_text(encoding="utf-8")
        assert "E-UNEXPECTED" not in said
        assert status == 0 or re.search(r" E-[A-Z-]+ ", said), said
    assert not (folder / "state").exists()
