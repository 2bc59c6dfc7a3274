"""Recordings of a socketcan bus: the kernel's ISO-TP frames among them, candump and canplayer beside them, the replay."""

from __future__ import annotations

import shutil
import socket
import subprocess
from pathlib import Path

import can
import pytest
from proxyflash.emulators.replay.session import Replay
from proxyflash.emulators.replay.track import ReplayMismatch
from proxyflash.transports.can.bus import CanBus, CanId
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.isotp.kernel import KernelIsoTp
from proxyflash.transports.isotp.opening import IsoTpAddress, IsoTpChannel, IsoTpOptions
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import Recorder
from proxyflash.transports.recording.records import CanFrame

from .waiting import LONG, wait_until

REQUEST, RESPONSE = 0x7E0, 0x7E8
ADDRESS = IsoTpAddress(request=CanId(REQUEST), response=CanId(RESPONSE))
ASKED, ANSWER = bytes(range(100)), bytes(reversed(range(250)))


def soon() -> Deadline:
    return Deadline.after(LONG)


def exchange(bus: CanBus, peer: socket.socket, backend: str) -> None:
    """One request and its response, through one of our two ISO-TPs, with a peer of the kernel's."""
    channel = IsoTpChannel.open(bus, ADDRESS, IsoTpOptions(backend=backend))
    assert isinstance(channel.back_end, KernelIsoTp) == (backend == "kernel")
    channel.send(ASKED, soon())
    assert peer.recv(4095) == ASKED
    peer.send(ANSWER)
    assert channel.recv(soon()) == ANSWER
    channel.close()


ALL_FRAMES = 16 + 37
"""Of one exchange, in both directions: what each side sends, and its flow control."""


def passed(recorder: Recorder) -> list[CanFrame]:
    records = recorder.records()
    return [record for record in records if isinstance(record, CanFrame) and record.can_id in (REQUEST, RESPONSE)]


@pytest.mark.parametrize("backend", ["kernel", "user"])
def test_isotp_frames_are_recorded_with_their_direction_and_replay(vcan: str, tmp_path: Path, backend: str) -> None:
    if shutil.which("candump") is None:
        pytest.skip("can-utils is not installed")
    heard = tmp_path / "heard.log"
    peer = socket.socket(socket.PF_CAN, socket.SOCK_DGRAM, socket.CAN_ISOTP)
    with heard.open("wb") as file, subprocess.Popen(["candump", "-L", vcan], stdout=file) as candump, peer:
        try:
            peer.settimeout(LONG)
            peer.bind((vcan, REQUEST, RESPONSE))
            with CanBus.open("powertrain", {"interface": "socketcan", "channel": vcan}) as bus:
                bus.recorder = recorder = Recorder()
                marker = bus.channel(CanId(0x123), CanId(0x124))
                # Until candump listens.

                def is_heard() -> bool:
                    marker.send(b"", soon())
                    return heard.stat().st_size > 0

                wait_until(is_heard, "candump hears us")
                exchange(bus, peer, backend)
                marker.send(b"\xff", soon())
                wait_until(lambda: b"123#FF" in heard.read_bytes(), "candump hears the end")
                # The kernel's ISO-TP has the answer before the bus's reader has its frames.
                wait_until(lambda: len(passed(recorder)) == ALL_FRAMES, "the recorder has them all")
        finally:
            candump.terminate()
    frames = passed(recorder)
    # ISO 15765-2: a first frame carries 6 of 100 bytes, each consecutive frame 7; 250 bytes want one flow control.
    outgoing = [frame for frame in frames if frame.outgoing]
    assert {frame.can_id for frame in outgoing} == {REQUEST}
    assert [frame.data[0] >> 4 for frame in outgoing] == [1] + [2] * 14 + [3]
    assert [frame.data[0] >> 4 for frame in frames if not frame.outgoing] == [3, 1] + [2] * 35

    [log] = [path for path in recorder.save(tmp_path / "saved") if path.name == "can.log"]
    ours = [line.split()[2] for line in log.read_text().splitlines()]
    theirs = [line.split()[2] for line in heard.read_text().splitlines()]
    # From two processors at once the kernel may hand a frame and the answer to it to two sockets in another order.
    for sender in ("7E0", "7E8"):
        assert [one for one in ours if one.startswith(sender)] == [one for one in theirs if one.startswith(sender)]

    replay = Replay(Recording(tuple(frames)))
    with CanBus.open("powertrain", replay.host_settings("powertrain", "can", {})) as bus:
        channel = IsoTpChannel.open(bus, ADDRESS)
        channel.send(ASKED, soon())
        assert channel.recv(soon()) == ANSWER
        replay.finish()
        with pytest.raises(ReplayMismatch):
            channel.send(ASKED, soon())
        channel.close()
    replay.close()


def test_canplayer_plays_what_was_recorded(vcan: str, tmp_path: Path) -> None:
    if shutil.which("canplayer") is None:
        pytest.skip("can-utils is not installed")
    recorder = Recorder()
    sent = [
        can.Message(arbitration_id=0x123, is_extended_id=False, data=b"\x01\x02"),
        can.Message(arbitration_id=0x18DAF140, is_extended_id=True, data=b""),
        can.Message(arbitration_id=0x7E8, is_extended_id=False, is_remote_frame=True, dlc=3),
        can.Message(arbitration_id=0x1, is_extended_id=False, is_fd=True, bitrate_switch=True, data=bytes(range(64))),
    ]
    for message in sent:
        recorder.can("powertrain", True, message)
    [log] = [path for path in recorder.save(tmp_path) if path.name == "can.log"]
    with can.Bus(interface="socketcan", channel=vcan, fd=True) as bus:
        subprocess.run(["canplayer", "-I", log, "-g", "1", f"{vcan}=powertrain"], check=True, timeout=LONG)
        for message in sent:
            heard = bus.recv(LONG)
            assert heard is not None
            assert heard.equals(message, timestamp_delta=None, check_channel=False, check_direction=False)
