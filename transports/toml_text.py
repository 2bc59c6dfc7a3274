"""Texts from elsewhere, and values, in a line of TOML."""

from __future__ import annotations

import json
import re
from typing import Any

from .plain import plain


class Hexadecimal(int):
    """A number that is written as 0x7E0 in TOML."""

    def __repr__(self) -> str:
        return f"0x{int(self):X}"


def toml_text(text: str) -> str:
    """A text, such as a device tells it, as TOML has it: quoted, and safe to show.

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


def _toml_escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
