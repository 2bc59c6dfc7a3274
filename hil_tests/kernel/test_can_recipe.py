"""The recipe of docs/ci.md for emulated parts on the kernel's CAN: the page's own files, as the page runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from proxyflash.tools.vm import host

ROOT = Path(__file__).parents[2]
SECONDS = 560
TEST = """
def test_the_radar(component):
    assert component.look().version == "1.4.2"
"""


def test_the_page_s_script(tmp_path: Path) -> None:
    if lacking := host.missing(["can"]):
        pytest.skip("; ".join(lacking))
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    for text in re.findall(r"^```(?:toml|sh)\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        name = re.search(r"^# ([a-z-]+\.(?:toml|sh))\b", text, re.MULTILINE)
        assert name
        (tmp_path / name[1]).write_text(text, encoding="utf-8")
    (tmp_path / "on-vcan.sh").chmod(0o755)
    (tmp_path / "test_radar.py").write_text(TEST)
    example = ROOT / "examples" / "three_sensors"
    for file in (example / "firmware" / "radar-1.4.2.bin", example / "update" / "radar-1.5.0.s19"):
        shutil.copy(file, tmp_path)
    [line] = re.findall(r"^    proxyflash vm run \S+ \S+ -- (\./on-vcan\.sh.*)$", page, re.MULTILINE)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # In a process group of its own: a script that is too late takes the parts that it serves with it.
    process = subprocess.Popen(line, shell=True, cwd=tmp_path, env=os.environ | {"PATH": path}, start_new_session=True)
    try:
        assert process.wait(SECONDS) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    [suite] = ElementTree.parse(tmp_path / "build" / "kernel" / "junit.xml").getroot().iter("testsuite")
    found = [suite.get(what) for what in ("tests", "failures", "errors", "skipped")]
    assert found == ["1", "0", "0", "0"]
