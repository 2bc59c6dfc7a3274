"""Peers that must be there: a pytest hook for a conftest to import."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every peer must be there, a test without its peer fails."""
    report = yield
    if os.environ.get("PROXYFLASH_REQUIRE_PEERS") and report.skipped and "is not installed" in str(report.longrepr):
        report.outcome = "failed"
    return report
