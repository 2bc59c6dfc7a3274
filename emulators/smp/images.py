"""The image group of a running Zephyr application (Zephyr, "Application/software image management group").

What an upload has reached is kept in RAM: a reset forgets it. The data go through a buffer into the flash, so that any
length of chunk is taken; the reported offset counts the bytes that were taken.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..mcuboot import image as mcuboot_image
from ..mcuboot.image import HASH_SIZE, HEADER, NON_BOOTABLE, BadImage, Image
from ..mcuboot.loader import Mcuboot, Mode, Pair, Swap, TrailerBad
from ..mcuboot.slot import Slot
from .server import Failed, Group, Handler, Img, Rc, argument

BLOCK = 512
"""Bytes that are collected before they are written (CONFIG_IMG_BLOCK_BUF_SIZE)."""


class Err(IntEnum):
    """img_mgmt_err_code_t, as far as it is used here."""

    UNKNOWN = 1
    NO_IMAGE = 3
    NO_TLVS = 4
    TLV_MULTIPLE_HASHES_FOUND = 6
    HASH_NOT_FOUND = 8
    NO_FREE_SLOT = 9
    FLASH_WRITE_FAILED = 12
    INVALID_SLOT = 14
    INVALID_OFFSET = 20
    INVALID_LENGTH = 21
    INVALID_IMAGE_HEADER = 22
    INVALID_IMAGE_HEADER_MAGIC = 23
    INVALID_HASH = 24
    VERSION_GET_FAILED = 26
    CURRENT_VERSION_IS_NEWER = 27
    IMAGE_ALREADY_PENDING = 28
    INVALID_IMAGE_VECTOR_TABLE = 29
    INVALID_IMAGE_TOO_LARGE = 30
    INVALID_IMAGE_DATA_OVERRUN = 31
    IMAGE_SETTING_TEST_TO_ACTIVE_DENIED = 33


TOLD_OLD = {
    Err.NO_IMAGE: Rc.ENOENT,
    Err.NO_TLVS: Rc.ENOENT,
    Err.NO_FREE_SLOT: Rc.EBADSTATE,
    Err.CURRENT_VERSION_IS_NEWER: Rc.EBADSTATE,
    Err.IMAGE_ALREADY_PENDING: Rc.EBADSTATE,
    Err.INVALID_SLOT: Rc.EINVAL,
    Err.INVALID_OFFSET: Rc.EINVAL,
    Err.INVALID_LENGTH: Rc.EINVAL,
    Err.INVALID_IMAGE_HEADER: Rc.EINVAL,
    Err.INVALID_HASH: Rc.EINVAL,
}
"""What version 1 reports; EUNKNOWN for the others (img_mgmt_translate_error_code)."""


def failed(code: Err) -> Failed:
    return Failed(Group.IMAGE, code, TOLD_OLD.get(code, Rc.EUNKNOWN))


@dataclass(slots=True)
class _Upload:
    """One under way. `taken`: bytes so far; `unwritten`: those of them that are not in the flash yet."""

    slot: Slot
    size: int
    sha: bytes
    taken: int = 0
    erased_to: int = 0
    unwritten: bytearray = field(default_factory=bytearray)


class Images:
    """`active`: the slot of the first pair that runs. `checks`: uploads are compared with the hash that came with them.

    `progressive`: a sector is erased when the first byte for it comes, not the whole slot with the first chunk.
    """

    def __init__(self, loader: Mcuboot, active: int, *, checks: bool, progressive: bool) -> None:
        self._loader = loader
        self._active = active
        self._checks = checks
        self._progressive = progressive
        self._upload: _Upload | None = None

    def handlers(self, *, slot_info: bool) -> Mapping[tuple[int, int, bool], Handler]:
        image = Group.IMAGE
        return {
            (image, Img.STATE, False): lambda arguments: self.state(),
            **({} if self._loader.mode is Mode.HIGHEST else {(image, Img.STATE, True): self._set_state}),
            (image, Img.UPLOAD, True): self._take,
            (image, Img.ERASE, True): self._erase,
            **({(image, Img.SLOT_INFO, False): lambda arguments: slots(self._loader)} if slot_info else {}),
        }

    # State.

    def state(self) -> Mapping[str, Any]:
        listed = []
        for number, pair in enumerate(self._loader.pairs):
            for place, slot in enumerate(pair.slots):
                try:
                    image = slot.image()
                except BadImage:
                    continue
                told = {
                    "slot": place,
                    "version": image.version_text,
                    "hash": image.hash,
                    **self._flags(number, place, image),
                }
                listed.append({"image": number, **told} if len(self._loader.pairs) > 1 else told)
        return {"images": listed, "splitStatus": 0}

    def _flags(self, number: int, place: int, image: Image) -> Mapping[str, bool]:
        swap = self._swap(number)
        is_active = place == self._active_of(number)
        pending = not is_active and swap in (Swap.TEST, Swap.PERM)
        return {
            "bootable": not image.flags & NON_BOOTABLE,
            "pending": pending,
            "confirmed": is_active is (swap is not Swap.REVERT),
            "active": is_active,
            "permanent": pending and swap is Swap.PERM,
        }

    def _active_of(self, number: int) -> int:
        return self._active if number == 0 else 0

    def _swap(self, number: int) -> Swap:
        """What the next reset does; where the higher version runs, running the other one for good is such a thing."""
        pair = self._loader.pairs[number]
        if self._loader.mode is not Mode.HIGHEST:
            return pair.swap()
        try:
            versions = [slot.image().version[:3] for slot in pair.slots]
        except BadImage:
            return Swap.NONE
        active = self._active_of(number)
        return Swap.PERM if versions[1 - active] > versions[active] else Swap.NONE

    def _set_state(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        digest: bytes = argument(arguments, "hash", bytes, b"")
        confirm: bool = argument(arguments, "confirm", bool, False)
        if not digest and not confirm:
            raise failed(Err.INVALID_HASH)
        number, place = self._find(digest) if digest else (0, self._active)
        if self._must_set(number, place, confirm=confirm):
            pair = self._loader.pairs[number]
            is_active = place == self._active_of(number)
            try:
                pair.set_next(pair.slots[place], active=is_active, confirm=confirm)
            except TrailerBad as error:
                code = Err.INVALID_IMAGE_VECTOR_TABLE if is_active else Err.INVALID_IMAGE_HEADER_MAGIC
                raise failed(code) from error
        return self.state()

    def _find(self, digest: bytes) -> tuple[int, int]:
        """The image and the slot of this hash."""
        if len(digest) != HASH_SIZE:
            raise failed(Err.INVALID_HASH)
        for number, pair in enumerate(self._loader.pairs):
            for place, slot in enumerate(pair.slots):
                try:
                    if slot.image().hash == digest:
                        return number, place
                except BadImage:
                    continue
        raise failed(Err.HASH_NOT_FOUND)

    def _must_set(self, number: int, place: int, *, confirm: bool) -> bool:
        """False where it is so already. What is wished for once can't be taken back before a reset."""
        swap, is_active = self._swap(number), place == self._active_of(number)
        if is_active and not confirm:
            raise failed(Err.IMAGE_SETTING_TEST_TO_ACTIVE_DENIED)
        if swap is Swap.TEST:
            if not confirm:
                return False
            raise failed(Err.IMAGE_ALREADY_PENDING)
        if swap is Swap.PERM:
            if confirm and not is_active:
                return False
            raise failed(Err.IMAGE_ALREADY_PENDING)
        if swap is Swap.REVERT and not confirm:
            raise failed(Err.IMAGE_ALREADY_PENDING)
        return is_active is (swap is Swap.REVERT)

    # Erasing.

    def _erase(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        place: int = argument(arguments, "slot", int, 1 - self._active)
        if place >= 2 * len(self._loader.pairs):
            raise failed(Err.INVALID_SLOT)
        slot = self._loader.pairs[place // 2].slots[place % 2]
        try:
            slot.image()
        except BadImage:
            pass
        else:
            if self._is_used(place // 2, place % 2):
                raise failed(Err.NO_FREE_SLOT)
        if not slot.is_blank():
            slot.erase(0, slot.size)
        self._upload = None
        return {}

    def _is_used(self, number: int, place: int) -> bool:
        """It runs, or is to run, or an unconfirmed image goes back to it."""
        return place == self._active_of(number) or self._swap(number) is not Swap.NONE

    # Upload.

    def _take(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        data: bytes = argument(arguments, "data", bytes, b"")
        offset: int | None = argument(arguments, "off", int, None)
        if offset is None:
            raise failed(Err.INVALID_OFFSET)
        if offset == 0:
            found = self._begin(arguments, data)
            if found is not None:
                return found
        upload = self._upload
        if upload is None or offset != upload.taken:
            return {"off": upload.taken if upload else 0}
        if offset + len(data) > upload.size:
            self._upload = None
            raise failed(Err.INVALID_IMAGE_DATA_OVERRUN)
        self._write(upload, data)
        if upload.taken < upload.size:
            return {"off": upload.taken}
        self._upload = None
        return {"off": upload.taken, **({"match": _matches(upload)} if self._checks else {})}

    def _begin(self, arguments: Mapping[str, Any], data: bytes) -> Mapping[str, Any] | None:
        """Makes the upload, or finds the upload that this continues; an answer where nothing is to be written."""
        size: int | None = argument(arguments, "len", int, None)
        sha: bytes = argument(arguments, "sha", bytes, b"")
        if len(data) < HEADER.size:
            raise failed(Err.INVALID_IMAGE_HEADER)
        if size is None:
            raise failed(Err.INVALID_LENGTH)
        if int.from_bytes(data[:4], "little") != mcuboot_image.MAGIC:
            raise failed(Err.INVALID_IMAGE_HEADER_MAGIC)
        if len(sha) > HASH_SIZE:
            raise failed(Err.INVALID_HASH)
        if sha and self._upload is not None and self._upload.sha == sha:
            return {"off": self._upload.taken}
        pair = self._pair(argument(arguments, "image", int, 0))
        slot = self._free_slot(pair)
        if size > slot.room:
            raise failed(Err.INVALID_IMAGE_TOO_LARGE)
        if argument(arguments, "upgrade", bool, False):
            self._refuse_downgrade(pair, data)
        self._upload = _Upload(slot, size, sha)
        if self._checks and _matches(self._upload):
            self._upload = None
            return {"off": size, "match": True}
        if not self._progressive and not slot.is_blank():
            slot.erase(0, size)
            slot.erase_trailer()
        return None

    def _pair(self, number: int) -> Pair:
        """A part with one image doesn't look at the number."""
        if len(self._loader.pairs) == 1:
            return self._loader.pairs[0]
        if number >= len(self._loader.pairs):
            raise failed(Err.NO_FREE_SLOT)
        return self._loader.pairs[number]

    def _free_slot(self, pair: Pair) -> Slot:
        number = self._loader.pairs.index(pair)
        place = 1 - self._active_of(number)
        busy = self._loader.mode is not Mode.HIGHEST and self._is_used(number, place)
        if busy:
            raise failed(Err.NO_FREE_SLOT)
        return pair.slots[place]

    def _refuse_downgrade(self, pair: Pair, header: bytes) -> None:
        try:
            running = pair.slots[self._active_of(self._loader.pairs.index(pair))].image()
        except BadImage as error:
            raise failed(Err.VERSION_GET_FAILED) from error
        if HEADER.unpack_from(header)[6:9] <= running.version[:3]:
            raise failed(Err.CURRENT_VERSION_IS_NEWER)

    def _write(self, upload: _Upload, data: bytes) -> None:
        upload.unwritten += data
        upload.taken += len(data)
        is_last = upload.taken == upload.size
        while len(upload.unwritten) >= BLOCK or (is_last and upload.unwritten):
            piece = bytes(upload.unwritten[:BLOCK])
            start = upload.taken - len(upload.unwritten)
            if self._progressive:
                self._erase_for(upload, start + len(piece))
            upload.slot.program(start, piece)
            del upload.unwritten[:BLOCK]
        if is_last and self._progressive:
            upload.slot.erase_trailer()

    def _erase_for(self, upload: _Upload, end: int) -> None:
        for start, size in upload.slot.sectors:
            offset = start - upload.slot.start
            if upload.erased_to <= offset < end:
                upload.slot.erase(offset, size)
                upload.erased_to = offset + size


def _matches(upload: _Upload) -> bool:
    held = upload.slot.read(0, upload.size)
    return len(upload.sha) == HASH_SIZE and hashlib.sha256(held).digest() == upload.sha


def slots(loader: Mcuboot, *, upload_ids: bool = False) -> Mapping[str, Any]:
    """Slot info. `upload_ids`: with the image number to upload to, for the slots that take one."""
    return {
        "images": [
            {
                "image": number,
                "slots": [
                    {
                        "slot": place,
                        "size": slot.size,
                        **({"upload_image_id": number} if upload_ids and not place else {}),
                    }
                    for place, slot in enumerate(pair.slots)
                ],
                "max_image_size": pair.primary.room,
            }
            for number, pair in enumerate(loader.pairs)
        ]
    }
