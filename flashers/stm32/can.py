"""`stm32-can` and `stm32-fdcan`: the STM32 system memory bootloader on CAN, by ST's AN3154, and on CAN FD, by AN5405.

What is sent is in can_commands.py and codec.py, the order of things in flasher.py. The arbitration ids are the commands, so one
part of a bus may be in its bootloader at a time. The part gets there by its BOOT0 pin, or by a frame that its application takes
for that.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Self
from weakref import WeakKeyDictionary

from ...transports import clock
from ...transports.can.bus import CanBus
from ...transports.deadline import Deadline
from ...transports.errors import NotAcknowledged, ProxyflashError, TransportError
from ..can.question import ask_version, can_id
from ..errors import PartError, PartWrongMode, ProfileWrong, Step, WrongPart, silence
from ..flasher import Identity, ProbeResult, State
from ..settings import Settings
from .can_commands import CanCommands, FdcanCommands
from .codec import SILENCES, SPEEDS
from .eraser import Eraser
from .flasher import Stm32Memory
from .parts import FLASH_START
from .profile import Stm32CanAddress, Stm32CanProfile, Stm32FdcanProfile

if TYPE_CHECKING:
    from ..describing import Describer

_connected: WeakKeyDictionary[CanBus, _Stm32OnCan] = WeakKeyDictionary()
"""Of each open bus the component that is being worked on."""
VERSION_SECONDS = 0.15
"""How long an application has to answer while a bootloader does."""
ALONE_SECONDS = 1.0
"""How long a part may be off the bus while it restarts."""
ALONE_PAUSE = 0.1
OTHERS_TRIES = 2
"""How often a bootloader is asked on a bus whose application answers."""


class _Stm32OnCan(Stm32Memory):
    """The one part of a bus that is in its bootloader."""

    bus_kind = "can"
    probes_application = True
    shares_bus = False
    Address = Stm32CanAddress

    _commands: ClassVar[type[CanCommands]]
    _profile: Stm32FdcanProfile
    _loader: CanCommands

    def __init__(self, bus: CanBus, address: Stm32CanAddress, profile: Stm32FdcanProfile) -> None:
        self._bus = bus
        self._address = address
        self._profile = profile
        self._loader = self._commands(bus, answer=profile.answer)
        self._changed = False
        self._eraser = Eraser(self._loader, profile, self._has_changed)
        self._found: bool | None = None
        """Whether the part sat in its bootloader before it was brought there; None: not known yet."""
        self._has_answered = False

    @classmethod
    def attach(cls, bus: CanBus, address: Stm32CanAddress, profile: Stm32FdcanProfile) -> Self:
        return cls(bus, address, profile)

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe_can import Stm32CanDescriber

        return Stm32CanDescriber(name)

    @classmethod
    def can_tell(cls, address: Stm32CanAddress) -> bool:
        return address.question is not None

    @classmethod
    def probe(
        cls,
        bus: CanBus,
        address: Stm32CanAddress,
        profile: Stm32FdcanProfile,
        *,
        active: bool,
        deadline: Deadline | float,
    ) -> ProbeResult | None:
        """The loader is asked with `active` only: any frame starts a loader, and its ids may be others' on the bus."""
        deadline = Deadline.of(deadline)
        version = ask_version(bus, address, profile.version, deadline.sooner(profile.answer))
        if version is not None:
            return ProbeResult(State.RUNNING, Identity(version=version))
        # While a part is worked on, its loader takes any frame for what it waits for.
        if not active or bus in _connected:
            return None
        flasher = cls(bus, address, profile)
        try:
            identity = flasher.identify()
            # Another unique id is that of another part of the bus.
            if identity is None or address.serial_number not in ("", identity.serial):
                return None
            return ProbeResult(State.BOOTLOADER, identity)
        except (TransportError, PartError):
            return None
        finally:
            flasher.close()

    def identify(self) -> Identity | None:
        """Who the part is that is in its bootloader. Raises PartError, TransportError."""
        return self._identify() if self._loader.sync() else None

    def connect(self) -> Identity:
        other = _connected.get(self._bus)
        if other is not None and other is not self:
            raise PartWrongMode(
                f"another component of {self._bus.name} is in its bootloader, which has the same arbitration ids",
                remedy="Work on one component of this bus after the other.",
            )
        _connected[self._bus] = self
        self._enter()
        try:
            identity = self._identify()
            self._accept(identity)
            if self._address.serial_number not in ("", identity.serial):
                raise WrongPart(
                    f"the part's unique id is {identity.serial}, the address wants {self._address.serial_number}"
                )
        except ProxyflashError:
            if self._found is False and not self._changed:
                with suppress(TransportError, PartError):
                    self.start_application()
            raise
        return identity

    def leave(self) -> None:
        """A part that was found in its bootloader stays there; another one runs its application again."""
        if not self._found:
            self.start_application()

    def abandon(self) -> None:
        """The part may be on its way into its bootloader, or wait for the rest of a command."""
        if self._found is False and self._syncs(Deadline.after(self._profile.start)):
            self.start_application()

    def close(self) -> None:
        if _connected.get(self._bus) is self:
            del _connected[self._bus]
        self._loader.close()

    def start_application(self) -> None:
        self._loader.go(FLASH_START)

    def _wire_seconds(self, size: int) -> float:
        return self._loader.wire_seconds(size)

    def _enter(self) -> None:
        """Raises NoResponse, PartWrongMode, TransportError."""
        version = self._version()
        is_there = self._loader.sync(tries=OTHERS_TRIES if version else 0) or (not version and self._changes_rate())
        # The part may be restarting. A frame for an application that is not there would come to it once it is.
        if self._loader.alone is not None:
            is_there = self._syncs(Deadline.after(ALONE_SECONDS))
            if (alone := self._loader.alone) is not None:
                raise self._silent(f"no answer on {self._bus.name} from the bootloader: {alone.cause}", alone.remedy)
        if is_there and version:
            raise PartWrongMode(
                f"the application answers ({version}), and so does a bootloader on {self._bus.name}: it is another part's",
                remedy="Finish that other part first, or start its application: one part of a bus may be in its bootloader.",
            )
        enter = self._profile.enter
        if not is_there and enter.id is not None:
            self._found = bool(self._found)
            channel = self._bus.channel(can_id(enter.id), (), fd=False)
            try:
                with suppress(NotAcknowledged):
                    channel.send(enter.data, self._profile.answer)
            finally:
                channel.close()
            is_there = self._syncs(Deadline.after(self._profile.start))
        if not is_there:
            raise self._silent(
                f"no answer on {self._bus.name} from the bootloader",
                "Is BOOT0 high, was the part reset since, and is the bus's bit rate that of its bootloader (on CAN 125 kbit/s "
                "after a reset, on CAN FD as ST's AN2606 has it)? For an application that starts it by a frame, set enter.",
            )
        self._has_answered = True
        if self._found is None:
            self._found = True

    def _silent(self, cause: str, remedy: str) -> ProxyflashError:
        return silence(SILENCES[Step.QUESTION if self._has_answered else Step.CONNECT], cause, remedy)

    def _version(self) -> str | None:
        """What the application answers while a bootloader may answer, too; None: nothing."""
        try:
            return ask_version(self._bus, self._address, self._profile.version, Deadline.after(VERSION_SECONDS))
        except NotAcknowledged:
            return None

    def _changes_rate(self) -> bool:
        """Whether a loader answers at the bit rate that it begins with, and then at the bus's. Raises ProfileWrong."""
        return False

    def _syncs(self, deadline: Deadline) -> bool:
        """Whether a part that may be restarting answers until the deadline."""
        while not (self._loader.sync() or self._changes_rate()):
            if deadline.expired:
                return False
            if self._loader.alone is not None:
                clock.sleep(ALONE_PAUSE)
        return True


class Stm32CanFlasher(_Stm32OnCan):
    """On classic CAN."""

    protocol = "stm32-can"
    other_names = ("an3154", "stm32", "canprog")
    Profile: ClassVar[type[Settings]] = Stm32CanProfile

    _commands = CanCommands
    _profile: Stm32CanProfile

    def _changes_rate(self) -> bool:
        first, rates = self._profile.first_bitrate, self._bus.bit_rates
        if first is None or (rates is not None and rates[0] == first):
            return False
        if rates is None or rates[0] not in SPEEDS:
            raise ProfileWrong(
                f"first_bitrate wants a bit rate of {self._bus.name} that the bootloader can change to",
                remedy="Set the bus's bitrate to " + ", ".join(f"{rate:,}".replace(",", "_") for rate in SPEEDS) + ".",
            )
        self._bus.change_bit_rate(first)
        try:
            if not self._loader.sync():
                return False
            self._loader.speed(rates[0])
        except (PartError, NotAcknowledged):
            return False
        finally:
            self._bus.change_bit_rate(rates[0])
        return self._loader.await_speed()


class Stm32FdcanFlasher(_Stm32OnCan):
    """On CAN FD, whose bit rates the bootloader doesn't change."""

    protocol = "stm32-fdcan"
    other_names = ("an5405",)
    bus_defaults: ClassVar[Mapping[str, Any]] = {"fd": True}
    Profile: ClassVar[type[Settings]] = Stm32FdcanProfile

    _commands = FdcanCommands
