"""Loading a large Intel HEX file: time and peak memory, against bincopy and intelhex. Each in a process of its own.

Memory is the process's peak resident size while it loads (VmHWM, set back before), less its resident size before, as a
ratio to the bytes that the image has.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from . import peers
from .measuring import Missing, program
from .table import Row

INTELHEX = "intelhex==2.3.0"
MEASURE = """
import json, re, sys, time
def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
file = sys.argv[1]
{prepare}
open("/proc/self/clear_refs", "w").write("5")
before = resident("VmRSS")
began = time.perf_counter()
{load}
took = time.perf_counter() - began
peak = resident("VmHWM")
assert size() == {size}, size()
print(json.dumps([took, peak - before]))
"""
"""getrusage would not do: a process inherits its parent's peak."""


def rows(size: int, runs: int, folder: Path, tell: Callable[[str], None]) -> list[Row]:
    """`size`: of the image, in bytes."""
    file = folder / "large.hex"
    _write_hex(file, size)
    title = f"loading {size / (1 << 20):g} MiB of HEX"
    sides: Mapping[str, Callable[[], tuple[str, str]]] = {
        "bincopy": lambda: ("import bincopy", "f = bincopy.BinFile(file); size = lambda: len(f)"),
        "intelhex": _intelhex,
        "proxyflash": lambda: ("from proxyflash.flashers.formats import load", "f = load(file); size = lambda: f.size"),
    }
    best: dict[str, tuple[float, int]] = {}
    missing: dict[str, str] = {}
    for _ in range(runs):
        for name, make in sides.items():
            if name in missing:
                continue
            try:
                prepare, load = make()
                found = _measured(file, folder, MEASURE.format(prepare=prepare, load=load, size=size), name)
            except Missing as lack:
                missing[name] = str(lack)
                continue
            tell(f"{title}: {name}: {found[0]:.3f} s")
            best[name] = min(found, best.get(name, found))
    others = [best[name][0] for name in best if name != "proxyflash"]
    quickest = min(others, default=None)
    made = []
    for name in sides:
        if name in missing:
            made.append(Row(title, name, note=missing[name]))
            continue
        seconds, peak = best[name]
        ratio = None if quickest is None else seconds / quickest
        note = f"peak {peak / (1 << 20):.1f} MiB more, {peak / size:.2f} times the bytes"
        made.append(Row(title, name, seconds, None, ratio, note))
    return made


def _intelhex() -> tuple[str, str]:
    path = str(peers.library(INTELHEX))
    prepare = f"sys.path.insert(0, {path!r})\nfrom intelhex import IntelHex"
    return prepare, "f = IntelHex(file); size = lambda: len(f)"


def _measured(file: Path, folder: Path, code: str, name: str) -> tuple[float, int]:
    """Seconds and bytes. Raises Missing where the library isn't there."""
    if name == "bincopy":
        try:
            import bincopy  # noqa: F401
        except ImportError:
            raise Missing("bincopy is not installed (PyPI: bincopy)") from None
    output = folder / "out"
    program([sys.executable, "-c", code, file], output)
    seconds, peak = json.loads(output.read_text())
    return seconds, peak


def _write_hex(file: Path, size: int) -> None:
    """Records of 32 bytes, as most linkers write them, from 0x08000000 on."""
    data = random.Random(1).randbytes(size)
    with file.open("w") as stream:
        for start in range(0, size, 32):
            address = 0x08000000 + start
            if address & 0xFFFF == 0:
                _record(stream.write, 0, 4, (address >> 16).to_bytes(2, "big"))
            _record(stream.write, address & 0xFFFF, 0, data[start : start + 32])
        _record(stream.write, 0, 1, b"")


def _record(write: Callable[[str], object], address: int, kind: int, data: bytes) -> None:
    body = bytes([len(data), address >> 8, address & 0xFF, kind]) + data
    write(f":{body.hex().upper()}{-sum(body) & 0xFF:02X}\n")
