"""`--report FILE`: a command also writes what happened as an HTML page, whatever it comes to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click

from ...transports.errors import ProxyflashError, known
from ...transports.quoting import shell_line
from .session import Session

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
        session.watch(shell_line(("proxyflash", *_without(session.arguments))))
        try:
            status = function(session, **values)
        except (ProxyflashError, KeyboardInterrupt) as error:
            stopped = session.stopped() if isinstance(error, KeyboardInterrupt) else session.worded(error)
            _written(session, report, stopped, fails=False)
            raise
        except Exception as error:
            _written(session, report, known(error), fails=False)
            raise
        _written(session, report, None, fails=not status)
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


def check(path: Path) -> None:
    """Whether a page can be made and written there. Raises PageFile, PageLibrary."""
    from ...report_page import page

    page.require()
    if not os.access(path.parent, os.W_OK | os.X_OK) or (path.exists() and not path.is_file()):
        raise page.PageFile(f"{path}: a file can't be written there")


def _written(session: Session, path: Path, error: ProxyflashError | None, *, fails: bool) -> None:
    """`fails`: whether it is an error of the command if the page can't be written; else its own error is."""
    from ...report_page import page

    if session.watcher is None:
        return
    session.watcher.error = error or session.watcher.error
    try:
        page.write(session.watcher.story(), path)
    except Exception as failed:
        if fails:
            raise
        session.output.fault(known(failed))
    else:
        session.output.note(f"report written to {path}")
