"""Whatever stands in a recording, its loader, its exporters and its replay end well or in a documented error."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import usb.core
import usb.util
from proxyflash.emulators.replay.session import Replay
from proxyflash.emulators.replay.usb import ReplayUsbBackend
from proxyflash.tools import replayable
from proxyflash.transports import plugins
from proxyflash.transports.errors import ProxyflashError
from proxyflash.transports.recording.formats import Recording, candump_log, read
from proxyflash.transports.recording.pcapng import write_pcapng
from proxyflash.transports.recording.records import CanFrame, Record, SerialBytes, SerialLine, UsbControl

MOST = 50
"""Records of each bus that are replayed."""
CANDUMP = re.compile(r"\(\d+\.\d{6}\) [A-Za-z0-9._-]{1,15} [0-9A-F]{3,8}#(R\d*|#?[0-9A-F]*) [RT]")
"""A line of candump's log (can-utils)."""
HEAD = b'{"format": "proxyflash recording", "schema": 1, "arguments": ["scan"]}\n'
DEVICE = "12010002000000408304 11df002201020301".replace(" ", "")
CONFIGURATION = "09021b00010100c032" + "0904000001fe010200" + "0921 0b ff00 0008 1a01".replace(" ", "")
SEEDS = [
    HEAD + b'{"time": 1.5, "bus": "b", "kind": "can", "out": true, "id": "7E0", "data": "0102", "flags": ["fd"]}\n'
    b'{"time": 1.6, "bus": "b", "kind": "can", "out": false, "id": "7E8", "data": "0102"}\n',
    HEAD + b'{"time": 1.5, "bus": "s", "kind": "line", "changes": {"baudrate": 9600, "dtr": true, "parity": "E"}}\n'
    b'{"time": 1.6, "bus": "s", "kind": "serial", "out": true, "data": "7f"}\n'
    b'{"time": 1.7, "bus": "s", "kind": "serial", "out": false, "data": "79", "drained": true}\n',
    HEAD
    + f'{{"time": 1.5, "bus": "usb", "kind": "devices", "devices": [{{"root": 1, "address": 2, "ports": [1], "speed": 2, '
    f'"device": "{DEVICE}", "configurations": ["{CONFIGURATION}"]}}]}}\n'
    '{"time": 1.6, "bus": "usb", "kind": "usb", "root": 1, "address": 2, "setup": "a103000000000600", "data": '
    '"000000000200", "status": 0, "seconds": 0.000021}\n'.encode(),
    HEAD + b'{"time": 1.5, "bus": "", "kind": "answer", "question": "command: x", "text": "1.0"}\n'
    b'{"time": 1.5, "bus": "", "kind": "note", "text": "opened"}\n',
]
"""A good recording of each kind of bus."""


@contextmanager
def documented(code: str) -> Iterator[None]:
    """The block may end in this error."""
    try:
        yield
    except ProxyflashError as error:
        if error.code != code:
            raise AssertionError(f"{error.code} instead of {code}: {error}") from error


def recording(data: bytes) -> None:
    """Raises only where something is wrong with the reader: another exception than a documented one."""
    loaded = None
    with documented("E-RECORDING"):
        loaded = read(io.BytesIO(data), "fuzzed.jsonl")
    if loaded is None:
        return
    _export(loaded.records)
    _allow(loaded)
    for bus in sorted({record.bus for record in loaded.records if record.bus})[:5]:
        for kind in plugins.names(plugins.TRACKS):
            _replay(loaded, bus, kind, [record for record in loaded.records if record.bus == bus][:MOST])


def _export(records: tuple[Record, ...]) -> None:
    for line in candump_log(records):
        assert CANDUMP.fullmatch(line), line
    for record in records:
        assert record.line.isprintable(), record.line
    write_pcapng(records, io.BytesIO())


def _allow(loaded: Recording) -> None:
    kept: list[str] = []
    with documented("E-REPLAY-COMMAND"):
        kept = replayable.allowed(loaded.head.get("arguments", []))
    assert not kept or "--" in kept or next(word for word in kept if word[:1] != "-") in replayable.RECORDED


def _replay(loaded: Recording, bus: str, kind: str, records: list[Record]) -> None:
    track = None
    with documented("E-RECORDING"):
        track = Replay(loaded).track(bus, kind)
    if track is None:
        return
    with documented("E-REPLAY-MISMATCH"):
        for record in records:
            match record:
                case CanFrame() if record.outgoing and kind == "can":
                    track.send(record)
                case CanFrame() if kind == "can":
                    track.receive(0.0)
                case SerialBytes() if record.outgoing and kind == "serial":
                    track.write(record.data)
                case SerialBytes() if kind == "serial":
                    track.read(10, 0.0)
                    track.forget()
                case SerialLine() if kind == "serial":
                    track.set_line(**dict(record.changes))
                case UsbControl() if kind == "usb":
                    _transfers(track, record)
        if kind == "usb":
            _devices(track)


def _transfers(track: object, record: UsbControl) -> None:
    backend = ReplayUsbBackend(track)  # type: ignore[arg-type]
    for seen in backend.enumerate_devices():
        try:
            handle = backend.open_device(seen)
            setup = record.setup
            value, index = int.from_bytes(setup[2:4], "little"), int.from_bytes(setup[4:6], "little")
            data = bytearray(int.from_bytes(setup[6:8], "little")) if record.incoming else record.data
            backend.ctrl_transfer(handle, setup[0], setup[1], value, index, data, 100)
        except usb.core.USBError:
            continue


def _devices(track: object) -> None:
    """All descriptors, as pyusb reads them."""
    backend = ReplayUsbBackend(track)  # type: ignore[arg-type]
    for device in islice(usb.core.find(find_all=True, backend=backend), 5):
        try:
            for configuration in device:
                for interface in configuration:
                    for endpoint in interface:
                        assert endpoint.bLength
            usb.util.get_langids(device)
        except usb.core.USBError:
            continue
