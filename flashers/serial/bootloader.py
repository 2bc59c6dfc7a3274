"""`SerialBootloader`: what the bootloaders on serial lines do alike: in, into step, and out again as they were found."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Self

from ...transports.deadline import Deadline
from ...transports.errors import SerialGone, TransportError
from ...transports.serial.port import SerialPort
from ..errors import NoResponse, PartError, PartWrongMode, ProfileWrong, Step, silence
from ..flasher import Address, Bootloader, Identity, ProbeResult, State
from . import rates
from .boot_pins import PinSettings
from .entry import SerialEntry
from .reset_line import ResetSettings

ENTRY_TRIES = 3
"""How often the bootloader is brought into step, and the part into its bootloader where that is repeated."""
FAILURES = (TransportError, PartError, ProfileWrong)
"""What speaks against a part, or keeps it from answering."""


class SerialBootloader(Bootloader):
    """One part behind a serial port. The keys `part`, `enter` and `entry` of its profile are a subclass's to define."""

    bus_kind = "serial"

    _mute: ClassVar[tuple[str, str]] = ("its greeting", "Are its wires, its rate and its profile's entry right?")
    """What the bootloader does not answer, and what to do then."""

    def __init__(self, port: SerialPort, profile: Any) -> None:
        self._port = port
        self._profile = profile
        self._entry = self._make_entry()
        self._has_lines = False
        self._changed = False
        """Whether its memory may be half written, so that a failed connection leaves it in its bootloader. Where only a line
        or a command gets the part out again, this is set once the part has acknowledged the first change."""
        self._found: bool | None = None
        """Whether the part sat in its bootloader before it was brought there; None: not known yet."""
        self._has_answered = False

    @abstractmethod
    def _make_entry(self) -> SerialEntry: ...

    @abstractmethod
    def _sync(self) -> bool:
        """Whether the bootloader answers, and is in step from now on.

        Raises SerialGone, and NoResponse or PartWrongMode where it was tried for long enough.
        """

    @abstractmethod
    def _identify(self) -> Identity: ...

    @abstractmethod
    def _accept(self, identity: Identity) -> None:
        """Sets `capabilities`. Raises WrongPart, PartProtected, ProfileWrong for what can't be flashed."""

    @property
    def rate(self) -> str:
        return self._port.rate

    @classmethod
    def attach(cls, bus: SerialPort, address: Address, profile: Any) -> Self:
        return cls(bus, profile)

    @classmethod
    def probe(
        cls, bus: SerialPort, address: Address, profile: Any, *, active: bool, deadline: Deadline | float
    ) -> ProbeResult | None:
        """With `active` only: asks whether the bootloader is there. Touches no modem line."""
        deadline = Deadline.of(deadline)
        if not active:
            return None
        bootloader = cls(bus, profile)
        try:
            bootloader._entry.use_loader_settings()
            identity = bootloader._find(deadline)
            return ProbeResult(State.BOOTLOADER, identity) if identity is not None else None
        except FAILURES:
            return None
        finally:
            bootloader.close()

    @classmethod
    def surprises(cls, profile: Any, bus: Mapping[str, Any]) -> Iterator[str]:
        """What opening the port does to the lines that the profile's `entry` names; a bit rate that no part has; a `part` that
        no part has as its name."""
        entry, part = getattr(profile, "entry", None), getattr(profile, "part", "")
        if isinstance(entry, PinSettings | ResetSettings):
            # Linux asserts both lines by default.
            yield from entry.at_opening({line: bool(bus.get(line, True)) for line in ("dtr", "rts")})
        yield from rates.surprises(profile)
        names = cls._part_names() if isinstance(part, str) and part else ()
        if names and not any(part.lower() in name.lower() for name in names):
            yield f"profile.part = {part!r}: no known part is called so, and a part with another name is refused"

    @classmethod
    def _part_names(cls) -> Sequence[str]:
        """The names of all parts that the profile's `part` is compared with; (): not known."""
        return ()

    def connect(self) -> Identity:
        """Enters the bootloader, and reads who the part is. A part that it refuses, or can't reach, is started again.

        Raises NoResponse, PartWrongMode, WrongPart, PartProtected, ProfileWrong, ProtocolError, TransportError.
        """
        try:
            self._enter()
            identity = self._identify()
            self._accept(identity)
        except FAILURES as error:
            if not self._changed:
                with suppress(TransportError, PartError):
                    if not self._found:
                        self._leave_as_found(error)
                with suppress(TransportError):
                    self._entry.use_application_settings()
            raise
        return identity

    def leave(self) -> None:
        """A part that was found in its bootloader stays there; another one runs its application again."""
        if not self._found:
            self.start_application()

    def abandon(self) -> None:
        """A part that no line resets is brought into step first, wherever its bootloader was stopped."""
        if self._found is not False:
            return
        if not (self._entry.resets and self._entry.reset()):
            self._entry.use_loader_settings()
            try:
                in_step = self._sync()
            except SerialGone as gone:
                self._entry.follow(gone)
                self._entry.use_loader_settings()
                in_step = self._sync()
            if in_step:
                self.start_application()
        self._entry.use_application_settings()

    def close(self) -> None:
        self._entry.close()

    @property
    def _can_reset(self) -> bool:
        """Whether a line resets the part, and the port has it."""
        return self._has_lines and self._entry.resets

    @property
    def _enters_again(self) -> bool:
        """Whether the way into the bootloader is taken again when it doesn't answer."""
        return True

    def _enter(self) -> None:
        """Brings the part into its bootloader and that into step. Raises NoResponse, PartWrongMode, TransportError."""
        if self._found is None:
            self._found = self._is_found()
        self._has_lines = self._enter_once()
        for left in reversed(range(ENTRY_TRIES)):
            try:
                if self._sync():
                    self._has_answered = True
                    return
            except SerialGone as gone:
                # Its application took its time, or the part its port with it.
                self._entry.follow(gone)
                self._entry.use_loader_settings()
                continue
            if left and self._enters_again:
                self._enter_once()
        self._found = self._found and None
        what, remedy = self._mute
        missing = "" if self._has_lines else " The port has no modem lines, which the profile's entry names."
        meaning = self.silences[Step.QUESTION if self._has_answered else Step.CONNECT]
        raise silence(meaning, f"no answer on {self._port.name} to {what} at {self._port.rate}", remedy + missing)

    def _enter_once(self) -> bool:
        try:
            return self._entry.enter()
        except SerialGone as gone:
            self._entry.follow(gone)
            self._entry.use_loader_settings()
            return True

    def _is_found(self) -> bool:
        """Whether the part sits in its bootloader already: it can't be elsewhere where nothing brings it there, else it is
        asked. What an application has heard of that is ended before it is sent its text."""
        if not self._entry.enters:
            return True
        self._entry.use_loader_settings()
        found = self._answers()
        if not found:
            self._entry.end_line()
        return found

    def _answers(self) -> bool:
        """Whether a bootloader answers what is sent before the part is brought into one. Raises SerialGone."""
        return self._sync()

    def _started(self) -> None:
        """The application was started: the line is set for it."""
        self._found = None
        self._entry.await_application()
        self._entry.use_application_settings()

    def _find(self, deadline: Deadline) -> Identity | None:
        """Who is there, if a bootloader is; asked by nothing that disturbs another program."""
        return self._identify() if self._sync() else None

    def _leave_as_found(self, error: Exception) -> None:
        """Starts the application of a part that was only moved into its bootloader, and of which nothing was changed.

        A bootloader that was entered by a text, and reached, gets the command; it isn't known what another bootloader would do.
        """
        self._entry.reset()
        if self._profile.enter and not self._entry.resets and not isinstance(error, NoResponse | PartWrongMode):
            self.start_application()
