"""The benchmarks, side by side with other tools: see docs/benchmarks.md.

python -m benchmarks             # all of them: 7 to 15 minutes
python -m benchmarks --quick     # tiny sizes, one run each: whether it works, not how fast it is
python -m benchmarks stm32 uds   # those
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import avr, dfu, measuring, memory, monitor, simulated, smp_uploads, startup, stm32, uds, updates, ymodem
from .can_frames import Bus
from .table import Row, printed

KIB = 1024


@dataclass(frozen=True, slots=True)
class Setting:
    """`scale`: what sizes are divided by; `runs`: of each side; `starts`: of what only starts."""

    scale: int = 1
    runs: int = 2
    starts: int = 20


FULL, QUICK = Setting(), Setting(scale=64, runs=1, starts=2)
Tell = Callable[[str], None]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks against other tools.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; without one, all")
    parser.add_argument("--quick", action="store_true", help="tiny sizes and one run: whether they work")
    parser.add_argument("--runs", type=int, help="runs of each side, of which the quickest counts")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}")
    setting = QUICK if chosen.quick else FULL
    if chosen.runs:
        setting = Setting(setting.scale, chosen.runs, setting.starts)
    began = time.monotonic()
    before = os.getloadavg()[0]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="pf-") as folder:
        for name in chosen.names or BENCHMARKS:
            own = Path(folder) / name
            own.mkdir()
            rows += BENCHMARKS[name](setting, own, lambda text: print(text, file=sys.stderr, flush=True))
    print(printed(rows))
    print(
        f"\n{os.cpu_count()} cores, load {before:.1f} before and {os.getloadavg()[0]:.1f} after, Python "
        f"{sys.version.split()[0]}, {time.monotonic() - began:.0f} s; the quickest of {setting.runs} runs of each side"
    )


def _stm32(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    rows = []
    for baudrate, size in ((115_200, 64 * KIB), (1_000_000, 256 * KIB)):
        compared = stm32.comparison(baudrate, size // setting.scale)
        rows += measuring.rows(compared, setting.runs, folder / str(baudrate), tell)
        rows.append(
            simulated.row(simulated.stm32_uart(baudrate, size // setting.scale), folder / f"simulated-{baudrate}")
        )
    return rows


def _avr(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    rows = []
    for board, job in zip(avr.BOARDS, (simulated.avr_stk500v1, simulated.avr_stk500v2), strict=True):
        compared = avr.comparison(board, 24 * KIB // setting.scale)
        rows += measuring.rows(compared, setting.runs, folder / board.name, tell)
        rows.append(simulated.row(job(24 * KIB // setting.scale), folder / f"simulated-{board.name}"))
    return rows


def _ymodem(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    size = 64 * KIB // setting.scale
    rows = measuring.rows(ymodem.comparison(115_200, size), setting.runs, folder / "115200", tell)
    return [*rows, simulated.row(simulated.ymodem_iap(size), folder / "simulated")]


def _uds(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    rows = []
    classic, fd = Bus(500_000), Bus(500_000, 2_000_000)
    for number, (part, bus) in enumerate((("acme-r77", classic), ("acme-r77", fd), ("acme-r88", fd))):
        compared = uds.comparison(part, bus, 256 * KIB // setting.scale)
        rows += measuring.rows(compared, setting.runs, folder / str(number), tell)
        rows.append(
            simulated.row(simulated.uds_can(part, bus, 256 * KIB // setting.scale), folder / f"simulated-{number}")
        )
    return rows


def _dfu(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    rows = []
    for part, title, size in (("stm32f405-dfu", "DfuSe", 112 * KIB), ("slot-dfu", "DFU 1.1", 120 * KIB)):
        for verify in (False, True):
            compared = dfu.comparison(part, title, size // setting.scale, verify=verify)
            rows += measuring.rows(compared, setting.runs, folder / f"{part}-{verify}", tell)
            job = simulated.usb_dfu(part, title, size // setting.scale, verify=verify)
            rows.append(simulated.row(job, folder / f"simulated-{part}-{verify}"))
            if not verify:
                own = folder / f"pyfu-{part}"
                own.mkdir()
                rows.append(dfu.pyfu_simulated(part, title, size // setting.scale, own))
    return rows


def _smp(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    rows = []
    for buffer in (1024, 2048):
        rows += smp_uploads.rows(buffer, setting.scale, setting.runs, folder / str(buffer), tell)
    return rows


def _simulated(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    """Sizes as they are: on the simulated clock they cost little."""
    return simulated.rows(folder, tell)


def _memory(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    return memory.rows(16 * KIB * KIB // setting.scale, setting.runs, folder, tell)


def _updates(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    return updates.rows(max(8, 500 // setting.scale), setting.runs, folder, tell)


def _monitor(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    return monitor.rows(max(1.0, 20 / setting.scale), folder, tell)


def _start(setting: Setting, folder: Path, tell: Tell) -> list[Row]:
    return startup.rows(setting.starts, folder)


BENCHMARKS: dict[str, Callable[[Setting, Path, Tell], list[Row]]] = {
    "start": _start,
    "stm32": _stm32,
    "ymodem": _ymodem,
    "avr": _avr,
    "uds": _uds,
    "dfu": _dfu,
    "smp": _smp,
    "simulated": _simulated,
    "memory": _memory,
    "updates": _updates,
    "monitor": _monitor,
}

if __name__ == "__main__":
    main(sys.argv[1:])
