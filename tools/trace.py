"""`--trace FILE`: what a run did and when, in the Trace Event Format, which the viewers of Perfetto and speedscope open.

The document of the format: "Trace Event Format" of the Chromium project, its JSON Array Format. Components are threads.
Steps, their actions and phases are durations (`B`, `E`), one in the other. Plans, retries, failures and interruptions are
instants (`i`). The bytes that a part has acknowledged are counters (`C`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from ..flashers import events as ev
from ..transports import clock, named_files, private_files
from ..transports.errors import ProxyflashError
from ..updates.events import ActionStarted, ComponentFinished, StepFinished, StepStarted

PROCESS = 1
FIRST = '[\n{"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "args": {"name": "proxyflash"}}'
STEP, ACTION, PHASE = range(3)
"""How deep a duration lies in its component's."""
COUNTED_SECONDS = 0.05
"""How often bytes are counted at most."""


class Trace:
    """Writes a trace, event by event: what a cut leaves is a trace too, for the end of the list may be missing.

    Times are microseconds since 1970, and go on with a clock that nobody sets.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._offset = clock.time() - clock.monotonic()
        self._threads: dict[str, int] = {}
        self._under_way: dict[str, list[int]] = {}
        self._counted: dict[str, float] = {}
        stream.write(FIRST)
        stream.flush()

    def see(self, event: ev.Event) -> None:
        """An event of an engine, of now. Raises OSError."""
        at, name = self._now, event.component
        match event:
            case StepStarted(label=label, handler=handler, description=about):
                self.begin(name, STEP, f"step {label}", at, {"handler": handler, "description": about})
            case ActionStarted(label=label, action=action):
                self.begin(name, ACTION, action, at, {"step": label})
            case ev.PhaseStarted(phase=phase, total=total):
                self.begin(name, PHASE, phase, at, {"bytes": total} if total else {})
            case ev.Progress(done=done, total=total):
                self._count(name, done, at, is_last=done == total)
            case ev.PhaseFinished(detail=detail):
                self.end(name, PHASE, at, {"detail": detail} if detail else {})
            case StepFinished(status=status, details=details):
                self.end(name, STEP, at, {"status": status, "details": details})
            case ev.Retrying():
                self.instant(name, f"retry: {event.code}", at, asdict(event))
            case ev.Planned():
                self.instant(name, "plan", at, asdict(event))
            case ev.Preparing(what=what):
                self.instant(name, what, at)
            case ComponentFinished(verdict=verdict):
                self.end(name, STEP, at)
                self.instant(name, verdict, at)
            case _:
                pass

    def failed(self, name: str, error: ProxyflashError) -> None:
        """What ended the work on a component: a failure, or a person."""
        self.end(name, STEP, self._now)
        self.instant(name, error.code, self._now, {"cause": error.cause})

    def close(self) -> None:
        """Ends what is under way as interrupted. Raises OSError."""
        for name, levels in self._under_way.items():
            if levels:
                self.end(name, STEP, self._now)
                self.instant(name, "interrupted", self._now)
        self._stream.write("\n]\n")
        self._stream.close()

    def begin(self, name: str, level: int, what: str, at: float, about: Mapping[str, Any] | None = None) -> None:
        """A duration. One of its level, or of a deeper level, that is under way for the component ends."""
        self.end(name, level, at)
        self._under_way.setdefault(name, []).append(level)
        self._event("B", name, what, at, about, cat=("step", "action", "phase")[level])

    def end(self, name: str, level: int, at: float, about: Mapping[str, Any] | None = None) -> None:
        levels = self._under_way.get(name, [])
        while levels and levels[-1] >= level:
            last = levels.pop()
            self._event("E", name, "", at, about if last == level else None)

    def instant(self, name: str, what: str, at: float, about: Mapping[str, Any] | None = None) -> None:
        self._event("i", name, what, at, about, s="t")

    @property
    def _now(self) -> float:
        return self._offset + clock.monotonic()

    def _count(self, name: str, done: int, at: float, *, is_last: bool) -> None:
        if is_last or at - self._counted.get(name, 0.0) >= COUNTED_SECONDS:
            self._counted[name] = at
            self._event("C", name, f"{name}: bytes", at, {"bytes": done})

    def _event(self, kind: str, name: str, what: str, at: float, about: Mapping[str, Any] | None, **more: str) -> None:
        if name not in self._threads:
            self._threads[name] = len(self._threads) + 1
            self._put(
                {"name": "thread_name", "ph": "M", "pid": PROCESS, "tid": self._threads[name], "args": {"name": name}}
            )
        event = {"name": what, "ph": kind, "ts": round(at * 1e6), "pid": PROCESS, "tid": self._threads[name], **more}
        self._put(event | ({"args": dict(about)} if about else {}))

    def _put(self, event: Mapping[str, Any]) -> None:
        self._stream.write(f",\n{json.dumps(event, default=str)}")
        self._stream.flush()


def journal_into(
    trace: Trace, records: Iterable[tuple[float, Mapping[str, Any]]], tasks: Mapping[int, tuple[str, str]]
) -> None:
    """The records of an update's actions in a journal. `tasks`: the component and the label of the step of each task."""
    names = {"update", *(name for name, _ in tasks.values())}
    at = 0.0
    for at, record in records:
        name, label = tasks.get(record.get("task", -1), ("update", ""))
        match record["kind"]:
            case "start":
                trace.begin(name, ACTION, f"{label} {record['action']}", at)
            case "end":
                code = {key: record[key] for key in ("code", "extended", "details") if key in record}
                trace.end(name, ACTION, at, code)
            case "resumed":
                # What was under way was cut, some time since the record before.
                for each in names:
                    trace.end(each, STEP, at)
                trace.instant("update", "resumed", at)
            case kind:
                about = {key: value for key, value in record.items() if isinstance(value, str | int) and key != "crc"}
                trace.instant(name, str(kind), at, about)
    for each in names:
        trace.end(each, STEP, at)


def opened(path: Path) -> Trace:
    """A trace in a new file, or in the place of an older trace. Raises OSError."""
    named_files.refuse_other(path, lambda found: found.startswith(FIRST.encode()), "a trace")
    return Trace(open(path, "w", encoding="utf-8", opener=named_files.opener(private_files.FILE_MODE)))
