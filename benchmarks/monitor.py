"""`proxyflash monitor` beside a fully loaded bus of 1 Mbit/s: frames lost, and its share of a processor. To reach: none, a half.

The bus is the socket of a served wire, at which frames of 8 bytes come at the bus's own pace: as many as fit, with ids that
change. On socketcan the kernel does what a thread of the monitor does here for each frame.
"""

from __future__ import annotations

import itertools
import os
import random
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import can
from proxyflash.emulators.can.server import FD, MAGIC, NO_FRAME, RECORD, pack
from proxyflash.emulators.can.wire import TRANSMIT_QUEUE

from .can_frames import Bus
from .can_frames import seconds as frame_seconds
from .measuring import Failed
from .ours import PROGRAM
from .table import Row

BUS = Bus(1_000_000)
IDS = 60
BURST_SECONDS = 0.005
"""How often the frames that are due are written."""
SETTLE_SECONDS = 1.0
"""How long the monitor goes on after the last frame."""


def rows(seconds: float, folder: Path, tell: Callable[[str], None]) -> list[Row]:
    """`seconds`: of traffic."""
    title = "monitor of a full bus"
    found = []
    for side, options in (("lines in a pipe", ()), ("lines and a recording", ("--record", str(folder / "kept.jsonl")))):
        sent, heard, lost, busy = _run(seconds, folder, options)
        tell(f"{title}: {side}: {sent:,} frames, {sent - heard:,} not heard, {busy / seconds:.2f} of a processor")
        if heard != sent or lost:
            raise Failed(f"the monitor heard {heard:,} of {sent:,} frames, and says that {lost:,} were lost")
        note = f"{sent / seconds:,.0f} frames/s, none lost; {busy / seconds:.2f} of a processor, to reach: 0.50"
        found.append(Row(title, side, seconds, note=note))
    return found


def _run(seconds: float, folder: Path, options: tuple[str, ...]) -> tuple[int, int, int, float]:
    """Frames sent, frames heard, frames that the monitor counts as lost, and its seconds of the processor."""
    path = folder / "bus.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    sent = [0]
    serving = threading.Thread(target=_serve, args=(listener, seconds, sent), daemon=True)
    serving.start()
    out = folder / "lines"
    with out.open("wb") as stream:
        command = [str(PROGRAM), "monitor", f"proxyflash:unix:{path}", "--for", str(seconds + 2), *options]
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.PIPE, cwd=folder)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise Failed(said)  # It may never have come to the wire.
    serving.join()
    listener.close()
    counted = re.search(r"^([\d,]+) frames, ([\d,]+) lost", said, re.MULTILINE)
    if counted is None:
        raise Failed(said)
    heard, lost = (int(text.replace(",", "")) for text in counted.groups())
    return sent[0], heard, lost, usage.ru_utime + usage.ru_stime


def _serve(listener: socket.socket, seconds: float, sent: list[int]) -> None:
    """One client; `sent`: where the number of frames is put."""
    generator = random.Random(1)
    frames = []
    for number in range(1000):
        data = generator.randbytes(8)
        message = can.Message(arbitration_id=0x100 + number % IDS, is_extended_id=False, data=data)
        frames.append((frame_seconds(BUS, message.arbitration_id, data), pack(message)))
    connection, _ = listener.accept()
    with connection:
        connection.sendall(RECORD.pack(MAGIC, NO_FRAME & ~FD, 0, TRANSMIT_QUEUE, 0.0, b""))
        connection.recv(RECORD.size, socket.MSG_WAITALL)
        time.sleep(SETTLE_SECONDS / 2)
        began = time.monotonic()
        due = 0.0
        turn = itertools.cycle(frames)
        while due < seconds:
            pieces = []
            while due < min(time.monotonic() - began, seconds):
                took, record = next(turn)
                due += took
                pieces.append(record)
            connection.sendall(b"".join(pieces))
            sent[0] += len(pieces)
            time.sleep(BURST_SECONDS)
        # Until the monitor hangs up.
        connection.recv(1)
