"""`record` and `replay`: a command with what passes on its buses kept, and the same command on what was kept."""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...transports import clock, named_files
from ...transports.errors import ExitStatus, ProxyflashError
from ...transports.outside import without_passwords
from ...transports.plain import CAUSE
from ...transports.recording.formats import BadRecording, Recording, load, refuse_other, save, save_all
from ...transports.recording.recorder import Recorder
from ...transports.recording.records import CanFrame
from .. import replayable
from ..output import Mode, Output
from .outputs import why_not
from .reporting import check, title_of, write
from .session import Opener, Session, command

if TYPE_CHECKING:
    from ...emulators.replay.comparing import Difference
    from ...emulators.replay.session import Replay
    from ...enumerators.bench import Bench
    from ...enumerators.benchfile.schema import BenchFile
    from ...enumerators.target import Target
    from ...report_page.collecting import Collector

MOST_DIFFERENCES = 100
"""Buses whose first difference a program gets to read."""
LONGEST = 1 << 30
"""Bytes of memory that a recording may take: about five million CAN frames."""


class Unwritten(ProxyflashError):
    """A recording can't be written to the named file or folder, or would replace a file that is not a recording."""

    code = "E-RECORDING-FILE"
    exit_status = ExitStatus.USAGE
    default_remedy = "Name another file."


class RecordingsDiffer(ProxyflashError):
    """`replay --against`: the traffic of two recordings differs. The message has the first difference, with both sides as bytes
    and in words.
    """

    code = "E-REPLAY-DIFFERENT"
    default_remedy = "See both sides on a page: --html FILE."

    def __init__(self, found: Sequence[Difference]) -> None:
        super().__init__(str(found[0]))
        self.details = {
            "differences": [
                {
                    "bus": each.bus,
                    "what": each.flow.format(each.number),
                    "recording": each.sides[0][:CAUSE],
                    "against": each.sides[1][:CAUSE],
                    "recording_words": each.messages[0][:CAUSE],
                    "against_words": each.messages[1][:CAUSE],
                }
                for each in found[:MOST_DIFFERENCES]
            ]
        }


class OtherOutcome(ProxyflashError):
    """Under replay all exchanges were as recorded, but the command ended with another exit status."""

    code = "E-REPLAY-OUTCOME"
    default_remedy = "Does it depend on something that is not in the recording: a file, an option, the time?"


@command("record")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("arguments", metavar="-- COMMAND", nargs=-1, required=True)
def record(session: Session, file: Path, arguments: tuple[str, ...]) -> int | None:
    """Runs another command, and writes what passes on its buses into FILE, also when it fails.

    \b
    proxyflash record imu.jsonl -- flash imu imu-1.5.0.hex
    proxyflash replay imu.jsonl
    """
    try:
        refuse_other(file)
    except OSError as error:
        raise Unwritten(f"{file}: {error.strerror}") from error
    if why := why_not(file):
        raise Unwritten(f"{file}: {why}")
    recorder = Recorder(limit_records=LONGEST // 200, limit_bytes=LONGEST)
    described: dict[str, str] = {}
    targets: dict[str, str] = {}

    def opener(path: str | Target | None, state: Path | None) -> Bench:
        from ...enumerators.bench import Bench
        from ...enumerators.benchfile.text import without_secrets
        from ...enumerators.target import Target, without_settings

        if isinstance(path, Target):
            targets[path.text] = without_settings(path.text)
        if described:
            raise click.UsageError("a recording holds one target; record them one by one")
        bench = Bench.open(path or session.bench_path, state=state or session.state, recorder=recorder)
        described.update(name=bench.file.path.name, text=without_secrets(bench.file))
        return bench

    began = clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    files = _files(arguments)
    status = int(ExitStatus.FAILED)
    kept: str | None = str(file)
    with _collecting(session.output) as runs:
        try:
            status = _run(arguments, session.output, opener)
        finally:
            head = {
                "began": began,
                "arguments": [without_passwords(targets.get(word, word)) for word in arguments],
                "files": files,
                "status": status,
                "bench": described,
            }
            records = recorder.records()
            try:
                save(records, file, head=head, dropped=recorder.dropped)
            except OSError as error:
                kept = None
                session.output.miss(f"the recording can't be written: {file}: {error.strerror}")
    facts = {"recording": kept, "records": len(records), "dropped": recorder.dropped}
    session.output.document(facts | runs)
    if kept is None:
        return status
    session.output.note(f"{len(records):,} records into {file}")
    if recorder.dropped:
        session.output.note(f"the first {recorder.dropped:,} records were too many to be kept: it can't be replayed")
    return status


@command("replay")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("arguments", metavar="[-- COMMAND]", nargs=-1)
@click.option(
    "--pace",
    type=click.FloatRange(0, 100),
    default=0.0,
    metavar="FACTOR",
    help="0: answers come at once; 1: as late as they were recorded.",
)
@click.option("--print", "printed", is_flag=True, help="Print the recorded exchange in words instead.")
@click.option("--export", type=click.Path(path_type=Path), metavar="FOLDER",
              help="Write it for candump, Wireshark and people instead.")  # fmt: skip
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write what happened as an HTML page."
)
@click.option("--against", type=click.Path(path_type=Path), metavar="RECORDING",
              help="Show where another recording differs first instead.")  # fmt: skip
def replay(
    session: Session,
    file: Path,
    arguments: tuple[str, ...],
    pace: float,
    printed: bool,
    export: Path | None,
    html: Path | None,
    against: Path | None,
) -> int | None:
    """Runs the recorded command again, on the recording instead of the hardware.

    Ends with 0 if the command sends exactly what was recorded, and ends as it did then. Without --bench it uses the bench
    file as it was recorded; its other files are looked for here and beside the recording.

    \b
    proxyflash replay imu.jsonl
    proxyflash replay imu.jsonl -- flash imu other.hex
    proxyflash replay imu.jsonl --print
    proxyflash replay imu.jsonl --export imu-recording
    proxyflash replay imu.jsonl --html imu.html
    proxyflash replay imu.jsonl --against yesterday.jsonl

    No recorded command of a bench file is run, and nothing is written but what you name on this command line.
    """
    if (printed or export is not None) and (html is not None or against is not None or arguments):
        raise click.UsageError("--print and --export run nothing: they take no --html, no --against and no COMMAND")
    if against is not None and arguments:
        raise click.UsageError("--against runs nothing: it takes no COMMAND")
    recording = load(file)
    if export is not None:
        _export(session.output, recording, export)
    if printed:
        _print(session, recording)
    if printed or export is not None:
        return None
    if html is not None:
        check(html)
    if against is not None:
        _compare(session, (file, recording), (against, load(against)), html)
        return None
    return _run_again(session, (file, recording), arguments, pace, html)


def _run_again(
    session: Session, recorded: tuple[Path, Recording], arguments: Sequence[str], pace: float, html: Path | None
) -> int | None:
    """Runs the recorded command, or `arguments`, on a recording. `html`: where a page of it goes. Raises OtherOutcome."""
    from ...emulators.replay.session import Replay

    file, recording = recorded
    try:
        wanted = list(arguments) or _arguments(recording, file)
        replayable.require_bus_command(wanted)
        running = Replay(recording, pace=pace)
    except (BadRecording, replayable.NotReplayable) as refused:
        if html is None or arguments:
            raise
        _drawn(session, recording, file, html, refused)
        return None
    for name in [] if arguments else _changed(recording, file):
        session.output.note(f"{name} is not the file that was recorded")
    if html is not None:
        session.watch(title_of(wanted))
    try:
        with _collecting(session.output) as runs, tempfile.TemporaryDirectory() as folder:
            status = _run(
                wanted,
                session.output,
                _replayed(session, recording, running, bool(arguments), Path(folder)),
                session.watcher,
            )
        if status == ExitStatus.INTERRUPTED and recording.head.get("status", 0) != status:
            # A person stopped it: that says nothing about the recording.
            return status
        error = _difference(recording, running, status, session.output.told)
        exchanges = running.exchanges
    finally:
        running.close()
    if html is not None:
        write(session, html, wanted, error or (session.output.told if status else None), fails=error is None)
    if error is not None:
        if error is session.output.told and session.output.mode is not Mode.JSON:
            return error.exit_status
        raise error
    session.output.document({"replay": str(file), "verdict": "as recorded", "exchanges": exchanges} | runs)
    counted = ", ".join(f"{count:,} on {bus}" for bus, count in exchanges.items()) or "none"
    session.output.line(f"replay  OK  as recorded: exchanges {counted}")
    return None


def _run(arguments: Sequence[str], output: Output, opener: Opener, watcher: Collector | None = None) -> int:
    from .. import commands

    return commands.run(arguments, output, opener=opener, watcher=watcher)


def _drawn(session: Session, recording: Recording, file: Path, html: Path, why: ProxyflashError) -> None:
    """The page of a recording whose command can't be run again."""
    from ...report_page import page, recordings

    page.write(recordings.story(recording, file.name, why.cause, _bench_file(session, recording)), html)
    session.output.document({"recording": str(file), "file": str(html)})
    session.output.line(f"{html}  only what passed on the buses: {why.cause}")


def _compare(session: Session, one: tuple[Path, Recording], other: tuple[Path, Recording], html: Path | None) -> None:
    """Raises RecordingsDiffer, with the first difference of all."""
    from ...emulators.replay.comparing import first_differences, holds_traffic

    output = session.output
    files = _bench_file(session, one[1]), _bench_file(session, other[1])
    found = [_in_words(each, (one[1], other[1]), files) for each in first_differences(one[1].records, other[1].records)]
    is_empty = not holds_traffic(one[1].records) and not holds_traffic(other[1].records)
    if html is not None:
        from ...report_page import page, recordings

        places = ((each.bus, str(each), each.records) for each in found)
        names, both = (str(one[0]), str(other[0])), (one[1], other[1])
        page.write(recordings.compared(names, both, files, places, is_empty=is_empty), html)
        output.note(f"page written to {html}")
    for each in found[1:]:
        output.line(str(each))
    if found:
        raise RecordingsDiffer(found)
    verdict = "nothing to compare" if is_empty else "the same"
    output.document({"recordings": [str(one[0]), str(other[0])], "verdict": verdict})
    said = "nothing passed in either: nothing was compared" if is_empty else "OK  the same passed on all buses"
    output.line(f"{one[0]} and {other[0]}  {said}")


def _in_words(
    found: Difference, recordings: tuple[Recording, Recording], files: tuple[BenchFile | None, BenchFile | None]
) -> Difference:
    """With the message of each side in words. Bytes of a seed, a key or a certificate are left out."""
    from ...enumerators.described import describers_of
    from ...flashers.describing import id_text, message_with

    sides, messages = list(found.sides), ["", ""]
    for place, (record, recording, file) in enumerate(zip(found.records, recordings, files, strict=True)):
        if record is None:
            continue
        known = describers_of(recording.records, file)
        messages[place], is_secret = message_with(record, recording.records, known)
        if is_secret and isinstance(record, CanFrame):
            sides[place] = f"{id_text(record)} [{len(record.data)}] bytes that are not shown"
    return dataclasses.replace(found, sides=(sides[0], sides[1]), messages=(messages[0], messages[1]))


@contextmanager
def _collecting(output: Output) -> Iterator[dict[str, Any]]:
    """As one JSON document: what the inner command has to say is put among what this one says."""
    runs: dict[str, Any] = {}
    collected: list[dict[str, Any]] = []
    if output.mode is not Mode.JSON:
        yield runs
        return
    output.collected = collected
    try:
        yield runs
    finally:
        output.collected = None
        runs["runs"] = collected


def _files(arguments: Sequence[str]) -> list[dict[str, Any]]:
    """Those of a command's arguments that are files, with their hashes, by which a change is noticed later."""
    found = ((index, _digest(word)) for index, word in enumerate(arguments))
    return [{"argument": index, "sha256": digest} for index, digest in found if digest]


def _digest(word: str) -> str:
    """The SHA-256 of the file of this name; "": there is no such file, or it can't be read."""
    try:
        with named_files.opened(word) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):  # A word that is too long to be a name, or has a zero byte in it.
        return ""


def _export(output: Output, recording: Recording, folder: Path) -> None:
    try:
        files = save_all(recording.records, folder, dropped=recording.dropped)
    except OSError as error:
        raise Unwritten(f"{folder}: {error.strerror}", remedy="Name another folder.") from error
    output.document({"files": [str(item) for item in files]})
    for item in files:
        output.line(str(item))


def _print(session: Session, recording: Recording) -> None:
    """Each message in words. Nothing is opened or run: the recorded bench file only says who speaks which protocol."""
    from ...enumerators.described import describers_of
    from ...flashers.describing import described
    from ...transports.recording.records import clock_text

    output, file = session.output, _bench_file(session, recording)
    documents = []
    for line in described(recording.records, describers_of(recording.records, file)):
        if output.mode is Mode.JSON:
            documents.append(line.document())
        elif output.mode is Mode.JSONL:
            output.record(line.document())
        else:
            output.line(f"{clock_text(line.time)} {line}")
        if output.lost is not None:
            return
    output.document({"messages": documents} if output.mode is Mode.JSON else {"dropped": recording.dropped})
    if recording.dropped:
        output.note(f"the first {recording.dropped:,} records were too many to be kept")


def _bench_file(session: Session, recording: Recording) -> BenchFile | None:
    """The bench file of --bench, else the recorded one; None: there is none that can be used, which is reported."""
    from ...enumerators.benchfile import schema

    named, text = session.bench_path, recording.head.get("bench", {}).get("text", "")
    try:
        return schema.load(Path(named)) if named else schema.from_text(Path("bench.toml"), text) if text else None
    except ProxyflashError as error:
        if named:
            raise
        said = f"the recorded bench file is not used, so protocols are not known: {error.code} {error.cause}"
        session.output.note(said)
        return None


def _arguments(recording: Recording, file: Path) -> list[str]:
    """The recorded command, with its files where they are now. Raises BadRecording, Refused."""
    arguments = recording.head.get("arguments")
    if not arguments:
        raise BadRecording(
            f"{file}: no command was recorded with it", remedy="Name one: proxyflash replay FILE -- COMMAND"
        )
    found = list(arguments)
    for index, _ in _recorded_files(recording):
        beside = file.parent / Path(found[index]).name
        if not _digest(found[index]) and _digest(str(beside)):
            found[index] = str(beside)
    return replayable.allowed(found)


def _recorded_files(recording: Recording) -> Iterator[tuple[int, str]]:
    """Index among the arguments, and SHA-256, of the recorded command's files."""
    for item in recording.head.get("files", ()):
        yield item["argument"], item["sha256"]


def _changed(recording: Recording, file: Path) -> list[str]:
    """The recorded command's files that hold something else now."""
    changed = []
    for index, digest in _recorded_files(recording):
        word = recording.head["arguments"][index]
        for path in (Path(word), file.parent / Path(word).name):
            now = _digest(str(path))
            if now:
                changed += [str(path)] if now != digest else []
                break
    return changed


def _replayed(session: Session, recording: Recording, running: Replay, typed: bool, folder: Path) -> Opener:
    """`typed`: whether a person named the command; a target that was recorded is in the recorded bench file."""

    def opener(path: str | Target | None, state: Path | None) -> Bench:
        from ...enumerators.bench import Bench
        from ...enumerators.target import Target

        described = recording.head.get("bench")
        chosen = path if typed and isinstance(path, Target) else session.bench_path
        if chosen is None and isinstance(described, dict) and isinstance(described.get("text"), str):
            # A name of our own: the recorded name is for people, and no file may be able to have it.
            kept = folder / "bench.toml"
            kept.write_text(described["text"], encoding="utf-8")
            chosen = str(kept)
        return Bench.open(chosen or path, state=folder / "state", replay=running)

    return opener


def _difference(
    recording: Recording, running: Replay, status: int, told: ProxyflashError | None
) -> ProxyflashError | None:
    """What is not as it was recorded."""
    from ...emulators.replay.session import ReplayUnanswered
    from ...emulators.replay.track import ReplayMismatch

    try:
        running.finish()
    except (ReplayMismatch, ReplayUnanswered) as error:
        return error
    recorded = recording.head.get("status", 0)
    if status == recorded:
        return None
    said = f" ({told.code})" if told is not None and status else ""
    return OtherOutcome(f"the command ended with {status}{said}, when it was recorded with {recorded}")
