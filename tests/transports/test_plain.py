"""Texts from elsewhere made safe to show, and words of a command line quoted: read back by real shells."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.plain import CAUSE, WORD, plain, quoted, word
from proxyflash.transports.quoting import shell_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("front-radar 1.4.2", "front-radar 1.4.2"),
        ("\x1b[2J\x1b]0;PWNED\x07", r"\x1b[2J\x1b]0;PWNED\x07"),
        ("one\ntwo\r\nthree", r"one\ntwo\r\nthree"),
        ("a\tb\0c\x7fd\x80e\x9bf", r"a\tb\x00c\x7fd\x80e\x9bf"),
        ("\u202eabc\u202c\u2066x\u2069\u200e\u200f\u061c", r"\u202eabc\u202c\u2066x\u2069\u200e\u200f\u061c"),
        ("line\u2028paragraph\u2029next\x85", r"line\u2028paragraph\u2029next\x85"),
        ("zero\u200bwidth\u200d\ufeff\u00ad\u2060", r"zero\u200bwidth\u200d\ufeff\xad\u2060"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("no text \udcff \ud800", r"no text \udcff \ud800"),
        ("Größe Размер 大きさ حجم גודל 12\u00a0V ½ €", "Größe Размер 大きさ حجم גודל 12\u00a0V ½ €"),
        (r"C:\new\x1b", r"C:\new\x1b"),
    ],
)
def test_what_is_shown_of_a_text(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(st.text(alphabet=st.characters()))
def test_nothing_that_is_obeyed_comes_through(text: str) -> None:
    shown = plain(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert plain(shown) == shown
    assert len(shown.splitlines()) <= 1


def test_a_long_word_is_cut() -> None:
    assert word("x" * WORD) == "x" * WORD
    assert word("x" * 4000) == "x" * WORD + "…"
    assert word(1.5) == "1.5"


def test_an_error_is_one_plain_line_of_bounded_length() -> None:
    error = ProxyflashError("it says \x1b[2J\nE-FAKE all is well", remedy="Type: a\u202eb", component="x\ny")
    assert str(error) == r"x\ny: it says \x1b[2J\nE-FAKE all is well. Type: a\u202eb"
    assert error.cause == "it says \x1b[2J\nE-FAKE all is well"
    long = ProxyflashError("y" * 100_000)
    assert long.cause == "y" * CAUSE + "…"
    assert str(long) == f"{long.cause}."


@pytest.mark.parametrize("value", ["x" * 1_000_000, b"x" * 1_000_000, ["x" * 1_000_000], {"x": 10**4000}], ids=type)
def test_a_long_value_is_quoted_in_part(value: object) -> None:
    text = quoted(value)
    assert (text[:WORD], len(text)) == (repr(value)[:WORD], WORD + 1)


def test_a_short_value_is_quoted_whole() -> None:
    assert [quoted(value) for value in ("it's", b"\n", 5, None, ["a"])] == ['"it\'s"', r"b'\n'", "5", "None", "['a']"]
    assert quoted("x" * (WORD - 2)) == f"'{'x' * (WORD - 2)}'"


# Command lines.

HOSTILE = [
    "two words",
    "",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "a'b\"c\\d",
    "-rf",
    "line\nbreak; touch pwned",
    "\x1b[2J'\x07\\",
    "bell\x071",
    "\u202eabc\u2028",
    "Größe*?[a]~#!",
    "\udcff\udc80.hex",
    "'\n'",
]


@pytest.mark.parametrize("shell", ["bash", "busybox"])
def test_a_shell_reads_back_what_was_quoted(shell: str, tmp_path: Path) -> None:
    """For a person's shell. Nothing in a word is carried out, and each word stays itself."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    line = shell_line(["printf", r"%s\0", *HOSTILE])
    assert plain(line) == line
    command = [program, "sh", "-c", line] if shell == "busybox" else [program, "-c", line]
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, timeout=600, check=True)
    assert [os.fsdecode(item) for item in done.stdout.split(b"\0")[:-1]] == HOSTILE
    assert list(tmp_path.iterdir()) == []


def test_words_that_can_be_shown_are_quoted_as_posix_has_it() -> None:
    words = ["proxyflash", "--bench", "/a b/bench.toml", "it's", "$x"]
    assert shell_line(words) == shlex.join(words)


@given(st.lists(st.text(alphabet=st.characters(), max_size=20), max_size=5))
def test_a_command_line_is_always_one_plain_line(words: list[str]) -> None:
    line = shell_line(words)
    assert plain(line) == line
