"""Programs that nobody here wrote: of PyPI, each in an environment of its own under build/peers, made once; and Debian's."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.benchmarks import peers
from proxyflash.benchmarks.measuring import Missing


def installed(program: str, package: str = "") -> str:
    """The path of a Debian package's program; the test is skipped where it isn't installed."""
    try:
        return peers.installed(program, package)
    except Missing as missing:
        pytest.skip(str(missing))


def environment(requirement: str, *more: str) -> Path:
    """The interpreter of the environment that holds it; the test is skipped where it can't be had."""
    try:
        return peers.environment(requirement, *more)
    except Missing as missing:
        pytest.skip(str(missing))
