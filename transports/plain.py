"""Text from elsewhere, made safe to show: what a part, a manifest or a file name says is shown, never obeyed.

A terminal obeys escape sequences, a log file's reader believes each new line, and a bidirectional mark reorders what a
person reads. Every text that goes to a terminal, a log file, a report or a test result passes `plain` on its way, which
turns each such character into its visible escape: `\\x1b`, `\\n`, `\\u202e`. Ordinary letters of every script stay.

The rule: who writes a text of several lines gives the lines one by one, and a value in a line never makes a new one.
JSON documents need none of this, for JSON has escapes of its own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

WORD = 200
"""The most characters that are shown of one value that a part or a manifest gives: a version, a name, a description."""
CAUSE = 2000
"""The most characters that are shown of an error's cause, which may quote several of them."""


def plain(text: str, most: int | None = None) -> str:
    """The text on one line, with nothing in it that a terminal or a reader of lines would obey.

    Escaped are control characters (C0, DEL, C1), new lines of every kind, format characters (bidirectional marks,
    zero-width characters), lone surrogates, and code points without a character. Twice is the same as once. A text of
    more than `most` characters ends with an ellipsis there.
    """
    if most is not None and len(text) > most:
        text = f"{text[:most]}…"
    if text.isprintable():
        return text
    return "".join(character if _is_harmless(character) else _escaped(character) for character in text)


def word(value: object) -> str:
    """One value from elsewhere, for a person: plain, and of at most `WORD` characters."""
    return plain(str(value), WORD)


def quoted(value: object) -> str:
    """A value of a file as Python writes it, for an error's cause: of at most `WORD` characters, so that the rest is seen."""
    if isinstance(value, (str, bytes)):
        value = value[: WORD + 1]
    text = repr(value)
    return text if len(text) <= WORD else f"{text[:WORD]}…"


def counted(number: int, one: str, many: str = "") -> str:
    """A number of things: "1 bus", "1,024 buses". `many`: where it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def meant(name: str, known: Iterable[str]) -> str:
    """Goes on behind a name that there isn't: " (did you mean 'emulated'?)"; "": none of those that there are is alike."""
    from difflib import get_close_matches

    names = [one[:WORD] for one in known]
    lower = {one.lower(): one for one in reversed(names)}
    near = lower.get(name.lower()) or next(iter(get_close_matches(name[:WORD], names, n=1)), "")
    return f" (did you mean {quoted(near)}?)" if near and near != name else ""


def _is_harmless(character: str) -> bool:
    """Spaces other than " " don't count as printable, and belong to ordinary texts."""
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
