"""A part that is its own port: at each reset it leaves, and comes back as another pseudo-terminal under the same name."""

from __future__ import annotations

import base64
import binascii
import os
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.errors import RebootFailed
from proxyflash.tests.flashers.smp_application import NEW, Application
from proxyflash.transports.errors import SerialAbsent, SerialGone

pytestmark = pytest.mark.real_time("the port is a pseudo-terminal of the kernel")

BENCH = """
[bus.acm]
kind = "serial"
url = "{link}"

[[component]]
name = "dongle"
bus = "acm"
protocol = "smp"
profile = {{answer = 5, quiet = 0.05, swap = {swap}}}
"""
AWAY_SECONDS = 0.2


class Dongle(Application):
    """`link`: the name that stays. `polite`: it answers a reset before it leaves. `lasting`: it comes back at all."""

    def __init__(self, link: Path) -> None:
        super().__init__()
        self.link = link
        self.polite = self.lasting = True
        self._closing = False
        self._plug_in()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()

    def _plug_in(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        new = self.link.with_suffix(".new")
        new.symlink_to(os.ttyname(self._slave))
        new.rename(self.link)

    def _unplug(self) -> None:
        self.link.unlink()
        os.close(self._slave)
        os.close(self._master)

    def _serve(self) -> None:
        os.set_blocking(self._master, False)
        data, packet = b"", b""
        while not self._closing:
            try:
                data += os.read(self._master, 4096)
            except BlockingIOError:
                time.sleep(0.002)
                continue
            while b"\n" in data:
                line, _, data = data.partition(b"\n")
                packet = base64.b64decode(line[2:]) if line[:2] == b"\x06\x09" else packet + base64.b64decode(line[2:])
                if len(packet) < 2 + int.from_bytes(packet[:2], "big"):
                    continue
                resets = self.resets
                reply = self.answer(packet[2:-2])
                if self.resets == resets or self.polite:
                    self._send(reply)
                if self.resets > resets:
                    self._leave()
                    data = b""
                    if not self.lasting:
                        return
        self._unplug()

    def _send(self, packet: bytes) -> None:
        whole = (len(packet) + 2).to_bytes(2, "big") + packet + binascii.crc_hqx(packet, 0).to_bytes(2, "big")
        os.write(self._master, b"\x06\x09" + base64.b64encode(whole) + b"\n")

    def _leave(self) -> None:
        time.sleep(0.05)
        self._unplug()
        if self.lasting:
            time.sleep(AWAY_SECONDS)
            self._plug_in()
            os.set_blocking(self._master, False)


@pytest.fixture
def dongle(tmp_path: Path) -> Iterator[Dongle]:
    made = Dongle(tmp_path / "port")
    yield made
    made.close()


def opened(dongle: Dongle, folder: Path, swap: float = 60) -> Bench:
    file = folder / "bench.toml"
    file.write_text(BENCH.format(link=dongle.link, swap=swap))
    (folder / "new.bin").write_bytes(NEW)
    return Bench.open(file, state=folder / "state")


@pytest.mark.parametrize("polite", [True, False])
def test_it_is_updated_over_the_port_that_comes_back(dongle: Dongle, tmp_path: Path, polite: bool) -> None:
    dongle.polite = polite
    with opened(dongle, tmp_path) as bench:
        result = bench.component("dongle").flash(tmp_path / "new.bin")
        assert result is not None
        assert (result.version, dongle.running, dongle.confirmed) == ("1.1.0", NEW, True)


def test_one_that_stays_away_is_told(dongle: Dongle, tmp_path: Path) -> None:
    dongle.lasting = False
    with opened(dongle, tmp_path, swap=0.3) as bench, pytest.raises((SerialAbsent, RebootFailed)):
        bench.component("dongle").flash(tmp_path / "new.bin")


def test_one_that_leaves_unasked_is_gone(dongle: Dongle, tmp_path: Path) -> None:
    with opened(dongle, tmp_path) as bench:
        programmer = bench.component("dongle").programmer()
        programmer.connect()
        dongle.close()
        with pytest.raises(SerialGone):
            programmer.bootloader.connect()
