"""A part whose loader takes a file over a serial line and says in text what it makes of it: what XMODEM and YMODEM share.

What is said and heard is in console.py, how blocks go out in sender.py, how the part gets into its loader
in serial/boot_pins.py; what the loader's texts are is the profile's. Here is the order of things. One rule: that all blocks
were acknowledged says that they were received. Only the loader's own last word makes it a file that is in place.
"""

from __future__ import annotations

import re
import zlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, ClassVar

from ...transports.deadline import Deadline
from ...transports.errors import TransportError
from ...transports.serial.port import SerialPort
from ..errors import (
    PartRefused,
    ProfileWrong,
    ProtocolError,
    WrongPart,
)
from ..flasher import Capability, Identity, Slot, SlotBootloader, Target
from ..serial.boot_pins import BootPins
from ..serial.bootloader import SerialBootloader
from ..serial.entry import LineSettings
from .codec import SILENCES, Control, Piece, pieces
from .console import LoaderConsole, plain
from .profile import XymodemAddress, XymodemProfile
from .sender import ReceiverCancelled, Sender, said

if TYPE_CHECKING:
    from ..describing import Describer

CAN = bytes([Control.CAN])
TELLS_NOTHING = "a loader that takes files by {} does not tell what it holds"


GREETINGS = 3
"""How often the loader is asked for its greeting, until it fits the profile's `part`."""


class XymodemFlasher(SerialBootloader, SlotBootloader):
    """One part behind a serial port. A subclass says how a file is sent once the loader has asked for it."""

    is_silent = True
    silences = SILENCES
    Address = XymodemAddress
    Profile: ClassVar[type[XymodemProfile]]

    _profile: XymodemProfile
    _entry: BootPins

    def __init__(self, port: SerialPort, profile: XymodemProfile) -> None:
        super().__init__(port, profile)
        self._console = LoaderConsole(port, profile)
        self._greeting = b""
        """What the loader said on the way to its prompt."""
        self._verdict = ""
        """The loader's own last word on what this flasher sent; "" as long as there is none."""

    def _make_entry(self) -> BootPins:
        port, profile = self._port, self._profile
        return BootPins(
            port,
            profile.entry,
            text=profile.enter,
            text_seconds=profile.timings.knock,
            loader=LineSettings(profile.baudrate, "N"),
            application=LineSettings(port.baudrate, port.parity),
        )

    @property
    def unreadable(self) -> str:
        return self.readback_unavailable_reason(self._profile)

    @abstractmethod
    def _transfer(self, sender: Sender, data: bytes, blocks: Sequence[Piece]) -> Iterator[int]:
        """Sends the file, up to where the loader is to say what it makes of it; yields bytes acknowledged."""

    @classmethod
    def describer(cls, name: str, address: object, profile: object) -> Describer:
        from .describe import XymodemDescriber

        return XymodemDescriber(name)

    @classmethod
    def readback_unavailable_reason(cls, profile: XymodemProfile) -> str:
        return TELLS_NOTHING.format(cls.protocol)

    # The interface.

    def connect(self) -> Identity:
        """Enters the loader and brings it to its prompt. A part that it refuses, or can't reach, is started again.

        Raises ProfileWrong, NoResponse, PartWrongMode, WrongPart, TransportError.
        """
        self._check_profile()
        self._verdict = ""
        return super().connect()

    def slot(self, target: Target | None = None) -> Slot:
        return Slot("slot", self._profile.slot_size)

    def upload(self, image: bytes) -> Iterator[int]:
        """Sends the file, and hears what the loader makes of it, before the last of it counts as written."""
        self._verdict = ""
        blocks = tuple(pieces(image, self._profile.block_size, self._profile.padding, whole=self._profile.whole_blocks))
        self._console.words = {
            "size": str(len(image)),
            "size-hex": f"{len(image):x}",
            "sent": str(sum(len(piece.data) for piece in blocks)),
            "crc32": f"{zlib.crc32(image):08x}",
        }
        sender = Sender(self._port, answer=self._profile.timings.block)
        try:
            yield from self._transferred(sender, image, blocks)
        except BaseException:
            # It would wait for the rest of the file; so it waits for a command.
            with suppress(TransportError):
                sender.abort()
            raise
        self._verdict = self._judged(sender, in_short_blocks=any(len(piece.data) < 1024 for piece in blocks))
        yield len(image)

    def verdict(self, image: bytes) -> str:
        """What the loader said at the end of the upload."""
        return f'the loader\'s word "{self._verdict}"' if self._verdict else ""

    def activate(self, image: bytes) -> None:
        self.start_application()

    def seconds_for(self, size: int) -> float | None:
        """The wire's time."""
        blocks = size / self._profile.block_size
        return self._port.wire_seconds(size + blocks * 6)

    def start_application(self) -> None:
        way = self._profile.way_to_boot
        self._entry.let_go()
        if way == "run":
            for step in self._profile.run:
                self._console.do(step, part_of="to start the application")
        elif way == "reset" or (way == "itself" and not self._verdict):
            self._entry.reset()
        self._started()

    def close(self) -> None:
        if not self._changed:
            with suppress(TransportError):
                self._entry.let_go()
        super().close()

    # Connecting.

    def _check_profile(self) -> None:
        """Raises ProfileWrong for a profile by which nothing could be sent, or committed."""
        if not self._profile.prompt:
            raise ProfileWrong(
                "the profile has no prompt, by which the loader is known to wait for a command",
                remedy="Give loader = ..., or prompt and what belongs to it, in the component's profile.",
            )
        if not self._profile.success and not any(step.expect for step in self._profile.commit):
            raise ProfileWrong(
                "the profile has no success: nothing would tell whether what was sent is in place",
                remedy="Give success, what the loader says when it has taken a file, in the component's profile.",
            )

    def _sync(self) -> bool:
        """A loader that was in a transfer took the greetings before for blocks, and the part for its application."""
        self._greeting = self._console.greet()
        self._found = self._found or self._console.was_receiving(self._greeting)
        return True

    def _answers(self) -> bool:
        return bool(self._profile.prompt) and self._is_at_prompt(Deadline.after(self._profile.timings.knock))

    def _is_at_prompt(self, deadline: Deadline) -> bool:
        """Whether the loader shows its prompt to one greeting."""
        self._port.drain()
        self._greeting = self._console.ask_for_prompt(deadline)
        return self._console.is_prompt(self._greeting)

    def _find(self, deadline: Deadline) -> Identity | None:
        """Sends the loader's greeting once, and looks for its prompt."""
        if not self._profile.prompt:
            return None
        return self._identify() if self._is_at_prompt(deadline.sooner(self._profile.timings.knock)) else None

    def _identify(self) -> Identity:
        """Raises WrongPart where the greeting is another loader's, also when it is asked for again: the first bytes of the first
        greeting may be lost, where the port was opened while the loader spoke."""
        profile = self._profile
        for _ in range(GREETINGS):
            greeting = self._greeting
            if not profile.part or re.search(profile.part.encode(), greeting):
                break
            self._is_at_prompt(Deadline.after(profile.timings.knock))
        else:
            raise WrongPart(f"the loader's greeting does not fit the profile's part, {profile.part!r}{said(greeting)}")
        version = re.search(profile.bootloader.encode(), greeting) if profile.bootloader else None
        return Identity(bootloader=plain(version[1] or b"") if version else "")

    def _accept(self, identity: Identity) -> None:
        self.capabilities = Capability.CHECK
        if self._profile.way_to_boot != "none":
            self.capabilities |= Capability.BOOT

    # Writing.

    def _transferred(self, sender: Sender, data: bytes, blocks: Sequence[Piece]) -> Iterator[int]:
        """Has the loader receive, and sends; what it says where it ends the transfer is the error.

        Raises PartRefused, OperationFailed, ImageWrongPart, and what `_transfer` does.
        """
        heard = b""
        for step in self._profile.upload:
            heard = self._console.do(step, part_of="to have it receive the file")
            heard = self._console.after(step, heard)
        try:
            sender.await_start(Deadline.after(self._profile.timings.start), heard)
            self._changed = True
            for done in self._transfer(sender, data, blocks):
                if done < len(data):
                    yield done
        except ReceiverCancelled as cancelled:
            heard = self._console.listen(
                Deadline.after(self._profile.timings.block), lambda text: False, sender.heard.rpartition(CAN)[2]
            )
            verdict = self._console.verdict_in(heard)
            if verdict is not None and not verdict.success:
                raise verdict.failure(f"after {cancelled.what}") from cancelled
            raise PartRefused(f"the loader cancelled the transfer after {cancelled.what}{said(heard)}") from cancelled

    def _judged(self, sender: Sender, *, in_short_blocks: bool) -> str:
        """The loader's last word: on the file, or on the steps that put it into place.

        Raises ProtocolError, PartRefused, OperationFailed, ImageWrongPart, SerialTimeout.
        """
        word, heard = "", sender.heard
        if self._profile.success:
            verdict, heard = self._console.hear_verdict(heard)
            if not verdict.success:
                raise verdict.failure("all of the file was sent;", in_short_blocks=in_short_blocks)
            word = verdict.text
        if self._profile.commit:
            # It has to be at its prompt before it gets more.
            self._console.listen(Deadline.after(self._profile.timings.knock), lambda text: False, heard)
        for step in self._profile.commit:
            answer = self._console.do(step, part_of="to put the file into place")
            if step.expect:
                word = self._console.matched(step, answer)
        if not word:
            raise ProtocolError("the loader said nothing of the file")
        return word

    def _is_judged(self, heard: bytes) -> bool:
        return self._console.verdict_in(heard) is not None
