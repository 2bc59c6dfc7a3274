"""`Action`: each is carried out by the method of its name."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.updates.engine.action import ANNOUNCED, CHANGING, Action
from proxyflash.updates.handlers.script import ScriptHandler

from .steps import Stage, inline


@pytest.mark.parametrize("action", Action)
def test_its_method(tmp_path: Path, action: Action) -> None:
    (tmp_path / "bench.toml").write_text("")
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        handler = Stage(bench, ScriptHandler, inline("microsoft/script:1", "run.sh"), tmp_path).made()
        assert action.method_of(handler) == getattr(handler, action.name.lower())


def test_what_changes_something_is_announced() -> None:
    assert CHANGING < ANNOUNCED
