"""The sweep over a rollback: components at once, one of which fails, and everything is undone; killed at points of all of it.

The points are those of test_sweep: every write of the journal, before it and amid its line, and every boundary of an
action, of which each third is tried. After each a resume: everything as it was, and nothing brought back twice that the
journal had as brought back.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from proxyflash.transports.deadline import Deadline
from proxyflash.updates.engine import Engine
from proxyflash.updates.events import Status
from proxyflash.updates.journal import records
from proxyflash.updates.progress import Action, Ending, Progress
from proxyflash.updates.results import ActionResult, ResultCode
from proxyflash.updates.update import Update

from .lab import NEW, Lab, all_old, in_process
from .test_sweep import Points

EACH = 3
FAILS = "camera two"


def work(lab: Lab, update: Update, at: int, marks: Path | None = None) -> None:
    """One engine, to the end or to the given point."""
    with lab.engine() as engine:
        points = Points(at, marks)
        points.hook()
        if engine.unfinished() is not None:
            outcome = engine.resume()
        else:
            outcome = engine.apply(engine.plan(update, lab.components()), parallel=True, on_failure="rollback")
        points.release()
        assert outcome.ending is Ending.ROLLED_BACK, outcome.error
        assert len(outcome.results) == 6


def prepared(lab: Lab, folder: str) -> Update:
    """Everything as before the first one, and a bench that has forgotten. What fails does so once all else is done."""
    lab.state.mkdir(exist_ok=True)
    lab.state.rename(lab.folder / f"state-{folder}")
    (lab.world / "log").write_text("")
    update = lab.bundle()

    def fails() -> ActionResult:
        until = Deadline.after(60)
        while not until.expired and {lab.holds()[f"{name}.two"] for name in ("left", "right")} != {NEW}:
            threading.Event().wait(0.005)
        return ActionResult(ResultCode.FAILURE, 1, "it broke")

    lab.fault(FAILS, Action.APPLY, fails)
    return update


def known(lab: Lab) -> Progress:
    with lab.engine() as engine:
        entry = Engine(engine.bench).store.latest()
        return Progress() if entry is None else Progress.of(records(entry.journal), "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(2))
def test_the_sweep_of_a_rollback(lab: Lab, part: int) -> None:
    marks = lab.folder / "marks"
    update = prepared(lab, "none")
    assert in_process(lambda: work(lab, update, 0, marks)) == 0
    assert lab.holds() == all_old()
    names = [line.split(" ", 1)[1] for line in marks.read_text().splitlines()]
    assert names.count("before restore") == 6
    first = names.index("before restore")
    amid = brought_back = 0
    for number in range(1 + part * EACH, len(names) - 2, 2 * EACH):
        update = prepared(lab, str(number))
        where = f"point {number} of {len(names)}, the first restore is at {first}"
        assert in_process(lambda: work(lab, update, number)) == -signal.SIGKILL, where  # noqa: B023
        before = known(lab)
        restored = {index for index, task in enumerate(before.tasks) if task.status is Status.RESTORED}
        amid += before.rolling_back
        brought_back += len(restored)
        log = len(lab.log)
        assert in_process(lambda: work(lab, update, 0)) == 0, where  # noqa: B023
        assert lab.holds() == all_old(), where
        names_of = [f"{name} {step}" for name in ("left", "right", "camera") for step in ("one", "two")]
        again = [line.removeprefix("restore ") for line in lab.log[log:] if line.startswith("restore ")]
        assert not {names_of[index] for index in restored} & set(again), where
        over = known(lab)
        assert over.over, where
        assert all(task.finished or not task.touched for task in over.tasks), where
    assert amid > 3
    assert brought_back > 3
