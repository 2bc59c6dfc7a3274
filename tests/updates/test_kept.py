"""A backup's facts are believed as far as their handler's shape goes: all else is an error of its own, for each handler."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from proxyflash.enumerators.errors import StateFolder
from proxyflash.updates.handlers import app, apt, backup_store, flash, partition

DIGEST = "0" * 64
FILE = {"kept": "0", "sha256": DIGEST, "mode": 0o644, "owner": [0, 0]}
WHOLE: dict[type[backup_store.Facts], dict[str, Any]] = {
    app._Kept: {"files": {"a": FILE, "b": None}, "version": "1.0"},
    apt._Kept: {"packages": {"hello": ["1.0", "0/hello_1.0%3a1_all.deb", DIGEST], "bye": None}},
    flash._Kept: {"sha256": DIGEST, "segments": [[0, 4]], "version": "", "target": {"vendor_id": 1}},
    partition._Kept: {"slot": "a", "version": "1.0"},
}
NO_FACTS: tuple[Any, ...] = ({}, [], 5, None, "", {"version": 1})
WRONG: list[tuple[type[backup_store.Facts], Any]] = [
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
        for segments in (
            [[0]], [[0, 0]], [[-1, 4]], [["a", 4]], {"0": 4}, 4, [], [["0", 4]], [[True, 4]], [[0, 4.0]],
            # Beyond 64 bits, over each other, touching, out of order, too large, too large together, too many.
            [[1 << 64, 4]], [[10**300, 4]], [[(1 << 64) - 3, 4]], [[0, 4], [3, 4]], [[0, 4], [4, 4]], [[8, 4], [0, 4]],
            [[0, 8], [2, 4]], [[0, (1 << 30) + 1]], [[0, 1 << 30], [1 << 31, 1]], [[2 * at, 1] for at in range(100_001)],
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("shape", WHOLE, ids=lambda shape: shape.__module__)
def test_what_a_handler_keeps(tmp_path: Path, shape: type[backup_store.Facts]) -> None:
    assert backup_store.facts(tmp_path, shape) is None
    backup_store.keep(tmp_path, WHOLE[shape])
    found = backup_store.facts(tmp_path, shape)
    assert found is not None
    assert json.loads(found.model_dump_json()) == WHOLE[shape]


def test_memory_up_to_its_last_address_is_kept(tmp_path: Path) -> None:
    segments = [[0, 4], [5, 1], [(1 << 64) - 4, 4]]
    backup_store.keep(tmp_path, WHOLE[flash._Kept] | {"segments": segments})
    found = backup_store.facts(tmp_path, flash._Kept)
    assert found is not None
    assert [list(item) for item in found.segments] == segments


@pytest.mark.parametrize(("shape", "value"), WRONG, ids=lambda item: str(item)[:80])
def test_what_none_keeps(tmp_path: Path, shape: type[backup_store.Facts], value: Any) -> None:
    backup_store.write(tmp_path / backup_store.NAME, json.dumps(value).encode())
    with pytest.raises(StateFolder, match=r"backup\.json is not as it was written"):
        backup_store.facts(tmp_path, shape)
