"""What must hold after every command, and at the end of every seed. Each check returns what is wrong, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxyflash.emulators.faults import Fault
from proxyflash.transports.errors import ExitStatus
from proxyflash.updates.engine import journal
from proxyflash.updates.engine.progress import Progress
from proxyflash.updates.engine.store import StoredUpdate
from proxyflash.updates.events import ActionStarted, Status, StepFinished, StepStarted

from .draw import NEW, OTHER, Part
from .world import Ended, World

NOT_AGAIN = ("backup", "install", "apply")
"""Actions that a step which is done does not begin again."""
UNNOTICED = {Fault.CORRUPT, Fault.DROP, Fault.DUPLICATE}
"""A bit of an address that is turned on the way is another address, and behind a byte too many or too few a loader takes data for
commands: a protocol without a checksum notices neither."""


def after_command(world: World, ended: Ended) -> Iterator[str]:
    """Of one command that has ended, on its own or by a kill."""
    if ended.raised is not None:
        yield f"{type(ended.raised).__name__} left the command: {ended.raised}"
    yield from (f"it left {what}" for what in ended.left)
    yield from (f"a thread raised what nobody caught: {text}" for text in world.faults)
    yield from world.claims
    for error in ended.errors:
        if error.code == "E-UNEXPECTED":
            yield f"E-UNEXPECTED: {error.cause}"
        if not error.code.startswith("E-"):
            yield f"an error without a code: {error}"
        if not error.cause:
            yield f"an error without a cause: {error.code}"
        if not error.remedy:
            cancelled = error.code == "E-CANCELLED" and error.exit_status == ExitStatus.INTERRUPTED
            if not cancelled:
                yield f"an error without a remedy: {error.code} {error.cause}"
    if ended.status and not ended.errors:
        yield f"it ended with {ended.status} and showed no error"
    if ended.status is not None and "Traceback" in ended.output:
        yield "it printed a traceback"
    if ended.status == ExitStatus.INTERRUPTED:
        # MCUboot itself works on the flash whenever the part starts.
        for name in ended.worked:
            if not world.case.part(name).family.mcuboot:
                yield f"it was reported that nothing was changed, and the flash of {name} was worked on"
    yield from of_journals(world)
    yield from not_again(world, ended)


def claimed_by_flash(world: World, ended: Ended, part: Part, version: str) -> Iterator[str]:
    """A flash that ended well: the part holds all of the image."""
    if ended.status == 0 and world.held(part) != version:
        yield f"{part.name} was reported as flashed and verified, and holds {world.held(part) or 'a mixture'}"


def claimed_by_update(world: World, ended: Ended, version: str) -> Iterator[str]:
    """An update that ended well: each part holds all of its image."""
    if ended.status == 0:
        for part in world.case.parts:
            if world.held(part) != version:
                yield f"the update was reported as done, and {part.name} holds {world.held(part) or 'a mixture'}"


def claimed_by_steps(world: World, ended: Ended) -> Iterator[str]:
    """What the last word on each part's step was, while the part kept its supply: it holds that image."""
    last: dict[str, StepFinished] = {}
    for event in ended.events:
        if isinstance(event, StepFinished):
            last[event.component] = event
        elif isinstance(event, StepStarted):
            # Its end is not reported yet: a rollback may have begun to bring the old image back.
            last.pop(event.component, None)
    for part in world.case.parts:
        event = last.get(part.name)
        if event is None:
            continue
        if event.status is Status.DONE and world.held(part) not in (NEW, OTHER):
            yield f"step {event.label} of {part.name} was reported as done, and the part holds {world.held(part)}"
        if event.status is Status.RESTORED and event.result_code in (1000, 1002) and world.held(part) is None:
            yield f"step {event.label} of {part.name} was reported as restored, and the part holds a mixture"


def not_again(world: World, ended: Ended) -> Iterator[str]:
    """No step that was reported as done begins again in the same update."""
    found = entries(world)
    if not found or ended.arguments[0] not in ("apply", "resume"):
        return
    done = world.finished.setdefault(str(found[-1].journal), set())
    for event in ended.events:
        begins = isinstance(event, ActionStarted) and event.action in NOT_AGAIN
        if begins and f"{event.label} {event.component}" in done:
            yield f"step {event.label} of {event.component} was reported as done, and {event.action} began again"
        if isinstance(event, StepFinished) and event.status is Status.DONE:
            done.add(f"{event.label} {event.component}")


def entries(world: World) -> list[StoredUpdate]:
    """The updates that the state folder has, as they lie there."""
    folders = sorted(world.state.glob("benches/*/updates/[0-9]*"))
    return [StoredUpdate(folder) for folder in folders if (folder / journal.NAME).exists()]


def of_journals(world: World) -> Iterator[str]:
    """No journal is damaged, and no step that was done began again."""
    for entry in entries(world):
        done: set[int] = set()
        back = False
        try:
            found = list(journal.records(entry.journal))
            if found:
                Progress.of(iter(found), "")
        except Exception as error:
            yield f"the journal of update {entry.number} can't be read: {error}"
            continue
        for record in found:
            back = back or record["kind"] == "rollback"
            task = record.get("task")
            if record["kind"] == "start" and task in done and record["action"] in NOT_AGAIN:
                yield f"update {entry.number}: task {task} was done, and {record['action']} began again"
            if task is not None and record["kind"] == "end" and record.get("status") in ("done", "installed already"):
                done.add(task)


def outside(world: World, before: dict[str, bytes]) -> Iterator[str]:
    """Nothing outside of the erase units that the images lie in has changed."""
    for part in world.case.parts:
        done = {fault for _, fault in world.buses[part.bus].faults.done}
        if done & UNNOTICED and not part.family.checked:
            continue
        flash = world.device(part).flash
        now = flash.read(flash.base, flash.size)
        allowed = allowed_ranges(world, part)
        was = before[part.name]
        if now == was:
            continue
        position = flash.base
        for start, end in [*allowed, (flash.end, flash.end)]:
            start, end = min(start, flash.end), min(end, flash.end)
            low, high = position - flash.base, max(position, start) - flash.base
            if now[low:high] != was[low:high]:
                at = next(index for index in range(low, high) if now[index] != was[index])
                yield f"{part.name} changed at 0x{flash.base + at:X}, which no image of the update touches"
                break
            position = max(position, end)


def allowed_ranges(world: World, part: Part) -> list[tuple[int, int]]:
    """What an update of a part may change, in order."""
    if part.family.slots:
        return list(part.family.slots)
    flash = world.device(part).flash
    end = part.family.start + max(len(world.images[part.name, version]) for version in (NEW, OTHER))
    start, _ = flash.unit_of(part.family.start)
    last, size = flash.unit_of(end - 1)
    return [(start, last + size)]


def whole(world: World, version: str) -> Iterator[str]:
    """At the end: each part holds the image and runs it."""
    for part in world.case.parts:
        device: Any = world.device(part)
        if world.held(part) != version:
            yield f"{part.name} holds {world.held(part) or 'a mixture'} at the end, not {version}"
        elif device.application_version != version:
            yield f"{part.name} runs {device.application_version or 'its bootloader'} at the end, not {version}"
