"""`Stm32CanDevice` and `Stm32FdcanDevice`: an emulated sensor on an STM32, updated through its system-memory bootloader on CAN.

The loader is in can_loader.py, the part in part.py and parts.toml; this module has the board and the bench file's keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NoReturn, Self

from ...transports import clock
from .. import application
from ..board import ResetPulled
from ..can.board import CanBoard, CanDevice, Question, enter_frame
from ..can.wire import CanWire
from ..device import DeviceSpec, factory_content
from ..keys import Range
from ..supply import Supply
from .can_loader import CanLoader, FdcanLoader
from .device import Stm32PartKeys
from .part import Stm32Memory, parts

RESET_SECONDS = 0.02
SPEED_SECONDS = 0.303
"""OpenBL, OPENBL_CAN_Speed."""
IDS = (*range(0x100), 0x111)
"""What the loader's filters let pass."""


class Stm32CanBoard(CanBoard):
    """`loader`: the ROM's firmware. `enter`: the frame by which the application starts the loader; None: it has none."""

    memory: Stm32Memory
    loader: Callable[[], int]
    first_bitrate = 0
    """At which the loader begins; 0: at the wire's."""

    def __init__(
        self,
        name: str,
        supply: Supply,
        wire: CanWire,
        question: Question | None,
        enter: tuple[int, bytes] | None,
        *,
        boot0: bool,
        mute: bool,
        fd: bool,
        pace: float,
    ) -> None:
        self._enter = enter
        self._boot0 = boot0
        self._mute = mute
        self._fd = fd
        self.wanted = False
        """Whether the application has asked for the loader: a mark that a reset leaves as it is."""
        # The wire may bring frames from now on.
        super().__init__(name, supply, wire, question, pace=pace)

    def firmware(self) -> None:
        self._restarted()
        wanted, self.wanted = self.wanted, False
        if self._mute:
            return
        self.node.change_bit_rate(self._wire.bitrate)
        start: int | None = self.memory.flash.base
        if wanted or self._boot0 or application.find(self.memory.flash, self.memory.flash.base) is None:
            self.node.change_bit_rate(self.first_bitrate or self._wire.bitrate)
            start = self.loader()
            self.node.flush()
            self.node.change_bit_rate(self._wire.bitrate)
        flash = self.memory.flash
        self.running = application.find(flash, start) if start is not None and flash.base <= start < flash.end else None
        self.is_hung = self.running is None
        while self.running is not None:
            identifier, data = self._next()
            if (identifier, data) == self._enter:
                self.wanted = True
                self._busy(RESET_SECONDS)
                raise ResetPulled
            self._answers(identifier, data)

    def powered_off(self) -> None:
        super().powered_off()
        self.memory.forget_ram()

    def _switched(self, on: bool) -> None:
        self.wanted = self.wanted and on
        super()._switched(on)

    def _listens_to(self) -> Sequence[int]:
        if self.running is None:
            return IDS
        return () if self._enter is None else (self._enter[0],)

    # What the loader calls.

    def receive(self) -> tuple[int, bytes]:
        return self._next()

    def send(self, identifier: int, data: bytes) -> None:
        self._send(identifier, data, fd=self._fd)

    def change_bit_rate(self, bitrate: int) -> None:
        self.node.flush()
        self.node.change_bit_rate(bitrate)
        self._clock = max(self._clock, clock.monotonic())
        self._busy(SPEED_SECONDS)

    def reset_itself(self) -> NoReturn:
        """A system reset, by which new option bytes count."""
        self._busy(RESET_SECONDS)
        raise ResetPulled

    def work(self, seconds: float) -> None:
        self._work(seconds)


@dataclass(frozen=True, kw_only=True)
class Stm32CanKeys(Stm32PartKeys):
    """The `emulated` table."""

    first_bitrate: Annotated[int, Range(0)] = 0
    """Bit rate at which the bootloader begins, in bit/s. 0: the bus's bit rate."""
    shape: Literal["rom", "openbl"] = "rom"
    """How many ACKs the bootloader sends where AN3154 leaves it open: as ROMs do, or as ST's sources do ("openbl")."""


@dataclass(frozen=True, kw_only=True)
class Stm32FdcanKeys(Stm32PartKeys):
    """The `emulated` table."""

    opener: bool = False
    """Whether only the frame 0x111 with the byte 5A starts the bootloader, as from protocol 2.2 on."""


class Stm32CanDevice(CanDevice):
    """One part on CAN.

    After a reset it starts the loader if BOOT0 is high, if its application has asked for that, or if its flash begins with no
    application that can be booted; else the application, which answers the bench file's version question and takes the frame of
    the profile's `enter`.
    """

    keys: ClassVar[type[Stm32PartKeys]] = Stm32CanKeys
    node: Stm32CanBoard

    def __init__(self, spec: DeviceSpec, wire: CanWire) -> None:
        settings = self.keys.of(spec.settings, self.part_names())
        part = parts()[settings.part]
        fresh = spec.is_new
        self.name = spec.name
        self.supply = Supply()
        self.node = Stm32CanBoard(
            spec.name,
            self.supply,
            wire,
            Question.of(spec),
            enter_frame(spec),
            boot0=settings.boot0,
            mute=settings.mute,
            fd=self.is_fd,
            pace=spec.pace,
        )
        memory = Stm32Memory(
            part,
            self.supply,
            uid=settings.uid(spec.name),
            options=settings.options(),
            path=spec.flash_path,
            busy=self.node.work,
        )
        self.memory = self.node.memory = memory
        self.flash = memory.flash
        self.node.loader = self._make_loader(settings).run
        factory_content(spec, self.flash, fresh=fresh)
        self.node.start()

    is_fd = False

    @classmethod
    def attach(cls, spec: DeviceSpec, wire: CanWire) -> Self:
        return cls(spec, wire)

    @classmethod
    def part_names(cls) -> Sequence[str]:
        return tuple(parts())

    def _make_loader(self, settings: Stm32PartKeys) -> CanLoader:
        assert isinstance(settings, Stm32CanKeys)
        self.node.first_bitrate = settings.first_bitrate
        return CanLoader(self.node, self.memory, shape=settings.shape)

    def reset(self) -> None:
        self.node.reset()


class Stm32FdcanDevice(Stm32CanDevice):
    """One part on CAN FD. As `Stm32CanDevice`."""

    keys = Stm32FdcanKeys
    is_fd = True

    def _make_loader(self, settings: Stm32PartKeys) -> CanLoader:
        assert isinstance(settings, Stm32FdcanKeys)
        return FdcanLoader(self.node, self.memory, opener=settings.opener)
