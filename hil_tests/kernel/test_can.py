"""The UDS flasher over vcan, through the kernel's ISO-TP and through ours, classic and FD; candump beside it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxyflash.hil_tests.kernel.can_lab import candump
from proxyflash.hil_tests.kernel.uds_lab import (
    BASE,
    NEW,
    OLD,
    REQUEST,
    RESPONSE,
    SIZE,
    Radar,
    flash,
    profile,
    socketcan,
)
from proxyflash.hil_tests.kernel.waiting import LONG
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.recording.recorder import Recorder
from proxyflash.transports.recording.records import CanFrame


def frame(line: str) -> str:
    """Of a line of candump's log. Kernels from 6.1 on also say by a flag (4) of an FD frame that it is one."""
    return re.sub(r"##(\d)", lambda found: f"##{int(found[1]) & 3}", line.split()[2])


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
@pytest.mark.parametrize("backend", ["kernel", "user"])
def test_a_flash(vcan: str, tmp_path: Path, backend: str, fd: bool) -> None:
    """candump, which listens for itself, has the frames of our recording, each sender's in the same order.

    A frame and the answer to it may change places: the kernel hands them to each socket, from two processors at once.
    """
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
    for sender in ("7E0", "7E8"):
        assert [one for one in ours if one.startswith(sender)] == [one for one in theirs if one.startswith(sender)]
    frames = [record for record in recorder.records() if isinstance(record, CanFrame)]
    assert {frame.can_id for frame in frames if frame.outgoing} == {REQUEST}
    assert {frame.can_id for frame in frames if not frame.outgoing} == {RESPONSE}
    # The image alone takes more frames: 7 bytes in each consecutive one, 63 with FD.
    assert sum(frame.outgoing for frame in frames) > len(NEW) / (63 if fd else 7)
    assert max(len(frame.data) for frame in frames) == (64 if fd else 8)


BUS = """
[bus.{name}]
kind = "can"
emulated = true
pace = 0.0
fd = {fd}
bitrate = 500_000
data_bitrate = 2_000_000

[[component]]
name = "{name}-radar"
bus = "{name}"
protocol = "uds"
address = {{request = 0x7E0}}
profile = "acme-r77"
emulated = {{part = "acme-r77", firmware = "old.bin"}}
"""
PROFILE = f"""
[profile.acme-r77]
memory = [{{start = {BASE}, size = {SIZE}, erase_unit = 4096, write_alignment = 8}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
"""


@contextmanager
def served(folder: Path, interfaces: Mapping[str, str]) -> Iterator[None]:
    """`proxyflash emulate --join`: parts in a process of their own, a bus on each interface. State in folder/parts."""
    (folder / "old.bin").write_bytes(OLD)
    text = "".join(BUS.format(name=name, fd=str("fd" in name).lower()) for name in interfaces) + PROFILE
    (folder / "parts.toml").write_text(text)
    command = [sys.executable, "-m", "proxyflash.tools", "--jsonl", "--state", str(folder / "parts")]
    command += ["--bench", str(folder / "parts.toml"), "emulate"]
    for name, interface in interfaces.items():
        command += ["--join", f"{name}=socketcan:{interface}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert json.loads(line).get("served", {}).keys() == interfaces.keys(), line
            yield
            process.send_signal(signal.SIGINT)
            assert process.wait(LONG) == 0
        finally:
            process.kill()


def test_parts_of_another_process(
    nothing_left: None, tmp_path_factory: pytest.TempPathFactory, make_vcan: Callable[[], str]
) -> None:
    folder = tmp_path_factory.mktemp("p")  # The parts' own sockets are in it: a path of theirs has to be short.
    names = ("kernel-classic", "user-classic", "kernel-fd", "user-fd")
    interfaces = {name: make_vcan() for name in names}
    with served(folder, interfaces):
        for name, interface in interfaces.items():
            fd = name.endswith("fd")
            with (
                candump(interface, folder / f"{name}.log") as dump,
                CanBus.open("powertrain", {"interface": "socketcan", "channel": interface, "fd": fd}) as bus,
            ):
                result = flash(bus, profile(backend=name.split("-")[0], fd=fd))
                assert result.verified
                assert result.booted
            # "##" is candump's mark of an FD frame.
            assert {"##" in line for line in dump.wait_lines(50)} == {fd}, name
    contents = [path.read_bytes() for path in (folder / "parts").rglob("*.flash")]
    assert [NEW in flash for flash in contents] == [True] * len(names)
