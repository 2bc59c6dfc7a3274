"""Emulated ECUs that insist on a maker's order, each with the profile that follows it; and a process that is killed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import can
import pytest
from proxyflash.emulators import application
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.formats import load, save
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.flashers.programmer import FlashResult
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.isotp.opening import IsoTpChannel

DOCUMENT = Path(__file__).parents[2] / "docs" / "uds-profiles.md"
APP = application.make("1.5.0", "radar", "Acme", 5003, start=0x10000)


def documented(number: int) -> str:
    """A bench file of the page of profiles."""
    found: list[str] = re.findall(r"^```toml\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    return found[number]


class Maker:
    """A bench file with one profile and its emulated ECU, and the folder of the files that it names."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.text = text
        self.image = folder / "app.hex"
        self.image_of: Callable[[Path], FirmwareImage] = load

    def put(self, *segments: tuple[int, bytes]) -> None:
        save(FirmwareImage(tuple(Segment(*item) for item in segments), "mem"), self.image)

    @contextmanager
    def opened(self, old: str = "", new: str = "") -> Iterator[BenchComponent]:
        """With the profile's text changed from `old` to `new`."""
        assert old in self.text
        path = self.folder / "bench.toml"
        path.write_text(self.text.replace(old, new, 1), encoding="utf-8")
        with Bench.open(path, state=self.folder / "state") as bench:
            self.device = bench.emulated_device(bench.components[0].name)
            yield bench.components[0]

    def flash(self, old: str = "", new: str = "", **keys: Any) -> FlashResult:
        with self.opened(old, new) as component:
            result = component.flash(self.image_of(self.image), **keys)
            self.flashed = self.device.flash.read(self.device.flash.base, len(APP))
            return result


class Killed(BaseException):
    """What the process does not survive."""


class Process:
    """Flashes one part. Killed once the first frame of its request number `at` has left: it sends nothing from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = self.events = 0
        self._at, self._is_dead = 0, False
        send, send_frame = IsoTpChannel.send, CanBus.send

        def request(channel: IsoTpChannel, pdu: bytes, deadline: Deadline) -> None:
            self.requests += 1
            send(channel, pdu, deadline)

        def frame(bus: CanBus, message: can.Message, deadline: Deadline) -> None:
            if not self._is_dead:
                send_frame(bus, message, deadline)
                self._is_dead = self.requests == self._at
            if self._is_dead:
                raise Killed

        monkeypatch.setattr(IsoTpChannel, "send", request)
        monkeypatch.setattr(CanBus, "send", frame)

    def flash(
        self, component: BenchComponent, image: Path, *, killed: int = 0, stopped: int = 0, **keys: Any
    ) -> FlashResult:
        """`stopped`: by Ctrl-C, at which event."""
        self._is_dead, self._at, self.requests, self.events = False, killed, 0, 0

        def hear(event: ev.Event) -> None:
            self.events += 1

        return component.flash(image, context=RunContext(hear, lambda: 0 < stopped <= self.events), **keys)
