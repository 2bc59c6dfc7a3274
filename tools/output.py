"""What a person or a program is shown: data on stdout, all else on stderr.

Plain by default; `--json` is one document, `--jsonl` a line for each event and one for the result. Errors look the same
in each of them: what, on which component, why, what to do, the code. The last line is the verdict.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO

from ..flashers import events as ev
from ..transports.errors import ProxyflashError
from ..updates.engine import StepFinished, StepStarted

SCHEMA = 1
"""The number of the JSON documents' shape; it changes when a key changes its meaning or goes."""


class Mode(StrEnum):
    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"


def size(count: int) -> str:
    """Bytes as people write them: 512 bytes, 64 KiB, 1,048,576."""
    for unit, name in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= unit and count % unit == 0:
            return f"{count // unit:,} {name}"
    return f"{count:,} bytes"


@dataclass
class Output:
    """One run's output."""

    mode: Mode = Mode.TEXT
    quiet: bool = False
    verbosity: int = 0
    log: TextIO | None = None
    _bars: Any = field(default=None, init=False, repr=False)

    def line(self, text: str = "") -> None:
        """A line of data, for a person; nothing where a program reads."""
        if self.mode is Mode.TEXT:
            self._end_bars()
            print(text, flush=True)
        self._logged(text)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        self._end_bars()
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)
        self._logged(text)

    def document(self, data: Mapping[str, Any]) -> None:
        """The result, where a program reads it."""
        if self.mode is not Mode.TEXT:
            kind = {"kind": "result"} if self.mode is Mode.JSONL else {}
            indent = 2 if self.mode is Mode.JSON else None
            print(json.dumps({"schema": SCHEMA, **kind, **data}, indent=indent, default=str), flush=True)

    def error(self, error: ProxyflashError) -> None:
        """An error, on stderr for a person, on stdout as a document for a program."""
        self._end_bars()
        text = f"{error.code} {error}"
        self._logged(text)
        if self.mode is Mode.TEXT:
            print(text, file=sys.stderr, flush=True)
        else:
            self.document({"error": describe(error)})

    def event(self, event: ev.Event) -> None:
        """An event of an engine."""
        if self.mode is Mode.JSONL:
            data = {"schema": SCHEMA, "kind": event.kind, "time": round(time.time(), 6), **asdict(event)}
            print(json.dumps(data, default=str), flush=True)
        if not isinstance(event, ev.Progress):
            self._logged(f"{event.kind} {asdict(event)}")
        if self.mode is Mode.TEXT:
            self._show(event)

    def close(self) -> None:
        self._end_bars()
        if self.log is not None:
            self.log.close()

    def _show(self, event: ev.Event) -> None:
        match event:
            case ev.Planned():
                if not self.quiet:
                    self.line(f"{event.component}  plan   {plan_text(event)}")
            case StepStarted():
                about = f" {event.description}" if event.description else ""
                self.note(f"{event.component}  step {event.label}{about} ({event.handler})")
            case StepFinished() if event.details and self.verbosity:
                self.note(f"{event.component}  step {event.label}: {event.details}")
            case ev.Retrying():
                self.note(
                    f"{event.component}  {event.phase}: {event.code} {event.cause}; trying again "
                    f"({event.attempt} of {event.attempts})"
                )
            case ev.PhaseStarted() | ev.Progress() | ev.PhaseFinished():
                self._bar(event)
            case _:
                pass

    def _bar(self, event: ev.PhaseStarted | ev.Progress | ev.PhaseFinished) -> None:
        if self.quiet or not sys.stderr.isatty():
            if isinstance(event, ev.PhaseFinished) and self.verbosity:
                self.note(f"{event.component}  {event.phase}  {event.total:,} B in {event.seconds:.1f} s")
            return
        if self._bars is None:
            from .bars import Bars

            self._bars = Bars()
        self._bars.show(event)

    def _end_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _logged(self, text: str) -> None:
        if self.log is not None:
            self.log.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")
            self.log.flush()


def describe(error: ProxyflashError) -> dict[str, Any]:
    """An error as a JSON object."""
    return {
        "code": error.code,
        "component": error.component,
        "cause": error.cause,
        "remedy": error.remedy,
        "exit_status": int(error.exit_status),
    }


def plan_text(event: ev.Planned) -> str:
    """What a plan comes to, in one line."""
    parts = [f"{event.image_bytes:,} bytes of {event.memory_bytes:,}"]
    if event.erase_units:
        units = "unit" if event.erase_units == 1 else "units"
        parts.append(f"erase {event.erase_units} {units} ({size(event.erase_bytes)})")
    if event.blank_bytes:
        parts.append(f"skip {event.blank_bytes:,} blank bytes")
    if event.present_bytes:
        parts.append(f"{event.present_bytes:,} bytes are there already")
    if not event.erase_units and not event.write_bytes:
        parts.append("nothing to write")
    elif event.seconds is not None:
        parts.append(f"about {max(1, round(event.seconds))} s")
    return " · ".join(parts)


def open_log(path: Path) -> TextIO:
    return path.open("a", encoding="utf-8")
