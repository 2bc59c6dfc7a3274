"""The commands, one module for each family; `run` is the command line without its fast path."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

import click

from ...transports.errors import ExitStatus, ProxyflashError
from ..cli import HELP
from ..output import Output
from .session import Session, global_options

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
    "bench": "benches",
    "demo": "demo",
    "emulate": "emulate",
    "doctor": "doctor",
    "plugins": "plugins",
}
"""Which module has which command."""


class LazyGroup(click.Group):
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


def run(arguments: Sequence[str]) -> int:
    """Runs one command; its exit status."""
    session = Session(arguments=tuple(arguments))
    try:
        status = cli.main(args=list(arguments), prog_name="proxyflash", obj=session, standalone_mode=False)
        return status if isinstance(status, int) else ExitStatus.DONE
    except ProxyflashError as error:
        return _failed(session.output, error)
    except click.UsageError as error:
        error.show()
        return ExitStatus.USAGE
    except click.Abort:
        print("proxyflash: stopped", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    except KeyboardInterrupt:
        return session.interrupted_hard()
    except BrokenPipeError:
        sys.stdout = None
        return ExitStatus.FAILED
    finally:
        session.close()


def _failed(output: Output, error: ProxyflashError) -> int:
    if output.verbosity >= 2:
        import traceback

        traceback.print_exception(error)
    output.error(error)
    return error.exit_status
