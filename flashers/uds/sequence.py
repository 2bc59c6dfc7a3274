"""The order of a programming session, as a profile lists it: which step comes when, and what is done for each memory.

After ISO 14229-1:2020, clause 16, whose order is the default. Makers' orders differ; so the order is data, checked when
the bench file is read. Pure: words in, words out, no requests.

The rule: the list is carried out from its start to its end. What comes before the first step that changes the ECU is
done when the ECU is connected; what comes after the last download is done when it is judged; what comes after "reset" is
asked of the application that was started.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ...transports.plain import meant

REGION, SEGMENT = "for each region", "for each segment"
"""First word of a list in the list: its other words are done for one memory region, or segment, after the other."""

Words = tuple["str | Words", ...]

STANDARD: Words = (
    "extended", "preconditions", "dtc-off", "communication-off", "programming", "key", "fingerprint", "driver",
    "erase", "download", "check", "dependencies",
)  # fmt: skip
RESET = "reset"
"""The ECU's reset, which each session ends with: only an order that goes on after it has the word."""
KNOWN = frozenset((*map(str, STANDARD), RESET))
_AT_TOP = frozenset(
    {"extended", "preconditions", "dtc-off", "communication-off", "programming", "key", "driver", RESET}
)
_WORK = frozenset({"driver", "erase", "download", "check", "dependencies"})
"""Steps for which the ECU has to be in its programming session."""


@dataclass(frozen=True, slots=True)
class Order:
    """`before`: steps while the application runs, up to the programming session. `enter`: what follows it and changes
    nothing of the ECU. `prepare`: once, before the first erase. `body`: what erases and downloads, in turns. `end`: what
    has the ECU judge. `after`: what the started application is asked.
    """

    before: tuple[str, ...]
    enter: tuple[str, ...]
    prepare: tuple[str, ...]
    body: Words
    end: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def words(self) -> frozenset[str]:
        return frozenset((*self.before, *self.enter, *self.prepare, *flat(self.body), *self.end, *self.after))

    @property
    def checks_in_turns(self) -> bool:
        """Whether memory is checked between its downloads."""
        return "check" in flat(self.body)


def flat(words: Words) -> Iterator[str]:
    """The steps of a list and of the lists in it, in their order."""
    for word in words:
        if isinstance(word, tuple):
            yield from flat(word[1:])
        else:
            yield word


def parse(words: Words, steps: Collection[str], entering: Collection[str]) -> Order:
    """The parts of an order. `steps`: the names of the profile's own steps; `entering`: those that only enter or unlock.

    Raises ValueError, in the words of the profile.
    """
    every = list(flat(words))
    for word in every:
        if word not in KNOWN and word not in steps:
            known = [*map(str, STANDARD), RESET, *steps]
            raise ValueError(f"the order has {word!r}, which is none of {', '.join(known)}{meant(word, known)}")
    for name in steps:
        if name in KNOWN:
            raise ValueError(f"steps.{name}: that name is taken by a step of the standard")
        if name not in every:
            raise ValueError(f"steps.{name} is not in the order")
    for word in ("programming", "download"):
        if every.count(word) != 1:
            raise ValueError(f"the order needs {word!r} once")
    for word in ("driver", "erase", "check", "dependencies", RESET):
        if every.count(word) > 1:
            raise ValueError(f"the order has {word!r} twice")
    for earlier, later in (("driver", "erase"), ("driver", "download"), ("erase", "download"), ("download", "check"),
                           ("download", "dependencies"), ("download", RESET)):  # fmt: skip
        if earlier in every and later in every and every.index(earlier) > every.index(later):
            raise ValueError(f"in the order, {earlier!r} has to come before {later!r}")
    reset = words.index(RESET) if RESET in words else len(words)
    after = words[reset + 1 :]
    for late in after:
        if not isinstance(late, str) or late not in ("extended", "key", *steps):
            shown = late if isinstance(late, str) else late[0]
            raise ValueError(f"in the order, 'extended', 'key' and steps of your own come after 'reset', not {shown!r}")
    words = words[:reset]
    start = words.index("programming")
    before = tuple(flat(words[:start]))
    if early := [word for word in before if word in _WORK]:
        raise ValueError(f"in the order, {early[0]!r} has to come after 'programming'")
    rest = words[start + 1 :]
    entered = next((at for at, word in enumerate(rest) if not _enters(word, entering)), len(rest))
    holds = [at for at, word in enumerate(rest) if {"erase", "download"} & set(flat((word,)))]
    first, last = holds[0], holds[-1] + 1
    end = rest[last:]
    if any(isinstance(word, tuple) for word in (*words[:start], *rest[:first], *end)):
        raise ValueError(f"in the order, only what erases or downloads goes into a list {REGION!r} or {SEGMENT!r}")
    entered = min(entered, first)
    return Order(
        before,
        tuple(flat(rest[:entered])),
        tuple(flat(rest[entered:first])),
        rest[first:last],
        tuple(flat(end)),
        tuple(flat(after)),
    )


def _enters(word: str | Words, entering: Collection[str]) -> bool:
    return isinstance(word, str) and (word in entering or (word in _AT_TOP and word != "driver"))


def with_heads(words: Words) -> Words:
    """The words, whose lists begin with one of the heads. Raises ValueError."""
    _check_lists(words, REGION, SEGMENT)
    return words


def _check_lists(words: Words, *heads: str) -> None:
    """Lists begin with one of the heads, and what is done once is in none."""
    for word in words:
        if isinstance(word, str):
            continue
        if not word or word[0] not in heads:
            raise ValueError(f"a list in the order begins with {' or '.join(map(repr, heads))}")
        for step in word[1:]:
            if step in _AT_TOP:
                raise ValueError(f"in the order, {step!r} goes into no list: it is done once")
            if step == "erase" and word[0] == SEGMENT:
                raise ValueError("in the order, 'erase' is done for all or for each region, not for each segment")
        _check_lists(word[1:], *([SEGMENT] if word[0] == REGION else []))
