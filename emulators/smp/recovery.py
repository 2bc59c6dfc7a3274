"""MCUboot's serial recovery (MCUboot, docs/serial_recovery.md): few commands, and uploads go into the primary slot.

Its answers have no errors of the groups, in both versions. Unlike the application it writes whole program units
of the chunk that came, and asks for the rest of it again; and it has no hash to resume an upload by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..flash import FlashRefused
from ..mcuboot.image import HASH_SIZE, NON_BOOTABLE
from ..mcuboot.loader import Mcuboot, Mode, Swap, TrailerBad
from ..mcuboot.slot import Slot
from .images import slots
from .server import Group, Handler, Img, Rc, SmpRefused, argument


class Recovery:
    """`full`: a build with hashes, flags and the setting of states in it; one without lists versions alone.

    `progressive`: a sector is erased when the first byte for it comes, not the whole slot with the first chunk.
    """

    def __init__(self, loader: Mcuboot, *, full: bool, progressive: bool) -> None:
        self._loader = loader
        self._full = full
        self._progressive = progressive
        self._slot: Slot | None = None
        self._size = 0
        self._offset = 0
        self._erased_to = 0

    def handlers(self) -> Mapping[tuple[int, int, bool], Handler]:
        image = Group.IMAGE
        full: Mapping[tuple[int, int, bool], Handler] = {
            (image, Img.STATE, True): self._set_state,
            (image, Img.SLOT_INFO, False): lambda arguments: slots(self._loader, upload_ids=True),
        }
        return {
            (image, Img.STATE, False): lambda arguments: self.state(),
            (image, Img.UPLOAD, True): self._take,
            **(full if self._full and self._loader.mode is not Mode.HIGHEST else {}),
        }

    def state(self) -> Mapping[str, Any]:
        """Images that are whole; flags that are set."""
        listed = []
        for number, pair in enumerate(self._loader.pairs):
            swap = pair.swap()
            for place, slot in enumerate(pair.slots):
                image = slot.whole_image()
                if image is None:
                    continue
                told: dict[str, Any] = {"image": number} if len(self._loader.pairs) > 1 else {}
                if self._full:
                    pending = place == 1 and swap in (Swap.TEST, Swap.PERM)
                    flags = {
                        "bootable": not image.flags & NON_BOOTABLE,
                        "confirmed": (place == 0) is (swap is not Swap.REVERT),
                        "pending": pending,
                        "permanent": pending and swap is Swap.PERM,
                    }
                    told |= {name: True for name, is_set in flags.items() if is_set}
                told["slot"] = place
                if self._full:
                    told["hash"] = image.hash
                told["version"] = image.version_text
                listed.append(told)
        return {"images": listed}

    def _set_state(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        digest: bytes = argument(arguments, "hash", bytes, b"")
        confirm: bool = argument(arguments, "confirm", bool, False)
        if len(digest) not in (0, HASH_SIZE) or (not digest and len(self._loader.pairs) > 1):
            raise SmpRefused(Rc.EINVAL)
        number, place = self._find(digest) if digest else (0, 0)
        pair = self._loader.pairs[number]
        swap = pair.swap()
        if place == 0 and not confirm:
            raise SmpRefused(Rc.EINVAL)
        if swap in (Swap.TEST, Swap.PERM) or (swap is Swap.REVERT and (place == 1 or not confirm)):
            raise SmpRefused(Rc.EBADSTATE)
        try:
            pair.set_next(pair.slots[place], active=place == 0, confirm=confirm)
        except TrailerBad as error:
            raise SmpRefused(Rc.EUNKNOWN) from error
        return self.state()

    def _find(self, digest: bytes) -> tuple[int, int]:
        for number, pair in enumerate(self._loader.pairs):
            for place, slot in enumerate(pair.slots):
                image = slot.whole_image()
                if image is not None and image.hash == digest:
                    return number, place
        raise SmpRefused(Rc.ENOENT)

    def _take(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        offset: int | None = argument(arguments, "off", int, None)
        data: bytes | None = argument(arguments, "data", bytes, None)
        if offset is None or data is None:
            raise SmpRefused(Rc.EINVAL)
        if offset == 0:
            slot = self._begin(arguments)
        elif self._slot is None or offset != self._offset:
            return {"rc": 0, "off": self._offset}
        else:
            slot = self._slot
        if self._offset + len(data) > self._size:
            raise SmpRefused(Rc.EINVAL)
        self._write(slot, data)
        return {"rc": 0, "off": self._offset}

    def _begin(self, arguments: Mapping[str, Any]) -> Slot:
        number: int = argument(arguments, "image", int, 0)
        if number >= len(self._loader.pairs):
            raise SmpRefused(Rc.ENOENT if number > len(self._loader.pairs) else Rc.EINVAL)
        slot = self._loader.pairs[number].primary
        size: int | None = argument(arguments, "len", int, None)
        if size is None or size > slot.room:
            raise SmpRefused(Rc.EINVAL)
        self._slot, self._size, self._offset, self._erased_to = slot, size, 0, 0
        if not self._progressive:
            slot.erase(0, slot.size)
        return slot

    def _write(self, slot: Slot, data: bytes) -> None:
        """What is left over of a program unit is dropped, but for the last chunk."""
        if self._offset + len(data) < self._size:
            data = data[: len(data) - len(data) % slot.flash.program_unit]
        if self._progressive:
            self._erase_for(slot, self._offset + len(data))
        try:
            slot.program(self._offset, data)
        except FlashRefused as error:
            raise SmpRefused(Rc.EINVAL) from error
        self._offset += len(data)
        if self._offset == self._size and self._progressive:
            slot.erase_trailer()

    def _erase_for(self, slot: Slot, end: int) -> None:
        for start, size in slot.sectors:
            offset = start - slot.start
            if self._erased_to <= offset < end:
                slot.erase(offset, size)
                self._erased_to = offset + size
