"""The UDS flasher over vcan, through the kernel's ISO-TP and through ours, classic and FD; candump beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from proxyflash.hil_tests.kernel.can_lab import candump
from proxyflash.hil_tests.kernel.uds_lab import NEW, REQUEST, RESPONSE, Radar, flash, profile, socketcan
from proxyflash.transports.can import CanBus
from proxyflash.transports.recording import CanFrame, Recorder


def frame(line: str) -> str:
    """Of a line of candump's log. Kernels from 6.1 on also say by a flag (4) of an FD frame that it is one."""
    return re.sub(r"##(\d)", lambda found: f"##{int(found[1]) & 3}", line.split()[2])


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
@pytest.mark.parametrize("backend", ["kernel", "user"])
def test_a_flash(vcan: str, tmp_path: Path, backend: str, fd: bool) -> None:
    """candump, which listens for itself, has the frames of our recording in the same order."""
    recorder = Recorder()
    radar = Radar(tmp_path, socketcan(vcan, fd=fd), fd=fd)
    try:
        with (
            candump(vcan, tmp_path / "log") as dump,
            CanBus.open("powertrain", {"interface": "socketcan", "channel": vcan, "fd": fd}) as bus,
        ):
            bus.recorder = recorder
            assert flash(bus, profile(backend=backend, fd=fd)).verified
            assert radar.runs == "1.5.0"
            [log] = [path for path in recorder.save(tmp_path / "saved") if path.name == "can.log"]
            ours = [frame(line) for line in log.read_text().splitlines()]
            theirs = [frame(line) for line in dump.wait_lines(len(ours))]
    finally:
        radar.close()
    assert ours == theirs[: len(ours)]
    frames = [record for record in recorder.records() if isinstance(record, CanFrame)]
    assert {frame.can_id for frame in frames if frame.outgoing} == {REQUEST}
    assert {frame.can_id for frame in frames if not frame.outgoing} == {RESPONSE}
    # The image alone takes so many frames: 7 bytes in each consecutive one, 63 with FD.
    assert sum(frame.outgoing for frame in frames) > len(NEW) / (63 if fd else 7)
    assert max(len(frame.data) for frame in frames) == (64 if fd else 8)
