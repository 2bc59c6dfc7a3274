"""Programs of PyPI that nobody here wrote, each in an environment of its own under build/peers, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.benchmarks import peers
from proxyflash.benchmarks.measuring import Missing


def environment(requirement: str, *more: str) -> Path:
    """The interpreter of the environment that holds it; the test is skipped where it can't be had."""
    try:
        return peers.environment(requirement, *more)
    except Missing as missing:
        pytest.skip(str(missing))
