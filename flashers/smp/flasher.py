"""`smp`: parts that speak MCUmgr's Simple Management Protocol, as Zephyr's applications and MCUboot's recovery do.

Two ways to a new image. A running application takes it into the slot that doesn't run; MCUboot starts it at the next
reset, and where it swaps, brings the old one back at the one after, unless the new one was confirmed. Serial recovery
takes it into the slot that runs. Which of the two answers, and in which state the slots are, is asked each time: what
an earlier run has left (half an upload, a whole one, an image on trial) decides what is left to do.

Here is the order of things; what is asked in client.py, the upload in upload.py, packets in codec.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self

from ...transports import clock
from ...transports.deadline import Deadline
from ...transports.errors import TransportError
from ...transports.serial.port import SerialPort
from ..errors import (
    ImageWrongPart,
    NotBack,
    PartError,
    PartMute,
    PartRefused,
    PartWrongFamily,
    PartWrongMode,
    Unsupported,
    VerifyMismatch,
)
from ..flasher import Capability, Flasher, Identity, Sighting, State
from ..formats.mcuboot import McubootImage, Version, parse, parse_dependencies
from ..image import Segment
from ..memory import EraseRun, MemoryMap, Range, Region
from .client import ImageSlot, SlotInfo, SmpClient
from .codec import ConsoleFraming, RawFraming, Refusal
from .link import SerialWire, SmpLink, Wire
from .profile import SmpAddress, SmpProfile
from .upload import Upload

GREETING_SECONDS = 0.5
"""How long a part has for the shortest answer of all, when it is only asked whether it is there."""
POLL_SECONDS = 0.5
"""How long a part that restarts has for an answer before it is asked again."""
RESET_SECONDS = 3.0
"""How long after it acknowledged a reset a part may still answer as before."""
RESETS = 3
"""How often a part is told to restart that still waits to try its new image: a request may get lost."""
LOG_FACTOR = 5
"""So many times as long as the silence that a starting part is left may its log go on before it is asked anyway."""
LARGER_BUFFER = (
    "Build its application with a larger CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE, or with CONFIG_MCUMGR_GRP_IMG_FRUGAL_LIST"
)
BY_VERSION = "the boot loader of this part starts the image of the higher version"


class SmpFlasher(Flasher):
    """One part on a serial line."""

    protocol = "smp"
    bus_kind = "serial"
    answers_running = True
    Address = SmpAddress
    Profile = SmpProfile

    def __init__(self, wire: Wire, address: SmpAddress, profile: SmpProfile) -> None:
        self._profile = profile
        self._image = address.image
        self._wire = wire
        self._client = SmpClient(SmpLink(wire, profile.answer))
        self._recovery = False
        self._has_echo = False
        self._moved = False
        """Whether it was this flasher that had the part restart into recovery."""
        self._buffer, self._buffers = profile.buffer, 1
        self._images: list[ImageSlot] = []
        self._untold: Refusal | None = None
        """Why the part doesn't tell its images."""
        self._infos: list[SlotInfo] = []
        self._no_downgrade = False
        self._looked = False
        """Whether more was asked than to connect: a boot after that alone is a reset that someone wants."""
        self._goal: McubootImage | None = None
        """The image that was written."""
        self._data = b""
        """All of it."""
        self._sent = False
        """Whether it was this flasher that uploaded it, whole."""
        self._matched = False

    @classmethod
    def attach(cls, bus: Any, address: SmpAddress, profile: SmpProfile) -> Self:
        return cls(cls._wire_on(bus, profile), address, profile)

    @classmethod
    def _wire_on(cls, bus: SerialPort, profile: SmpProfile) -> Wire:
        framing = RawFraming() if profile.framing == "raw" else ConsoleFraming(profile.line_length)
        return SerialWire(bus, framing)

    @classmethod
    def sight(
        cls, bus: Any, address: SmpAddress, profile: SmpProfile, *, active: bool, deadline: Deadline
    ) -> Sighting | None:
        """Asks for the image state and the names; whoever speaks SMP answers that while it works."""
        flasher = cls.attach(bus, address, profile)
        try:
            flasher._wire.drain()
            flasher._greet(min(GREETING_SECONDS, deadline.remaining), tries=2)
            identity = flasher._look()
        except (TransportError, PartError):
            return None
        return Sighting(State.BOOTLOADER if flasher._recovery else State.RUNNING, identity)

    # The Flasher interface.

    def connect(self) -> Identity:
        """Raises PartMute, PartWrongFamily, PartWrongMode, TransportError."""
        self._goal = None
        self._looked = False
        self._wire.follow(None)
        self._wire.drain()
        self._greet(self._profile.answer, tries=3)
        identity = self._look()
        named = f"{identity.part} {identity.details.get('name', '')}".strip()
        if self._profile.part not in named and not self._recovery:
            raise PartWrongFamily(
                f"the part calls itself {named or 'nothing'}, the profile wants {self._profile.part!r}"
            )
        if self._profile.recovery and not self._recovery:
            self._enter_recovery()
            identity = self._look()
        self.capabilities = Capability.BOOT | Capability.CHECK
        return identity

    def verify_target(self, target: Mapping[str, int | str]) -> None:
        """What an MCUboot image says of itself, against what the part says of its own."""
        self._looked = True
        if "image_hash" not in target:
            raise ImageWrongPart(
                "the file is no MCUboot image, and MCUboot starts nothing else",
                remedy="Give the signed binary of the build: zephyr.signed.bin",
            )
        if not self._images and not self._recovery:
            raise self._no_images()
        if target.get("bootable") == 0:
            raise ImageWrongPart("the image is marked as one that is not to be started (NON_BOOTABLE)")
        reset, start = target.get("reset_vector"), self._profile.run_address
        if start is not None and isinstance(reset, int) and not start <= reset < start + self._size():
            raise ImageWrongPart(
                f"the image starts at 0x{reset & ~1:08X}, and this part runs its image at 0x{start:08X}",
                remedy="Is it linked for this part, and for this slot?",
            )
        self._check_dependencies(str(target.get("dependencies", "")))
        if not self._recovery and not any(image.hash.hex() == target["image_hash"] for image in self._own()):
            self._check_version(str(target.get("image_version", "")))

    def memory_map(self) -> MemoryMap:
        self._looked = True
        info = self._destination()
        size = self._size()
        name = f"slot {info.slot}" if info else "slot"
        return MemoryMap((Region(name, 0, size, (EraseRun(1, size),), self_erasing=True, ordered=True),))

    def erase(self, ranges: Sequence[Range]) -> Iterator[int]:
        """Nothing is to be erased: an upload does so."""
        yield from ()

    def write(self, segment: Segment) -> Iterator[int]:
        """Uploads what the part hasn't got; what an earlier run has brought there is not sent again, unless the boot
        loader then doesn't take it."""
        data = bytes(segment.data)
        goal = parse(data)
        if not self._recovery:
            self._make_room(goal)
        self._goal, self._data, self._sent = goal, data, False
        if self._slot_of(goal.hash) is None:
            yield from self.upload(data)
        yield len(data)

    def upload(self, data: bytes) -> Iterator[int]:
        """Uploads these bytes, whatever they are; yields how many of them the part has."""
        upload = Upload(
            self._client.link,
            self._upload_image(self._destination()),
            data,
            packet=min(self._buffer, self._wire.largest) - self._wire.overhead,
            window=min(self._profile.window, self._buffers),
            erase=self._profile.erase,
        )
        yield from upload.run()
        self._matched, self._sent = upload.matched, True

    def check(self, segments: Sequence[Segment]) -> str:
        """By the hash under which the part knows its images. It is MCUboot that holds the bytes against it."""
        goal = parse(b"".join(bytes(segment.data) for segment in segments))
        self._images = self._client.images()
        slot = self._slot_of(goal.hash)
        if slot is None and self._recovery and not any(image.hash for image in self._images):
            return "by MCUboot when it starts"
        if slot is None or (self._goal is None and not (slot.active or self._recovery)):
            held = (
                ", ".join(f"slot {image.slot}: {image} {image.hash.hex()[:16]}" for image in self._own()) or "nothing"
            )
            raise VerifyMismatch(f"the part holds no image {goal.hash.hex()[:16]}...; it has {held}")
        return f"SHA-256 by the part, in slot {slot.slot}" if self._matched else f"image hash in slot {slot.slot}"

    def boot(self) -> None:
        """Restarts into what was written, waits until that runs, and confirms it. What was only looked at runs on.

        Raises NotBack, VerifyMismatch where the boot loader starts something else, PartRefused.
        """
        goal, self._goal = self._goal, None
        if goal is None:
            if self._moved or not self._looked:
                self._restart()
                self._await_application()
            return
        slot = self._slot_of(goal.hash)
        if self._recovery or slot is None or not slot.active:
            in_place = self._recovery
            try:
                self._start(goal)
            except VerifyMismatch as mismatch:
                if self._sent or in_place or self._untold is not None:
                    raise
                try:
                    self._send_anew(goal)
                except PartRefused:
                    raise mismatch from None
                self._start(goal)
        if self._profile.confirm and self._untold is None and not self._is_confirmed(goal.hash):
            self._client.set_state(goal.hash, confirm=True)

    def close(self) -> None:
        """Nothing was taken."""

    def seconds_for(self, erase: Sequence[Range], write_bytes: int) -> float | None:
        return self._wire.seconds(write_bytes)

    # Who it is.

    def _greet(self, seconds: float, tries: int) -> None:
        """Raises PartMute."""
        self._has_echo = self._client.echo(seconds=seconds, tries=tries)

    def _look(self) -> Identity:
        """Asks everything that a part may tell of itself; what it doesn't know is left away."""
        client = self._client
        parameters = client.parameters()
        if parameters is not None:
            self._buffer, self._buffers = parameters.buffer, parameters.count
        else:
            self._buffer, self._buffers = self._profile.buffer, 1
        platform = client.application_info("i")
        bootloader = client.bootloader()
        self._images, self._untold = client.image_state()
        self._recovery = self._is_recovery(platform is not None or bootloader is not None)
        self._infos = client.slot_info()
        details = {"mode": "recovery" if self._recovery else "application", "buffers": self._describe_buffers()}
        if platform is not None and (name := client.application_info("n")):
            details["name"] = name
        if bootloader is not None and (mode := client.bootloader_mode()) is not None:
            details["bootloader_mode"], self._no_downgrade = str(mode[0]), mode[1]
        if self._untold is not None and not self._untold.unsupported:
            details["images"] = f"not told: {self._untold}"
            details |= {_key(info): f"{info.largest:,} bytes" for info in self._infos}
        details |= {_key(image): f"{image} {image.hash.hex()}".rstrip() for image in self._images}
        running = self._running()
        return Identity(
            part=platform or "",
            version=running.version if running and not self._recovery else "",
            bootloader=bootloader or "",
            details=details,
        )

    def _is_recovery(self, has_names: bool) -> bool:
        """MCUboot's recovery tells no names, and keeps to itself which image is active, or its hash, or both."""
        if self._profile.mode != "auto":
            return self._profile.mode == "recovery"
        tells = any(image.active and image.hash for image in self._images)
        too_long = self._untold is not None and self._untold.too_long
        return not has_names and not (self._has_echo and (tells or too_long))

    def _no_images(self) -> Unsupported:
        """Without the list of its images nothing tells which one runs, and that it is the new one that is to stay."""
        refusal = self._untold
        if refusal is None:
            return Unsupported("the part tells of no image, not even of one that runs")
        if refusal.unsupported:
            return Unsupported("the part's application takes no images: it has no image management")
        if refusal.too_long:
            return Unsupported(
                f"the part has images, and the list of them does not fit its buffer of {self._buffer} bytes: {refusal}",
                remedy=f"{LARGER_BUFFER}. Until then: upload it in serial recovery (recovery = true).",
            )
        return Unsupported(
            f"the part has images, and does not tell which: {refusal}",
            remedy="Upload it in serial recovery (recovery = true).",
        )

    def _describe_buffers(self) -> str:
        return f"{self._buffers} x {self._buffer}"

    def _own(self) -> list[ImageSlot]:
        return [image for image in self._images if image.image == self._image]

    def _running(self) -> ImageSlot | None:
        return next((image for image in self._own() if image.active), None)

    def _slot_of(self, image_hash: bytes) -> ImageSlot | None:
        """Where the image of this hash is; the running slot if it is in both."""
        found = [image for image in self._own() if image.hash == image_hash]
        return next((image for image in found if image.active), found[0] if found else None)

    # What the image must be.

    def _check_dependencies(self, text: str) -> None:
        for needed in parse_dependencies(text):
            there = [image for image in self._images if image.image == needed.image]
            versions = [version for image in there if (version := Version.parse(image.version)) is not None]
            if versions and max(versions) < needed.version:
                raise ImageWrongPart(
                    f"the image needs version {needed.version} of the part's image {needed.image}, which has "
                    f"{max(versions)}",
                    remedy=f"Flash image {needed.image} first.",
                )

    def _check_version(self, text: str) -> None:
        """Raises ImageWrongPart for a version that the boot loader would pass over."""
        running = self._running()
        new, old = Version.parse(text), Version.parse(running.version) if running else None
        if new is None or old is None or new > old:
            return
        if self._no_downgrade and new < old:
            raise ImageWrongPart(
                f"the image has version {new}, and the boot loader of this part takes none below {old}",
                remedy="Give one of that version, or of a higher one.",
            )
        if self._client.chooses_by_version():
            raise ImageWrongPart(
                f"{BY_VERSION}, and runs {old}: {new} would not be started",
                remedy="Give the image a higher version, or upload it in serial recovery (recovery = true).",
            )

    # Slots.

    def _destination(self) -> SlotInfo | None:
        """The slot that an upload goes to, where the part tells of its slots."""
        infos = [info for info in self._infos if info.image == self._image]
        if self._recovery:
            return min(infos, key=lambda info: info.slot, default=None)
        running = self._running()
        free = [info for info in infos if running is None or info.slot != running.slot]
        return next((info for info in free if info.upload_image is not None), free[0] if free else None)

    def _size(self) -> int:
        info = self._destination()
        return info.largest if info else self._profile.slot_size

    def _upload_image(self, info: SlotInfo | None) -> int:
        """What an upload calls its image: as the part tells. MCUboot's recovery may count images or slots; where it
        doesn't tell, 3 is image 1 to one that counts slots, and nothing to the other, while 1 were the first image."""
        if info is not None and info.upload_image is not None:
            return info.upload_image
        return 2 * self._image + 1 if self._image and self._recovery else self._image

    def _make_room(self, goal: McubootImage) -> None:
        """Frees the slot to upload to from what earlier runs have left there.

        An image that waits to be tried is erased; where the part refuses that, a reset tries it. An image on trial keeps
        the old one in the other slot: the next reset brings that back.
        """
        for _ in range(3):
            self._images = self._client.images()
            running = self._running()
            other = next((image for image in self._own() if not image.active), None)
            if self._slot_of(goal.hash) is not None or running is None or other is None:
                return
            on_trial = other.confirmed and not running.confirmed
            if not other.pending and not on_trial:
                return
            if other.pending and self._client.erase(other.slot, seconds=self._profile.erase):
                return
            self._restart()
            self._await_application()

    def _start(self, goal: McubootImage) -> None:
        if not self._recovery:
            self._wish(goal)
        self._restart()
        self._await_image(goal)

    def _send_anew(self, goal: McubootImage) -> None:
        """What lies in the slot under the image's hash is not the image, or not where the boot loader looks for it."""
        slot = self._slot_of(goal.hash)
        if slot is not None:
            self._client.erase(slot.slot, seconds=self._profile.erase)
        for _ in self.upload(self._data):
            pass

    def _wish(self, goal: McubootImage) -> None:
        """Has the next reset try the image.

        MCUboot refuses that for a slot whose trailer a cut has torn, and erases it (boot_set_next in bootutil): then
        the image is uploaded once more.
        """
        try:
            self._client.set_state(goal.hash, confirm=False)
        except (PartError, ImageWrongPart):
            self._images = self._client.images()
            if self._slot_of(goal.hash) is not None:
                raise
            self._send_anew(goal)
            self._client.set_state(goal.hash, confirm=False)

    # Restarting.

    def _restart(self, *, recovery: bool = False, quiet: float | None = None) -> None:
        self._wire.follow(Deadline.after(self._profile.swap))
        self._client.reset(recovery=recovery)
        self._leave_alone(self._profile.quiet if quiet is None else quiet)

    def _leave_alone(self, quiet: float) -> None:
        """Waits until a part that starts has said what it has to say.

        A boot loader that waits for recovery's first request must not take a question for it, and some UART drivers
        never hear again if something came in while they started.
        """
        self._wire.await_silence(quiet, Deadline.after(LOG_FACTOR * quiet))

    def _await_application(self) -> None:
        """Waits until a part that was reset answers again. Raises NotBack."""
        self._await_answer()
        self._look()
        if self._recovery:
            raise NotBack("the part stays in serial recovery: its boot loader finds no image that it would start")
        self._moved = False
        self._wire.follow(None)

    def _await_answer(self) -> None:
        deadline = Deadline.after(self._profile.swap)
        while True:
            with suppress(PartMute):
                self._greet(POLL_SECONDS, tries=1)
                return
            if deadline.expired:
                raise NotBack(f"the part did not answer within {self._profile.swap:g} s after its reset")
            self._leave_alone(self._profile.quiet)

    def _enter_recovery(self) -> None:
        """Raises PartWrongMode."""
        reset = clock.monotonic()
        self._restart(recovery=True)
        self._moved = True
        again = True
        while True:
            self._await_answer()
            self._look()
            if self._recovery:
                self._wire.follow(None)
                return
            if clock.monotonic() - reset > RESET_SECONDS and again:
                again, reset = False, clock.monotonic()  # The request may have been lost.
                self._restart(recovery=True)
            elif clock.monotonic() - reset > RESET_SECONDS:
                raise PartWrongMode(
                    "the part was told to restart into serial recovery, and runs its application",
                    remedy="Was it built with a boot mode (retention)? If not, bring it there by hand.",
                )
            clock.sleep(0.1)

    def _await_image(self, goal: McubootImage) -> None:
        """Waits until an image runs. Raises NotBack where nothing does, VerifyMismatch where another one does.

        What serial recovery took goes where the boot loader starts from: an application that then runs, and can't tell
        its images, is that one, if no other waited to be tried.
        """
        reset = clock.monotonic()
        deadline = Deadline.after(self._profile.swap)
        again = self._recovery
        resets = 1
        in_place = self._recovery and not any(image.pending for image in self._own())
        while True:
            try:
                self._images = self._client.images(seconds=POLL_SECONDS, tries=1)
            except PartMute:
                if deadline.expired:
                    raise NotBack(
                        f"the part did not answer within {self._profile.swap:g} s after its reset",
                        remedy="If the new image does not work, the next reset brings the old one back. Cut its supply, "
                        "and see: proxyflash scan",
                    ) from None
                self._leave_alone(self._profile.quiet)
                continue
            slot = self._slot_of(goal.hash)
            if slot is not None and slot.active and not self._now_in_recovery():
                self._moved = False
                self._wire.follow(None)
                return
            if clock.monotonic() - reset < RESET_SECONDS:
                # It may not have restarted yet.
                clock.sleep(0.1)
                continue
            if slot is not None and slot.pending and not self._recovery and resets < RESETS and not deadline.expired:
                # A boot loader that starts tries the image or takes the wish back: the request to restart was lost.
                resets, reset = resets + 1, clock.monotonic()
                self._restart()
                continue
            if self._now_in_recovery() and again:
                again, reset = False, clock.monotonic()
                self._restart(quiet=RESET_SECONDS)
                continue
            break
        if not in_place or self._recovery or self._untold is None:
            raise self._other_image(goal)
        self._moved = False
        self._wire.follow(None)

    def _other_image(self, goal: McubootImage) -> VerifyMismatch:
        if self._untold is not None and not self._recovery:
            return VerifyMismatch(
                f"after its reset the part does not tell which image it runs: {self._untold}",
                remedy=f"{LARGER_BUFFER}." if self._untold.too_long else "Is the image built with image management?",
            )
        running = self._running()
        what = "stays in serial recovery" if self._recovery else f"runs {running}" if running else "runs something else"
        return VerifyMismatch(
            f"after its reset the part {what}: its boot loader does not take {goal.version} ({goal.hash.hex()[:16]}...)",
            remedy="Is the image signed with this part's key, and for its slot?",
        )

    def _now_in_recovery(self) -> bool:
        self._has_echo = self._client.echo(seconds=self._profile.answer, tries=3)
        self._look()
        return self._recovery

    def _is_confirmed(self, image_hash: bytes) -> bool:
        slot = self._slot_of(image_hash)
        return slot is not None and slot.confirmed


def _key(slot: ImageSlot | SlotInfo) -> str:
    return f"slot_{slot.slot}" if slot.image == 0 else f"image_{slot.image}_slot_{slot.slot}"
