"""JSON that others wrote: the one reader for manifests, keys, journals, results of programs, and the like (RFC 8259).

The size is compared before anything is parsed. Reading takes time and memory in proportion to the text. Refused as well:
a field that is given twice, nesting that no document of this project has, numbers that JSON doesn't have, and texts with
half a surrogate pair, which no file, terminal or program takes.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

from .plain import quoted

DEEPEST = 64
"""Levels of nesting."""


def parse(text: str | bytes, *, most: int, undecoded: bool = False) -> Any:
    """The value of a JSON text. Raises ValueError with a reason.

    Args:
        text: The document.
        most: How many characters, or bytes, the text may have.
        undecoded: Whether halves of surrogate pairs are taken: Python's form of file names that are not UTF-8, which
            this program has written itself.
    """
    if len(text) > most:
        raise ValueError(f"more than {most:,} {'bytes' if isinstance(text, bytes) else 'characters'}")
    if isinstance(text, bytes):
        try:
            # Some editors put a byte order mark before UTF-8.
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start}") from None
    try:
        value = json.loads(text, object_pairs_hook=_each_once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    _check(value, undecoded)
    return value


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the field {quoted(name)} is given twice")
            seen.add(name)
    return found


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _check(value: Any, undecoded: bool) -> None:
    """Level by level, so that depth costs no stack."""
    level = [value]
    for depth in range(DEEPEST + 1):
        if depth == DEEPEST and any(isinstance(item, dict | list) for item in level):
            raise ValueError("nested too deeply")
        texts = [item for item in level if isinstance(item, str)]
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                texts += item
                inner += item.values()
            elif isinstance(item, list):
                inner += item
        try:
            "".join(texts).encode(errors="surrogatepass" if undecoded else "strict")
        except UnicodeEncodeError:
            raise ValueError("a text with half a surrogate pair") from None
        if not inner:
            return
        level = inner
