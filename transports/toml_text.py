"""Texts from elsewhere in a line of TOML."""

from __future__ import annotations

import json

from .plain import plain


def toml_text(text: str) -> str:
    """A text, such as a device tells it, as TOML has it: quoted, and safe to show.

    What `plain` would escape stands in TOML's own escapes; a lone surrogate, which TOML can't hold, as U+FFFD.
    """
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(
        character if plain(character) == character else _toml_escape(character)
        for character in json.dumps(whole, ensure_ascii=False)
    )


def _toml_escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
