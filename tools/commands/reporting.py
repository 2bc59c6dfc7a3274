"""Pages that a command writes beside its work, whatever the result: `--report FILE`, and `--html FILE` of a replay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...transports.errors import ProxyflashError, known
from ...transports.outside import without_passwords
from ...transports.quoting import shell_line
from .outputs import why_not
from .session import Session

if TYPE_CHECKING:
    from ...report_page.story import Story

REPORT = click.option(
    "--report",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write what happened as an HTML page.",
)


def reports(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Adds `--report` to a command that works on parts. The file is checked before anything is done."""

    def call(session: Session, *, report: Path | None, **values: Any) -> int | None:
        if report is None:
            return function(session, **values)
        check(report)
        session.watch(title_of(list(_without(session.arguments))))
        try:
            status = function(session, **values)
        except (ProxyflashError, KeyboardInterrupt) as error:
            stopped = session.stopped() if isinstance(error, KeyboardInterrupt) else session.worded(error)
            write(session, report, session.arguments, stopped, fails=False)
            raise
        except Exception as error:
            write(session, report, session.arguments, known(error), fails=False)
            raise
        write(session, report, session.arguments, None, fails=not status)
        return status

    wrapped: Callable[..., int | None] = REPORT(update_wrapper(call, function))
    return wrapped


def _without(arguments: Sequence[str]) -> Iterator[str]:
    """The command line without the option itself."""
    words = iter(arguments)
    for word in words:
        if word == "--report":
            next(words, "")
        elif not word.startswith("--report="):
            yield word


def title_of(arguments: Iterable[str]) -> str:
    """A command line for a page: without passwords, and without the settings of targets, which may be secret."""
    from ...enumerators.target import is_target_or_file, without_settings

    words = (without_settings(word) if is_target_or_file(word) else word for word in arguments)
    return without_passwords(shell_line(("proxyflash", *words)))


def check(path: Path) -> None:
    """Whether a page can be written there. Raises PageFile."""
    from ...report_page import page

    if why := why_not(path):
        raise page.PageFile(f"{path}: {why}")
    page.check_place(path)


def write(
    session: Session, path: Path, arguments: Sequence[str], error: ProxyflashError | None, *, fails: bool
) -> None:
    """The page of what the session's watcher has seen. `arguments`: the command's; `error`: what it came to, if it failed.

    `fails`: whether it is an error of the command if the page can't be written; else its own error is.
    """
    if session.watcher is None:
        return
    session.watcher.error = error or session.watcher.error
    from ...report_page.page import PageFile

    try:
        _write(session.watcher.story(), path, arguments)
    except PageFile as lost:
        session.output.miss(f"the page can't be written: {lost.cause}")
    except Exception as failed:
        if fails:
            raise
        session.output.fault(known(failed))
    else:
        session.output.note(f"page written to {path}")


def _write(story: Story, path: Path, arguments: Sequence[str]) -> None:
    from ...enumerators.target import is_target_or_file, without_settings
    from ...report_page import page

    # What goes on with the work is a command line with the target as it was typed.
    targets = [word for word in arguments if "?" in word and is_target_or_file(word)]
    hidden = {form: without_settings(word) for word in targets for form in (shell_line([word]), word)}
    page.write(replace(story, error=without_passwords(story.error)), path, hidden)
