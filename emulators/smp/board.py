"""A part with MCUboot and a Zephyr application on its board: what runs after a reset, and what its serial line carries.

The part has a number of buffers for packets; a packet that comes while all are in use is lost, as on the part. On a console
other text lies between the packets: what the application logs, and the question that it answers.
"""

from __future__ import annotations

import itertools
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from ...transports import clock
from ..application import Application
from ..mcuboot.image import Image
from ..mcuboot.loader import Mcuboot, Mode
from ..serial.board import Sensor, Silence, Stage
from ..serial.boot_pin_board import BootPinBoard, Pins
from ..serial.wire import RECEIVE_BUFFER, UartWire
from ..supply import Supply
from .frames import Console, Framing, Raw
from .images import Images
from .os_group import SmpOs
from .recovery import Recovery
from .server import Server

RESET_SECONDS = 0.25
"""Between the answer to a reset and the reset itself, in which the answer leaves (CONFIG_MCUMGR_GRP_OS_RESET_MS)."""
TORN_EVERY = 5
"""The number of packet lines in a round; a torn log spoils the last line of each round."""


LATE = b"\r\n[00:00:09.876,543] <wrn> sensor: late\r\n"


class Log(StrEnum):
    """What else the console carries."""

    NONE = "none"
    LINES = "lines"
    """Lines of text between those of packets."""
    TORN = "torn"
    """Now and then also within a packet's line, which is lost by that."""


@dataclass(frozen=True, slots=True)
class Build:
    """What the firmware was built with.

    `raw`: packets without console framing. `buffer_size`, `buffers`: of the application, in bytes and packets;
    `recovery_size`: of serial recovery, which has one. `version`: newest of SMP, 0 or 1. `told`: some successes report `rc` 0.
    `params`: it reports its buffers; `informs`: slots, bootloader and itself. `full_recovery`: serial recovery has more
    than the needful. `checks`: uploads are compared with the hash that came with
    them. `progressive`: sectors are erased as they are needed. `recovery`: MCUboot has serial recovery, for
    `recovery_wait` seconds after each reset, and from then on if there is nothing to boot. `recovery_baudrate`: of MCUboot; 0:
    as of the application. `confirms`: the application
    confirms itself. `watchdog`: seconds after which an application that crashed is reset; 0: never. `raw_silence`: seconds
    within a raw packet after which it is given up. `quiet_reset`: a reset comes without an answer. `mute`: nothing is
    ever answered.
    """

    raw: bool = False
    buffer_size: int = 384
    buffers: int = 4
    recovery_size: int = 1024
    version: int = 1
    told: bool = False
    params: bool = True
    informs: bool = True
    full_recovery: bool = True
    checks: bool = True
    progressive: bool = False
    recovery: bool = True
    recovery_wait: float = 0.0
    recovery_baudrate: int = 0
    confirms: bool = False
    watchdog: float = 0.0
    raw_silence: float = 0.25
    quiet_reset: bool = False
    log: Log = Log.NONE
    mute: bool = False


class SmpBoard(BootPinBoard):
    """`ram`: where the initial stack pointer of an application lies; an application that is linked for another address crashes.

    `facts`: what the application says of itself (SmpOs). The strap pin asks for serial recovery.
    """

    receiver_bytes: ClassVar[int] = RECEIVE_BUFFER
    """Packets are what it runs out of, not bytes."""

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: UartWire,
        pins: Pins,
        sensor: Sensor,
        build: Build,
        *,
        ram: range,
        facts: Mapping[str, str],
        pace: float,
    ) -> None:
        super().__init__(name, supply, wire, pins, sensor, mute=build.mute, pace=pace)
        self.loader: Mcuboot
        self._build = build
        self._ram = ram
        self._facts = facts
        self._asked_reset: bool | None = None
        """A request has asked for a reset: whether it is to end in serial recovery."""
        self._boot_mode = False
        """The reset that came is to end in serial recovery: in RAM, which a reset leaves."""
        self.starts = 0
        """How often the processor has started."""
        self._sent = itertools.count(1)

    # What the processor does.

    def firmware(self) -> None:
        self.starts += 1
        self._asked_reset = None
        into_recovery, self._boot_mode = self._boot_mode, False
        build = self._build
        line = self._sensor.line
        self._uart.line = replace(line, baudrate=build.recovery_baudrate or line.baudrate)
        if not self._comes_out_of_reset():
            return
        self._enter(Stage.LOADER)
        self._say("*** Booting MCUboot v2.1.0 ***")
        if build.recovery and (into_recovery or self._strap):
            self._recover(None)
        if build.recovery and build.recovery_wait:
            self._recover(build.recovery_wait)
        booted = self.loader.boot()
        if booted is not None:
            self._run_image(*booted)
        elif build.recovery:
            self._recover(None)
        else:
            self._say("E: Unable to find bootable image")
            self._enter(Stage.HUNG)

    def _recover(self, seconds: float | None) -> None:
        """Serial recovery; returns when no packet came for that long (None: never)."""
        build = self._build
        recovery = Recovery(self.loader, full=build.full_recovery, progressive=build.progressive)
        system = self._system(build.recovery_size, 1)
        framing = self._framing(build.recovery_size)
        handlers = {**recovery.handlers(), **system.recovery_handlers(full=build.full_recovery)}
        server = Server(handlers, room=build.recovery_size - framing.overhead, newest=3, told=False)
        self._serve(server, framing, 1, seconds=seconds)

    def _run_image(self, active: int, image: Image) -> None:
        slot = self.loader.pairs[0].slots[active]
        self._say(f"I: Bootloader chainload address offset: 0x{slot.start - slot.flash.base:x}")
        self._say("I: Jumping to the first image slot")
        if self.loader.mode is not Mode.HIGHEST and not self._fits(active, image):
            self._crash()
            return
        build = self._build
        pair = self.loader.pairs[0]
        if build.confirms and self.loader.mode is Mode.SWAP:
            pair.set_next(pair.primary, active=True, confirm=True)
        self.running = Application(image.version_text, "", "", image.size)
        self._uart.line = self._sensor.line
        self._enter(Stage.APPLICATION)
        self._say("*** Booting Zephyr OS build v4.4.0 ***")
        images = Images(self.loader, active, checks=build.checks, progressive=build.progressive)
        system = self._system(build.buffer_size, build.buffers)
        framing = self._framing(build.buffer_size)
        handlers = {
            **images.handlers(slot_info=build.informs),
            **system.handlers(params=build.params, info=build.informs),
        }
        room = build.buffer_size - framing.overhead
        server = Server(handlers, room=room, newest=build.version, told=build.told)
        answer = self._sensor.answer(image.version_text) if self._sensor.question else b""
        self._serve(server, framing, build.buffers, answer=answer)

    def _system(self, buffer_size: int, buffers: int) -> SmpOs:
        return SmpOs(self.loader, self._ask_reset, self._facts, buffer_size=buffer_size, buffers=buffers)

    def _ask_reset(self, into_recovery: bool) -> None:
        """It comes once the answer to the request has left."""
        self._asked_reset = into_recovery

    def _fits(self, active: int, image: Image) -> bool:
        """Whether it is linked for where it lies: the first two words of an ARM vector table show it."""
        slot = self.loader.pairs[0].slots[active]
        stack, reset = struct.unpack("<II", slot.read(image.header_size, 8))
        return stack in self._ram and bool(reset & 1) and slot.start <= reset - 1 < slot.start + slot.size

    def _crash(self) -> None:
        self._enter(Stage.HUNG)
        if self._build.watchdog:
            self.busy(self._build.watchdog)
            self.reset_itself()

    def powered_off(self) -> None:
        super().powered_off()
        self._boot_mode = False

    # What its line carries.

    def _framing(self, room: int) -> Framing:
        return Raw(room) if self._build.raw else Console(room)

    def _serve(
        self, server: Server, framing: Framing, buffers: int, *, seconds: float | None = None, answer: bytes = b""
    ) -> None:
        """Answers packets, and the question, for ever; returns when no packet came for `seconds` after the start."""
        waiting: deque[bytes] = deque()
        until = None if seconds is None else clock.monotonic() + seconds
        question = self._sensor.question
        heard = b""
        while True:
            for packet in framing.feed(self._arrived(framing, wait=not waiting, until=until)):
                until = None
                if len(waiting) < buffers:
                    waiting.append(packet)
            heard += framing.heard()
            if answer and question in heard:
                heard = b""
                self.send(answer)
            heard = heard[-len(question) :] if question else b""
            if waiting:
                self._answer(server, framing, waiting.popleft())
            elif until is not None and clock.monotonic() >= until:
                return

    def _arrived(self, framing: Framing, *, wait: bool, until: float | None) -> bytes:
        """All bytes that have come: at least one when `wait`, unless the time is up."""
        first = b""
        if wait:
            limit = self._build.raw_silence if self._build.raw else None
            if until is not None:
                left = max(0.0, until - clock.monotonic())
                limit = left if limit is None else min(limit, left)
            try:
                first = self.receive(1, limit)
            except Silence:
                framing.silence()
                return b""
        with self.changed:
            self.tick()
            rest = self._uart.take(self._uart.available())
            self.clock = max(self.clock, self._uart.arrived_at)
            return first + rest

    def _answer(self, server: Server, framing: Framing, packet: bytes) -> None:
        reply = server.answer(packet)
        if reply is not None and (self._asked_reset is None or not self._build.quiet_reset):
            self._say("<inf> mcumgr: request handled")
            for piece in self._logged(framing.lines(reply)):
                self.send(piece)
        if self._asked_reset is not None:
            self.busy(RESET_SECONDS)
            self._boot_mode = self._asked_reset
            self.reset_itself()

    def _logged(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """With what the log puts between and, if it is a torn one, into the lines."""
        log = Log.NONE if self._build.raw else self._build.log
        for number, line in enumerate(lines):
            if number and log is not Log.NONE:
                yield LATE
            if log is Log.TORN and next(self._sent) % TORN_EVERY == 0:
                half = len(line) // 2
                yield line[:half] + LATE + line[half:]
            else:
                yield line

    def _say(self, text: str) -> None:
        """A line of the log, and the shell's prompt, after which the next packet comes without a line's end."""
        if self._build.log is not Log.NONE and not self._build.raw:
            self.send(f"[00:00:01.234,567] {text}\r\nuart:~$ ".encode())
