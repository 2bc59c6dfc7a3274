"""SMP by datagrams: a server of this test, on the loopback, and a bench file that names it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.component import Presence
from proxyflash.flashers.errors import NoResponse
from proxyflash.flashers.formats import load
from proxyflash.tests.flashers.smp_application import NEW, OLD, Application, digest

pytestmark = pytest.mark.real_time("the bus is a socket of the kernel")

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


class Server(Application):
    """`deaf`: it answers nothing; `lose`: the number of the next requests that are lost."""

    def __init__(self) -> None:
        super().__init__()
        self.deaf = False
        self.lose = 0
        self.longest = 0
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
            self._socket.sendto(self.answer(data), address)


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
    with pytest.raises(NoResponse):
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
