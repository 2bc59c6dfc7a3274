"""What a person or a program is shown: data on stdout, all else on stderr.

Plain by default; `--json` is one document, `--jsonl` a line for each event and one for the result. Errors look the same
in each of them: what, on which component, why, what to do, the code. The last line is the verdict.

What a person reads goes through `transports.plain`, here and in no other place: each text becomes one line of its own,
in which nothing is obeyed. JSON documents carry exact values, in JSON's own escapes.

A stream that takes nothing more (a full disk, a pipe whose reader went away) never stops the work.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..flashers import events as ev
from ..transports import clock, named_files, private_files
from ..transports.errors import ProxyflashError
from ..transports.plain import CAUSE, plain, word
from .wording import BETWEEN, finished_text, folded, plan_text

if TYPE_CHECKING:
    from .trace import Trace

PROGRESS_SECONDS = 10.0
"""How often progress is printed where there is no terminal."""
SCHEMA = 1
"""The number of the JSON documents' shape; it changes when a key changes its meaning or goes."""


COLOURS = {"OK": 32, "ok": 32, "FAILED": 31, "NOT RESTORED": 31, "absent": 33, "bootloader": 33, "stopped": 33}
_COLOURED = re.compile(rf"(?<=  )(?:{'|'.join(COLOURS)})(?=  | at step |, |: |$)")
"""Such a word, where it stands in a column of its own."""


class OutputLost(ProxyflashError):
    """Output, the log, the trace, the page or the recording can't be written, for example to a full disk. The work
    itself is done.

    Never raised within the work: reported at its end.
    """

    code = "E-OUTPUT"
    default_remedy = "Is the disk full? The work itself is done."
    of_failure = "Is the disk full?"
    """The remedy where the command failed as well."""

    def __init__(self, cause: str, *, silent: bool = False) -> None:
        super().__init__(cause)
        self.silent = silent
        """A reader that went away had what it wanted."""


class Mode(StrEnum):
    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sits at the other end. A stream that was closed before we started is None."""
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def takes_escapes(stream: TextIO | None) -> bool:
    """Whether it is a terminal that knows more than lines."""
    return is_terminal(stream) and os.environ.get("TERM") not in (None, "", "dumb")


def _painted(line: str) -> str:
    return _COLOURED.sub(lambda found: f"\x1b[{COLOURS[found[0]]}m{found[0]}\x1b[0m", line)


@dataclass
class Output:
    """One run's output. `collected`: where documents go instead of stdout, for a command made of commands."""

    mode: Mode = Mode.TEXT
    quiet: bool = False
    verbosity: int = 0
    log: TextIO | None = None
    collected: list[dict[str, Any]] | None = None
    told: ProxyflashError | None = None
    """The error that was shown last."""
    lost: OutputLost | None = None
    """Why something could not be shown."""
    trace: Trace | None = None
    _verdicts: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _last_told: dict[tuple[str, ev.Phase], float] = field(default_factory=dict, init=False, repr=False)
    """When progress was printed last where there is no terminal."""
    _bars: Any = field(default=None, init=False, repr=False)

    def line(self, text: str = "") -> None:
        """A line of data, for a person; nothing where a program reads."""
        if self.mode is Mode.TEXT:
            with self._aside():
                self._print([text], sys.stdout)
        self._logged([text])

    def lines(self, texts: Iterable[str]) -> None:
        """Several of them, such as a document of our own, split into its lines."""
        told = list(texts)
        if self.mode is Mode.TEXT and told:
            with self._aside():
                self._print(told, sys.stdout)
        self._logged(told)

    def row(self, cells: Sequence[str], between: str = "  ") -> None:
        """A line of data in columns. A terminal that has no room for it gets more lines."""
        columns = shutil.get_terminal_size().columns if is_terminal(sys.stdout) else 0
        self.lines(folded(cells, columns, between))

    def forget_verdicts(self) -> None:
        """Another command begins, of those that one command runs."""
        self._verdicts.clear()

    def verdict(self, component: str, text: str, remark: str = "") -> None:
        """The result for a component: printed once, and again only if that has changed."""
        if self._verdicts.get(component) != text:
            self._verdicts[component] = text
            self.ended(component)
            self.line(f"{word(component)}  {plain(text, CAUSE)}{remark}")

    def ended(self, component: str, error: ProxyflashError | None = None) -> None:
        """Nothing is under way for a component any more: its line that changes goes. `error`: what ended it."""
        if self.trace is not None and error is not None:
            with self._tracing() as trace:
                trace.failed(component, error)
        if self._bars is not None:
            with self._terminal():
                self._bars.end(component)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        if not self.quiet:
            with self._aside():
                self._print([text], sys.stderr)
        self._logged([text])

    def question(self, text: str) -> None:
        """Something that a person is asked, on stderr: the answer is typed behind it."""
        self._end_bars()
        self._print([text], sys.stderr, end=" ")

    def end_question(self) -> None:
        """Where no new line was typed."""
        self._print([""], sys.stderr)

    def alarm(self, text: str) -> None:
        """A remark on stderr that nothing keeps back, above the bars that are there. For any thread."""
        if self._bars is not None:
            with self._terminal():
                self._bars.say(plain(text))
        else:
            self._print([text], sys.stderr)
        self._logged([text])

    @property
    def wants_messages(self) -> bool:
        """Whether `message` shows anything."""
        return self.verbosity > 1 or self.log is not None

    def message(self, text: str) -> None:
        """What passed on a bus, in words: for the log, and for who wants to see everything. For any thread."""
        if self.verbosity > 1:
            self.alarm(text)
        else:
            self._logged([text])

    def usage(self, texts: Iterable[str]) -> None:
        """How a command is called, on stderr, and what was wrong with the call."""
        self._print(texts, sys.stderr)

    def traceback(self, error: BaseException) -> None:
        """Where an error came from, on stderr. An exception's own text stays one line."""
        import traceback

        lines: list[str] = []
        for piece in traceback.format_exception(error):
            # Only of these are new lines our own: the place of a call, and its line of code.
            lines += piece.rstrip("\n").split("\n") if piece.startswith('  File "') else [piece.strip("\n")]
        self._print(lines, sys.stderr)

    def data(self, document: str) -> None:
        """A JSON document for which the command was run, on stdout in every mode."""
        self._print(document.split("\n"), sys.stdout, paint=False)

    def document(self, data: Mapping[str, Any]) -> None:
        """The result, where a program reads it."""
        if self.mode is Mode.TEXT:
            return
        if self.mode is Mode.JSON and self.collected is not None:
            self.collected.append(dict(data))
            return
        kind = {"kind": "result"} if self.mode is Mode.JSONL else {}
        indent = 2 if self.mode is Mode.JSON else None
        self._print_json({"schema": SCHEMA, **kind, **data}, indent=indent)

    def record(self, data: Mapping[str, Any]) -> None:
        """One of many results, of which each is a JSON line."""
        self._print_json({"schema": SCHEMA, **data})

    def error(self, error: ProxyflashError) -> None:
        """An error, on stderr for a person, on stdout as a document for a program."""
        self.told = error
        if self.mode is Mode.TEXT:
            self.fault(error)
        else:
            self._logged(_lines_of(error))
            self.document({"error": describe(error)})

    def fault(self, error: ProxyflashError, indent: str = "") -> None:
        """An error that is not the end: in a person's text alone, on stderr, also where it is quiet."""
        lines = _lines_of(error, indent)
        self._logged(lines)
        if self.mode is Mode.TEXT:
            with self._aside():
                self._print(lines, sys.stderr)

    def event(self, event: ev.Event) -> None:
        """An event of an engine."""
        if self.trace is not None:
            with self._tracing() as trace:
                trace.see(event)
        if self.mode is Mode.JSONL:
            self._print_json({"schema": SCHEMA, "kind": event.kind, "time": round(clock.time(), 6), **asdict(event)})
        if not isinstance(event, ev.Progress):
            self._logged([f"{event.kind} {json.dumps(asdict(event), default=str)}"])
        if self.mode is Mode.TEXT:
            self._show(event)

    def close(self) -> None:
        self._end_bars()
        if self.trace is not None:
            with self._tracing() as trace:
                trace.close()
            self.trace = None
        if self.log is not None:
            log, self.log = self.log, None
            try:
                log.close()
            except OSError as error:
                self._missed(f"the log file {log.name}", error)

    def _show(self, event: ev.Event) -> None:
        match event:
            case ev.Planned():
                if not self.quiet:
                    self.row(f"{event.component}  {'plan':<7} {plan_text(event)}".split(BETWEEN), BETWEEN)
            case ev.Retrying():
                self.note(
                    f"{event.component}  {event.phase}: {event.code} {plain(event.cause, CAUSE)}; trying again "
                    f"({event.attempt} of {event.attempts})"
                )
            case ev.Preparing():
                self.note(f"{event.component}  {event.what}")
            case ev.PhaseStarted() | ev.Progress() | ev.PhaseFinished():
                self._bar(event)
            case _:
                self._show_step(event)

    def _show_step(self, event: ev.Event) -> None:
        """An event of the update engine, of which a flash has none: its classes are imported here."""
        from ..updates.events import ActionStarted, ComponentFinished, StepFinished, StepStarted

        match event:
            case StepStarted():
                about = f" {word(event.description)}" if event.description else ""
                self.note(f"{event.component}  step {event.label}{about} ({event.handler})")
            case ActionStarted(action="restore"):
                self.note(f"{event.component}  step {event.label}: restore")
            case ComponentFinished():
                self.verdict(event.component, event.verdict)
            case StepFinished() if event.details and self.verbosity:
                self.note(f"{event.component}  step {event.label}: {plain(event.details, CAUSE)}")
            case _:
                pass

    def _bar(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        if self.quiet:
            return
        if not takes_escapes(sys.stderr):
            self._tell_progress(event)
            return
        if self._bars is None:
            from .bars import Bars

            self._bars = Bars(moves=not clock.current().is_simulated)
        with self._terminal():
            self._bars.show(event)

    def _tell_progress(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        """A line now and then where no bar is shown: a journal is read while the work goes on."""
        key, now = (event.component, event.phase), clock.monotonic()
        if isinstance(event, ev.PhaseStarted):
            self._last_told[key] = now
        elif isinstance(event, ev.Progress):
            if now - self._last_told.setdefault(key, now) >= PROGRESS_SECONDS:
                self._last_told[key] = now
                percent = 100 * event.done // max(1, event.total)
                self.note(f"{event.component}  {event.phase:<7} {percent}%  {event.done:,} of {event.total:,} B")
        elif self.verbosity:
            self.note(f"{event.component}  {event.phase:<7} {finished_text(event)}")

    @contextmanager
    def _tracing(self) -> Iterator[Trace]:
        """A trace that takes nothing more is reported at the end, and stops no work."""
        assert self.trace is not None
        try:
            yield self.trace
        except OSError as error:
            self.trace = None
            self._missed("the trace", error)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Room on the terminal for a text; what is under way is shown again below that text."""
        self._end_bars()
        yield
        if self._bars is not None:
            with self._terminal():
                self._bars.resume()

    def _end_bars(self) -> None:
        """Until the next event of what is under way."""
        if self._bars is not None:
            with self._terminal():
                self._bars.stop()

    @contextmanager
    def _terminal(self) -> Iterator[None]:
        """A terminal that was closed while bars are on it is reported at the end, and stops no work."""
        try:
            yield
        except (OSError, ValueError) as error:
            _silence(sys.stderr)
            self._missed("the messages", error)
            bars, self._bars = self._bars, None
            with suppress(OSError, ValueError):
                bars.stop()

    def _print_json(self, data: Mapping[str, Any], indent: int | None = None) -> None:
        """On stdout, in ASCII: other characters stand in JSON's escapes."""
        self._print(json.dumps(data, indent=indent, default=str).split("\n"), sys.stdout, paint=False)

    def _print(self, lines: Iterable[str], stream: TextIO | None, end: str = "\n", *, paint: bool = True) -> None:
        """`paint`: whether verdicts may have their colours; not in what a program reads."""
        if stream is None:
            return
        shown = map(plain, lines)
        if paint and takes_escapes(stream) and not os.environ.get("NO_COLOR"):
            shown = map(_painted, shown)
        try:
            print("\n".join(shown), file=stream, end=end, flush=True)
        except (OSError, ValueError) as error:
            # What it still holds would fail again at exit.
            _silence(stream)
            self._missed("the output" if stream is sys.stdout else "the messages", error)

    def _missed(self, what: str, error: OSError | ValueError) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        self.miss(f"{what} can't be written: {reason}", silent=isinstance(error, BrokenPipeError))

    def miss(self, cause: str, *, silent: bool = False) -> None:
        """Something that could not be written, for the end of the command; each of several is reported."""
        if self.lost is None:
            self.lost = OutputLost(cause, silent=silent)
        elif self.lost.silent:
            self.lost = self.lost if silent else OutputLost(cause)
        elif not silent and cause not in self.lost.cause:
            self.lost = OutputLost(f"{self.lost.cause}; {cause}")

    def _logged(self, lines: Sequence[str]) -> None:
        if self.log is None:
            return
        began = clock.now().astimezone().isoformat(timespec="milliseconds")
        try:
            self.log.write("".join(f"{began} {plain(line)}\n" for line in lines))
            self.log.flush()
        except OSError as error:
            log, self.log = self.log, None
            self._missed(f"the log file {log.name}", error)
            _silence(log)


def _silence(stream: TextIO) -> None:
    """What a stream still holds goes nowhere, instead of failing again when it is closed."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass


def _lines_of(error: ProxyflashError, indent: str = "") -> list[str]:
    """An error for a person; a text that it quotes makes no line, so those that are there are its own."""
    return f"{indent}{error.code} {error}".split("\n")


def describe(error: ProxyflashError) -> dict[str, Any]:
    """An error as a JSON object; of a component that was worked on with the phase, and how it was left."""
    return {
        "code": error.code,
        "component": error.component,
        "cause": error.cause,
        "remedy": error.remedy,
        "exit_status": int(error.exit_status),
        **(asdict(error.left) if error.left is not None else {}),
        **error.details,
    }


_LOG = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
"""The begin of a log's first line."""


def open_log(path: Path) -> TextIO:
    """A log, which has what the terminal has: a new file is for its owner alone, an older log goes on and keeps its mode.

    Raises OSError, also where another file is there.
    """
    if path.is_file():
        named_files.refuse_other(path, _LOG.match, "a log")
    opener = named_files.opener(private_files.FILE_MODE)
    return open(path, "a", encoding="utf-8", errors="backslashreplace", opener=opener)
