"""Writes the tables of errors.md from the classes of the errors: code, exit status, cause, remedy.

A class's cause is the first paragraph of its docstring, its remedy is `default_remedy`. `python -m proxyflash.docs.reference`
writes the page; a test holds the page to the classes. The text above the tables is written by hand, in the page itself.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from click import Context
from proxyflash.tools.commands import cli
from proxyflash.transports.errors import NextAction, ProxyflashError

PAGE = Path(__file__).parent / "errors.md"
ROOT = PAGE.parent.parent
MARK = "<!-- The tables below: written by `python -m proxyflash.docs.reference` from the classes of the errors. -->\n"
OTHERS = "The command line"
SECTIONS = {
    OTHERS: (),
    "The bench file": ("E-BENCH", "E-COMPONENT", "E-PROFILE", "E-POWER", "E-STATE", "E-PLUGIN"),
    "CAN": ("E-CAN", "E-ISOTP"),
    "Serial lines": ("E-SERIAL",),
    "USB and UDP": ("E-USB", "E-UDP", "E-VHCI", "E-ACM"),
    "Firmware files": ("E-IMAGE",),
    "Parts": ("E-PART", "E-KEY-LIBRARY", "E-VERIFY", "E-VERSION"),
    "Updates": (
        "E-MANIFEST", "E-HANDLER", "E-FILE", "E-DEPLOYMENT", "E-KEY-FILE", "E-SIGNATURE", "E-SIGNING", "E-ROOT", "E-BUNDLE",
        "E-COMPONENT-ABSENT", "E-PLAN", "E-ROOM", "E-CONDITION", "E-ATTEMPTS", "E-FLOOR", "E-DOWNGRADE", "E-JOURNAL",
        "E-UNFINISHED", "E-RESTART", "E-UPDATE", "E-ADU", "E-ACCOUNT", "E-STEP", "E-SCRIPT",
    ),
    "Guests": ("E-VM",),
}  # fmt: skip
"""The beginnings of the codes in each section; the longest beginning that fits decides. All other codes are in `OTHERS`."""
BELOW = {
    "Guests": "`proxyflash vm run -- COMMAND` and `proxyflash vm prepare`; [ci.md](ci.md) explains how they are used.",
}
"""A sentence below the heading of a section."""
STATUSES = {"E-CANCELLED": "10, 130", "E-JOURNAL-WRITE": "1, 10"}
"""Where the exit status depends on the case."""
NOTES = {
    "E-BENCH-KEY": "[bench-keys.md](bench-keys.md) lists all keys.",
    "E-BENCH-MISSING": "Or name one: `--bench FILE`",
    "E-CAN-BUSOFF": "Termination: 60 ohms across the pair.",
    "E-CAN-DRIVER": "`proxyflash doctor` shows what is missing.",
    "E-CAN-GONE": "Plug the adapter in, then run the same command again.",
    "E-CANCELLED": "At 10 run the same command again: it goes on with what is missing.",
    "E-COMPONENT": "The message lists the names in the bench file.",
    "E-COMPONENT-ABSENT": "If flashing it was interrupted, flash it again: `proxyflash flash NAME FILE`.",
    "E-CONDITION": "The message says which condition it is and what was found.",
    "E-DBC": "Or install cantools: `pip install 'proxyflash[dbc]'`",
    "E-FILE-CHANGED": "The message says how the components become whole: `proxyflash rollback`, or `apply --abandon` with another"
    " update.",
    "E-FLOOR": "Get a newer update.",
    "E-IMAGE-FORMAT": "The message has the line or the offset.",
    "E-IMAGE-MISPLACED": "A raw binary needs `--address`.",
    "E-JOURNAL-WRITE": "The message of a full disk says how much room is needed. At 1 the update was not begun: run the same"
    " command again.",
    "E-MANIFEST-EXPIRED": "Signing again needs a new `createdDateTime`. If the clock was wrong at an earlier update, the message"
    " has the command that takes that update out of the history.",
    "E-MANIFEST-SYNTAX": "The message has the line.",
    "E-MONITOR": "More: [monitor.md](monitor.md)",
    "E-MONITOR-ACK": "More: [monitor.md](monitor.md#what-it-does-on-the-wire)",
    "E-NOT-CONFIRMED": "Look at the plan before, with `--dry-run`.",
    "E-OUTPUT": "Free some space, then look at the state with `proxyflash scan`.",
    "E-PART-FAMILY": "If not, correct the wiring.",
    "E-PART-MODE": "The message says what the part waits for: a strap, a button, a condition.",
    "E-PART-MUTE": "A part that has answered before: is its supply weak, a contact loose, the bus too busy?",
    "E-PLAN-CHANGED": "The message says what differs.",
    "E-RECORDING": "Or name another.",
    "E-REPLAY-COMMAND": "More: [recordings.md](recordings.md)",
    "E-REPLAY-DIFFERENT": "More: [report.md](report.md)",
    "E-REPLAY-MISMATCH": "More: [recordings.md](recordings.md)",
    "E-REPLAY-UNANSWERED": "More: [recordings.md](recordings.md)",
    "E-RESTART": "Restart it, then `proxyflash resume`.",
    "E-ROOM": "The message says how much is needed for what, how much is left and how much is missing.",
    "E-SERIAL-GONE": "Plug the adapter in, then run the same command again.",
    "E-SIGNATURE-MISSING": 'The policy wants one by `unsigned = "refuse"`, or by `roots` without `unsigned`.',
    "E-STATE-UNSAFE": "The message names the file, its owner and a command that repairs it."
    " Rules: [updates.md](updates.md#who-may-reach-the-state-folder)",
    "E-STEP-HANGS": "The journal says which action it was.",
    "E-STEP-TIMEOUT": "For all steps: `timeout_seconds` of the policy.",
    "E-UDP-GONE": "Bring the network up, then run the same command again.",
    "E-UNFINISHED": "Or give it up: `apply --abandon`.",
    "E-USB-GONE": "Plug the device in, then run the same command again.",
}
"""What the page says beyond the remedy of the message."""


def page() -> str:
    """The text of the page."""
    by_hand, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{PAGE} has no line {MARK}"
    return by_hand + MARK + "".join(_sections())


def classes() -> dict[str, type[ProxyflashError]]:
    """The errors that are raised, by their codes."""
    for path in sorted(ROOT.glob("[a-z]*/**/*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] not in ("build", "docs", "tests") and '    code = "E-' in path.read_text(encoding="utf-8"):
            import_module(".".join(["proxyflash", *parts]).removesuffix(".__init__"))
    return {kind.code: kind for kind in _below(ProxyflashError) if "code" in vars(kind) and not kind.__subclasses__()}


def _below(kind: type[ProxyflashError]) -> Iterator[type[ProxyflashError]]:
    for inner in kind.__subclasses__():
        if inner.__module__.startswith("proxyflash."):
            yield inner
        yield from _below(inner)


def _sections() -> Iterator[str]:
    found = classes()
    for title in SECTIONS:
        yield f"\n## {title}\n\n"
        if title in BELOW:
            yield f"{BELOW[title]}\n\n"
        yield "| code | exit | what happened | what to do |\n|---|---|---|---|\n"
        for code in sorted(code for code in found if _section(code) == title):
            kind = found[code]
            status = STATUSES.get(code, int(kind.exit_status))
            yield f"| `{code}` | {status} | {_cause(kind)} | {_remedy(kind)} |\n"


def _section(code: str) -> str:
    beginnings = {start: title for title, starts in SECTIONS.items() for start in starts}
    fitting = [start for start in beginnings if code == start or code.startswith(f"{start}-")]
    return beginnings[max(fitting, key=len)] if fitting else OTHERS


def _cause(kind: type[ProxyflashError]) -> str:
    assert vars(kind)["__doc__"], f"{kind.code}: its class has no docstring"
    first, _, _ = inspect.cleandoc(vars(kind)["__doc__"]).partition("\n\n")
    return " ".join(first.split())


def _remedy(kind: type[ProxyflashError]) -> str:
    pieces = kind.default_remedy
    text = pieces if isinstance(pieces, str) else "".join(
        f"proxyflash {piece}" if isinstance(piece, NextAction) else piece for piece in pieces
    )  # fmt: skip
    note = NOTES.get(kind.code, "")
    return " ".join(filter(None, (marked(f"{text}." if note and text[-1:] not in ("", ".", "?") else text), note)))


def marked(text: str) -> str:
    """A remedy with its commands as code, and a help topic as a link."""
    commands = (
        rf"proxyflash (?:{'|'.join(cli.list_commands(Context(cli)))})\b|(?:pip|apt) install|ls -l|lsusb|sudo [a-z-]+"
    )
    words = r"(?: (?:-[\w-]*|[A-Z]{2,}|\$USER|[a-z/][\w/.-]*(?<!\.)))*"
    found = re.sub(rf"(?<!`)(?:{commands}){words}|(?<![\w`-])--?[a-z-]+(?: [A-Z]+)?", r"`\g<0>`", text)
    return re.sub(r"`proxyflash help ([a-z-]+)`", r"[\1.md](\1.md)", found).replace(
        "docs/bench-file.md", "[bench-file.md](bench-file.md)"
    )
