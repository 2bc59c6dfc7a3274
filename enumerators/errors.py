"""Every failure of the bench file and of finding components.

| class | code | exit | raised when |
|---|---|---|---|
| `BenchMissing`       | E-BENCH-MISSING   | 12 | there is no bench file, or it can't be read |
| `BenchSyntax`        | E-BENCH-SYNTAX    | 12 | it is not TOML |
| `BenchKey`           | E-BENCH-KEY       | 12 | a key is unknown, missing, or its value does not hold |
| `BenchName`          | E-BENCH-NAME      | 12 | two components share a name, or a name refers to nothing |
| `BenchLocked`        | E-BENCH-LOCKED    | 6  | another process works on this bench |
| `ComponentUnknown`   | E-COMPONENT       | 4  | the bench file has no component of this name |
| `TargetWrong`        | E-TARGET-WRONG    | 2  | a target on the command line is wrong |
| `SelectorWrong`      | E-SELECTOR        | 2  | a selector is not a JSON object of strings |
| `PowerFailed`        | E-POWER           | 1  | a command that cuts or restores the supply failed |
"""

from __future__ import annotations

from ..transports.errors import ExitStatus, NextAction, ProxyflashError
from ..transports.errors import StateFolder as StateFolder
from ..transports.errors import StateUnsafe as StateUnsafe


class BenchError(ProxyflashError):
    """Something is wrong with the bench file. `cause` names the file, and the line and key in it."""

    code = "E-BENCH"
    exit_status = ExitStatus.BAD_FILE


class BenchMissing(BenchError):
    """There is no bench file, or it can't be read."""

    code = "E-BENCH-MISSING"
    default_remedy = "Write one from what is attached: proxyflash bench init"


class BenchSyntax(BenchError):
    """The bench file is not TOML, or not UTF-8. The message has the line and the column."""

    code = "E-BENCH-SYNTAX"
    default_remedy = "Correct that line; the bench file is TOML. Examples: proxyflash help bench-file"


class BenchKey(BenchError):
    """A key is unknown or missing, or its value is wrong. The message has the line and the key."""

    code = "E-BENCH-KEY"
    default_remedy = "The keys: proxyflash help bench-file"


class BenchName(BenchError):
    """Two components share a name, or a name refers to a bus, profile or component that the file doesn't have."""

    code = "E-BENCH-NAME"
    default_remedy = "Correct the name in the bench file, or add the table that it names."


class BenchLocked(ProxyflashError):
    """Another process works on this bench. The message names the process, and the time since when."""

    code = "E-BENCH-LOCKED"
    exit_status = ExitStatus.BUSY
    default_remedy = "Wait until it is done, which most commands do by --wait SECONDS, or stop it."


class OneReader(ProxyflashError):
    """`monitor` can't hear this bus: a serial line or USB has one reader, and an emulated bus belongs to one process."""

    code = "E-MONITOR"
    exit_status = ExitStatus.USAGE
    default_remedy = (
        "Record the command that uses it, and print the recording: proxyflash record FILE -- COMMAND, "
        "then proxyflash replay FILE --print"
    )


class NotSilent(ProxyflashError):
    """`monitor --listen-only`: this adapter or interface acknowledges the frames of others, or it isn't known that it does not.
    Nothing is opened."""

    code = "E-MONITOR-ACK"
    exit_status = ExitStatus.USAGE
    default_remedy = "Leave out --listen-only, or use an adapter that has a listen-only mode."


class ComponentUnknown(ProxyflashError):
    """The bench file has no component of this name."""

    code = "E-COMPONENT"
    exit_status = ExitStatus.ABSENT
    default_remedy = ("List what there is: ", NextAction.SCAN)


class TargetWrong(ProxyflashError):
    """A target on the command line is wrong. The message says which part of it, and the remedy shows the right form.

    `cause` begins with the target.
    """

    code = "E-TARGET-WRONG"
    exit_status = ExitStatus.USAGE
    default_remedy = "Write PROTOCOL:WHERE or 'PROTOCOL:WHERE?KEY=VALUE&KEY=VALUE'. Examples: proxyflash help targets"


class SelectorWrong(ProxyflashError):
    """A component selector is not a JSON object whose values are all strings."""

    code = "E-SELECTOR"
    exit_status = ExitStatus.USAGE
    default_remedy = 'Write it as a JSON object of strings: {"group": "motors"}'


class PowerFailed(ProxyflashError):
    """A command of `[power]` failed or took longer than 30 s."""

    code = "E-POWER"
    default_remedy = "Run the command by hand to see what it says."
