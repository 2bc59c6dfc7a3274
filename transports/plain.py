"""Text from elsewhere, made harmless for a terminal, a log file or a text file."""

from __future__ import annotations

import unicodedata

_HARMFUL = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
"""Categories of Unicode: control characters, format characters (bidi marks), surrogates, line separators."""


def plain(text: str) -> str:
    r"""The same text, with each character that a terminal obeys or hides as an escape: `\x1b`, `\n`, `\u202e`."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _HARMFUL
        else character
        for character in text
    )
