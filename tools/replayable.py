"""What a recording may have run: commands that use a bench's buses, with options that write no file.

A recording comes from somebody else. So its command line is held against a list, word by word, and what is not on the
list is refused: a new command or option is refused until somebody puts it here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..transports.errors import ExitStatus, ProxyflashError
from ..transports.plain import quoted

RECORDED = frozenset(("scan", "info", "flash", "verify", "erase", "reset", "plan", "apply"))
"""Commands that a recording may name."""
TYPED = RECORDED | {"read"}
"""Commands that a person may type for a replay: `read` writes the file that is named."""
FLAGS = frozenset(
    ("--json", "--jsonl", "--quiet", "--verbose", "--yes", "--dry-run", "--verify", "--no-verify", "--boot", "--no-boot",
     "--full", "--again", "--parallel", "--one-by-one", "--abandon")
)  # fmt: skip
"""Options without a value that a recording may have."""
VALUES = frozenset(
    ("--address", "--format", "--only", "--expect-version", "--start", "--size", "--on-failure", "--wait")
)
"""Options with a value that a recording may have."""
LEFT_OUT = frozenset(("--bench", "--state", "--profile", "--report", "--trace"))
"""Options with a value that are left out: the bench is the recorded bench, the state is the replay's own, and no page is
written."""
SHORT = frozenset("qvy")
"""Options of one letter, without a value."""
VALUE_TAKERS = VALUES | LEFT_OUT | {"--log-file"}


class NotReplayable(ProxyflashError):
    """A recording names a command or an option that a replay doesn't run, or such a command was typed."""

    code = "E-REPLAY-COMMAND"
    exit_status = ExitStatus.USAGE
    default_remedy = "Type the command that is meant: proxyflash replay FILE -- COMMAND"


def allowed(arguments: Sequence[str]) -> list[str]:
    """The recorded arguments that are run: without bench file and state folder. Raises NotReplayable."""
    kept: list[str] = []
    command = ""
    words = iter(arguments)
    for word in words:
        if word == "--":
            if not command:
                # It ends the options of the program, and not those of the command behind it.
                raise NotReplayable(
                    "the recorded command line has '--' before its command, which a replay doesn't obey"
                )
            # All that follows is a name.
            kept += [word, *words]
        elif word.startswith("--"):
            option, equals, _ = word.partition("=")
            if option in FLAGS and not equals:
                kept.append(word)
            elif option in VALUES | LEFT_OUT:
                value = [] if equals else [_next(words, option)]
                kept += [word, *value] if option in VALUES else []
            else:
                raise NotReplayable(
                    f"the recorded command has the option {quoted(option)}, which a replay doesn't obey"
                )
        elif word.startswith("-") and len(word) > 1:
            if not SHORT.issuperset(word[1:]):
                raise NotReplayable(f"the recorded command has the option {quoted(word)}, which a replay doesn't obey")
            kept.append(word)
        else:
            command = command or word
            kept.append(word)
    if command not in RECORDED:
        can = ", ".join(sorted(RECORDED))
        raise NotReplayable(f"the recorded command is {quoted(command)}, and a recording may only run: {can}")
    return kept


def require_bus_command(arguments: Sequence[str]) -> None:
    """Raises NotReplayable for a typed command that doesn't use a bench's buses."""
    words = iter(arguments)
    for word in words:
        if word in VALUE_TAKERS:
            next(words, None)
        elif not re.match("-.", word):
            if word not in TYPED:
                can = ", ".join(sorted(TYPED))
                raise NotReplayable(f"{quoted(word)} does not use the buses of a bench; these do: {can}")
            return


def _next(words: Iterator[str], option: str) -> str:
    value = next(words, None)
    if value is None:
        raise NotReplayable(f"the recorded command ends with the option {quoted(option)}, which wants a value")
    return value
