"""The one-line examples of the documents, typed one after the other as their pages have them, on emulated parts."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from .conftest import EXAMPLE, Desk

ROOT = Path(__file__).parents[2]
LINE = re.compile(r"^ {4}(?:sudo )?proxyflash (.*)$", re.MULTILINE)
ELSEWHERE = re.compile(r"/dev/|can0|0483:df11|^(demo|doctor|monitor|scan$|bench init)|service install|--key gateway")
"""What other tests run: targets, at a PTY and a served bus; commands that look at this host, or that install; bundles' keys."""
PAGES: Mapping[str, int] = {
    "README.md": 14,
    "docs/start-bench.md": 5,
    "docs/start-fleet.md": 10,
    "docs/manifests.md": 7,
    "docs/recordings.md": 4,
    "docs/report.md": 5,
    "docs/updates.md": 14,
}
"""Each page, and how many lines it has to type."""
RECORDED = ("docs/report.md", "docs/updates.md")
"""Pages that name recordings and do not make them."""
NOT_ALL = {"rollback": 1}
"""The exit status of lines that can't end with 0 here: the example's radar can't be read, so nothing brings it back."""


@pytest.mark.real_time("updates run programs")
@pytest.mark.parametrize("page", PAGES)
def test_the_lines_of_a_page_work(page: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder that has the files which the documents name."""
    shutil.copytree(EXAMPLE / "update", desk.folder, dirs_exist_ok=True)
    for name in ("motor-1.5.0.hex", "fw.hex"):
        shutil.copy(desk.image("imu"), desk.folder / name)
    desk.edit(('group = "imus"', 'group = "motors"'))
    monkeypatch.chdir(desk.folder)
    monkeypatch.setenv("HOME", str(desk.folder))
    (desk.folder / "keys").mkdir()
    lines = [line for line in LINE.findall((ROOT / page).read_text(encoding="utf-8")) if not ELSEWHERE.search(line)]
    assert len(lines) == PAGES[page]
    for name in ("imu.jsonl", "yesterday.jsonl", "r.jsonl") if page in RECORDED else ():
        assert desk.run("record", name, "--", "info", "imu").status == 0
    for line in lines:
        (desk.folder / "proof.zip").unlink(missing_ok=True)
        # The version of the example's firmware, and the home folder as a shell finds it.
        words = shlex.split(re.sub(r"\b1\.2\b", "1.5.0", line).replace("~", str(desk.folder)), comments=True)
        done = desk.run(*words)
        assert done.status == NOT_ALL.get(words[0], 0), (line, done.out, done.err)
