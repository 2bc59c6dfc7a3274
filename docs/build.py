"""Builds the documentation site into build/docs: the pages of this folder, and reference pages that are written from the code.

`python -m proxyflash.docs.build`. Warnings are errors. Nothing online is needed.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from proxyflash.docs import fixtures_table
from proxyflash.tools.commands import cli

DOCS = Path(__file__).parent
ROOT = DOCS.parent
BUILD = ROOT / "build" / "docs"
FROM_ELSEWHERE = {
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "security.md": ROOT / "SECURITY.md",
    "changelog.md": ROOT / "CHANGELOG.md",
    "vacuum.md": ROOT / "examples" / "vacuum" / "README.md",
}
"""Pages of the site that lie outside of docs/."""
PYTHON = {
    "Benches and components": (
        "enumerators.bench.Bench", "enumerators.bench_component.BenchComponent", "enumerators.target.Target",
        "enumerators.component.Presence",
    ),
    "Flashing": (
        "flashers.events.RunContext", "flashers.image.FirmwareImage", "flashers.programmer.Programmer",
        "flashers.flasher.Bootloader", "flashers.memory.MemoryMap", "flashers.memory.Region",
    ),
    "Buses": (
        "transports.deadline.Deadline", "transports.can.bus.CanBus", "transports.serial.port.SerialPort",
        "transports.udp.UdpSocket", "transports.usb.bus.UsbBus",
    ),
    "Errors": ("transports.errors.ProxyflashError",),
}  # fmt: skip
"""What the page on the Python API shows."""


def gather(source: Path) -> None:
    """Writes all pages of the site into a folder."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    pages = {page.name: page for page in sorted(DOCS.glob("*.md"))} | FROM_ELSEWHERE
    shutil.copytree(DOCS / "pictures", source / "pictures")
    pictures = {f"pictures/{picture.name}": picture for picture in (DOCS / "pictures").iterdir()}
    names = {path.resolve(): name for name, path in (pages | pictures).items()}
    for name, path in pages.items():
        text = path.read_text(encoding="utf-8")
        (source / name).write_text(_linked(text, path, names), encoding="utf-8")
    for name, text in (("commands.md", commands()), ("fixtures.md", fixtures()), ("python.md", python())):
        (source / name).write_text(text, encoding="utf-8")
    index = source / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + "".join(_contents(source)), encoding="utf-8")


def _linked(text: str, path: Path, names: dict[Path, str]) -> str:
    """A page with its links to other pages as the site has them; of links to what isn't on the site the text is left."""

    def link(found: re.Match[str]) -> str:
        words, where = found.groups()
        target, _, anchor = where.partition("#")
        if not target or re.match(r"[a-z]+:", where):
            return found[0]
        name = names.get((path.parent / target).resolve())
        return f"[{words}]({name}{'#' if anchor else ''}{anchor})" if name else words

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def _contents(source: Path) -> Iterator[str]:
    """The contents of the site: each heading of the index with the pages that it links, then all other pages."""
    rest = sorted(page.name for page in source.glob("*.md") if page.name != "index.md")
    text = (source / "index.md").read_text(encoding="utf-8")
    generated = {"Reference": ["commands.md", "fixtures.md", "python.md"]}
    for title, body in re.findall(r"^## (.+)\n((?:(?!^## ).*\n?)*)", text, re.MULTILINE):
        named = [name for name in re.findall(r"\]\(([a-z-]+\.md)\)", body) if name in rest] + generated.get(title, [])
        rest = [name for name in rest if name not in named]
        yield _tree(title, named)
    yield _tree("More", rest)


def _tree(title: str, pages: list[str]) -> str:
    return "\n".join(["", "```{toctree}", ":hidden:", f":caption: {title}", "", *pages, "```", ""])


def commands() -> str:
    """The reference of the command line."""
    context = click.Context(cli, info_name="proxyflash")
    more = "The options of `proxyflash` itself may also stand behind a command's name."
    return f"# Commands\n\n{more}\n\n" + "\n".join(_command(cli, context))


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## `{context.command_path}`\n"
    yield f"    {context.command_path} {usage}\n"
    yield "\n\n".join(_paragraphs(command.help or "")) + "\n"
    rows = [
        row for row in _options(command, context) if not context.parent or row not in _options(cli, context.find_root())
    ]
    if rows:
        yield "| argument or option | meaning |\n|---|---|"
        yield from (f"| `{_cell(option)}` | {_cell(text)} |" for option, text in rows)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _command(inner, click.Context(inner, info_name=name, parent=context))


def _options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """What `--help` lists: each option and each argument that has a help text."""
    found = (parameter.get_help_record(context) for parameter in command.get_params(context))
    return [row for row in found if row and row[0] != "--help" and row[1]]


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;")


def _paragraphs(text: str) -> Iterator[str]:
    """A command's help in Markdown; what click leaves as it is becomes an example."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield "\n".join(f"    {line}" for line in paragraph.lstrip("\b\n").split("\n"))
        else:
            yield paragraph.replace("<", r"\<")


def fixtures() -> str:
    """The reference of the fixtures."""
    lines = ["# Fixtures", "", "Fixtures of the pytest plugin. [Bench tests](bench-tests.md) explains them.", ""]
    for name, fixture in fixtures_table.fixtures().items():
        lines += [f"## `{name}`", "", fixture.meaning, "", "```python", fixture.example, "```", ""]
    return "\n".join(lines)


def python() -> str:
    """The reference of the Python API, for autodoc."""
    lines = [
        "# Python",
        "",
        "The classes that tests and programs use. Modules are those of the package `proxyflash`.",
        "",
    ]
    for title, classes in PYTHON.items():
        lines += [f"## {title}", "", "```{eval-rst}"]
        lines += [f".. autoclass:: proxyflash.{name}" for name in classes]
        lines += ["```", ""]
    return "\n".join(lines)


def main() -> int:
    """Sphinx's exit status."""
    # `make docs` installs it; the pages are gathered, and tested, without.
    from sphinx.cmd.build import main as sphinx

    gather(BUILD / "source")
    options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(DOCS), "-d", str(BUILD / "doctrees")]
    status: int = sphinx([*options, str(BUILD / "source"), str(BUILD / "html")])
    return status


if __name__ == "__main__":
    sys.exit(main())
