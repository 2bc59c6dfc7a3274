"""One seed from its beginning to its end: commands with what goes wrong in them, then everything mended and followed.

After each command the invariants are checked. At the end everything is mended, and what the product names as remedy is
followed until each part holds the new image.
"""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

from . import invariants
from .draw import NEW, OLD, OTHER, Case, Round, case
from .world import Ended, World

TRIES = 6
"""Commands that may be needed at the end, after everything is mended."""
RESETS = re.compile("two resets|reset it twice")
"""By which a remedy asks for a hand beside a command."""


class Broken(Exception):
    """An invariant does not hold."""


@dataclass(slots=True)
class Result:
    """What came of a seed. `wrong`: "" if all holds. `digest`: of all that happened, to the byte."""

    seed: int
    wrong: str = ""
    log: list[str] = field(default_factory=list)
    simulated: float = 0.0
    digest: str = ""
    commands: int = 0


def explore(seed: int | Case, *, recorded: bool = False) -> Result:
    """Runs a seed, or a case. `recorded`: what passes on the buses counts for the digest."""
    drawn = case(seed) if isinstance(seed, int) else seed
    result = Result(drawn.seed)
    folder = Path(tempfile.mkdtemp(prefix="proxyflash-explore-", dir=_memory()))
    simulated = SimulatedClock(drawn.seed, preemption=drawn.preemption)
    # When garbage is collected nobody knows; what is done then would be done at another moment each time.
    gc.disable()
    try:
        with clock.use(simulated):
            world = World(drawn, folder, recorded=recorded)
            try:
                with world.standing():
                    _lived(world, result)
                    result.digest = _digest(world)
            except Broken as error:
                result.wrong = str(error)
            result.log = world.log
        if not result.wrong and simulated.left:
            result.wrong = f"threads are left at the end: {simulated.left}"
        if not result.wrong and simulated.left_locked:
            result.wrong = f"locks are left at the end: {list(simulated.left_locked)}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        result.wrong = "".join(traceback.format_exception(error))
    finally:
        gc.enable()
        shutil.rmtree(folder, ignore_errors=True)
    result.simulated = simulated.elapsed
    return result


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _lived(world: World, result: Result) -> None:
    drawn = world.case
    before = _marked(world)
    for step in drawn.rounds:
        world.arm(step.troubles)
        for trouble in step.troubles:
            world.tell(f"armed: {trouble}")
        ended = _command(world, step)
        result.commands += 1
        if step.mended:
            world.mend()
        else:
            world.disarm()
        _check(world, ended, _of(world, step, ended))
    world.mend()
    _recover(world, result)
    _check(world, None, invariants.whole(world, NEW))
    _check(world, None, invariants.outside(world, before))


def _marked(world: World) -> dict[str, bytes]:
    """What each part's flash holds first; bytes that are nobody's lie behind its image."""
    found = {}
    for part in world.case.parts:
        flash = world.device(part).flash
        if not part.family.slots and not part.family.vectors:
            largest = max(len(world.images[part.name, version]) for version in (OLD, NEW, OTHER))
            last, size = flash.unit_of(part.family.start + largest - 1)
            flash.load(last + size, b"not an image's" * 2)
        found[part.name] = flash.read(flash.base, flash.size)
    return found


def _command(world: World, step: Round) -> Ended:
    match step.what:
        case "flash":
            return flash(world, step.part)
        case "apply":
            return world.run("apply", str(_manifest(world, NEW)), *step.options)
        case "other":
            return world.run("apply", str(_manifest(world, OTHER)), "--abandon", *step.options)
        case what:
            return world.run(what)


def flash(world: World, name: str, version: str = NEW) -> Ended:
    part = world.case.part(name)
    address = ("--address", hex(part.family.start)) if part.family.address else ()
    return world.run(
        "flash", name, str(world.folder / f"{part.group}-{version}.bin"), *address, "--expect-version", version
    )


def _manifest(world: World, version: str) -> Path:
    return world.folder / f"bench-{version}.importmanifest.json"


def _of(world: World, step: Round, ended: Ended) -> Iterable[str]:
    match step.what:
        case "flash":
            yield from invariants.claimed_by_flash(world, ended, world.case.part(step.part), NEW)
        case "apply":
            # What was unfinished before may have been this very update, on its way back.
            if "rolled back" not in ended.output:
                yield from invariants.claimed_by_update(world, ended, NEW)
    yield from invariants.claimed_by_steps(world, ended)


def _recover(world: World, result: Result) -> None:
    """Everything is mended: what the product says is followed until all parts hold the new image."""
    again: tuple[str, ...] = ()
    for _ in range(TRIES):
        result.commands += 1
        if not world.case.update:
            name = world.case.parts[0].name
            ended = flash(world, name)
            _check(world, ended, invariants.claimed_by_flash(world, ended, world.case.part(name), NEW))
            if ended.status == 0:
                return
            _by_hand(world)
            continue
        ended = world.run("apply", str(_manifest(world, NEW)), *again)
        _check(world, ended, invariants.claimed_by_steps(world, ended))
        if ended.status == 0 and not list(invariants.whole(world, NEW)):
            return
        again = _advised(world, ended)
    raise Broken(f"not recovered by {TRIES} commands once everything was mended")


def _by_hand(world: World) -> None:
    """What a remedy that is not a command asks a person for: to reset parts, as each wants it."""
    for part in world.case.parts:
        device = world.device(part)
        device.rescue()
    world.settle()


def _advised(world: World, ended: Ended) -> tuple[str, ...]:
    """Follows the remedy of the last error; what the same command is to be given the next time."""
    advice = _remedy(ended)
    if RESETS.search(advice):
        _by_hand(world)
    if "--again" in advice:
        return ("--again",)
    if found := re.search(r"proxyflash .*?(resume|rollback)", advice):
        ended = world.run(found[1])
        _check(world, ended, ())
        if RESETS.search(_remedy(ended)):
            _by_hand(world)
    else:
        _by_hand(world)
    return ()


def _remedy(ended: Ended) -> str:
    return ended.errors[-1].remedy if ended.errors else ""


def _check(world: World, ended: Ended | None, more: Iterable[str]) -> None:
    wrong = list(more)
    if ended is not None:
        wrong = [*invariants.after_command(world, ended), *wrong]
    if wrong:
        for text in wrong:
            world.tell(f"WRONG: {text}")
        raise Broken("; ".join(wrong))


def _digest(world: World) -> str:
    """Of the log, of the disk's content, and of what passed on the buses, if that was recorded."""
    digest = hashlib.sha256()
    digest.update("\n".join(world.log).encode())
    image = world.disk.now()
    for path, data in image.files.items():
        if not path.endswith("/lock"):
            digest.update(world.plain(path).encode() + b"\0" + world.plain(data.decode("latin-1")).encode())
    if world.recorder is not None:
        for record in world.recorder.records():
            digest.update(repr(record).encode())
    return digest.hexdigest()


def told(drawn: Case) -> list[str]:
    """A case, for a person."""
    lines = [f"seed {drawn.seed}: {'an update' if drawn.update else 'a flash'}"]
    lines += [f"  {bus}" for bus in drawn.buses]
    lines += [f"  {part}" for part in drawn.parts]
    lines += [f"  policy {drawn.policy}, options {drawn.options}"] if drawn.update else []
    return lines
