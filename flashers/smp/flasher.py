"""`smp`: parts that speak MCUmgr's Simple Management Protocol, as Zephyr's applications and MCUboot's recovery do.

Two ways to a new image. A running application takes it into the slot that doesn't run; MCUboot starts it at the next
reset, and where it swaps, brings the old one back at the one after, unless the new one was confirmed. Serial recovery
takes it into the slot that runs. Which of the two answers, and in which state the slots are, is asked each time: what
an earlier run has left (half an upload, a whole one, an image on trial) decides what is left to do.

Here is the order of things; what the part reports of itself in slots.py, restarts in restart.py, requests in client.py,
the upload in upload.py, packets in codec.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from ...transports.deadline import Deadline
from ...transports.errors import TransportError
from ...transports.serial.port import SerialPort
from ..errors import ImageWrongPart, PartError, PartRefused, VerifyMismatch, WrongPart
from ..flasher import Capability, Identity, ProbeResult, Slot, SlotBootloader, State, Target
from ..formats.mcuboot import McubootImage, parse
from ..serial import rates
from .client import SmpClient
from .codec import SILENCES, ConsoleFraming, RawFraming
from .link import SerialWire, SmpLink, Wire
from .profile import SmpAddress, SmpProfile
from .restart import Restarting
from .slots import Slots
from .upload import Upload

if TYPE_CHECKING:
    from ..describing import Describer

GREETING_SECONDS = 0.5
"""How long a part has for the shortest answer of all, when it is only asked whether it is there."""
ROUNDS = 3
"""How often a part is restarted at most until its slot is free."""


class SmpFlasher(SlotBootloader):
    """One part on a serial line."""

    protocol = "smp"
    other_names = ("mcuboot", "mcumgr", "newtmgr", "smpmgr")
    bus_kind = "serial"
    probes_application = True
    silences = SILENCES
    Address = SmpAddress
    Profile = SmpProfile

    def __init__(self, wire: Wire, address: SmpAddress, profile: SmpProfile) -> None:
        self._profile = profile
        self._wire = wire
        self._client = SmpClient(SmpLink(wire, profile.answer))
        self._slots = Slots(self._client, address.image, profile)
        self._restarting = Restarting(wire, self._client, self._slots, profile)
        self._brought = b""
        """The hash of the image that was brought since the part was connected, or found in its slot then."""
        self._sent = False
        """Whether that one was uploaded, whole."""
        self._matched = False

    @property
    def unreadable(self) -> str:
        return "SMP has no request that reads an image back"

    @property
    def rate(self) -> str:
        return self._wire.rate

    @classmethod
    def describer(cls, name: str, address: SmpAddress, profile: SmpProfile) -> Describer:
        from .describe import ConsoleDescriber, RawDescriber

        return ConsoleDescriber(name) if profile.framing == "console" else RawDescriber(name)

    @classmethod
    def surprises(cls, profile: SmpProfile, bus: Mapping[str, Any]) -> Iterator[str]:
        yield from rates.surprises(profile)

    @classmethod
    def runs_while_written(cls, profile: SmpProfile) -> bool:
        return not profile.recovery

    @classmethod
    def attach(cls, bus: Any, address: SmpAddress, profile: SmpProfile) -> Self:
        return cls(cls._wire_on(bus, profile), address, profile)

    @classmethod
    def _wire_on(cls, bus: SerialPort, profile: SmpProfile) -> Wire:
        framing = RawFraming() if profile.framing == "raw" else ConsoleFraming(profile.line_length)
        return SerialWire(bus, framing, profile.recovery_baudrate)

    @classmethod
    def probe(
        cls, bus: Any, address: SmpAddress, profile: SmpProfile, *, active: bool, deadline: Deadline | float
    ) -> ProbeResult | None:
        """Asks for the image state and the names; whoever speaks SMP answers that while it works."""
        deadline = Deadline.of(deadline)
        flasher = cls.attach(bus, address, profile)
        try:
            flasher._wire.drain()
            flasher._restarting.greet(min(GREETING_SECONDS, deadline.remaining), tries=2)
            identity = flasher._slots.look()
        except (TransportError, PartError):
            return None
        finally:
            flasher.close()
        return ProbeResult(State.BOOTLOADER if flasher._slots.recovery else State.RUNNING, identity)

    def connect(self) -> Identity:
        """Raises NoResponse, WrongPart, PartWrongMode, TransportError."""
        slots = self._slots
        self._brought, self._sent = b"", False
        self._wire.follow(None)
        self._wire.drain()
        self._restarting.greet(self._profile.answer, tries=3)
        identity = slots.look()
        named = f"{identity.part} {identity.details.get('name', '')}".strip()
        if self._profile.part not in named and not slots.recovery:
            raise WrongPart(f"the part calls itself {named or 'nothing'}, the profile wants {self._profile.part!r}")
        if self._profile.recovery and not slots.recovery:
            self._restarting.enter_recovery()
            identity = slots.look()
        self.capabilities = Capability.BOOT | Capability.CHECK
        return identity

    def slot(self, target: Target | None = None) -> Slot:
        if target is not None:
            self._slots.check_target(target)
        info = self._slots.destination()
        return Slot(
            f"slot {info.slot}" if info else "slot", self._slots.size(), unchecked=self._slots.unchecked(target or {})
        )

    def prepare(self, image: bytes) -> Iterator[str]:
        """Frees the slot to upload to from what earlier runs have left there.

        An image that waits to be tried is erased; where the part refuses that, a reset tries it. An image on trial keeps
        the old one in the other slot: the next reset brings that back.
        """
        goal, slots = parse(image), self._slots
        for _ in range(0 if slots.recovery else ROUNDS):
            slots.images = self._client.images()
            running = slots.running()
            other = next((image for image in slots.own() if not image.active), None)
            if slots.slot_of(goal.hash) is not None or running is None or other is None:
                return
            on_trial = other.confirmed and not running.confirmed
            if not other.pending and not on_trial:
                return
            if other.pending:
                yield f"erases slot {other.slot}, whose image waits to be tried"
                if self._client.erase(other.slot, seconds=self._profile.erase):
                    return
            yield f"restarts, to be rid of {'the image on trial' if on_trial else 'the image that waits to be tried'}"
            self._restarting.restart()
            self._restarting.await_application()

    def upload(self, image: bytes) -> Iterator[int]:
        """Bytes from an earlier run are not sent again, unless the bootloader then doesn't take the image."""
        goal = parse(image)
        self._brought, self._sent = goal.hash, False
        if self._slots.slot_of(goal.hash) is None:
            yield from self.send(image)
        yield len(image)

    def send(self, data: bytes) -> Iterator[int]:
        """Uploads these bytes, whatever they are; yields how many of them the part has."""
        slots = self._slots
        upload = Upload(
            self._client.link,
            slots.upload_image(slots.destination()),
            data,
            packet=min(slots.buffer, self._wire.largest) - self._wire.overhead,
            window=min(self._profile.window, slots.buffers),
            erase=self._profile.erase,
        )
        yield from upload.run()
        self._matched, self._sent = upload.matched, True

    def verdict(self, image: bytes) -> str:
        """By the hash under which the part knows its images. It is MCUboot that holds the bytes against it."""
        goal, slots = parse(image), self._slots
        brought = self._brought == goal.hash
        slots.images = self._client.images()
        slot = slots.slot_of(goal.hash)
        if slot is None and slots.recovery and not any(image.hash for image in slots.images):
            return "by MCUboot when it starts" if brought else ""
        if slot is None or not (brought or slot.active or slots.recovery):
            held = (
                ", ".join(f"slot {image.slot}: {image} {image.hash.hex()[:16]}" for image in slots.own()) or "nothing"
            )
            raise VerifyMismatch(f"the part holds no image {goal.hash.hex()[:16]}...; it has {held}")
        return f"SHA-256 by the part, in slot {slot.slot}" if self._matched else f"image hash in slot {slot.slot}"

    def activate(self, image: bytes) -> None:
        """Restarts into the image, waits until that runs, and confirms it.

        Raises RebootFailed, VerifyMismatch where the bootloader starts something else, PartRefused.
        """
        goal, slots = parse(image), self._slots
        slot = slots.slot_of(goal.hash)
        if slots.recovery or slot is None or not slot.active:
            in_place = slots.recovery
            try:
                self._start(goal, image)
            except VerifyMismatch as mismatch:
                if self._sent or in_place or slots.untold is not None:
                    raise
                try:
                    self._send_anew(goal, image)
                except PartRefused:
                    raise mismatch from None
                self._start(goal, image)
        if self._profile.confirm and slots.untold is None and not slots.is_confirmed(goal.hash):
            self._client.set_state(goal.hash, confirm=True)

    def start_application(self) -> None:
        """A restart, into whatever the bootloader starts then. Raises RebootFailed."""
        self._restarting.restart()
        self._restarting.await_application()

    def leave(self) -> None:
        """A part that was not brought into recovery runs on."""
        if self._restarting.moved:
            self.start_application()

    def abandon(self) -> None:
        if self._restarting.moved:
            self._restarting.await_answer()
            self.start_application()

    def close(self) -> None:
        """Leaves the line at the application's bit rate."""
        with suppress(TransportError):
            self._wire.speak_to(recovery=False)

    def seconds_for(self, size: int) -> float | None:
        return self._wire.seconds(size)

    def _start(self, goal: McubootImage, data: bytes) -> None:
        if not self._slots.recovery:
            self._wish(goal, data)
        self._restarting.restart()
        self._restarting.await_image(goal)

    def _send_anew(self, goal: McubootImage, data: bytes) -> None:
        """What lies in the slot under the image's hash is not the image, or not where the bootloader looks for it."""
        slot = self._slots.slot_of(goal.hash)
        if slot is not None:
            self._client.erase(slot.slot, seconds=self._profile.erase)
        for _ in self.send(data):
            pass

    def _wish(self, goal: McubootImage, data: bytes) -> None:
        """Has the next reset try the image.

        MCUboot refuses that for a slot whose trailer a cut has torn, and erases it (boot_set_next in bootutil): then
        the image is uploaded again.
        """
        try:
            self._client.set_state(goal.hash, confirm=False)
        except (PartError, ImageWrongPart):
            self._slots.images = self._client.images()
            if self._slots.slot_of(goal.hash) is not None:
                raise
            self._send_anew(goal, data)
            self._client.set_state(goal.hash, confirm=False)
