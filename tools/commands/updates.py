"""`plan`, `apply`, `resume`, `rollback`, `history`, `report`: updates of many components from one manifest."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import click

from ...enumerators.component import Presence
from ...flashers.errors import NOT_THERE, Cancelled, NoResponse, PartError
from ...transports.errors import NextAction, ProxyflashError, TransportError
from ...transports.plain import counted, word
from ...updates.engine import kept_plan
from ...updates.engine.engine import Engine
from ...updates.engine.plan import UpdatePlan
from ...updates.engine.progress import Ending, Progress
from ...updates.engine.report import Outcome, TaskResult
from ...updates.engine.store import StoredUpdate
from ...updates.engine.verdict import PASSED_OVER, verdict
from ...updates.errors import ComponentAbsent, JournalBroken, PlanFile, UpdateUnknown
from ...updates.events import Status
from ...updates.manifests import creating, signing
from ...updates.manifests.resolved_update import Update, load
from ..output import describe
from .adu import OutputFile
from .components import look
from .programming import YES, ask
from .reporting import check, reports
from .session import TRACE, Session, command
from .waiting import WAIT, Wait

MANIFEST = click.argument("manifest", type=click.Path(path_type=Path))
GO_ON = ("Go on: ", NextAction.RESUME)
AGAIN = click.option("--again", is_flag=True, help="Also try steps that were tried as often as is allowed.")


def no_dry_run(instead: str) -> Callable[[Any], Any]:
    """Names the command that people who type `--dry-run` want: `flash` has this option. `instead`: ends the message."""

    def refuse(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            raise click.UsageError(f"No such option '--dry-run'. {instead}", context)

    return click.option("--dry-run", callback=refuse, is_flag=True, hidden=True, expose_value=False, is_eager=True)


@command("plan")
@MANIFEST
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Keep the plan in this file, for apply.")
@WAIT
def plan(session: Session, manifest: Path, out: Path | None, wait: float) -> int | None:
    """What an update would do: each step, on which component, in which order, and what is skipped.

    Checks the manifest and every file of it first. Says what can't be rolled back. Sends nothing that writes.

    \b
    proxyflash plan update.importmanifest.json
    proxyflash plan update.importmanifest.json --out plan.json
    """
    if out is not None and _holds_something_else(out):
        raise OutputFile(
            f"{out} is there already, and is not a kept plan", remedy="Name a new file, or a file that holds a plan."
        )
    engine = _engine(session)
    _report_key(engine)
    with Wait(session, wait) as waiting:
        made = _plan_of_the_present(waiting, engine, _loaded(engine, manifest))
    if out is not None:
        text = kept_plan.KeptPlan.of(session.bench, made, manifest).text()
        try:
            creating.write(out, text.encode())
        except OSError as error:
            raise OutputFile(f"{out}: {error.strerror}") from error
    session.output.document(_plan_document(made))
    _print_plan(session, made)
    return None


@command("apply")
@MANIFEST
@YES
@AGAIN
@click.option(
    "--on-failure", type=click.Choice(["stop", "continue", "rollback"]), help="Else as the bench file has it."
)
@click.option("--parallel/--one-by-one", default=None, help="Whether components are updated at once.")
@click.option("--abandon", is_flag=True, help="Leave another update, which is unfinished, as it is.")
@no_dry_run("What would be done, and nothing sent that writes: proxyflash plan MANIFEST")
@TRACE
@WAIT
@reports
def apply(
    session: Session,
    manifest: Path,
    yes: bool,
    again: bool,
    on_failure: str | None,
    parallel: bool | None,
    abandon: bool,
    wait: float,
) -> int | None:
    """Carries out an update: makes the same plan as `plan`, then does it. MANIFEST may be a plan that `plan --out` kept.

    Every component that the update selects gets its own verdict. What was cut goes on by `resume`, or by the same command
    again.

    \b
    proxyflash apply update.importmanifest.json
    proxyflash apply plan.json
    proxyflash apply update.importmanifest.json --on-failure rollback
    """
    session.stop_safely()
    engine = _engine(session)
    kept = kept_plan.read(manifest)
    update = _loaded(engine, Path(kept.manifest) if kept else manifest)
    with Wait(session, wait) as waiting:
        waiting.until_free(session.bench.lock)
        unfinished = engine.unfinished()
        if unfinished is not None and not abandon and engine.is_of(unfinished, update):
            session.output.note(f"going on with update {unfinished.number}, which is this one")
            return _resumed(waiting, engine, unfinished, again)
        if unfinished is not None and not abandon:
            engine.refuse(unfinished)
        _report_key(engine)
        made = waiting.until_there(lambda: _planned(session, engine, update, parallel), ComponentAbsent)
        if kept is not None:
            kept.check(kept_plan.KeptPlan.of(session.bench, made, update.path))
        _print_plan(session, made)
        _confirm(session, made, yes)
        plans = chain([made], iter(lambda: _planned(session, engine, update, parallel), None))

        def work() -> Outcome:
            """Begins it; after a wait it is planned again."""
            now = next(plans)
            if kept is not None:
                kept.check(kept_plan.KeptPlan.of(session.bench, now, update.path))
            return engine.apply(now, on_failure=on_failure, parallel=parallel, again=again, abandon=abandon)

        return _carried_out(
            session,
            lambda: waiting.until_there(work, ComponentAbsent),
            lambda outcome: _gone_on(waiting, engine, outcome, again),
        )


@command("resume")
@AGAIN
@no_dry_run("What is left of the update: proxyflash report")
@TRACE
@WAIT
@reports
def resume(session: Session, again: bool, wait: float) -> int | None:
    """Goes on with an update that was cut, stopped, or that waits for a restart.

    Starts at the first action that has not ended. An interrupted flash writes what the part does not hold yet. The update's
    own files are not needed any more.

    \b
    proxyflash resume
    proxyflash resume --wait 60
    """
    session.stop_safely()
    engine = _engine(session)
    with Wait(session, wait) as waiting:
        waiting.until_free(session.bench.lock)
        unfinished = engine.unfinished()
        if unfinished is None:
            session.output.document({"update": None, "verdict": "nothing to resume"})
            session.output.line("nothing to resume: no update is unfinished")
            _note_none(session, engine)
            return None
        session.output.note(f"going on with update {unfinished.number}, {word(unfinished.progress().begin['update'])}")
        return _resumed(waiting, engine, unfinished, again)


@command("rollback")
@click.argument("number", type=click.IntRange(min=1), required=False)
@YES
@no_dry_run("What each step has done: proxyflash report. What can't be undone: proxyflash plan MANIFEST")
@WAIT
@reports
def rollback(session: Session, number: int | None, yes: bool, wait: float) -> int | None:
    """Undoes the unfinished update, else the last that changed something; the last step first. NUMBER: undoes that one.

    `plan` lists the steps that can't be undone. The result of each restore is printed. Run it again to retry restores that
    failed. If everything was brought back already, nothing is done, with exit status 0.

    \b
    proxyflash rollback
    """
    session.stop_safely()
    engine = _engine(session)
    with Wait(session, wait) as waiting:
        waiting.until_free(session.bench.lock)
        unfinished = engine.unfinished()
        if unfinished is not None:
            session.standing.is_unfinished = True
            session.standing.remedy = (
                f"Update {unfinished.number} is unfinished. Undo it: {session.command_for('rollback')}, "
                f"or go on: {session.command_for('resume')}"
            )
        change = engine.to_undo(number)
        entry = change.entry
        if unfinished is None and change.is_undone:
            session.output.document({"update": None, "verdict": "nothing to roll back"})
            what = "was rolled back already" if change.progress.rolling_back else "left everything as it was before"
            which = "the last update" if number is None else f"update {number}"
            session.output.line(f"nothing to roll back: {which} {what}")
            other = engine.another_way_back(change)
            if other is not None:
                undo = session.command_for("rollback", str(other.number))
                session.output.note(f"update {other.number} can still be undone: {undo}")
            return None
        if unfinished is None:
            session.output.note(f"undoing update {change.kept.number}, {word(change.done.begin['update'])}")
        names = [
            item.task.target for item in engine.outcome(entry).results if item.task.component and not item.as_before
        ]
        _ask_for_real(session, names, yes, "bring back what was on")
        if wait:
            # Components that aren't there even then, or can't be asked, are reported; the others are brought back.
            waiting.until_all_are_there(names, lambda name: _see_if_it_can_be_asked(session, name))
        work = partial(engine.rollback, None if unfinished else change.kept.number)
        return _carried_out(session, work, earlier=entry if change.progress.rolling_back else None)


@command("history")
def history(session: Session) -> int | None:
    """The updates of this bench, the oldest first, and what each has come to.

    \b
    proxyflash history
    """
    engine = _engine(session)
    rows = [_row(engine, entry) for entry in engine.store.entries()]
    session.output.document({"updates": rows})
    if not rows:
        session.output.line("no update so far")
        _note_none(session, engine)
    for row in rows:
        began = f"{row['began'][:19].replace('T', ' ')}Z" if row["began"] else "-"
        about = f"  undoes {row['undoes']}" if row["undoes"] else ""
        # Of the first ones some hold a whole image: one of a version that the update did not want.
        for what, said in (("not_whole", "neither as before nor as wanted"), ("not_brought_back", "not brought back")):
            about += f"  {said}: {word(', '.join(row[what]))}" if row[what] else ""
        session.output.line(f"{row['number']:>4}  {began:<20}  {row['ending']:<19}  {word(row['update'])}{about}")
    return None


FILE = click.Path(path_type=Path, dir_okay=False)


@command("report")
@click.argument("number", type=click.IntRange(min=1), required=False)
@click.option("--html", type=FILE, help="Write it as an HTML page instead.")
@click.option("--bundle", type=FILE, help="Keep the proof of the update in this zip file.")
@click.option("--recording", "recorded", type=FILE, multiple=True, help="Put this recording into the bundle.")
@click.option("--trace", "traced", type=FILE, help="When which action began and ended, for Perfetto and speedscope.")
@click.option("--check", "received", type=FILE, help="Check a bundle, wherever it comes from.")
@click.option("--key", type=FILE, help="The public key of the gateway that signed it.")
def report(
    session: Session,
    number: int | None,
    html: Path | None,
    bundle: Path | None,
    recorded: tuple[Path, ...],
    traced: Path | None,
    received: Path | None,
    key: Path | None,
) -> int | None:
    """Prints the report of an update as Azure Device Update's agent has it, with a result for each component.

    Without NUMBER, of the last update. A bundle keeps the proof of an update, and --check verifies it on any host.

    \b
    proxyflash report
    proxyflash report 7
    proxyflash report --html update.html
    proxyflash report --bundle proof.zip
    proxyflash report --check proof.zip --key gateway.jwk
    """
    written = any(file is not None for file in (html, bundle, traced))
    if received is not None and (number is not None or written or recorded):
        raise click.UsageError("--check takes a bundle, and nothing else but --key")
    if html is not None and bundle is not None:
        raise click.UsageError("--html and --bundle exclude each other")
    if (key is not None and received is None) or (recorded and bundle is None):
        raise click.UsageError("--key goes with --check, --recording with --bundle")
    if received is not None:
        return _check_bundle(session, received, key)
    if html is not None:
        check(html)
    engine = _engine(session)
    entry = engine.store.latest() if number is None else engine.store.entry(number)
    if entry is None:
        remedy = "For the page of a flash: proxyflash flash NAME IMAGE --report FILE" if html is not None else None
        raise UpdateUnknown(f"no update was made on this bench so far, by {engine.store.folder}", remedy=remedy)
    import json

    outcome = engine.outcome(entry)
    if traced is not None:
        _write_trace(entry, outcome, traced)
    if html is not None:
        from ...report_page import page, updates

        page.write(updates.story(outcome, entry), html)
        session.output.document({"number": entry.number, "update": _name(outcome), "file": str(html)})
        session.output.line(f"update {entry.number}, {word(_name(outcome))}: {html}")
        return None
    if bundle is not None:
        return _write_bundle(session, engine, entry, outcome, bundle, recorded)
    session.output.document({"number": entry.number, "update": _name(outcome), "report": outcome.report()})
    session.output.lines(json.dumps(outcome.report(), indent=2).split("\n"))
    return None


def _write_trace(entry: StoredUpdate, outcome: Outcome, out: Path) -> None:
    from ...updates.engine import journal
    from .. import trace

    tasks = {task.index: (task.target, task.label) for task in outcome.plan.tasks}
    try:
        made = trace.opened(out)
        trace.journal_into(made, journal.timed(journal.records(entry.journal)), tasks)
        made.close()
    except OSError as error:
        raise OutputFile(f"{out}: {error.strerror}") from error


def _write_bundle(
    session: Session, engine: Engine, entry: StoredUpdate, outcome: Outcome, out: Path, recorded: tuple[Path, ...]
) -> int | None:
    from ...report_page import page, updates
    from ...updates.engine import bundle

    if out.exists():
        raise OutputFile(f"{out} is there already", remedy="Name a new file.")
    key = _report_key(engine)
    kept = engine.kept(entry, outcome.progress)
    manifests = [kept.files / name for name in kept.progress().begin["documents"]]
    html = page.render(updates.story(outcome, entry)).encode()
    try:
        made = bundle.write(out, outcome, entry, manifests, recorded, key, html)
    except OSError as error:
        raise OutputFile(f"{error.filename or out}: {error.strerror}") from error
    said = f"signed by {key.public.thumbprint}" if key else "not signed"
    names = [member.name for member in made.files]
    session.output.document(
        {"file": str(out), "number": entry.number, "signer": key and key.public.thumbprint, "files": names}
    )
    session.output.line(f"{out}  OK  update {entry.number}, {_name(outcome)}: {counted(len(names), 'file')}, {said}")
    return None


def _report_key(engine: Engine) -> signing.PrivateKey | None:
    """By which bundles are signed. Raises KeyFile."""
    file = engine.policy.report_key
    return signing.PrivateKey.read(Path(file)) if file else None


def _check_bundle(session: Session, path: Path, key: Path | None) -> int | None:
    from ...updates.engine import bundle

    found = bundle.check(path, signing.read_public_key(key) if key else None)
    index = found.index
    session.output.document(
        {
            "file": str(path),
            "number": index.number,
            "update": index.update,
            "ending": index.ending,
            "signer": found.signer or None,
            "verified": found.verified,
            "files": [member.name for member in index.files],
        }
    )
    if found.verified:
        signed = f"signed by {word(found.signer)}"
    elif found.signer:
        signed = f"names the key {word(found.signer)}; signature NOT checked: give the gateway's public key by --key"
    else:
        signed = "NOT signed: whoever has the file could have made it"
    about = f"update {index.number}, {word(index.update)}, {word(index.ending)}"
    whole = f"{counted(len(index.files), 'file')} as listed"
    session.output.line(f"{path}  OK  {about}: {whole}, {signed}")
    return None


def _holds_something_else(path: Path) -> bool:
    """Whether there is a file that is not a kept plan, not even a broken one, and not empty."""
    with suppress(OSError, PlanFile):
        return path.is_file() and path.stat().st_size > 0 and kept_plan.read(path) is None
    return False


def _engine(session: Session) -> Engine:
    return Engine(session.bench, context=session.context)


def _note_none(session: Session, engine: Engine) -> None:
    """Whoever names another state folder than before sees where the updates were looked for."""
    if engine.store.latest() is None:
        session.output.note(f"no update was made on this bench so far, by {engine.store.folder}")


def _loaded(engine: Engine, manifest: Path) -> Update:
    return load(manifest, engine.policy, seen=engine.seen())


def _resumed(waiting: Wait, engine: Engine, entry: StoredUpdate, again: bool) -> int | None:
    session = waiting.session
    session.standing.is_unfinished = True
    session.standing.remedy = f"It goes on by: {session.command_for('resume')}"
    if waiting.seconds:
        left = (Status.NOT_RUN, Status.STOPPED, Status.AWAITING, Status.NOT_BROUGHT_BACK)
        names = [item.task.target for item in engine.outcome(entry).results if item.task.status in left]
        # What isn't there even then is said of each component.
        try:
            waiting.until_all_are_there(names, lambda name: _open_bus(session, name))
        except KeyboardInterrupt as stopped:
            raise Cancelled("stopped while it waited", touched=True, remedy=GO_ON) from stopped
    return _carried_out(
        session,
        lambda: engine.resume(again=again),
        lambda outcome: _gone_on(waiting, engine, outcome, again),
        earlier=entry,
    )


def _gone_on(waiting: Wait, engine: Engine, outcome: Outcome, again: bool) -> Outcome:
    """What becomes of an update that something which isn't there keeps from its end, as long as there is time to wait."""
    while isinstance(outcome.halt, NOT_THERE) and not outcome.progress.over:
        try:
            if not waiting.may_go_on(outcome.halt):
                break
        except KeyboardInterrupt:
            # It leaves the update as it is: nothing is under way while it waits.
            break
        outcome = engine.resume(again=again)
        if not isinstance(outcome.halt, NOT_THERE):
            waiting.all_but()
    return outcome


def _open_bus(session: Session, name: str) -> None:
    """Opens a component's bus. Raises what keeps it from being opened."""
    entries = session.bench.file.entries
    if name in entries:
        session.bench.transport(entries[name].spec.bus)


def _see(session: Session, name: str) -> None:
    """Opens a component's bus, and asks it if it answers outside of its bootloader. Raises NoResponse, and others."""
    _open_bus(session, name)
    if name in session.bench.file.entries:
        seen = session.bench.component(name).look()
        if seen.presence is Presence.ABSENT and not session.bench.may_be_in_bootloader(seen):
            raise NoResponse("not there yet", component=name)


def _see_if_it_can_be_asked(session: Session, name: str) -> None:
    """As `_see`, and nothing for a component that can't be asked for another reason. Raises NOT_THERE."""
    try:
        _see(session, name)
    except NOT_THERE:
        raise
    except (TransportError, PartError):
        pass


def _plan_of_the_present(waiting: Wait, engine: Engine, update: Update) -> UpdatePlan:
    """The plan, once all components that it is for are there, or the time for that is over."""
    without: list[UpdatePlan] = []

    def attempt() -> UpdatePlan:
        without.clear()
        made = _planned(waiting.session, engine, update)
        away = tuple(component.name for component in made.components if component.presence is Presence.ABSENT)
        if away:
            without.append(made)
            error = ComponentAbsent("not there yet", component=away[0])
            error.away = away
            raise error
        return made

    try:
        return waiting.until_there(attempt, ComponentAbsent)
    except ComponentAbsent:
        if without:
            return without[0]
        raise


def _planned(session: Session, engine: Engine, update: Update, parallel: bool | None = None) -> UpdatePlan:
    """The plan over the components as they are now. A bus that can't be used ends it if the update needs that bus."""
    found = look(session)
    try:
        made = engine.plan(update, found.components, parallel=parallel)
    except ComponentAbsent as absent:
        buses = {component.name: component.bus for component in found.components}
        for bus, error in found.faults:
            if bus == buses.get(absent.component or ""):
                raise error.named(absent.component) from absent
        raise
    for _, error in found.faults:
        session.output.fault(error)
    return made


def _confirm(session: Session, made: UpdatePlan, yes: bool) -> None:
    names = [task.target for task in made.tasks if task.component and task.status is Status.TODO]
    _ask_for_real(session, names, yes, "flash")


def _ask_for_real(session: Session, names: list[str], yes: bool, verb: str) -> None:
    entries = session.bench.file.entries
    real = sorted({name for name in names if name in entries and session.bench.component(name).real})
    if real and not yes:
        ask(session, f"{verb} {', '.join(real)}?")


def _title(update: Update) -> str:
    manifest = update.manifest
    about = f"  {word(manifest.description)}" if manifest.description else ""
    return f"{manifest.updateId}{about}"


def _print_plan(session: Session, made: UpdatePlan) -> None:
    out = session.output
    out.line(_title(made.update))
    named = [task.target for task in made.tasks] + [component.name for component in made.unplugged]
    targets = max(map(len, named), default=0)
    labels = max((len(task.label) for task in made.tasks), default=0)
    for task in made.tasks:
        versions = ""
        if task.component and task.wanted:
            silent = "silent" if task.target in made.silent else task.component.presence
            now = word(task.component.version or silent)
            wanted = word(task.wanted)
            versions = f"  {wanted}" if task.status is Status.INSTALLED else f"  {now} -> {wanted}"
        state = "" if task.status is Status.TODO else f"  ({task.status})"
        state += "  (a downgrade)" if task.downgrade else ""
        about = word(task.step.description or ", ".join(task.step.files))
        cells = [f"  {task.label:<{labels}}", f"{task.target:<{targets}}", task.step.handler]
        out.row([*cells, *filter(None, f"{about}{versions}{state}".split("  "))])
    for number, why in zip(made.empty, made.missed, strict=True):
        out.line(f"  {number + 1:<{labels}}  {word(why)}: skipped")
    for number, why in made.unmatched:
        out.line(f"  {number + 1:<{labels}}  {word(why)}")
    if not made.tasks and not made.unplugged:
        out.note("no step of this update is for a component of this bench: nothing is to be done")
    for name in made.silent:
        out.line(f"  {'':<{labels}}  {name:<{targets}}  silent: apply enters its bootloader to see whether it is there")
    for component in made.unplugged:
        out.line(f"  {'':<{labels}}  {component.name:<{targets}}  {PASSED_OVER}")
    for reason in dict.fromkeys(task.rollback_blocker for task in made.tasks if task.rollback_blocker):
        left = [task.label for task in made.tasks if task.rollback_blocker == reason]
        out.line(f"  can't be rolled back: {', '.join(dict.fromkeys(left))}: {reason}")


def _plan_document(made: UpdatePlan) -> dict[str, object]:
    return {
        "update": str(made.update.manifest.updateId),
        "tasks": [
            {
                "step": task.label,
                "component": task.component.name if task.component else None,
                "handler": task.step.handler,
                "description": task.step.description,
                "files": list(task.step.files),
                "status": task.status.value,
                "downgrade": task.downgrade,
                "no_way_back": task.rollback_blocker,
            }
            for task in made.tasks
        ],
        "skipped_steps": [number + 1 for number in made.empty],
        "unmatched": [
            {"step": number + 1, "why": why}
            for number, why in sorted([*zip(made.empty, made.missed, strict=True), *made.unmatched])
        ],
        "unplugged": [component.name for component in made.unplugged],
        "silent": list(made.silent),
        "not_selected": list(made.unselected),
    }


def _row(engine: Engine, entry: StoredUpdate) -> dict[str, Any]:
    """One update as the history shows it; a broken journal hides no other. Times are ISO 8601, in UTC.

    `not_whole`: components that it left neither as they were nor as it wanted them; `not_brought_back`: those that a
    rollback, also one of its own, left as they were.
    """
    torn: dict[str, bool] = {}
    try:
        progress = entry.progress()
    except JournalBroken:
        progress = Progress(begin={"update": "its journal is damaged"})
    if progress.over and any(state.touched and not state.as_before for state in progress.tasks):
        with suppress(ProxyflashError):
            results = engine.outcome(entry).results
            torn = {item.task.target: True for item in results if item.is_torn}
            for item in results:
                if item.task.target in torn and not (item.is_as_wanted or item.task.status is Status.INSTALLED):
                    torn[item.task.target] = False
    begin = progress.begin
    left = [name for name, is_as_wanted in torn.items() if begin.get("undoes") or is_as_wanted]
    return {
        "number": entry.number,
        "update": begin["update"],
        "began": begin.get("time"),
        "ended": progress.ended or None,
        "ending": progress.ending.value if "time" in begin else "unknown",
        "workflow": begin.get("workflow", ""),
        "undoes": begin.get("undoes"),
        "not_whole": [name for name in torn if name not in left],
        "not_brought_back": left,
    }


def _carried_out(
    session: Session,
    action: Callable[[], Outcome],
    then: Callable[[Outcome], Outcome] = lambda outcome: outcome,
    earlier: StoredUpdate | None = None,
) -> int | None:
    """Carries an update out; whatever keeps it from its end names the command by which it goes on.

    `earlier`: the update, if it goes on: its results so far are printed first.
    """
    session.standing.remedy = session.standing.remedy or f"It goes on by: {session.command_for('resume')}"
    session.begun = True
    session.output.forget_verdicts()
    if earlier is not None:
        # If it can't be read, the command that goes on with it reports why.
        with suppress(ProxyflashError):
            for target, items in _engine(session).outcome(earlier).ended.items():
                session.output.verdict(target, verdict(items), "  (earlier)")
    outcome = then(action())
    session.standing.finish()
    return _told(session, outcome)


def _name(outcome: Outcome) -> str:
    return str(outcome.plan.update.manifest.updateId)


def _told(session: Session, outcome: Outcome) -> int | None:
    """One line a component, unless it was printed when it was known; then the error, if there is one."""
    out = session.output
    rows: dict[str, list[TaskResult]] = {}
    for item in outcome.results:
        rows.setdefault(item.task.target, []).append(item)
    error = session.worded(outcome.error) if outcome.error else None
    document = {"update": _name(outcome), "number": outcome.number, "ending": outcome.ending.value}
    document |= {"report": outcome.report()}
    out.document(document | ({"error": describe(error)} if error else {}))
    for target, items in rows.items():
        out.verdict(target, verdict(items))
    if session.watcher is not None:
        session.watcher.take(outcome)
        session.watcher.error = error
    if outcome.ending in (Ending.ROLLED_BACK, Ending.PARTLY_ROLLED_BACK):
        out.line(f"{_name(outcome)}  {outcome.ending}")
    if outcome.restart:
        out.note(outcome.restart)
    if error is None:
        return None
    out.fault(error)
    return error.exit_status
