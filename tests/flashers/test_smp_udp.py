"""SMP by datagrams: a server of this test, on the loopback, and a bench file that names it."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cbor2
import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Presence
from proxyflash.flashers.errors import PartMute
from proxyflash.flashers.formats import load
from proxyflash.tests.flashers.test_mcuboot import made

BENCH = """
[bus.lan]
kind = "udp"
host = "127.0.0.1"
port = {port}

[[component]]
name = "weather"
bus = "lan"
protocol = "smp-udp"
profile = {{answer = 0.3, quiet = 0.01, erase = 1, window = 2, swap = 20}}
"""
OLD, NEW = made(version=(1, 0, 0, 0)), made(version=(1, 1, 0, 0))


def digest(image: bytes) -> bytes:
    """The last 32 bytes of the images of `made`: the one TLV that they end with."""
    return image[-32:]


class Server:
    """An application with two slots, which MCUboot swaps at a reset (Zephyr's groups 0 and 1). `deaf`: it answers
    nothing; `lose`: so many of the next requests are lost."""

    def __init__(self) -> None:
        self.running, self.other = OLD, b""
        self.confirmed, self.pending = True, False
        self.got = bytearray()
        self.deaf = False
        self.lose = 0
        self.longest = 0
        self.uploads = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, address = self._socket.recvfrom(0x1_0000)
            if not data:
                return
            self.longest = max(self.longest, len(data))
            if self.deaf:
                continue
            if self.lose:
                self.lose -= 1
                continue
            first, _, length, group, sequence, command = struct.unpack(">BBHHBB", data[:8])
            assert length == len(data) - 8
            body = cbor2.dumps(self._answer(first & 7, group, command, cbor2.loads(data[8:])))
            self._socket.sendto(
                struct.pack(">BBHHBB", first + 1, 0, len(body), group, sequence, command) + body, address
            )

    def _answer(self, op: int, group: int, command: int, asked: dict[str, Any]) -> dict[str, Any]:
        match (group, command, op):
            case (0, 0, 2):
                return {"r": asked["d"]}
            case (0, 6, 0):
                return {"buf_size": 2048, "buf_count": 4}
            case (0, 7, 0):
                return {"output": {"i": "weather_board/nrf9160", "n": "roof"}[asked["format"]]}
            case (0, 5, 2):
                self._restart()
                return {}
            case (1, 0, 0):
                return self._state()
            case (1, 0, 2):
                if asked.get("hash") == digest(self.running):
                    self.confirmed = asked["confirm"]
                else:
                    assert asked["hash"] == digest(self.other)
                    self.pending = True
                return self._state()
            case (1, 1, 2):
                return self._upload(asked)
        return {"rc": 8}

    def _restart(self) -> None:
        if self.pending or not self.confirmed:
            self.running, self.other = self.other, self.running
            self.confirmed, self.pending = not self.pending, False

    def _state(self) -> dict[str, Any]:
        slots = [
            {
                "slot": 0,
                "version": f"{self.running[20]}.{self.running[21]}.0",
                "hash": digest(self.running),
                "confirmed": self.confirmed,
                "active": True,
            }
        ]
        if self.other:
            version = f"{self.other[20]}.{self.other[21]}.0"
            slots.append({"slot": 1, "version": version, "hash": digest(self.other), "pending": self.pending})
        return {"images": slots}

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.uploads += 1
        if asked["off"] == 0:
            self.got.clear()
        if asked["off"] == len(self.got):
            self.got += asked["data"]
        self.other = bytes(self.got)
        return {"off": len(self.got)}


@pytest.fixture
def server() -> Iterator[Server]:
    serving = Server()
    yield serving
    serving.close()


@pytest.fixture
def bench(server: Server, tmp_path: Path) -> Iterator[Bench]:
    file = tmp_path / "bench.toml"
    file.write_text(BENCH.format(port=server.port))
    with Bench.open(file, state=tmp_path / "state") as opened:
        yield opened


@pytest.fixture
def new(tmp_path: Path) -> Path:
    file = tmp_path / "new.bin"
    file.write_bytes(NEW)
    return file


def test_scanned(bench: Bench) -> None:
    (found,) = bench.scan().components
    assert (found.presence, found.version, found.model) == (Presence.OK, "1.0.0", "weather_board/nrf9160")
    assert found.properties["name"] == "roof"
    assert found.properties["slot_0"] == f"1.0.0 active confirmed {digest(OLD).hex()}"


def test_a_part_that_is_not_there_is_absent(bench: Bench, server: Server, new: Path) -> None:
    server.deaf = True
    (found,) = bench.scan().components
    assert found.presence is Presence.ABSENT
    with pytest.raises(PartMute):
        bench.component("weather").flash(new)


def test_updated_and_confirmed(bench: Bench, server: Server, new: Path) -> None:
    result = bench.component("weather").flash(new, expect_version="1.1.0")
    assert result is not None
    assert (server.running, server.confirmed, result.version) == (NEW, True, "1.1.0")
    assert server.longest <= 1472


def test_datagrams_are_lost(bench: Bench, server: Server, new: Path) -> None:
    server.lose = 2
    component = bench.component("weather")
    programmer = component.programmer()
    plan = programmer.plan(load(new))
    server.lose = 1
    programmer.flash(plan)
    assert (server.running, server.confirmed) == (NEW, True)


def test_what_runs_already_is_not_uploaded(bench: Bench, server: Server, new: Path) -> None:
    bench.component("weather").flash(new)
    before = server.uploads
    bench.component("weather").flash(new)
    assert server.uploads == before
