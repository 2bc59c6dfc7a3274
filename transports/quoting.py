"""Words put into a shell's command line, so that it can be pasted: nothing in a word is obeyed, and each stays itself."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable

from .plain import plain


def shell_line(words: Iterable[str | os.PathLike[str]]) -> str:
    """A command line on one line, for a message or an error's remedy.

    A word with characters that a message can't hold (new lines, control characters, bytes that are no UTF-8) is written
    as $'...', which bash, zsh and busybox read; every other word is quoted as POSIX has it.
    """
    return " ".join(_quoted(os.fspath(word)) for word in words)


def _quoted(text: str) -> str:
    if plain(text) == text:
        return shlex.quote(text)
    return "$'" + "".join(map(_ansi, text)) + "'"


def _ansi(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if plain(character) == character:
        return character
    # Three octal digits are always taken as one byte, whatever follows.
    # A file name's byte that is not UTF-8 stands as U+DC80 to U+DCFF (PEP 383).
    form = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", form))


def systemd_word(text: str | os.PathLike[str], *, argument: bool = False) -> str:
    """One word of a setting of systemd that takes words (systemd.syntax(7)), with no specifier in it.

    `argument`: of a command line, after its program, where systemd also puts in variables (systemd.service(5)).
    """
    quoted = ""
    for character in os.fspath(text):
        if character in '\\"':
            quoted += f"\\{character}"
        elif character == "%" or (character == "$" and argument):
            quoted += character * 2
        elif plain(character) == character:
            quoted += character
        else:
            form = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
            quoted += "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", form))
    return f'"{quoted}"'
