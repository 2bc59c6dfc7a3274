"""What an emulated part keeps beside its flash is read as anything from a disk: another text is an error of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.testing import Rig
from proxyflash.tests.flashers.test_contract import KINDS
from proxyflash.transports.errors import StateFolder

KEPT = {"uds": "part.json", "stm32-uart": "part.options.json", "stk500v1": "part.lock"}
BROKEN = {
    "uds": ["x", "5", "[]", "", '{"complete": 1, "segments": []}', '{"complete": true, "segments": 5}',
            '{"complete": true, "segments": [[1]]}', '{"complete": true, "segments": [[1, "a"]]}', "\xff"],
    "stm32-uart": ["x", "5", "{}", "", '{"rdp": "a", "write_protected": []}', '{"rdp": 170, "write_protected": 5}',
                   '{"rdp": 170, "write_protected": [-1]}'],
    "stk500v1": ["x", "", "0x3f", "3f3f", "\xff"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_another_text_is_told(tmp_path: Path, name: str, text: str) -> None:
    rig = Rig(KINDS[name](), tmp_path)
    with rig.powered() as bench:
        rig.ends_with_the_new_image(bench)
    (flash,) = (tmp_path / "state").rglob("part.flash")
    path = flash.with_name(KEPT[name])
    path.write_bytes(text.encode("latin-1"))
    path.chmod(0o600)
    with (
        pytest.raises(StateFolder, match="is not what an emulated part writes"),
        Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench,
    ):
        bench.emulated_device("part")
    path.unlink()
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as bench:
        bench.emulated_device("part")
