"""Conditions: on the emulated bench, with commands that are really run and frames that are really counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import can
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.bench import Bench
from proxyflash.transports.deadline import Deadline
from proxyflash.updates.errors import ConditionFailed, ManifestField
from proxyflash.updates.manifests.conditions import BenchConditions, parse

pytestmark = pytest.mark.simulated_time
EXAMPLE = Path(__file__).parents[2] / "examples" / "three_sensors"
MORE = """
[bus.quiet]
kind = "can"
interface = "virtual"
channel = "{channel}"
bitrate = 500_000

[bus.unknown-rate]
kind = "can"
interface = "virtual"
channel = "{channel}"

[power.front-radar]
off = "true"
on = "true"
volts = "cat volts"

[power.imu]
off = "true"
on = "true"

[check.parked]
command = "echo gear $(cat gear)"
match = "gear P"

[check.warm]
command = "echo 'temperature' $(cat temperature) degrees"
min = -10
max = 60.5

[check.never]
command = "echo on fire; exit 3"
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    text = (EXAMPLE / "bench.toml").read_text().replace('"firmware/', f'"{EXAMPLE}/firmware/')
    (tmp_path / "bench.toml").write_text(text + MORE.format(channel=tmp_path.name))
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        yield opened


def failed(bench: Bench, raw: Any, component: str | None = None) -> str:
    try:
        BenchConditions(bench, component).demand([parse(raw, "here")])
    except ConditionFailed as error:
        return error.cause
    return ""


@pytest.mark.real_time("a command")
@pytest.mark.parametrize(
    ("volts", "raw", "said"),
    [
        ("12.1", {"min": 11.5}, ""),
        ("11.5", {"min": 11.5, "max": 11.5}, ""),
        ("11.4\n", {"min": 11.5}, "the supply of front-radar is 11.4 V, below 11.5"),
        ("15", {"max": 14}, "the supply of front-radar is 15 V, above 14"),
        ("nan", {"max": 14}, "E-POWER 'cat volts' printed 'nan', and no voltage"),
        ("a lot", {"max": 14}, "E-POWER 'cat volts' printed 'a lot', and no voltage"),
    ],
)
def test_a_supply(bench: Bench, volts: str, raw: dict[str, float], said: str) -> None:
    (bench.file.path.parent / "volts").write_text(volts)
    assert failed(bench, {"supply": {"component": "front-radar", **raw}}) == said
    assert failed(bench, {"supply": raw}, "front-radar") == said


@pytest.mark.parametrize("named", ["imu", "camera", "nobody"])
def test_a_supply_that_nothing_measures(bench: Bench, named: str) -> None:
    said = f"supply: the bench file has no volts in [power.{named}], the command that prints them"
    assert failed(bench, {"supply": {"component": named, "min": 1}}) == said
    assert parse({"supply": {"component": named, "min": 1}}, "").missing(bench) == said
    assert failed(bench, {"supply": {"min": 1}}, named) == said
    assert failed(bench, {"supply": {"min": 1}}) == "supply: it names no component, and none is in context"


@pytest.mark.real_time("a command")
def test_a_command_that_measures_and_fails(bench: Bench) -> None:
    assert failed(bench, {"supply": {"component": "front-radar", "min": 1}}).startswith(
        "E-POWER 'cat volts' ended with 1: cat: "
    )


@pytest.mark.real_time("commands")
@pytest.mark.parametrize(
    ("file", "content", "name", "said"),
    [
        ("gear", "P", "parked", ""),
        ("gear", "D", "parked", "check parked: 'gear D' does not match 'gear P'"),
        ("temperature", "-10", "warm", ""),
        ("temperature", "60.5", "warm", ""),
        ("temperature", "60.6", "warm", "check warm: 60.6, above 60.5"),
        ("temperature", "-10.1", "warm", "check warm: -10.1, below -10"),
        ("temperature", "many", "warm", "check warm: 'temperature many degrees' has no number"),
        ("nothing", "", "never", "check never: 'echo on fire; exit 3' ended with 3: on fire"),
    ],
)
def test_a_check(bench: Bench, file: str, content: str, name: str, said: str) -> None:
    (bench.file.path.parent / file).write_text(content)
    assert failed(bench, {"check": name}) == said


def test_a_check_that_the_bench_lacks(bench: Bench) -> None:
    said = "the bench file has no [check.open-sesame]; it has: parked, warm, never"
    assert parse({"check": "open-sesame"}, "").missing(bench) == said
    assert failed(bench, {"check": "open-sesame"}) == said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"min": "1.4.2"}, ""),
        ({"min": "1.4", "below": "1.5"}, ""),
        ({"min": "1.10"}, "front-radar has 1.4.2, and 1.10 or later is asked for"),
        ({"below": "1.4.2"}, "front-radar has 1.4.2, and one before 1.4.2 is asked for"),
    ],
)
def test_a_version(bench: Bench, raw: dict[str, str], said: str) -> None:
    assert failed(bench, {"version": {"component": "front-radar", **raw}}) == said
    assert failed(bench, {"version": raw}, "front-radar") == said


def test_a_version_that_can_not_be_told(bench: Bench) -> None:
    assert failed(bench, {"version": {"min": "1"}}) == "version: it names no component, and none is in context"
    said = "version: the bench file has no component 'nobody'"
    assert failed(bench, {"version": {"component": "nobody", "min": "1"}}) == said
    bench.emulated_device("front-radar").supply.off()
    assert (
        failed(bench, {"version": {"component": "front-radar", "min": "1"}})
        == "E-PART-MUTE front-radar does not answer"
    )


@pytest.mark.real_time("a bus of python-can's")
def test_a_bus_load(bench: Bench) -> None:
    """A frame of 8 bytes has at least 108 bits: 2,000 a second fill 43 % of 500 kbit/s or more, never above 54 %."""
    other = can.Bus(interface="virtual", channel=bench.file.path.parent.name)
    frames = can.Message(arbitration_id=0x123, data=bytes(range(8)), is_extended_id=False)
    assert failed(bench, {"busLoad": {"bus": "quiet", "max": 1, "seconds": 0.05}}) == ""
    bus = bench.transport("quiet")
    done = threading.Event()

    def talk() -> None:
        while not done.wait(0.001):
            for _ in range(20):
                other.send(frames)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        said = failed(bench, {"busLoad": {"bus": "quiet", "max": 1, "seconds": 0.3}})
    finally:
        done.set()
        talker.join()
        other.shutdown()
    assert said.startswith("the load of quiet is ")
    assert said.endswith(" %, above 1")
    # What was sent last may still be on its way to the bus.
    assert any(bus.load(0.05) == 0 for _ in range(100)), "it counts no frames of before"


@pytest.mark.real_time("a bus of python-can's")
def test_own_frames_are_load(bench: Bench) -> None:
    bus = bench.transport("quiet")
    frame = can.Message(arbitration_id=0x123, data=bytes(8), is_extended_id=False)
    sender = threading.Timer(0.05, bus.send, (frame, Deadline.after(5)))
    sender.start()
    began = time.monotonic()
    load = bus.load(0.5)
    passed = time.monotonic() - began
    sender.join()
    # 11 bits of id, 8 bytes of zeros: 108 bits and 3 of interframe space, and about one stuff bit in five (ISO 11898-1).
    assert 0.5 * load * 500_000 <= 128 * 1.1
    assert passed * load * 500_000 >= 128 * 0.9


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "busLoad: the bench file has no bus 'nothing'"),
        ("usb", "busLoad: usb is a bus of kind usb, whose load can't be measured"),
        ("unknown-rate", "busLoad: the bench file gives no bitrate for unknown-rate"),
    ],
)
def test_a_bus_whose_load_can_not_be_told(bench: Bench, name: str, said: str) -> None:
    assert parse({"busLoad": {"bus": name, "max": 10}}, "").missing(bench) == said
    assert failed(bench, {"busLoad": {"bus": name, "max": 10}}) == said


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (None, "here: a condition is an object with one of the keys"),
        ({}, "here: a condition is an object with one of the keys"),
        ({"check": "a", "version": {"min": "1"}}, "here: a condition is an object with one of the keys"),
        ({"weather": "fine"}, "here.weather: the conditions that are known here are supply, busLoad, version, check"),
        (
            {"suply": {"min": 12}},
            "here.suply: the conditions that are known here are supply, busLoad, version, check (did you mean 'supply'?)",
        ),
        ({"supply": {"mni": 12}}, "here.supply.mni: is not known here (did you mean 'min'?)"),
        ({"check": 1}, "here.check: should be text in quotes"),
        ({"supply": {}}, "here.supply: it asks for nothing: give min, or max"),
        ({"supply": {"component": "front-radar"}}, "here.supply: it asks for nothing: give min, or max"),
        ({"supply": {"min": "12"}}, "here.supply.min: should be a valid number"),
        ({"supply": {"min": -1}}, "here.supply.min: should be greater than or equal to 0"),
        ({"supply": {"volts": 1}}, "here.supply.volts: is not known here"),
        ({"version": {"component": "front-radar"}}, "here.version: it asks for nothing: give min, or below"),
        ({"version": {"min": "newest"}}, "here.version.min: no version: numbers with dots between"),
        ({"busLoad": {"bus": "quiet"}}, "here.busLoad.max: is missing"),
        ({"busLoad": {"bus": "quiet", "max": 101}}, "here.busLoad.max: should be less than or equal to 100"),
        ({"busLoad": {"bus": "quiet", "max": 1, "seconds": 61}}, "here.busLoad.seconds: should be less than"),
    ],
)
def test_what_is_no_condition(raw: Any, said: str) -> None:
    with pytest.raises(ManifestField) as caught:
        parse(raw, "here")
    assert caught.value.cause.startswith(said)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["supply", "busLoad", "check", "version", "min", "max", "below", "bus", "component"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(JSON)
@settings(max_examples=300, deadline=None)
def test_whatever_comes(raw: Any) -> None:
    with contextlib.suppress(ManifestField):
        assert parse(raw, "here").model_dump()
