"""`help`: the pages of the documentation, which are installed with the program."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

import click

from .session import Session, command

PAGES = Path(__file__).parents[2] / "docs"


def topics() -> dict[str, str]:
    """The title of each page, by its topic."""
    return {page.stem: _title(page) for page in sorted(PAGES.glob("*.md"))}


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as lines:
        return next(lines).lstrip("# ").rstrip()


def _complete(context: click.Context, parameter: click.Parameter, start: str) -> list[str]:
    return [topic for topic in topics() if topic.startswith(start)]


@command("help")
@click.argument("topic", required=False, shell_complete=_complete)
def help(session: Session, topic: str | None) -> int | None:
    """Prints a page of the documentation; without TOPIC the list of pages.

    Messages name pages so.

    \b
    proxyflash help
    proxyflash help bench-file
    """
    known = topics()
    if topic is None:
        session.output.document({"topics": known})
        width = max(map(len, known), default=0)
        session.output.lines(f"{name:<{width}}  {title}" for name, title in known.items())
        return None
    name = topic.removeprefix("docs/").removesuffix(".md")
    if name not in known:
        near = get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]!r}?" if near else ""
        raise click.UsageError(f"There is no page {topic!r}.{meant} There are: {', '.join(known)}")
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    session.output.document({"topic": name, "text": text})
    session.output.lines(text.rstrip("\n").split("\n"))
    return None
