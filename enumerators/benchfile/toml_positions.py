"""On which line of a TOML document each key stands (TOML 1.0.0), for messages; tomllib doesn't tell.

The document has been parsed by tomllib before, so that errors of TOML itself need not be reported here.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from contextlib import suppress

Place = tuple[str | int, ...]
"""Keys, and indices of arrays, from the document's top."""

_GAP = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY = re.compile(r"[ \t]*([A-Za-z0-9_-]+|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*')[ \t]*")
_TEXT = re.compile(r"\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'", re.DOTALL)
_PLAIN = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> Mapping[Place, int]:
    """The line, counted from 1, of each table, key and array element. Nesting that is too deep is left out."""
    scanner = _Scanner(text)
    with suppress(RecursionError):
        scanner.document()
    return scanner.lines


def nearest(lines: Mapping[Place, int], place: Sequence[str | int]) -> int:
    """The line of a key, or of the nearest table around it; 0 if there is none.

    A table that the document doesn't spell out, as [a] beside [a.b], begins with what is first in it.
    """
    for end in range(len(place), 0, -1):
        start = tuple(place[:end])
        line = lines.get(start) or min((line for key, line in lines.items() if key[:end] == start), default=0)
        if line:
            return line
    return 0


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._breaks = [found.start() for found in re.finditer("\n", text)]
        self._last: dict[Place, int] = {}
        """Index of the newest element of each array of tables."""
        self.lines: dict[Place, int] = {}

    def document(self) -> None:
        table: Place = ()
        while self._skip_gap() < len(self._text):
            line = self._line()
            if self._taken("[["):
                table = self._element(self._keys())
                self._taken("]]")
            elif self._taken("["):
                table = self._resolved(self._keys())
                self._taken("]")
            else:
                self._pair(table)
                continue
            self.lines.setdefault(table, line)

    def _pair(self, table: Place) -> None:
        line = self._line()
        place = table + self._keys()
        self.lines.setdefault(place, line)
        self._taken("=")
        self._value(place)

    def _value(self, place: Place) -> None:
        self._skip_gap()
        if self._taken("["):
            index = 0
            while self._skip_gap() < len(self._text) and not self._taken("]"):
                before = self._at
                self.lines.setdefault((*place, index), self._line())
                self._value((*place, index))
                self._skip_gap()
                self._taken(",")
                index += 1
                self._must_follow(before)
        elif self._taken("{"):
            while self._skip_gap() < len(self._text) and not self._taken("}"):
                before = self._at
                self._pair(place)
                self._skip_gap()
                self._taken(",")
                self._must_follow(before)
        else:
            found = _TEXT.match(self._text, self._at) or _PLAIN.match(self._text, self._at)
            self._at = found.end() if found else len(self._text)

    def _must_follow(self, before: int) -> None:
        """Ends it where nothing was taken since: what is there is no TOML."""
        if self._at == before:
            self._at = len(self._text)

    def _keys(self) -> Place:
        """A dotted key."""
        keys: list[str] = []
        while True:
            found = _KEY.match(self._text, self._at)
            if found is None:
                # Only messages depend on this: what it can't follow ends it.
                self._at = len(self._text)
                return tuple(keys)
            self._at = found.end()
            word = found[1]
            keys.append(tomllib.loads(f"key = {word}")["key"] if word[0] in "\"'" else word)
            if not self._taken("."):
                return tuple(keys)

    def _element(self, keys: Place) -> Place:
        array = (*self._resolved(keys[:-1]), *keys[-1:])
        self._last[array] = self._last.get(array, -1) + 1
        return (*array, self._last[array])

    def _resolved(self, keys: Place) -> Place:
        """A header's keys, with the index of the element that they go into."""
        place: Place = ()
        for key in keys:
            place = (*place, key)
            if place in self._last:
                place = (*place, self._last[place])
        return place

    def _taken(self, mark: str) -> bool:
        found = self._text.startswith(mark, self._at)
        self._at += len(mark) if found else 0
        return found

    def _skip_gap(self) -> int:
        found = _GAP.match(self._text, self._at)
        self._at = found.end() if found else self._at
        return self._at

    def _line(self) -> int:
        return bisect_right(self._breaks, self._at - 1) + 1
