"""Components at once: within what a bus bears, each one's steps in order, a dependency first; and what a failure stops."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.enumerators.component import Component, Presence
from proxyflash.updates.engine.action import Action
from proxyflash.updates.engine.plan import Task
from proxyflash.updates.engine.progress import Ending
from proxyflash.updates.engine.results import ActionResult, ResultCode
from proxyflash.updates.engine.scheduling import Scheduler, carry_out, stages
from proxyflash.updates.events import Status
from proxyflash.updates.manifests.conditions import Version
from proxyflash.updates.manifests.manifest import InlineStep
from proxyflash.updates.manifests.options import StepOptions
from proxyflash.updates.manifests.resolved_update import Update, load

from .lab import COMPONENTS, FileHandler, Lab, all_new, all_old, cancel, kill, reference, step

FAILURE = ActionResult(ResultCode.FAILURE, 0, "it broke")


class Together:
    """Called at each beginning and end; knows how many were at it at once at most, and can wait until that many are."""

    def __init__(self, wait_for: int = 1) -> None:
        self.now: set[str] = set()
        self.most = 0
        self.barrier = threading.Barrier(wait_for)
        self.lock = threading.Lock()

    def __call__(self, who: str) -> None:
        with self.lock:
            assert who not in self.now
            self.now.add(who)
            self.most = max(self.most, len(self.now))
        # Would break, and with it the step, if fewer came together.
        self.barrier.wait(30)
        with self.lock:
            self.now.discard(who)


def test_components_are_worked_on_at_once(lab: Lab) -> None:
    update = lab.bundle()
    together = Together(3)
    for name in COMPONENTS:
        lab.fault(f"{name} one", Action.INSTALL, lambda name=name: together(name))  # type: ignore[misc]
    outcome = lab.apply(update, parallel=True)
    assert outcome.succeeded
    assert together.most == 3
    assert lab.holds() == all_new()
    for name in COMPONENTS:
        own = [line for line in lab.log if f" {name} " in line and not line.startswith(("asked", "download"))]
        assert [line for line in own if "two" in line] == own[len(own) // 2 :]


@pytest.mark.parametrize("limit", [None, 1, 2])
def test_a_bus_bears_so_many(lab: Lab, limit: int | None) -> None:
    """Without a number it is one, as on CAN it must be."""
    text = (lab.folder / "bench.toml").read_text()
    (lab.folder / "bench.toml").write_text(text.replace("at_once = 4\n", f"at_once = {limit}\n" if limit else ""))
    update = lab.bundle()
    together = Together()
    for name in COMPONENTS:
        lab.fault(f"{name} one", Action.APPLY, lambda name=name: together(name))  # type: ignore[misc]
    assert lab.apply(update, parallel=True).succeeded
    assert together.most <= (limit or 1)


def test_one_by_one_without_the_option(lab: Lab) -> None:
    update = lab.bundle()
    together = Together()
    for name in COMPONENTS:
        lab.fault(f"{name} one", Action.APPLY, lambda name=name: together(name))  # type: ignore[misc]
    assert lab.apply(update).succeeded
    assert together.most == 1


def test_the_policy_says_it_for_all(lab: Lab) -> None:
    lab.policy = {"parallel": True}
    update = lab.bundle()
    together = Together(3)
    for name in COMPONENTS:
        lab.fault(f"{name} one", Action.INSTALL, lambda name=name: together(name))  # type: ignore[misc]
    assert lab.apply(update).succeeded


def test_a_step_of_the_host_has_its_place_for_itself(lab: Lab) -> None:
    lab.bundle()
    for name in ("before", "between", "after"):
        (lab.world / f"host.{name}").write_text("1.0")
    steps = [step("before"), reference("motors"), step("between"), reference("cameras"), step("after")]
    assert lab.apply(load(lab.write("bundle", steps)), parallel=True).succeeded
    order = [where.split()[0] for where in lab.began(Action.APPLY)]
    assert (order[0], order[5], order[-1]) == ("host", "host", "host")
    assert set(order[1:5]) == {"left", "right"}
    assert order[6:8] == ["camera", "camera"]


def test_a_failure_begins_nothing_more_and_ends_what_is_begun(lab: Lab) -> None:
    """Two at once: one fails while the other is at it. The other's step ends; its next one isn't begun."""
    update = lab.bundle()
    failed, begun = threading.Event(), threading.Semaphore(0)

    def fail() -> ActionResult:
        begun.acquire(timeout=30)
        begun.acquire(timeout=30)
        failed.set()
        return FAILURE

    def wait() -> ActionResult | None:
        begun.release()
        return None if failed.wait(30) else FAILURE

    lab.fault("left one", Action.APPLY, fail)
    lab.fault("right one", Action.INSTALL, wait)
    lab.fault("camera one", Action.INSTALL, wait)
    outcome = lab.apply(update, parallel=True)
    assert outcome.ending is Ending.FAILED
    statuses = {f"{item.task.target} {item.task.label[-1]}": item.task.status for item in outcome.results}
    assert statuses["left 1"] is Status.FAILED
    assert (statuses["right 1"], statuses["camera 1"]) == (Status.DONE, Status.DONE)
    assert statuses["left 2"] is Status.NOT_RUN
    assert lab.holds()["left.one"] == "1.0"


def test_after_a_failure_the_next_component_of_the_bus_is_not_begun(lab: Lab) -> None:
    text = (lab.folder / "bench.toml").read_text()
    (lab.folder / "bench.toml").write_text(text.replace("at_once = 4\n", ""))
    update = lab.bundle()
    lab.fault("left one", Action.APPLY, FAILURE)
    assert lab.apply(update, parallel=True).ending is Ending.FAILED
    assert lab.began(Action.INSTALL) == ["left one"]


def test_the_others_go_on_where_that_is_wanted(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.APPLY, FAILURE)
    outcome = lab.apply(update, parallel=True, on_failure="continue")
    assert outcome.ending is Ending.FAILED
    assert lab.holds() == all_new() | {"left.one": "1.0", "left.two": "1.0"}


def test_a_rollback_is_in_the_reverse_order_of_the_ends(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("camera two", Action.APPLY, FAILURE)
    outcome = lab.apply(update, parallel=True, on_failure="rollback")
    assert outcome.ending is Ending.ROLLED_BACK
    assert lab.holds() == all_old()


def test_a_kill_in_the_midst_of_three(lab: Lab) -> None:
    update = lab.bundle()
    barrier = threading.Barrier(3)

    def all_at_it() -> None:
        barrier.wait(30)
        kill()

    for name in COMPONENTS:
        lab.fault(f"{name} two", Action.INSTALL, all_at_it)
    assert lab.process(lambda: lab.apply(update, parallel=True)) == -signal.SIGKILL
    ended = len(lab.log)
    for name in COMPONENTS:
        lab.fault(f"{name} two", Action.INSTALL, lambda: None)
    assert lab.resume().succeeded
    assert lab.holds() == all_new()
    assert not any(" one" in line for line in lab.log[ended:])


def test_a_cancellation_in_the_midst_of_three(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left two", Action.INSTALL, cancel)
    outcome = lab.apply(update, parallel=True)
    assert outcome.ending is Ending.UNFINISHED
    lab.fault("left two", Action.INSTALL, lambda: None)
    assert lab.resume().succeeded
    assert lab.holds() == all_new()


def test_a_restart_waits_for_the_same_step_s_components_alone(lab: Lab) -> None:
    update = lab.bundle()
    lab.fault("left one", Action.APPLY, ActionResult(ResultCode.APPLY_REBOOT))
    # The cameras are the next step of the parent; that none of them was begun before is seen to by the one bus slot.
    text = (lab.folder / "bench.toml").read_text()
    (lab.folder / "bench.toml").write_text(text.replace("at_once = 4\n", ""))
    outcome = lab.apply(update, parallel=True)
    assert outcome.ending is Ending.AWAITING
    assert {where.split()[0] for where in lab.began(Action.INSTALL)} == {"left", "right"}


def task(index: int, name: str, bus: str = "", *, needs: str = "", number: int = 0) -> Task:
    component = Component(name, name, "", "", "", "", Presence.OK, bus, "", "") if name else None
    inline = InlineStep.model_validate({"handler": "test/file:1", "files": ("x",)})
    conditions = (Version(component=needs, min="1.0"),) if needs else ()
    none: Update = Update(Path(), None, {}, {})  # type: ignore[arg-type]
    return Task(index, number, None, inline, none, component, FileHandler, StepOptions(conditions=conditions))


def test_a_dependency_is_done_first() -> None:
    """A needs what the update does to B before; on what comes after, nothing waits."""
    tasks = [task(0, "b"), task(1, "b"), task(2, "a", needs="b"), task(3, "b")]
    scheduler = Scheduler(tasks, {})
    first = scheduler.take()
    assert first is tasks[0]
    scheduler.done(tasks[0])
    assert scheduler.take() is tasks[1]
    scheduler.done(tasks[1])
    assert [scheduler.take(), scheduler.take()] == tasks[2:]


def test_stages() -> None:
    tasks = [task(0, ""), task(1, ""), task(2, "a"), task(3, "b"), task(4, ""), task(5, "a")]
    assert [[item.index for item in stage] for stage in stages(tasks)] == [[0], [1], [2, 3], [4], [5]]


def test_what_a_worker_raises_ends_the_stage() -> None:
    tasks = [task(index, f"c{index}") for index in range(50)]
    scheduler = Scheduler(tasks, {"": 1})
    seen: list[int] = []

    def work(item: Task) -> None:
        seen.append(item.index)
        if item.index == 3:
            raise KeyError("x")

    with pytest.raises(KeyError):
        carry_out(scheduler, work)
    assert seen == [0, 1, 2, 3]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(["", *"abcde"])), min_size=1, max_size=20),
    st.dictionaries(st.sampled_from("xyz"), st.integers(1, 3), max_size=3),
)
def test_any_plan_comes_to_its_end_within_its_limits(plan: list[tuple[str, str]], limits: dict[str, int]) -> None:
    """Each task once, no component twice at once, no bus above its limit, what is needed before what needs it."""
    buses = dict(zip("abcde", "xyzxy", strict=True))
    tasks = [task(index, name, buses[name], needs=needs) for index, (name, needs) in enumerate(plan)]
    lock = threading.Lock()
    now: list[Task] = []
    ended: list[int] = []

    def work(item: Task) -> None:
        with lock:
            assert item.target not in [other.target for other in now]
            now.append(item)
            for bus, limit in limits.items():
                assert sum(other.component is not None and other.component.bus == bus for other in now) <= limit
            needed = {item.target, *(c.component for c in item.options.conditions)}
            assert all(other.index in ended for other in tasks[: item.index] if other.target in needed)
        with lock:
            now.remove(item)
            ended.append(item.index)

    carry_out(Scheduler(tasks, limits), work)
    assert sorted(ended) == list(range(len(tasks)))
