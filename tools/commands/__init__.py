"""The commands, one module for each family; `run` is the command line without its fast path."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

import click

from ...transports.errors import ExitStatus, ProxyflashError, Unexpected
from ..help_text import HELP
from ..output import Mode, Output
from .session import Group, Opener, Session, global_options

if TYPE_CHECKING:
    from ...report_page.collecting import Collector

MODULES = {
    "scan": "components",
    "info": "components",
    "flash": "programming",
    "verify": "programming",
    "read": "programming",
    "erase": "programming",
    "reset": "programming",
    "image": "image",
    "plan": "updates",
    "apply": "updates",
    "resume": "updates",
    "rollback": "updates",
    "history": "updates",
    "report": "updates",
    "manifest": "manifests",
    "service": "service",
    "adu": "adu",
    "bench": "benches",
    "demo": "demo",
    "emulate": "emulate",
    "monitor": "monitor",
    "record": "recordings",
    "replay": "recordings",
    "vm": "vm",
    "doctor": "doctor",
    "plugins": "plugins",
    "help": "help",
}
"""Which module has which command."""


class LazyGroup(Group):
    """Imports the module of a command when that command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(MODULES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in MODULES:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{MODULES[name]}"), name)
        return command

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(HELP)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="proxyflash", prog_name="proxyflash")
@global_options
def cli() -> None:
    """Updates the firmware of sensors behind this host."""


class WrongUsage(ProxyflashError):
    """A command, option or argument that the command line doesn't have. The code is shown with `--json` and `--jsonl`
    only."""

    code = "E-USAGE"
    exit_status = ExitStatus.USAGE
    default_remedy = "See: proxyflash --help"


def run(
    arguments: Sequence[str],
    output: Output | None = None,
    *,
    ends_process: bool = False,
    opener: Opener | None = None,
    watcher: Collector | None = None,
) -> int:
    """Runs one command; its exit status. `output`: that of the command which runs this one; None: one of its own.

    `opener`, `watcher`: see Session.
    """
    session = Session(
        tuple(arguments), output or Output(), owns_output=output is None, ends_process=ends_process, opener=opener,
        watcher=watcher,
    )  # fmt: skip
    if "_PROXYFLASH_COMPLETE" in os.environ:
        from ..completion import register

        register()
    for stream in (sys.stdout, sys.stderr):
        # Characters that a terminal can't show, and file names that are not text, must not end the program.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _carried_out(session)
    finally:
        if session.owns_output:
            session.output.close()
    lost = session.output.lost
    if lost is None or not session.owns_output:
        return status
    if lost.silent:
        return status
    # To stderr in every mode: the stream or file that would carry it elsewhere was lost.
    session.output.alarm(f"{lost.code} {lost.advised(lost.of_failure) if status else lost}")
    return status or lost.exit_status


def _carried_out(session: Session) -> int:
    arguments = session.arguments
    try:
        interrupted = False
        session.catch_interrupts()
        try:
            status = cli.main(args=list(arguments), prog_name="proxyflash", obj=session, standalone_mode=False)
        except (click.Abort, KeyboardInterrupt):
            interrupted = True
            raise
        finally:
            session.close(interrupted=interrupted)
        return status if isinstance(status, int) else ExitStatus.DONE
    except ProxyflashError as error:
        return _failed(session.output, session.worded(error), error)
    except click.UsageError as error:
        return _wrong_usage(session.output, arguments, error)
    except (click.Abort, KeyboardInterrupt):
        # click makes an Abort of a KeyboardInterrupt.
        return _failed(session.output, session.stopped())
    except Exception as error:
        return _failed(session.output, Unexpected.of(error), error)


def _failed(output: Output, error: ProxyflashError, origin: BaseException | None = None) -> int:
    if output.verbosity >= 2:
        output.traceback(origin or error)
    output.error(error)
    return error.exit_status


def _wrong_usage(output: Output, arguments: Sequence[str], error: click.UsageError) -> int:
    # Options behind the wrong option were not looked at.
    for option, mode in (("--json", Mode.JSON), ("--jsonl", Mode.JSONL)):
        if option in arguments:
            output.mode = mode
    if output.mode is Mode.TEXT:
        output.usage(_usage(error))
        return ExitStatus.USAGE
    path = error.ctx.command_path if error.ctx else "proxyflash"
    return _failed(output, WrongUsage(error.format_message().rstrip("."), remedy=f"See: {path} --help"))


def _usage(error: click.UsageError) -> list[str]:
    """What click says of a wrong call, as its lines: the words of the call make none."""
    lines = []
    if error.ctx is not None:
        lines += [*error.ctx.get_usage().split("\n"), f"Try '{error.ctx.command_path} --help' for help.", ""]
    return [*lines, f"Error: {error.format_message()}"]
