"""An emulated part in a process of its own, on a paced wire, fresh for each run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROXYFLASH = (sys.executable, "-m", "proxyflash.tools")


@contextmanager
def served(bench: str, folder: Path, bus: str) -> Iterator[str]:
    """Serves the emulated bench of this text; the path of its one bus: a PTY, or a Unix socket."""
    folder.mkdir(parents=True)
    file = folder / "part.toml"
    file.write_text(bench)
    command = [*PROXYFLASH, "--bench", str(file), "--state", str(folder / "s"), "emulate", "--jsonl", "-q"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        yield json.loads(line)["served"][bus]["path"]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
