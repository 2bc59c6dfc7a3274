"""Texts from elsewhere, and values, in a line of TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .plain import plain


class Hexadecimal(int):
    """A number that is written as 0x7E0 in TOML."""

    def __repr__(self) -> str:
        return f"0x{int(self):X}"


def toml_text(text: str) -> str:
    """A text, such as a device sends it, as TOML has it: quoted, and safe to show.

    What `plain` would escape stands in TOML's own escapes; a lone surrogate, which TOML can't hold, as U+FFFD.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(
        character if plain(character) == character else _toml_escape(character)
        for character in json.dumps(whole, ensure_ascii=False)
    )


def toml_value(value: Any) -> str:
    """A value of the bench file, in one line of TOML."""
    match value:
        case dict():
            return "{" + ", ".join(f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml_value, value)) + "]"
        case bool():
            return str(value).lower()
    return toml_text(value) if isinstance(value, str) else repr(value)


def toml_key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else toml_text(text)


def toml_lines(
    table: Mapping[str, Any], place: tuple[str, ...] = (), *, longest: int = 0, depth: int = 0
) -> Iterator[str]:
    """The lines of a file or table: first its values, then its tables, each after an empty line and under a heading.

    Args:
        place: The keys that lead to the table.
        longest: Characters of the line that a table of a component, of a bus or below these may be instead.
        depth: Levels of tables above this table; an array of tables counts as two.
    """
    headed = {}
    for key, item in table.items():
        line = f"{toml_key(key)} = {toml_value(item)}"
        if _tables(item) and (depth < 2 or len(line) > longest):
            headed[key] = item
        else:
            yield line
    for key, item in headed.items():
        name, is_array = ".".join(map(toml_key, (*place, key))), isinstance(item, list)
        for one in _tables(item):
            # A table of the file that has nothing but tables, such as `bus`, needs no heading.
            if depth or is_array or not one or not all(map(_tables, one.values())):
                yield from ("", f"[[{name}]]" if is_array else f"[{name}]")
            yield from toml_lines(one, (*place, key), longest=longest, depth=depth + (2 if is_array else 1))


def _tables(value: Any) -> list[Mapping[str, Any]]:
    """The tables that a value is: one, or an array of them; else none."""
    if isinstance(value, list):
        return value if all(isinstance(item, dict) for item in value) else []
    return [value] if isinstance(value, dict) else []


def _toml_escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
