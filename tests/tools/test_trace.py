"""`--trace`: the Trace Event Format, by the rules of its document (Chromium, "Trace Event Format")."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import Phase
from proxyflash.tools import trace
from proxyflash.tools.commands.session import Session
from proxyflash.tools.output import Output
from proxyflash.transports import clock
from proxyflash.transports.errors import SerialTimeout
from proxyflash.updates.events import ActionStarted, Status, StepFinished, StepStarted

from .conftest import NEW, Desk


def events_of(path: Path) -> list[dict[str, Any]]:
    """The events, once they were found to keep the rules of the document."""
    events: list[dict[str, Any]] = json.loads(path.read_text())
    under_way: dict[int, int] = {}
    last: dict[int, int] = {}
    for event in events:
        assert {"name", "ph", "pid", "tid"} <= event.keys()
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name")
            assert isinstance(event["args"]["name"], str)
            continue
        # Microseconds; the events of a thread are in order, and each E ends the last B of its thread.
        thread = event["tid"]
        assert event["ts"] >= last.get(thread, 0)
        last[thread] = event["ts"]
        match event["ph"]:
            case "B":
                under_way[thread] = under_way.get(thread, 0) + 1
            case "E":
                under_way[thread] -= 1
                assert under_way[thread] >= 0
            case "i":
                assert event["s"] in ("g", "p", "t")
            case "C":
                assert all(isinstance(value, int) for value in event["args"].values())
            case _:
                pytest.fail(f"no phase of the document: {event['ph']}")
    assert not any(under_way.values())
    return events


def spans(events: list[dict[str, Any]], name: str) -> list[tuple[str, float]]:
    """The durations of a component: what, and how many seconds."""
    (thread,) = (event["tid"] for event in events if event["ph"] == "M" and event["args"]["name"] == name)
    found, stack = [], []
    for event in events:
        if event["tid"] == thread and event["ph"] == "B":
            stack.append(event)
        elif event["tid"] == thread and event["ph"] == "E":
            begun = stack.pop()
            found.append((begun["name"], (event["ts"] - begun["ts"]) / 1e6))
    return found


def test_components_are_threads_and_phases_durations_in_steps(tmp_path: Path) -> None:
    output = Output(quiet=True)
    output.trace = trace.opened(tmp_path / "t.json")
    for name in ("imu", "camera"):
        output.event(StepStarted(name, "1.1", "", "proxyflash/flash:1"))
        output.event(ActionStarted(name, "1.1", "install"))
        output.event(ev.PhaseStarted(name, Phase.WRITE, 100))
    clock.sleep(2.0)
    output.event(ev.Progress("imu", Phase.WRITE, 100, 100))
    output.event(ev.PhaseFinished("imu", Phase.WRITE, 100, 2.0))
    output.event(ev.Retrying("camera", Phase.WRITE, 1, 3, "E-SERIAL-TIMEOUT", "no answer"))
    output.event(ev.PhaseStarted("camera", Phase.WRITE, 100))
    output.event(StepFinished("imu", "1.1", Status.DONE, 700, 0, ""))
    clock.sleep(1.0)
    output.ended("camera", SerialTimeout("no answer at all"))
    output.close()
    events = events_of(tmp_path / "t.json")
    shown = {name: [(what, round(seconds, 2)) for what, seconds in spans(events, name)] for name in ("imu", "camera")}
    assert shown == {
        "imu": [("write", 2.0), ("install", 2.0), ("step 1.1", 2.0)],
        "camera": [("write", 2.0), ("write", 1.0), ("install", 3.0), ("step 1.1", 3.0)],
    }
    instants = [(event["name"], event["args"]["cause"]) for event in events if event["ph"] == "i"]
    assert instants == [("retry: E-SERIAL-TIMEOUT", "no answer"), ("E-SERIAL-TIMEOUT", "no answer at all")]
    assert [event["args"] for event in events if event["ph"] == "C"] == [{"bytes": 100}]


def test_what_a_cut_leaves_is_a_trace_without_the_end_of_its_list(tmp_path: Path) -> None:
    output = Output(quiet=True)
    output.trace = trace.opened(tmp_path / "t.json")
    output.event(ev.PhaseStarted("imu", Phase.WRITE, 100))
    text = (tmp_path / "t.json").read_text()
    assert [event["ph"] for event in json.loads(text + "]")] == ["M", "M", "B"]
    output.close()
    assert [event["name"] for event in events_of(tmp_path / "t.json") if event["ph"] == "i"] == ["interrupted"]


def test_a_trace_takes_the_place_of_a_trace_alone(desk: Desk) -> None:
    path = desk.folder / "t.json"
    for _ in range(2):
        done = desk.run("flash", "imu", desk.image("imu"), "--trace", path, "--full")
        assert done.status == 0
    names = [name for name, _ in spans(events_of(path), "imu")]
    assert [name for name in names if name in ("erase", "write", "verify", "boot")] == [
        "erase",
        "write",
        "verify",
        "boot",
    ]
    before = desk.image("imu").read_bytes()
    done = desk.run("flash", "imu", NEW["imu"], "--trace", desk.image("imu"))
    assert (done.status, done.err.split()[0]) == (2, "E-LOG")
    assert desk.image("imu").read_bytes() == before


@pytest.mark.real_time("scripts of steps")
def test_an_update_s_trace_from_its_journal(desk: Desk) -> None:
    assert desk.run("apply", desk.manifest, "--trace", desk.folder / "live.json").status == 0
    live = [name for name, _ in spans(events_of(desk.folder / "live.json"), "imu")]
    assert [name.split()[0] for name in live if name == "write" or name.startswith("step ")] == ["write", "step"]
    done = desk.run("report", "--trace", desk.folder / "kept.json")
    assert done.status == 0
    events = events_of(desk.folder / "kept.json")
    assert {"begin", "finish"} <= {event["name"] for event in events if event["ph"] == "i"}
    assert any(name.endswith(" install") for name, _ in spans(events, "imu"))


class Slow(dict[str, int]):
    """Another thread goes on while its size is looked at."""

    def __len__(self) -> int:
        size = super().__len__()
        clock.sleep(0.01)
        return size


def test_components_that_are_under_way_at_once_have_a_thread_each(tmp_path: Path) -> None:
    output = Output(quiet=True)
    output.trace = trace.opened(tmp_path / "t.json")
    output.trace._threads = Slow()
    session = Session((), output)
    threads = [clock.Thread(target=session.event, args=(ev.PhaseStarted(name, Phase.WRITE, 1),)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    output.close()
    assert {name: len(spans(events_of(tmp_path / "t.json"), name)) for name in "abc"} == dict.fromkeys("abc", 1)
    assert len({event["tid"] for event in events_of(tmp_path / "t.json") if event["ph"] == "B"}) == 3
