"""Programs that nobody here wrote: of PyPI, each in an environment of its own under build/peers, made once; and Debian's."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from proxyflash.benchmarks import peers
from proxyflash.benchmarks.measuring import Missing


def systemd_analyze() -> str:
    """The program; the test is skipped where it isn't installed."""
    try:
        return peers.systemd_analyze()
    except Missing as missing:
        pytest.skip(str(missing))


def chromium() -> str:
    """The program; the test is skipped where it isn't installed."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    return found


def environment(requirement: str, *more: str) -> Path:
    """The interpreter of the environment that holds it; the test is skipped where it can't be had."""
    try:
        return peers.environment(requirement, *more)
    except Missing as missing:
        pytest.skip(str(missing))
