"""`monitor`: what passes on CAN buses, decoded, while other programs use them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from ...enumerators.described import describers
from ...enumerators.errors import BenchMissing, ComponentUnknown, NotSilent, OneReader
from ...enumerators.target import is_target
from ...flashers.describing import Describer, Describing, Line, id_text
from ...transports import clock, private_files
from ...transports.can.bus import CanBus, copy_error
from ...transports.deadline import Deadline
from ...transports.errors import ProxyflashError
from ...transports.recording.formats import head_line, record_line, refuse_other
from ...transports.recording.records import CanFrame, Record, clock_text
from ...transports.transport import Transport
from ..frame_counts import FrameCounts
from ..output import Mode, Output, takes_escapes
from .recordings import Unwritten
from .session import PROFILE, Session, command, target_words

if TYPE_CHECKING:
    from ...enumerators.bench import Bench
    from ...enumerators.benchfile.schema import BenchFile, BusSpec
    from ..monitor_table import MonitorTable

BATCH_SECONDS = 0.1
"""How often it looks what came in."""
LOOK_SECONDS = 0.5
"""How often rates are computed and the table is drawn."""


@command("monitor")
@click.argument("words", nargs=-1, metavar="[BUS|TARGET]...", shell_complete=target_words)
@PROFILE
@click.option("--dbc", type=click.Path(path_type=Path), metavar="FILE", help="Show signals by the names of a DBC file.")
@click.option(
    "--record", "kept", type=click.Path(path_type=Path), metavar="FILE", help="Also write what passes into FILE."
)
@click.option("--listen-only", is_flag=True, help="Refuse a bus on which the adapter would acknowledge frames.")
@click.option("--for", "seconds", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="End after so long.")
def monitor(
    session: Session,
    words: tuple[str, ...],
    dbc: Path | None,
    kept: Path | None,
    listen_only: bool,
    seconds: float | None,
) -> int | None:
    """Shows what passes on CAN buses, decoded, until Ctrl-C.

    Without a BUS, on each bus of the bench that can be heard. Sends nothing, and takes no lock where several programs may
    open the bus. On a terminal: a table of the ids and a log of the messages. Else: a line for each message and frame.

    \b
    proxyflash monitor socketcan:can0
    proxyflash monitor 'uds:socketcan:can0?request=0x7E0' --record can0.jsonl
    proxyflash --bench desk.toml monitor powertrain --dbc car.dbc --for 10
    """
    heard, every = _opened(session, words, listen_only)
    counts = FrameCounts({bus.name: bus.bit_rates for bus in _can_buses(heard) if bus.bit_rates is not None})
    signals = None
    if dbc is not None:
        from ..dbc import DbcDescriber

        signals = DbcDescriber(dbc)
    table = session.output.mode is Mode.TEXT and takes_escapes(sys.stdout)
    if signals is not None and not table:
        for listed in every.values():
            listed.append(signals)
    with ExitStack() as stack:
        file = _begun(stack, kept, heard[0][0].file)
        running = _Running(session.output, counts, Describing(every, others=not table), heard, file)
        if table:
            from ..monitor_table import MonitorTable

            running.table = stack.enter_context(MonitorTable(signals))
        ended: ProxyflashError | None = None
        try:
            running.run(None if seconds is None else Deadline.after(seconds))
        except KeyboardInterrupt:
            running.step()
        except ProxyflashError as error:
            # What was recorded until then is kept.
            ended = error
    if ended is not None:
        raise ended
    _summed_up(session.output, counts, running.lost, kept)
    return None


def _summed_up(output: Output, counts: FrameCounts, lost: int, kept: Path | None) -> None:
    ids = [{"bus": found.bus, "id": id_text(found.last), "frames": found.count} for found in counts.sorted()]
    output.document({"frames": counts.frames, "error_frames": counts.errors, "lost": lost, "ids": ids})
    recorded = f", recorded into {kept}" if kept is not None else ""
    output.note(f"{counts.frames:,} frames, {lost:,} lost{recorded}")


class _Running:
    """One run. `table`: what is drawn on; None: lines are written."""

    def __init__(
        self,
        output: Output,
        counts: FrameCounts,
        describing: Describing,
        heard: Sequence[tuple[Bench, Transport]],
        file: BinaryIO | None,
    ) -> None:
        self.table: MonitorTable | None = None
        self._output = output
        self._counts = counts
        self._describing = describing
        self._heard = heard
        self._recorders = list({id(bench): bench.recorder for bench, _ in heard}.values())
        self._file = file
        self._looked = clock.monotonic()
        self._log: list[Line] = []

    @property
    def lost(self) -> int:
        """Frames that were lost on the way here, and those that came faster than they were shown."""
        return sum(transport.lost for _, transport in self._heard) + sum(item.dropped for item in self._recorders)

    def run(self, deadline: Deadline | None) -> None:
        """Until the deadline, or until nobody reads the output. Raises what ends a bus."""
        while self._output.lost is None and not (deadline is not None and deadline.expired):
            clock.sleep(BATCH_SECONDS)
            self.step()
            for bus in _can_buses(self._heard):
                if bus.failure is not None:
                    raise copy_error(bus.failure)
        if deadline is not None:
            self.step()

    def step(self) -> None:
        """Shows what came in since the step before."""
        records = [record for recorder in self._recorders for record in recorder.taken()]
        if self._file is not None:
            self._file.writelines(map(record_line, records))
        lines = [line for record in records for line in self._taken(record)]
        if self.table is None:
            self._write(lines)
        else:
            self._log += lines
        passed = clock.monotonic() - self._looked
        if passed >= LOOK_SECONDS:
            self._looked += passed
            self._counts.look(passed)
            if self.table is not None:
                self.table.show(self._counts, self._log, self.lost)
                self._log.clear()

    def _taken(self, record: Record) -> Iterable[Line]:
        lines = self._describing.take(record)
        if isinstance(record, CanFrame):
            self._counts.take(record, secret=self._describing.secret)
        return lines

    def _write(self, lines: Iterable[Line]) -> None:
        if self._output.mode is Mode.JSONL:
            for line in lines:
                self._output.record(line.document())
        else:
            self._output.lines(f"{clock_text(line.time)} {line}" for line in lines)


def _opened(
    session: Session, words: Sequence[str], listen_only: bool
) -> tuple[list[tuple[Bench, Transport]], dict[str, list[Describer]]]:
    """The buses that are heard, and the describers of each of them.

    Targets of one bus share it. Raises OneReader where a bus that was named, or each bus, can't be heard; NotSilent.
    """
    targets = [word for word in words if is_target(word)]
    if targets and len(targets) < len(words):
        raise click.UsageError("name buses of the bench file, or targets, and not both")
    refused: list[OneReader] = []
    heard: list[tuple[Bench, Transport]] = []
    every: dict[str, list[Describer]] = {}
    known: dict[str, BusSpec] = {}
    try:
        benches = session.benches(targets)
    except BenchMissing as error:
        if targets or not words or session.bench_path is not None:
            raise
        other = f"Or name the bus as a target, such as socketcan:{words[0]}: proxyflash help targets"
        raise error.advised(f"{error.remedy}. {other}") from error
    for bench in benches:
        for bus in _buses(bench, words) if not targets else list(bench.file.spec.bus):
            spec = bench.file.spec.bus[bus]
            if bus in known:
                if spec.settings != known[bus].settings:
                    raise click.UsageError(f"two targets give the bus {bus} different settings: give both the same")
                every[bus] = describers(bench.file)[bus] + every[bus]
                continue
            try:
                how = bench.listening(bus)
                if listen_only and not how.silent:
                    raise NotSilent(f"bus {bus!r}: {how.effect}")
                transport = bench.listen(bus, how)
            except OneReader as error:
                if words:
                    raise
                refused.append(error)
                session.output.note(f"{bus} is left out: {error.cause}")
                continue
            if how.effect:
                session.output.note(f"{bus}: {how.effect}")
            heard.append((bench, transport))
            known[bus] = spec
            every[bus] = describers(bench.file)[bus]
    if not heard:
        raise refused[0] if refused else ComponentUnknown("the bench has no bus")
    return heard, every


def _buses(bench: Bench, words: Sequence[str]) -> list[str]:
    """Those of the bench file; of a component's name its bus. Raises ComponentUnknown."""
    found = []
    for word in words:
        if word in bench.file.spec.bus:
            found.append(word)
        elif word in bench.file.entries:
            found.append(bench.file.entries[word].spec.bus)
        else:
            known = ", ".join(bench.file.spec.bus) or "none"
            raise ComponentUnknown(f"{bench.file.path} has no bus {word!r}; it has: {known}")
    return list(dict.fromkeys(found)) if words else list(bench.file.spec.bus)


def _can_buses(heard: Iterable[tuple[Bench, Transport]]) -> Iterator[CanBus]:
    for _, transport in heard:
        if isinstance(transport, CanBus):
            yield transport


def _begun(stack: ExitStack, path: Path | None, bench: BenchFile) -> BinaryIO | None:
    """The file of a recording, with its first line; it is whole when the stack is left. Raises Unwritten.

    `bench`: says who speaks which protocol when the recording is printed.
    """
    if path is None:
        return None
    from ...enumerators.benchfile.text import without_secrets

    # Also for what is written later, and for the end.
    stack.enter_context(_unwritten(path))
    refuse_other(path)
    file = stack.enter_context(private_files.whole(path))
    file.write(head_line({"bench": {"name": bench.path.name, "text": without_secrets(bench)}}))
    return file


@contextmanager
def _unwritten(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritten(f"{path}: {error.strerror or error}") from error
