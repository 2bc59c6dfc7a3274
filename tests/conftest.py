"""What all tests share: the peers that they need, and an environment of their own."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's bench file or state."""
    monkeypatch.delenv("PROXYFLASH_BENCH", raising=False)
    monkeypatch.setenv("PROXYFLASH_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where every peer must be there, a test that lacks one fails."""
    report = yield
    if os.environ.get("PROXYFLASH_REQUIRE_PEERS") and report.skipped and "is not installed" in str(report.longrepr):
        report.outcome = "failed"
    return report
