"""Writes pictures/*.svg: what commands print on a terminal, on the emulated parts of an example and in simulated time.

`make pictures` writes them; a test holds them to what the commands print. Rich, which draws the bars, writes the SVG.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

from proxyflash.tools import commands
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock
from rich.console import Console
from rich.text import Text

FOLDER = Path(__file__).parent / "pictures"
EXAMPLE = Path(__file__).parent.parent / "examples" / "three_sensors"
COLUMNS = 80
FLASH = ["flash", "imu", "update/imu-1.5.0.hex"]
APPLY = ["apply", "update/update.importmanifest.json", "--parallel"]
COMMANDS: Mapping[str, tuple[list[str], str]] = {
    "scan": (["scan"], ""),
    "flash-under-way": (FLASH, r"imu  write .* 6\d %"),
    "apply-under-way": (APPLY, r"camera +write .* [2-9]\d %"),
    "apply": (APPLY, ""),
}
"""The name of each picture, its command, and what is on the terminal when it is taken; "": at the end of the command."""
EPOCH = 1_767_225_600.0
"""When the simulated clock begins, in seconds since 1970."""


class Terminal(io.StringIO):
    """A terminal of COLUMNS columns, by the few codes that bars use (ECMA-48): CUU, EL, CR and LF.

    `until`: what it shows when its picture is taken; "": whatever it shows last.
    """

    def __init__(self, until: str) -> None:
        super().__init__()
        self.shown: list[str] = []
        self._until = re.compile(until) if until else None
        self._rows, self._row = [""], 0

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for code in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
            self._take(code)
        if self._until is None or (not self.shown and self._until.search(_plain("\n".join(self._rows)))):
            self.shown = [row.rstrip() for row in self._rows]
        return len(text)

    def _take(self, code: str) -> None:
        if code == "\n":
            self._row += 1
            self._rows += [""] * (self._row == len(self._rows))
        elif re.fullmatch(r"\x1b\[\d*A", code):
            self._row -= int(code[2:-1] or 1)
        elif code == "\x1b[2K":
            self._rows[self._row] = ""
        elif code != "\r" and not code.startswith("\x1b[?"):
            self._rows[self._row] += code


def pictures() -> Iterator[tuple[str, str]]:
    """The name of each picture, and its SVG."""
    for name, (command, until) in COMMANDS.items():
        shown = "\n".join(_shown(command, until)).rstrip("\n")
        console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="standard")
        console.print(Text.from_ansi(f"$ proxyflash {' '.join(command)}\n{shown}"))
        svg = console.export_svg(title="proxyflash", unique_id=name)
        # The fonts of the reader's own machine: a picture fetches nothing.
        yield name, re.sub(r" *@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)


def _shown(command: list[str], until: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        bench = Path(folder) / "bench"
        shutil.copytree(EXAMPLE, bench, ignore=shutil.ignore_patterns("__pycache__"))
        words = ["--bench", "bench.toml", "--state", str(Path(folder) / "state"), *command]
        terminal = Terminal(until)
        with ExitStack() as stack:
            stack.enter_context(_there(bench))
            stack.enter_context(patch.object(sys, "stdout", terminal))
            stack.enter_context(patch.object(sys, "stderr", terminal))
            stack.enter_context(clock.use(SimulatedClock(epoch=EPOCH, runs_programs=True)))
            status = commands.run(words)
        if status:
            raise RuntimeError(f"{' '.join(command)} ended with {status}: {_plain(terminal.shown)}")
    return terminal.shown


@contextmanager
def _there(folder: Path) -> Iterator[None]:
    """In a folder, at a terminal with colours."""
    before = Path.cwd()
    names = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": "40"}
    with patch.dict(os.environ, names):
        for name in ("NO_COLOR", "FORCE_COLOR", "PROXYFLASH_STATE", "COLORTERM"):
            os.environ.pop(name, None)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _plain(text: object) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(text))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in pictures():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
