"""What became of each byte of a part's memory, from the events of the engine alone.

A plan says in which order it erases and writes, and progress is counted in bytes of that order, so the bytes that a part has
acknowledged have addresses. A part may do its plan memory by memory: a phase that does a part of the plan is that of the
first memory with as many bytes to be done.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

from ..flashers import events as ev
from .story import Memory, State, Stretch

CHANGING = {ev.Phase.ERASE: State.ERASED, ev.Phase.WRITE: State.WRITTEN}
"""What a byte is that one of these phases has done."""


class MemoryPicture:
    """The memories of one component. `take` gets the events in their order."""

    def __init__(self) -> None:
        self._states: dict[str, _Painting] = {}
        self._layout = ev.Layout()
        self._left: dict[ev.Phase, list[ev.Run]] = {}
        self._turn: list[ev.Run] = []
        self._phase: ev.Phase | None = None
        self._done = 0
        self._flashes = 0
        self._begins = False
        """Whether the next erase or write is the first one of a flash."""
        self._retries = False

    def take(self, event: ev.Event) -> None:
        match event:
            case ev.Planned():
                self._begins = self._begins or not self._retries
                self._retries = False
                self._plan(event.layout)
            case ev.PhaseStarted():
                if event.phase in CHANGING:
                    self._flashes += self._begins
                    self._begins = False
                self._phase, self._done = event.phase, 0
                self._turn = list(self._turn_of(event.phase, event.total))
            case ev.Progress() if event.phase is self._phase:
                self._done = event.done
                self._paint_done()
            case ev.PhaseFinished() if event.phase is self._phase:
                self._done = event.total
                self._paint_done()
                left, turn = self._left.get(event.phase, []), set(self._turn)
                self._left[event.phase] = [run for run in left if run not in turn]
                if event.phase is ev.Phase.VERIFY:
                    self._verified()
                self._phase = None
            case ev.Retrying():
                # Only a flash that is tried again has another plan.
                self._retries = event.phase is ev.Phase.WRITE
                self.fail()

    def fail(self) -> None:
        """The phase that is under way failed, where it had come to."""
        if self._phase is ev.Phase.VERIFY and not self._done:
            # The part judges the image as a whole.
            for run in self._turn:
                self._paint(*run, State.FAILED, over=(State.WRITTEN,))
        elif self._phase in (*CHANGING, ev.Phase.VERIFY):
            for start, _ in _behind(self._turn, self._done):
                self._paint(start, 1, State.FAILED)
                break
        self._phase = None

    def memories(self, component: str) -> Iterator[Memory]:
        """As they are once the run is over."""
        for run in self._layout.writes:
            self._paint(*run, State.UNWRITTEN, over=(State.ERASED,))
        for name, painting in self._states.items():
            start, size = painting.place
            yield Memory(component, name, start, size, tuple(painting.stretches()), self._flashes)

    def _plan(self, layout: ev.Layout) -> None:
        self._layout = layout
        for name, start, size in layout.regions:
            if name not in self._states or self._states[name].place != (start, size):
                self._states[name] = _Painting(start, size)
        todo = [*layout.erase, *layout.rewritten, *layout.writes]
        for run in layout.present:
            self._paint(*run, State.PRESENT, over=(State.UNTOUCHED, State.FAILED, State.PLANNED))
        for run in todo:
            self._paint(*run, State.PLANNED)
        self._left = {ev.Phase.ERASE: list(layout.erase), ev.Phase.WRITE: list(layout.writes)}

    def _turn_of(self, phase: ev.Phase, total: int) -> Iterable[ev.Run]:
        if phase is ev.Phase.VERIFY:
            return [piece for run in self._layout.image for piece in _without(run, self._layout.present)]
        left = self._left.get(phase, [])
        if sum(size for _, size in left) == total:
            return left
        for _, start, size in self._layout.regions:
            inside = [run for run in left if start <= run[0] < start + size]
            if inside and sum(run[1] for run in inside) == total:
                return inside
        return left

    def _paint_done(self) -> None:
        if self._phase in CHANGING:
            for run in _before(self._turn, self._done):
                self._paint(*run, CHANGING[self._phase])

    def _verified(self) -> None:
        for run in self._layout.image:
            self._paint(*run, State.VERIFIED, over=(State.WRITTEN,))
            self._paint(*run, State.SKIPPED, over=(State.ERASED, State.PLANNED))
        # Within what was written whole, writing has erased what the image doesn't have.
        for run in self._layout.rewritten:
            self._paint(*run, State.ERASED, over=(State.PLANNED,))

    def _paint(self, start: int, size: int, state: State, over: tuple[State, ...] = ()) -> None:
        for painting in self._states.values():
            painting.paint(start, start + size, state, over)


class _Painting:
    """A memory's states, as the places where another one begins."""

    def __init__(self, start: int, size: int) -> None:
        self.place = start, size
        self._pieces: list[tuple[int, int, State]] = [(start, start + size, State.UNTOUCHED)]

    def paint(self, start: int, end: int, state: State, over: tuple[State, ...]) -> None:
        """`over`: only where it has one of these states; (): anywhere."""
        start, end = max(start, self.place[0]), min(end, sum(self.place))
        if start >= end:
            return
        # With the piece on each side, which may become one with what is painted.
        begin = max(0, bisect_right(self._pieces, start, key=itemgetter(0)) - 2)
        stop = bisect_left(self._pieces, end, key=itemgetter(0)) + 1
        found: list[tuple[int, int, State]] = []
        for low, high, before in self._pieces[begin:stop]:
            first, last = max(low, start), min(high, end)
            if first >= last or (over and before not in over):
                pieces = [(low, high, before)]
            else:
                pieces = [(low, first, before), (first, last, state), (last, high, before)]
            for piece in pieces:
                if piece[0] == piece[1]:
                    continue
                if found and found[-1][2] is piece[2]:
                    found[-1] = found[-1][0], piece[1], piece[2]
                else:
                    found.append(piece)
        self._pieces[begin:stop] = found

    def stretches(self) -> Iterator[Stretch]:
        for low, high, state in self._pieces:
            yield Stretch(low, high - low, state)


def _before(runs: Iterable[ev.Run], done: int) -> Iterator[ev.Run]:
    """The first `done` bytes of runs."""
    for start, size in runs:
        if done <= 0:
            return
        yield start, min(size, done)
        done -= size


def _behind(runs: Iterable[ev.Run], done: int) -> Iterator[ev.Run]:
    """All but the first `done` bytes of runs."""
    for start, size in runs:
        if done < size:
            yield start + max(0, done), size - max(0, done)
        done -= size


def _without(run: ev.Run, others: Sequence[ev.Run]) -> Iterator[ev.Run]:
    """What of a run is in none of the others, which are in order of address."""
    start, end = run[0], sum(run)
    for place in range(max(0, bisect_right(others, start, key=itemgetter(0)) - 1), len(others)):
        low, size = others[place]
        if low >= end:
            break
        if low + size <= start:
            continue
        if low > start:
            yield start, low - start
        start = max(start, low + size)
    if start < end:
        yield start, end - start
