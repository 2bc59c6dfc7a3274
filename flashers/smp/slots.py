"""`Slots`: what a part that speaks SMP reports of itself, of its slots, and of the images in them."""

from __future__ import annotations

from ..errors import ImageWrongPart, Unsupported
from ..flasher import Identity, Target
from ..formats.mcuboot import Version, parse_dependencies
from .boot_log import unchecked_start
from .client import ImageSlot, SlotInfo, SmpClient
from .codec import SmpRefusal
from .profile import SmpProfile

LARGER_BUFFER = (
    "Build its application with a larger CONFIG_MCUMGR_TRANSPORT_NETBUF_SIZE, or with CONFIG_MCUMGR_GRP_IMG_FRUGAL_LIST"
)
BY_VERSION = "the bootloader of this part starts the image of the higher version"


class Slots:
    """As of the last `look`. `image`: the number of the image that is updated."""

    def __init__(self, client: SmpClient, image: int, profile: SmpProfile) -> None:
        self.client = client
        self.image = image
        self._profile = profile
        self.recovery = False
        """Whether it is MCUboot's serial recovery that answers, and not the application."""
        self._has_echo = False
        self.buffer, self.buffers = profile.buffer, 1
        self.images: list[ImageSlot] = []
        self.untold: SmpRefusal | None = None
        """Why the part doesn't tell its images."""
        self._infos: list[SlotInfo] = []
        self.no_downgrade = False

    def greet(self, seconds: float, tries: int) -> None:
        """Raises NoResponse."""
        self._has_echo = self.client.echo(seconds=seconds, tries=tries)

    def look(self) -> Identity:
        """Asks everything that a part may tell of itself; what it doesn't know is left away."""
        client = self.client
        parameters = client.parameters()
        if parameters is not None:
            self.buffer, self.buffers = parameters.buffer, parameters.count
        else:
            self.buffer, self.buffers = self._profile.buffer, 1
        platform = client.application_info("i")
        bootloader = client.bootloader()
        self.images, self.untold = client.image_state()
        self.recovery = self._is_recovery(platform is not None or bootloader is not None)
        self._infos = client.slot_info()
        details = {"mode": "recovery" if self.recovery else "application", "buffers": self._describe_buffers()}
        if platform is not None and (name := client.application_info("n")):
            details["name"] = name
        if bootloader is not None and (mode := client.bootloader_mode()) is not None:
            details["bootloader_mode"], self.no_downgrade = str(mode[0]), mode[1]
        if self.untold is not None and not self.untold.unsupported:
            details["images"] = f"not reported: {self.untold}"
            details |= {_key(info): f"{info.largest:,} bytes" for info in self._infos}
        details |= {_key(image): f"{image} {image.hash.hex()}".rstrip() for image in self.images}
        running = self.running()
        return Identity(
            part=platform or "",
            version=running.version if running and not self.recovery else "",
            bootloader=bootloader or "",
            details=details,
        )

    def _is_recovery(self, has_names: bool) -> bool:
        """MCUboot's recovery reports no names, and keeps to itself which image is active, or its hash, or both."""
        if self._profile.mode != "auto":
            return self._profile.mode == "recovery"
        tells = any(image.active and image.hash for image in self.images)
        too_long = self.untold is not None and self.untold.too_long
        return not has_names and not (self._has_echo and (tells or too_long))

    def no_images(self) -> Unsupported:
        """Only the list of its images shows which image runs, and that the new image is the one to keep."""
        refusal = self.untold
        if refusal is None:
            return Unsupported("the part lists no image, not even a running one")
        if refusal.unsupported:
            return Unsupported("the part's application takes no images: it has no image management")
        if refusal.too_long:
            return Unsupported(
                f"the part has images, and the list of them does not fit its buffer of {self.buffer} bytes: {refusal}",
                remedy=f"{LARGER_BUFFER}. Until then: upload it in serial recovery (recovery = true).",
            )
        return Unsupported(
            f"the part has images, and does not tell which: {refusal}",
            remedy="Upload it in serial recovery (recovery = true).",
        )

    def _describe_buffers(self) -> str:
        return f"{self.buffers} x {self.buffer}"

    def own(self) -> list[ImageSlot]:
        return [image for image in self.images if image.image == self.image]

    def running(self) -> ImageSlot | None:
        return next((image for image in self.own() if image.active), None)

    def slot_of(self, image_hash: bytes) -> ImageSlot | None:
        """Where the image of this hash is; the running slot if it is in both."""
        found = [image for image in self.own() if image.hash == image_hash]
        return next((image for image in found if image.active), found[0] if found else None)

    def held(self) -> str:
        """What the slots held when the part reported it last, behind a sentence; "": it did not."""
        named = [f"slot {image.slot} {image.version or '?'}" for image in self.own()]
        return f"; when it answered last it held {' and '.join(f'in {name}' for name in named)}" if named else ""

    def is_confirmed(self, image_hash: bytes) -> bool:
        slot = self.slot_of(image_hash)
        return slot is not None and slot.confirmed

    def in_recovery_now(self) -> bool:
        """Asks again."""
        self._has_echo = self.client.echo(seconds=self._profile.answer, tries=3)
        self.look()
        return self.recovery

    # What the image must be.

    def check_target(self, target: Target) -> None:
        """What an MCUboot image says of itself, against what the part says of its own.

        Raises ImageWrongPart, Unsupported.
        """
        if "image_hash" not in target:
            raise ImageWrongPart(
                "the file is not a signed image in binary form, and MCUboot starts nothing else",
                remedy="Give the signed binary of the build: zephyr.signed.bin",
            )
        if not self.images and not self.recovery:
            raise self.no_images()
        if target.get("bootable") == 0:
            raise ImageWrongPart("the image is marked as not to be started (NON_BOOTABLE)")
        reset, start, load = target.get("reset_vector"), self._profile.run_address, target.get("load_address")
        if isinstance(load, int) and start not in (None, load):
            raise ImageWrongPart(
                f"the image's header has the load address 0x{load:08X}, and this part runs its image at 0x{start:08X}",
                remedy="Is it signed for this part, and for this slot?",
            )
        if isinstance(load, int) and isinstance(reset, int) and not load <= reset < load + self.size():
            raise ImageWrongPart(
                f"the image starts at 0x{reset & ~1:08X}, and its header has the load address 0x{load:08X}: it is linked for "
                "another place than it is signed for",
                remedy="Give imgtool the address that the program is linked for (--rom-fixed, --load-addr).",
            )
        if start is not None and isinstance(reset, int) and not start <= reset < start + self.size():
            raise ImageWrongPart(
                f"the image starts at 0x{reset & ~1:08X}, and this part runs its image at 0x{start:08X}",
                remedy="Is it linked for this part, and for this slot?",
            )
        self._check_dependencies(str(target.get("dependencies", "")))
        if not self.recovery and not any(image.hash.hex() == target["image_hash"] for image in self.own()):
            self._check_version(str(target.get("image_version", "")))

    def unchecked(self, target: Target) -> str:
        """What of an image can't be held against the part, in the words of a plan; "": nothing of consequence."""
        start = unchecked_start(target.get("reset_vector"), target.get("load_address"), self._profile.run_address)
        if start is None:
            return ""
        return f"not checked: whether it is linked for its slot (it starts at 0x{start:08X}; run_address is not set)"

    def _check_dependencies(self, text: str) -> None:
        for needed in parse_dependencies(text):
            there = [image for image in self.images if image.image == needed.image]
            versions = [version for image in there if (version := Version.parse(image.version)) is not None]
            if versions and max(versions) < needed.version:
                raise ImageWrongPart(
                    f"the image needs version {needed.version} of the part's image {needed.image}, which has "
                    f"{max(versions)}",
                    remedy=f"Flash image {needed.image} first.",
                )

    def _check_version(self, text: str) -> None:
        """Raises ImageWrongPart for a version that the bootloader would pass over."""
        running = self.running()
        new, old = Version.parse(text), Version.parse(running.version) if running else None
        if new is None or old is None or new > old:
            return
        if self.no_downgrade and new < old:
            raise ImageWrongPart(
                f"the image has version {new}, and the bootloader of this part takes none below {old}",
                remedy="Give an image of that version, or of a higher version.",
            )
        if self.client.chooses_by_version():
            raise ImageWrongPart(
                f"{BY_VERSION}, and runs {old}: {new} would not be started",
                remedy="Give the image a higher version, or upload it in serial recovery (recovery = true).",
            )

    # Where an image goes.

    def destination(self) -> SlotInfo | None:
        """The slot that an upload goes to, where the part reports its slots."""
        infos = [info for info in self._infos if info.image == self.image]
        if self.recovery:
            return min(infos, key=lambda info: info.slot, default=None)
        running = self.running()
        free = [info for info in infos if running is None or info.slot != running.slot]
        return next((info for info in free if info.upload_image is not None), free[0] if free else None)

    def size(self) -> int:
        info = self.destination()
        return info.largest if info else self._profile.slot_size

    def upload_image(self, info: SlotInfo | None) -> int:
        """The image number of an upload: as the part reports it. MCUboot's recovery may count images or slots; where it
        doesn't report it, 3 is image 1 if it counts slots, and nothing if it counts images, while 1 were the first image."""
        if info is not None and info.upload_image is not None:
            return info.upload_image
        return 2 * self.image + 1 if self.image and self.recovery else self.image


def _key(slot: ImageSlot | SlotInfo) -> str:
    return f"slot_{slot.slot}" if slot.image == 0 else f"image_{slot.image}_slot_{slot.slot}"
