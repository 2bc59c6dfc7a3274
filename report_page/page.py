"""`render`: a story as one HTML page, and `write`: into a file that the user named.

Jinja2 makes the page and its pictures. It escapes every value, in HTML and in SVG alike. A picture's places are percentages
and its colours are the page's, so a picture fits a phone, a dark screen and paper; libraries that draw SVG fix both.
The page has no script, and its Content-Security-Policy allows nothing but its own style.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..transports import named_files, private_files
from ..transports.errors import ExitStatus, ProxyflashError
from ..transports.plain import plain
from .story import Memory, Message, Mood, Span, State, Story, Stretch

if TYPE_CHECKING:
    from jinja2 import Environment

BEGIN = re.compile(rb'<!DOCTYPE html>.*<meta name="generator" content="proxyflash">', re.DOTALL)
"""How a page of ours begins."""
TICKS = 5
NARROW = 0.6
"""A map shows a whole memory, unless less than this share of it was looked at or changed."""
QUIET = ("connect", "compare", "plan", "boot", "download", "is-installed", "cancel")
"""Phases that share a colour: no byte of the part's memory changes in them."""
SIGNS = {Mood.GOOD: "✓", Mood.BAD: "✕", Mood.OPEN: "!", Mood.PLAIN: "·"}


class PageFile(ProxyflashError):
    """A page can't be written to the named file, or would replace a file that is not a page. Checked before anything is
    done."""

    code = "E-REPORT-FILE"
    exit_status = ExitStatus.USAGE
    default_remedy = "Name another file."


def check_place(path: Path) -> None:
    """Nothing but a page, or an empty file, is there. Raises PageFile."""
    try:
        named_files.refuse_other(path, BEGIN.match, "a page of proxyflash")
    except (OSError, ValueError) as error:
        raise PageFile(f"{path}: {getattr(error, 'strerror', None) or error}") from error


def write(story: Story, path: Path, hidden: Mapping[str, str] | None = None) -> None:
    """The page as a file, which replaces a page that is there. It is for its owner alone. Raises PageFile.

    `hidden`: texts that may hold secrets, with what is shown of each.
    """
    text = render(story, hidden)
    check_place(path)
    try:
        with private_files.whole(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise PageFile(f"{path}: {error.strerror or error}") from error


def render(story: Story, hidden: Mapping[str, str] | None = None) -> str:
    """`hidden`: as `write` has it."""
    length = max(story.ended - story.began, 1e-6)

    def share(time: float) -> float:
        return min(1.0, max(0.0, (time - story.began) / length))

    environment = _environment(tuple((hidden or {}).items()))
    environment.filters |= {
        "place": lambda time: _percent(share(time)),
        "at": lambda time: _seconds(time - story.began),
        "width": lambda seconds: _percent(min(1.0, seconds / length)),
        "told": lambda span: _told(span, story.began),
    }
    states = {stretch.state for memory in story.memories for stretch in memory.stretches}
    kinds = dict.fromkeys(span.kind for lane in story.lanes for span in lane.spans)
    return environment.get_template("page.html").render(
        story=story,
        ticks=list(_ticks(length)),
        kinds=[", ".join(kind for kind in kinds if kind in group) for group in _colours(kinds)],
        has_marks=any(lane.marks for lane in story.lanes) or any(load.marks for load in story.loads),
        states=[state for state in State if state in states],
        rows=list(_rows(story)),
    )


@lru_cache(maxsize=1)  # To compile the templates takes ten times as long as to fill them.
def _environment(hidden: tuple[tuple[str, str], ...]) -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def shown(text: str) -> str:
        for secret, instead in hidden:
            text = text.replace(secret, instead)
        return plain(text)

    made = Environment(
        loader=FunctionLoader(lambda name: resources.files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What a part or a file says is shown, not obeyed; what a macro has made is HTML already.
        finalize=lambda value: shown(value) if isinstance(value, str) and not hasattr(value, "__html__") else value,
    )
    filters: dict[str, Callable[..., Any]] = {
        "css": lambda text: str(text).partition(",")[0].replace(" ", "-"),
        "sign": lambda mood: SIGNS[mood],
        "number": lambda count: f"{count:,}",
        "hex": lambda address: f"0x{address:08X}",
        "seconds": _seconds,
        "offset": lambda seconds: f"{seconds:+.4f}",
        "moment": lambda time: datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
        "width_of": _percent,
        "percent": _share,
        "peak": lambda load: f"load not known: {load.unknown}" if load.unknown else f"peak {_share(load.peak)}",
        "rate": lambda rate: f"{rate / 1000:,.1f} kB/s",
        "area": lambda shares: f"M0 1 {_steps(shares)} {len(shares)} 1Z",
        "curve": lambda shares: f"M0 {1 - shares[0]:.3f} {_steps(shares)}" if shares else "",
        "extent": _extent,
        "way": _way,
    }
    made.filters |= filters
    return made


def _colours(kinds: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """The kinds of spans that are drawn, by colour."""
    for kind in kinds:
        if kind not in QUIET:
            yield (kind,)
        elif kind == next(one for one in kinds if one in QUIET):
            yield QUIET


def _percent(part: float) -> str:
    return f"{100 * part:.3f}%"


def _share(part: float) -> str:
    return f"{100 * part:.0f} %" if part >= 0.1 else f"{100 * part:.1f} %"


def _seconds(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def _told(span: Span, began: float) -> str:
    text = f" {span.text}" if span.text else ""
    return f"{span.kind}{text}: {_seconds(span.end - span.start)}, from {_seconds(span.start - began)} on"


def _way(message: Message) -> str:
    return {True: "sent", False: "received", None: ""}[message.sent]


def _steps(shares: Sequence[float]) -> str:
    """A path's points: the share of each stretch of time, as a step."""
    return " ".join(f"L{place} {1 - share:.3f} L{place + 1} {1 - share:.3f}" for place, share in enumerate(shares))


def _ticks(length: float) -> Iterator[dict[str, str]]:
    for number in range(TICKS):
        part = number / (TICKS - 1)
        anchor = "start" if number == 0 else "end" if number == TICKS - 1 else "middle"
        yield {"place": _percent(part), "anchor": anchor, "text": _seconds(length * part)}


def _rows(story: Story) -> Iterator[dict[str, str]]:
    """The timeline as rows of a table, by time."""
    found: list[tuple[float, dict[str, str]]] = []

    def add(time: float, who: str, what: str, took: str, text: str, mood: Mood) -> None:
        row = {"at": _seconds(time - story.began), "who": who, "what": what, "took": took, "text": text, "mood": mood}
        found.append((time, row))

    for lane in story.lanes:
        for span in (*lane.steps, *lane.spans):
            add(span.start, lane.name, span.kind, _seconds(span.end - span.start), span.text, span.mood)
        for mark in lane.marks:
            add(mark.time, lane.name, "!", "", mark.text, mark.mood)
    for load in story.loads:
        for mark in load.marks:
            add(mark.time, load.bus, "!", "", mark.text, mark.mood)
    return iter(row for _, row in sorted(found, key=lambda item: item[0]))


def _extent(memory: Memory) -> dict[str, Any]:
    """What a map shows of a memory, with the places of its pieces."""
    looked = [stretch for stretch in memory.stretches if stretch.state is not State.UNTOUCHED]
    first, end = memory.start, memory.start + memory.size
    is_part = bool(looked) and looked[-1].end - looked[0].start < NARROW * memory.size
    if is_part:
        margin = (looked[-1].end - looked[0].start) // 20
        first, end = max(first, looked[0].start - margin), min(end, looked[-1].end + margin)
    size = end - first

    def piece(stretch: Stretch) -> dict[str, str]:
        low, high = max(stretch.start, first), min(stretch.end, end)
        return {
            "state": stretch.state,
            "x": _percent((low - first) / size),
            "width": _percent((high - low) / size),
            "text": f"0x{stretch.start:08X} to 0x{stretch.end - 1:08X}, {stretch.size:,} bytes: {stretch.state}",
        }

    shown = [stretch for stretch in memory.stretches if stretch.end > first and stretch.start < end]
    return {
        # Nothing is drawn over a byte that failed: it is a fraction of a pixel wide.
        "pieces": [piece(stretch) for stretch in sorted(shown, key=lambda one: one.state is State.FAILED)],
        "first": first,
        "last": end - 1,
        "is_part": is_part,
        "share": f"{100 * size / memory.size:.1f} %",
        "x": _percent((first - memory.start) / memory.size),
        "width": _percent(size / memory.size),
    }
