"""Documents, help texts, messages, docstrings and comments use words of the field, for readers of any first language."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from proxyflash.tools.commands import cli
from proxyflash.tools.help_text import HELP

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/*/README.md"),
    ]
)
INSTEAD = {
    r"(?<!there )is no (?!longer\b)": "is not a",
    r"told|tells": "report, show, give",
    r"heed\w*|unheeded": "ignore, obey",
    "anew|once more": "again",
    "amid": "between, during",
    "lacks": "has no",
    "one that": "name the thing",
    "what has|is what": "name the thing",
    "comes to": "name the result",
    "by itself|for want of|so many": "say what happens",
    "boot loaders?": "bootloader",
}
"""Words that nobody has to read twice are better than these."""
ALLOWED = {"Boot Loader Support", "Boot Loader Lock Bits"}
"""Titles of chapters in AVR data sheets."""
SOURCES = [
    path
    for folder in (
        "benchmarks", "docs", "emulators", "enumerators", "examples", "flashers", "hil_tests", "report_page", "testing",
        "tests", "tools", "transports", "updates",
    )
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]  # fmt: skip
"""All modules but this one, which names the words."""
DATA = {
    "tests/enumerators/test_bench.py": 'manufacturer = "Told',
    "tests/report_page/test_collecting.py": "FAILED  is what the part says",
    "tests/updates/test_simulator.py": "as told",
    "tests/updates/test_swupdate.py": '"resultDetails": "told"',
}
"""Texts that tests give to the product, by module."""
BANNED = re.compile("|".join(rf"\b(?:{words})\b" if words[0] != "(" else rf"{words}" for words in INSTEAD))


def prose(page: str) -> str:
    """A page without its code, with the same lines."""
    code = re.compile(r"^(```|~~~).*?^\1|^ {4}[^\n]*$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
    return code.sub(lambda found: "\n" * found[0].count("\n"), page)


def found_in(text: str) -> list[str]:
    """Each line with a word that is not to be used."""
    return [
        f"{number}: {line.strip()}" for number, line in enumerate(text.split("\n"), 1) if BANNED.search(line.lower())
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_plain_words(page: Path) -> None:
    assert found_in(prose(page.read_text(encoding="utf-8"))) == [], INSTEAD


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """What a command and those in it say to --help."""
    context = click.Context(command)
    yield name, command.help or ""
    for parameter in command.get_params(context):
        yield f"{name} {parameter.name}", (parameter.get_help_record(context) or ("", ""))[1]
    if isinstance(command, click.Group):
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from helps(found, f"{name} {inner}")


def test_the_help_texts_have_plain_words() -> None:
    texts = {**dict(helps(cli, "proxyflash")), "proxyflash --help": HELP}
    assert len(texts) > 50
    assert {name: found for name, text in texts.items() if (found := found_in(text))} == {}, INSTEAD


def said_in(source: str) -> Iterator[tuple[int, str]]:
    """The comments of a module and its texts of more than one word, each line with its number."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield from enumerate(node.value.split("\n"), node.lineno)


def test_the_modules_have_plain_words() -> None:
    assert len(SOURCES) > 700
    found: list[str] = []
    for path in SOURCES:
        source = re.sub("|".join(ALLOWED), "", path.read_text(encoding="utf-8"))
        source = source.replace(DATA.get(str(path.relative_to(ROOT)), "\0"), "")
        if BANNED.search(source.lower()):  # Only such a module is worth its parsing.
            found += [
                f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
                for number, line in said_in(source)
                if found_in(re.sub(r"`[^`\n]*`", "", line))
            ]
    assert found == [], INSTEAD


@pytest.mark.parametrize("module", DATA)
def test_a_text_that_is_data_is_still_in_its_module(module: str) -> None:
    assert DATA[module] in (ROOT / module).read_text(encoding="utf-8")


def test_such_a_word_is_seen_in_a_module() -> None:
    source = '"""One that waits."""\n\nKEY = "told"  # It is no name.\nprint(f"{KEY} tells {lacks(KEY)}")\n'
    assert [number for number, line in said_in(source) if found_in(line)] == [3, 1, 4]


def texts_of(source: str) -> Iterator[str]:
    """Each text in a module's code; not its docstrings."""
    tree = ast.parse(source)
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documented:
            yield node.value


def test_messages_have_one_word_for_a_bootloader() -> None:
    folders = ("enumerators", "flashers", "report_page", "tools", "transports", "updates")
    found = {
        f"{path.relative_to(ROOT)}: {text}"
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        for text in texts_of(path.read_text(encoding="utf-8"))
        if "boot loader" in text.lower()
    }
    assert found == set()


def test_such_a_word_is_seen() -> None:
    assert found_in(prose("A file\nthat is no image\n\n    it is no image\n\n`tells` is a key; there is no other")) == [
        "2: that is no image"
    ]
