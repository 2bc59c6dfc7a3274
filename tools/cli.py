"""The command line's entry: answers `--help` at once, and imports a command only when it is called."""

from __future__ import annotations

import os
import signal
import sys

from .help_text import COLUMNS, HELP, narrowed


def _columns() -> int:
    """Of the terminal; as many as the help needs where there is none."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or COLUMNS
    except (OSError, ValueError):
        return COLUMNS


def main() -> None:
    """The console script."""
    if sys.argv[1:] in ([], ["--help"], ["-h"]) and "_PROXYFLASH_COMPLETE" not in os.environ:
        if sys.stdout is not None:
            sys.stdout.write(HELP if _columns() >= COLUMNS else narrowed(_columns()))
        return
    # pydantic would look through every installed package for plugins, and this program checks nothing that they are for.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    try:
        # Python's own way for Ctrl-C: until the command's session takes over, nothing is there that has to be put back.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        from .commands import run

        status = run(sys.argv[1:], ends_process=True)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            # So early nobody has looked whether there is one.
            goes_on = not {"resume", "rollback"}.isdisjoint(sys.argv)
            waits = " by this command; an unfinished update stays unfinished" if goes_on else ""
            sys.stderr.write(f"E-CANCELLED stopped at once; nothing was changed{waits}.\n")
        status = 130
    sys.exit(status)
