"""Processes: those that a test didn't start itself, and its own."""

import os
import select
from pathlib import Path


def descriptors() -> set[str]:
    """The numbers of this process's open files, and that of listing them."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


def until_ended(process: int, seconds: float = 60) -> None:
    """Fails if a process runs on for `seconds`.

    A killed process may run for a moment more; an ended process counts as ended before its parent fetches it.
    """
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(seconds * 1000), f"process {process} runs on"
    finally:
        os.close(descriptor)
