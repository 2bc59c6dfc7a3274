"""How long the tests of the kernel's drivers wait for what these do."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

LONG = 60.0
"""Seconds that no test is meant to wait, in a guest that is ten to twenty times slower than its host."""


def wait_until(true: Callable[[], object], what: str, seconds: float = LONG) -> None:
    """Looks again and again. Fails after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(f"after {seconds:g} s still not: {what}")
        time.sleep(0.01)
