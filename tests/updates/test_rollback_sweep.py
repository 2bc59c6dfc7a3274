"""The sweep over a rollback: components at once, one of which fails, and everything is undone; killed at every point of it.

The points are those of test_sweep, in the order of some seeds. After each a resume: everything as it was, and nothing
brought back twice that the journal had as brought back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from proxyflash.testing.thinning import Thinning
from proxyflash.tests.explore.disk import Disk, Image
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.engine import Engine
from proxyflash.updates.engine.journal import records
from proxyflash.updates.engine.progress import Ending, Progress
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.events import Status
from proxyflash.updates.manifests.resolved_update import Update

from .kills import KILLED, LEFT, Process
from .lab import NEW, FileHandler, Lab, all_old
from .test_sweep import Points

pytestmark = pytest.mark.simulated_time
SEEDS = (None, 1, 2, 3)
FAILS = "camera two"


def run(lab: Lab, update: Update, at: int = 0) -> tuple[int, Points]:
    """One engine, to the end or to the given point. How it ended, and its points."""
    points = Points(at)

    def work() -> None:
        with lab.engine() as engine, points.hooked():
            if engine.unfinished() is not None:
                outcome = engine.resume()
            else:
                outcome = engine.apply(engine.plan(update, lab.components()), parallel=True, on_failure="rollback")
            assert outcome.ending is Ending.ROLLED_BACK, outcome.error
            assert len(outcome.results) == 6

    assert lab.disk is not None
    return Process(lab.disk, left=lab.left, point=points.pass_by).run(work), points


@contextmanager
def begun(lab: Lab, seed: int | None) -> Iterator[Update]:
    """Everything as before the first one, on a clock of its own. What fails does so once all else is done."""
    outer = clock.current()
    own = SimulatedClock(seed)
    with clock.use(own):
        assert isinstance(lab.disk, Disk)
        lab.disk.put(Image())
        (lab.world / "log").write_text("")
        FileHandler.asking = clock.local()
        update = lab.bundle()

        def fails() -> ActionResult:
            while {lab.holds()[f"{name}.two"] for name in ("left", "right")} != {NEW}:
                clock.sleep(0.005)
            return ActionResult(ResultCode.FAILURE, 1, "it broke")

        lab.fault(FAILS, Action.APPLY, fails)
        yield update
    outer.sleep(own.elapsed)


def known(lab: Lab) -> Progress:
    with lab.engine() as engine:
        entry = Engine(engine.bench).store.latest()
        return Progress() if entry is None else Progress.of(records(entry.journal), "")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_sweep_of_a_rollback(lab: Lab, seed: int | None, thinned: Thinning) -> None:
    with begun(lab, seed) as update:
        status, points = run(lab, update)
        assert status == 0
        assert lab.holds() == all_old()
    names = [name for _, name in points.seen]
    assert names.count("before restore") == 6
    amid = brought_back = 0
    for number in thinned(range(1 + SEEDS.index(seed), len(names) + 1, len(SEEDS)), 12):
        lab.left = LEFT[number % len(LEFT)]
        where = f"seed {seed}, point {number} of {len(names)}: {names[number - 1]}, {lab.left} left"
        with begun(lab, seed) as update:
            status, _ = run(lab, update, number)
            assert status == KILLED, where
            before = known(lab)
            if before.over:
                assert lab.holds() == all_old(), where
                continue
            restored = {index for index, task in enumerate(before.tasks) if task.status is Status.RESTORED}
            amid += before.rolling_back
            brought_back += len(restored)
            log = len(lab.log)
            status, _ = run(lab, update)
            assert status == 0, where
            assert lab.holds() == all_old(), where
            names_of = [f"{name} {step}" for name in ("left", "right", "camera") for step in ("one", "two")]
            again = [line.removeprefix("restore ") for line in lab.log[log:] if line.startswith("restore ")]
            assert not {names_of[index] for index in restored} & set(again), where
            over = known(lab)
            assert over.over, where
            assert all(task.finished or not task.touched for task in over.tasks), where
    if thinned.is_all:
        assert amid > 3
        assert brought_back > 3
