"""The collector: what it makes of the engine's events, on a clock of the test's own."""

from __future__ import annotations

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled, VerifyMismatch
from proxyflash.flashers.events import Phase
from proxyflash.report_page.collecting import Collector, Seen
from proxyflash.report_page.story import Mood
from proxyflash.updates.events import ComponentFinished, Status, StepFinished, StepStarted


class Timed(Collector):
    """One whose clock the test sets."""

    time = 0.0

    def now(self) -> float:
        return self.time

    def at(self, time: float, event: ev.Event) -> None:
        self.time = time
        self.see(event)


@pytest.fixture
def collector() -> Timed:
    made = Timed("proxyflash flash imu imu.hex")
    made.at(1.0, ev.PhaseStarted("imu", Phase.CONNECT))
    made.at(1.5, ev.PhaseFinished("imu", Phase.CONNECT, 0, 0.5))
    made.at(2.0, ev.PhaseStarted("imu", Phase.WRITE, 1000))
    for done in range(0, 1000, 10):
        made.at(2.0 + done / 500, ev.Progress("imu", Phase.WRITE, done, 1000))
    return made


def test_phases_and_rates(collector: Timed) -> None:
    collector.at(4.0, ev.PhaseFinished("imu", Phase.WRITE, 1000, 2.0))
    collector.tell("imu", "-> 1.5.0  OK  verified (read back), booted", [("written", "1,000 bytes")])
    story = collector.story()
    (lane,), (rate,), (verdict,) = story.lanes, story.rates, story.verdicts
    assert [(span.kind, span.start, span.end, span.mood) for span in lane.spans] == [
        ("connect", 1.0, 1.5, Mood.GOOD),
        ("write", 2.0, 4.0, Mood.GOOD),
    ]
    assert (rate.size, rate.seconds, rate.rate) == (1000, 2.0, 500.0)
    assert (verdict.mood, story.mood, story.summary) == (Mood.GOOD, Mood.GOOD, "imu OK")
    assert (story.began, story.ended) == (1.0, 4.0)


def test_a_retry_ends_the_phase_and_a_failure_the_last_one(collector: Timed) -> None:
    collector.at(3.0, ev.Retrying("imu", Phase.WRITE, 2, 3, "E-SERIAL-TIMEOUT", "no answer"))
    collector.at(3.5, ev.PhaseStarted("imu", Phase.VERIFY, 1000))
    collector.time = 5.0
    collector.error = VerifyMismatch("at 0x08000010 the part holds 0x00").named("imu")
    story = collector.story()
    (lane,) = story.lanes
    assert [(span.kind, span.end, span.mood) for span in lane.spans[1:]] == [
        ("write", 3.0, Mood.BAD),
        ("verify", 5.0, Mood.BAD),
    ]
    assert [(mark.time, mark.mood) for mark in lane.marks] == [(3.0, Mood.OPEN), (5.0, Mood.BAD)]
    assert "E-SERIAL-TIMEOUT no answer; attempt 2 of 3" in lane.marks[0].text
    assert (story.mood, story.summary) == (Mood.BAD, "imu failed")
    assert story.verdicts[0].text.startswith("E-VERIFY-MISMATCH: at 0x08000010")


def test_what_was_stopped_is_neither_good_nor_bad(collector: Timed) -> None:
    layout = ev.Layout((("flash", 0, 0x1000),), ((0, 1000),), erase=((0, 0x800),), writes=((0, 1000),))
    collector._events["imu"].insert(
        2, Seen(1.6, ev.Planned("imu", 1000, 0x1000, 1, 0x800, 1000, 0, 0, None, layout=layout))
    )
    collector._events["imu"].insert(3, Seen(1.7, ev.PhaseStarted("imu", Phase.ERASE, 0x800)))
    collector._events["imu"].insert(4, Seen(1.9, ev.PhaseFinished("imu", Phase.ERASE, 0x800, 0.2)))
    collector.error = Cancelled("stopped on request", touched=True, component="imu")
    story = collector.story()
    assert (story.mood, story.summary, story.lanes[0].spans[-1].mood) == (Mood.OPEN, "Not finished", Mood.OPEN)
    assert [(one.start, one.end, one.state.value) for one in story.memories[0].stretches] == [
        (0, 990, "written"),
        (990, 1000, "not written"),
        (1000, 0x800, "erased"),
        (0x800, 0x1000, "untouched"),
    ]


def test_the_steps_of_an_update_and_the_worst_verdict_first() -> None:
    made = Timed("proxyflash apply update.importmanifest.json")
    for number, (name, status, verdict) in enumerate(
        (("a", Status.DONE, "FAILED  is what the part says"), ("b", Status.FAILED, "1.5.0  OK  says the part"))
    ):
        made.at(number, StepStarted(name, f"{number + 1}", "radar", "proxyflash/flash:1"))
        made.at(number + 0.5, StepFinished(name, f"{number + 1}", status, 0, 0, ""))
        made.at(number + 0.6, ComponentFinished(name, verdict, (status,)))
    story = made.story()
    assert [(lane.name, lane.steps[0].mood, lane.steps[0].text) for lane in story.lanes] == [
        ("a", Mood.GOOD, "step 1 radar"),
        ("b", Mood.BAD, "step 2 radar"),
    ]
    assert [(verdict.name, verdict.mood) for verdict in story.verdicts] == [("b", Mood.BAD), ("a", Mood.GOOD)]
    assert story.summary == "1 of 2 components failed"


def test_progress_takes_no_room(collector: Timed) -> None:
    before = len(collector._events["imu"])
    for done in range(1000):
        collector.see(ev.Progress("imu", Phase.WRITE, done, 1000))
    assert len(collector._events["imu"]) == before
