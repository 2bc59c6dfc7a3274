"""Serves an emulated bench's one serial line, and keeps when what passed between a program and the part.

    python -m proxyflash.benchmarks.recorded_part BENCH STATE RECORDING

The recording has a line for each group of bytes: seconds, ">" to the part or "<" to the program, the bytes in hex. Both
are seen at the pseudo-terminal, so the time between "<" and the next ">" is the program's, its waking up included.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from pathlib import Path

from proxyflash.emulators.serial.pty import serve_pty
from proxyflash.enumerators.bench import Bench

BUS = "uart"


def main(file: Path, state: Path, recording: Path) -> None:
    passed: list[tuple[float, str, bytes]] = []
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    with Bench.open(file, state=state) as bench:
        wire = bench.emulated_wire(BUS)
        send, take = wire.host.send, wire.host.take

        def to_part(data: bytes, at: float | None = None) -> None:
            passed.append((time.monotonic(), ">", data))
            send(data, at)

        def to_program(size: int) -> bytes:
            data: bytes = take(size)
            if data:
                passed.append((time.monotonic(), "<", data))
            return data

        wire.host.send, wire.host.take = to_part, to_program
        path, close = serve_pty(wire)
        link = bench.folder / f"{BUS}.pty"
        link.symlink_to(path)
        print(json.dumps({"served": {BUS: {"path": str(link)}}}), flush=True)
        ended.wait()
        close()
    recording.write_text("".join(f"{at:.6f} {way} {data.hex()}\n" for at, way, data in passed))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
