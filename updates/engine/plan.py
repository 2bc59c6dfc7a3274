"""The plan of an update: which step is for which component, in which order, and what is known before the start.

The order is Azure Device Update's: the steps as written; for a reference step, each selected component in turn, and for
each of these the child's steps in order. A step that selects no component is skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from ...enumerators.bench import Bench
from ...enumerators.bench_component import BenchComponent
from ...enumerators.component import Component, Presence, select, selectable
from ...enumerators.host import HostComponent
from ...transports import plugins
from ...transports.errors import NextAction, PluginUnknown, ProxyflashError, Remedy
from ...transports.plain import meant
from ...transports.quoting import shell_line
from ..errors import BelowFloor, ComponentAbsent, DowngradeRefused, HandlerUnknown, ManifestField
from ..events import Status
from ..handlers.handler import StepHandler
from ..manifests.manifest import InlineStep, ReferenceStep
from ..manifests.options import StepOptions, split, start_conditions
from ..manifests.policy import Policy
from ..manifests.resolved_update import Update
from ..manifests.versions import older
from .action import Action
from .results import ActionResult, ResultCode


@dataclass(frozen=True, slots=True)
class Task:
    """One step on one component, or on the host.

    `index`: its place in the plan. `number`: the parent's step, from 0; `child`: the child's, or None. `step`: as its
    handler sees it. `rollback_blocker`: why it can't be undone, "" when it can. `downgrade`: whether the component has a newer
    version now.
    """

    index: int
    number: int
    child: int | None
    step: InlineStep
    update: Update
    component: Component | None
    handler: type[StepHandler]
    options: StepOptions
    status: Status = Status.TODO
    rollback_blocker: str = ""
    downgrade: bool = False

    @property
    def label(self) -> str:
        """The step's number as a person counts: "2", or "2.1" for the first step of a child update."""
        return f"{self.number + 1}" if self.child is None else f"{self.number + 1}.{self.child + 1}"

    @property
    def target(self) -> str:
        return self.component.name if self.component else "host"

    @property
    def wanted(self) -> str:
        """The version that it installs, where the step names one."""
        criteria = self.step.handlerProperties.get("installedCriteria")
        return criteria if isinstance(criteria, str) else ""


@dataclass(frozen=True, slots=True)
class UpdatePlan:
    """What an update will do, in order. `empty`: the parent's steps that select no component.

    `unplugged`: components that it would be for as well, need not be there, and are not. `silent`: the names of those that
    don't answer and may be in their bootloaders, where they are looked for before anything else is done. `unselected`: the
    names of those that it is not for. `missed`: for each of `empty`, what it selects by and what there is. `unmatched`: the
    parent's step and what is said of a selector that matches nothing, where another one of the step matches.
    """

    update: Update
    tasks: tuple[Task, ...]
    empty: tuple[int, ...]
    unplugged: tuple[Component, ...] = ()
    silent: tuple[str, ...] = ()
    unselected: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    unmatched: tuple[tuple[int, str], ...] = ()

    @property
    def nothing_to_do(self) -> bool:
        return all(task.status is Status.INSTALLED for task in self.tasks)

    @property
    def components(self) -> tuple[Component, ...]:
        """Those that it is for, each once, in their order."""
        found = {task.component.name: task.component for task in self.tasks if task.component}
        return tuple(found.values())


def order(update: Update, components: Sequence[Component]) -> UpdatePlan:
    """The tasks in their order, and nothing looked up beyond what their handlers check of a step.

    The same update and components give the same plan: that is how an update which was cut knows its tasks again.
    Raises HandlerUnknown, ManifestField.
    """
    tasks: list[Task] = []
    empty = []
    for number, step in enumerate(update.manifest.instructions.steps):
        before = len(tasks)
        for child, inner, owner, component, index in _steps(update, number, step, components, before):
            tasks.append(_task(owner, number, child, inner, component, index))
        if len(tasks) == before:
            empty.append(number)
    return UpdatePlan(update, tuple(tasks), tuple(empty))


def make(
    bench: Bench,
    policy: Policy,
    update: Update,
    components: Sequence[Component],
    torn: Callable[[], Container[str]] = lambda: (),
) -> UpdatePlan:
    """What will be done with the components as they were seen. Touches nothing.

    `torn`: asked for the components that an earlier update left without a whole application, if any doesn't answer:
    these can't answer until they are flashed. Raises HandlerUnknown, ManifestField, ComponentAbsent, BelowFloor,
    DowngradeRefused.
    """
    silent = _silent(bench, order(update, components))
    away = [
        component
        for component in components
        if bench.unplugged(component) and component.name not in silent and component.name not in torn()
    ]
    plan = order(update, [component for component in components if component not in away])
    start_conditions(bench, policy)
    check_components(bench, plan)
    for task in plan.tasks:
        for condition in task.options.conditions:
            if lacking := condition.missing(bench):
                raise ManifestField(f"{update.path}: step {task.label} for {task.target}: {lacking}")
        if task.target not in silent and _is_absent(task, torn):
            left = [other for other in plan.tasks if other.target not in silent and _is_absent(other, torn)]
            raise _absent(task, left)
    tasks = tuple(_looked_at(bench, policy, task) for task in plan.tasks)
    unplugged = order(update, away).components
    selected = {component.name for component in (*plan.components, *unplugged)}
    unselected = tuple(component.name for component in components if component.name not in selected)
    missed = tuple(_missed(update, number, components) for number in plan.empty)
    unmatched = tuple(_unmatched(update, components))
    return replace(
        plan, tasks=tasks, unplugged=unplugged, silent=silent, unselected=unselected, missed=missed, unmatched=unmatched
    )


def _missed(update: Update, number: int, components: Sequence[Component]) -> str:
    """Why a step of the parent is for no component: what it selects by, and what there is instead."""
    step = update.manifest.instructions.steps[number]
    selectors = [] if isinstance(step, InlineStep) else update.child(step).manifest.compatibility
    if not selectors or select(components, selectors):
        return "no component matches"
    wanted = " or ".join(",".join(f"{key}={value}" for key, value in selector.items()) for selector in selectors)
    there = []
    for key in dict.fromkeys(key for selector in selectors for key in selector):
        values = _values(components, key)
        near = "".join(dict.fromkeys(meant(one[key], values) for one in selectors if key in one))
        near = near or ("" if values else meant(key, _keys(components)))
        there.append(f"{key}s here: {', '.join(values) or 'none'}{near}")
    return f"{wanted} matches no component; {'; '.join(there)}"


def _keys(components: Sequence[Component]) -> list[str]:
    """What a selector may name."""
    return [*dict.fromkeys(key for component in components for key in selectable(component))]


def _values(components: Sequence[Component], key: str) -> list[str]:
    """What the components have for a key of a selector."""
    found = dict.fromkeys(selectable(component).get(key) for component in components)
    return [value for value in found if value]


def _unmatched(update: Update, components: Sequence[Component]) -> Iterator[tuple[int, str]]:
    """Selectors that match nothing, of steps for which others do: the step's number in the parent, and what is said of them."""
    for number, step in enumerate(update.manifest.instructions.steps):
        selectors = [] if isinstance(step, InlineStep) else update.child(step).manifest.compatibility
        vain = [selector for selector in selectors if not select(components, [selector])]
        if len(vain) < len(selectors):
            for selector in vain:
                wanted = ",".join(f"{key}={value}" for key, value in selector.items())
                there = {key: _values(components, key) for key in selector}
                near = "".join(
                    meant(selector[key], values) if values else meant(key, _keys(components))
                    for key, values in there.items()
                )
                yield number, f"{wanted} matches no component{near}"


def _steps(
    update: Update, number: int, step: InlineStep | ReferenceStep, components: Sequence[Component], first: int
) -> Iterator[tuple[int | None, InlineStep, Update, Component | None, int]]:
    """Of one of the parent's steps: the child's step, that step itself, its update, its component, its index."""
    if isinstance(step, InlineStep):
        yield None, step, update, None, first
        return
    child = update.child(step)
    for component in select(components, child.manifest.compatibility):
        for position, inner in enumerate(child.manifest.instructions.steps):
            if isinstance(inner, InlineStep):
                yield position, inner, child, component, first
                first += 1


def _task(
    update: Update, number: int, child: int | None, step: InlineStep, component: Component | None, index: int
) -> Task:
    place = f"{update.path}: instructions.steps[{number if child is None else child}]"
    try:
        handler: type[StepHandler] = plugins.load(plugins.STEPS, step.handler)
    except PluginUnknown as error:
        raise HandlerUnknown(f"{place}.handler: {error.cause}") from error
    bare, options = split(step, place)
    handler.check(bare, on_component=component is not None, place=place)
    return Task(index, number, child, bare, update, component, handler, options)


def check_components(bench: Bench, plan: UpdatePlan) -> None:
    """That each task's handler takes its component, whatever that holds. Raises ManifestField, ComponentUnknown."""
    for task in plan.tasks:
        place = f"{task.update.path}: step {task.label} for {task.target}"
        task.handler.check_component(task.step, _reached(bench, task), place)


def no_way_back(bench: Bench, task: Task, results: Mapping[Action, ActionResult]) -> str:
    """Why what a task has done can't be undone. `results`: of its actions."""
    kept = results.get(Action.BACKUP)
    if kept is not None and kept.code == ResultCode.BACKUP_UNSUPPORTED and kept.details:
        return kept.details
    reason = ""
    with suppress(ProxyflashError):
        reason = task.handler.rollback_blocker(task.step, _reached(bench, task))
    return reason or f"{task.step.handler} has kept nothing to bring back"


def _reached(bench: Bench, task: Task) -> BenchComponent | HostComponent | None:
    return bench.find(task.component.name) if task.component is not None else None


def _silent(bench: Bench, plan: UpdatePlan) -> tuple[str, ...]:
    """Components that don't answer, and that a step reaches by their bootloaders if they are there."""
    reached = {task.target for task in plan.tasks if task.component and task.handler.enters_bootloader}
    silent = [component for component in plan.components if bench.may_be_in_bootloader(component)]
    return tuple(component.name for component in silent if component.name in reached)


def _is_absent(task: Task, torn: Callable[[], Container[str]]) -> bool:
    component = task.component
    return component is not None and component.presence is Presence.ABSENT and component.name not in torn()


def flash_again(task: Task) -> Remedy | None:
    """What to do about a component that doesn't answer, with the command that flashes it; None: no step flashes it."""
    if not (task.handler.enters_bootloader and task.step.files):
        return None
    what = shell_line([task.target, task.update.files[task.step.files[0]]])
    return (
        "Is it powered and wired? Run: ",
        NextAction.SCAN,
        ". If flashing it was interrupted, flash it again: ",
        NextAction.FLASH,
        f" {what}. Set optional = true in the bench file for a component that may be missing.",
    )


def _absent(task: Task, left: Sequence[Task]) -> ComponentAbsent:
    """The first task whose component isn't there, and all of them."""
    where = task.component.where if task.component else ""
    cause = f"step {task.label} is for {task.target}, which does not answer ({where})"
    error = ComponentAbsent(cause, remedy=flash_again(task), component=task.target)
    error.away = tuple(dict.fromkeys(other.target for other in left))
    return error


def _looked_at(bench: Bench, policy: Policy, task: Task) -> Task:
    component = task.component
    if component is not None and task.handler.seems_installed(task.step, component):
        return replace(task, status=Status.INSTALLED)
    downgrade = component is not None and is_downgrade(policy, task, component)
    rollback_blocker = task.handler.rollback_blocker(task.step, _reached(bench, task))
    return replace(task, rollback_blocker=rollback_blocker, downgrade=downgrade)


def is_downgrade(policy: Policy, task: Task, component: Component) -> bool:
    """Whether it installs an older version than the component has by this record. Raises BelowFloor, DowngradeRefused."""
    for name in (component.name, component.group):
        floor = policy.floor.get(name) if name else None
        if floor is not None and older(task.wanted, floor):
            raise BelowFloor(
                f"step {task.label} installs {task.wanted}, and nothing below {floor} is allowed on {name}",
                component=component.name,
            )
    if not older(task.wanted, component.version):
        return False
    if policy.downgrade == "on-request" and not task.options.allow_downgrade:
        raise DowngradeRefused(
            f"step {task.label} installs {task.wanted}, and the component has {component.version}",
            component=component.name,
        )
    return True
