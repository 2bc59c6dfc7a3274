"""A backup's facts are believed as far as their handler's shape goes: all else is an error of its own, for each handler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.errors import StateFolder
from proxyflash.updates import app, apt, flash, kept, partition

DIGEST = "0" * 64
FILE = {"kept": "0", "sha256": DIGEST, "mode": 0o644, "owner": [0, 0]}
WHOLE: dict[type[kept.Facts], dict[str, Any]] = {
    app._Kept: {"files": {"a": FILE, "b": None}, "version": "1.0"},
    apt._Kept: {"packages": {"hello": ["1.0", "0/hello_1.0%3a1_all.deb", DIGEST], "bye": None}},
    flash._Kept: {"sha256": DIGEST, "segments": [[0, 4]], "version": "", "target": {"vendor_id": 1}},
    partition._Kept: {"slot": "a", "version": "1.0"},
}
NO_FACTS: tuple[Any, ...] = ({}, [], 5, None, "", {"version": 1})
WRONG: list[tuple[type[kept.Facts], Any]] = [
    *((shape, value) for shape in WHOLE for value in NO_FACTS),
    *((shape, {**whole, "more": 1}) for shape, whole in WHOLE.items()),
    (app._Kept, {"files": 5, "version": "1.0"}),
    (app._Kept, {"files": {"a": {}}, "version": "1.0"}),
    *(
        (app._Kept, {"files": {"a": FILE | {key: value}}, "version": "1.0"})
        for key, value in (
            ("kept", "../0"), ("kept", "/etc/passwd"), ("kept", ""), ("kept", "0\n"), ("kept", 0), ("sha256", "00"),
            ("mode", -1), ("mode", 1 << 16), ("mode", "rw"), ("owner", [0]), ("owner", [-1, 0]), ("owner", 0),
        )
    ),
    *(
        (apt._Kept, {"packages": {"hello": ["1.0", path, DIGEST]}})
        for path in ("../hello.deb", "/tmp/hello.deb", "0/../../hello.deb", "0/a/b.deb", "hello.deb", "0/hello", 1)
    ),
    *(
        (flash._Kept, WHOLE[flash._Kept] | {"segments": segments})
        for segments in ([[0]], [[0, 0]], [[-1, 4]], [["a", 4]], {"0": 4}, 4)
    ),
]  # fmt: skip


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: shape.__module__)
def test_what_a_handler_keeps(tmp_path: Path, shape: type[kept.Facts]) -> None:
    assert kept.facts(tmp_path, shape) is None
    kept.keep(tmp_path, WHOLE[shape])
    found = kept.facts(tmp_path, shape)
    assert found is not None
    assert json.loads(found.model_dump_json()) == WHOLE[shape]


@pytest.mark.parametrize(("shape", "value"), WRONG, ids=str)
def test_what_none_keeps(tmp_path: Path, shape: type[kept.Facts], value: Any) -> None:
    kept.write(tmp_path / kept.NAME, json.dumps(value).encode())
    with pytest.raises(StateFolder, match=r"backup\.json is not as it was written"):
        kept.facts(tmp_path, shape)
