"""How pytest-xdist spreads the tests of a bench of hardware: those that use it go to one worker, the others anywhere.

Each worker notes its tests of the bench in a file before it reports its collection; the scheduler reads these files.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling


def note(folder: Path, worker: str, tests: list[str]) -> None:
    """A worker's: which of its tests use the bench."""
    (folder / f"{worker}.json").write_text(json.dumps(tests), encoding="utf-8")


class BenchScheduling(LoadScopeScheduling):  # type: ignore[misc] # its base class has types only where it is installed
    """`folder`: where the workers' notes are."""

    def __init__(self, config: pytest.Config, log: Producer, folder: Path) -> None:
        super().__init__(config, log)
        self._folder = folder

    @cached_property
    def _noted(self) -> frozenset[str]:
        notes = [json.loads(path.read_text(encoding="utf-8")) for path in self._folder.glob("*.json")]
        return frozenset(test for tests in notes for test in tests)

    def _split_scope(self, nodeid: str) -> str:
        """Tests of one scope stay together. Asked for once every worker has reported its collection."""
        return "bench" if nodeid in self._noted else nodeid
