"""What is asked of a part by SMP: one method for each command, values out.

After Zephyr's documentation, "Default/OS Management Group" and "Application/Software Image Management Group". A part
that doesn't know a command says so (rc 8), and each command that is only sometimes there has an answer for that. Values
of the wrong kind are taken for missing ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import (
    ImageTooLarge,
    ImageWrongPart,
    Meaning,
    OperationFailed,
    PartProtected,
    PartRefused,
    ProtocolError,
)
from .codec import Group, ImageCommand, ImageRc, Op, OsCommand, Packet, Rc, SmpRefusal
from .link import SmpLink

NO_HASH = bytes(32)
"""The hash of no image."""
MOST_SLOTS = 64
RECOVERY_MODE = 1
"""`boot_mode` of a reset: into the bootloader's recovery."""

WRONG_IMAGE = (
    ImageRc.INVALID_IMAGE_HEADER,
    ImageRc.INVALID_IMAGE_HEADER_MAGIC,
    ImageRc.CURRENT_VERSION_IS_NEWER,
    ImageRc.INVALID_IMAGE_VECTOR_TABLE,
    ImageRc.INVALID_FLASH_ADDRESS,
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """`buffer`: bytes of the largest packet with what its framing takes; `count`: how many of them there are."""

    buffer: int
    count: int


@dataclass(frozen=True, slots=True)
class ImageSlot:
    """What one slot holds. `hash` is b"" where the part doesn't tell it."""

    image: int
    slot: int
    version: str
    hash: bytes
    pending: bool
    confirmed: bool
    active: bool

    def __str__(self) -> str:
        names = ("active", "confirmed", "pending")
        flags = [name for name in names if getattr(self, name)]
        return " ".join([self.version or "?", *flags])


@dataclass(frozen=True, slots=True)
class SlotInfo:
    """`largest`: bytes of the largest image it takes. `upload_image`: what an upload into this slot calls its image;
    None: nothing is uploaded to it."""

    image: int
    slot: int
    largest: int
    upload_image: int | None


class SmpClient:
    """The part at the other end of `link`. Every method raises NoResponse and TransportError."""

    def __init__(self, link: SmpLink) -> None:
        self.link = link

    # Group 0.

    def echo(self, *, seconds: float, tries: int = 1) -> bool:
        """Whether the part has an echo; a part without it says so, and is there too."""
        text = "proxyflash"
        reply = self.link.ask(Op.WRITE, Group.OS, OsCommand.ECHO, {"d": text}, seconds=seconds, tries=tries)
        return reply.body.get("r") == text

    def parameters(self) -> Parameters | None:
        """None where the part doesn't tell them."""
        reply = self._os(OsCommand.MCUMGR_PARAMETERS)
        size, count = _number(reply.body, "buf_size"), _number(reply.body, "buf_count")
        return Parameters(size, max(1, count or 1)) if reply.refusal is None and size else None

    def application_info(self, format: str) -> str | None:
        """What uname prints for this format, such as "i" for the platform; None where there is no such command."""
        reply = self._os(OsCommand.APPLICATION_INFO, {"format": format})
        return _text(reply.body, "output") if reply.refusal is None else None

    def bootloader(self) -> str | None:
        """The bootloader's name; None where there is no such command."""
        reply = self._os(OsCommand.BOOTLOADER_INFO)
        return _text(reply.body, "bootloader") if reply.refusal is None else None

    def bootloader_mode(self) -> tuple[int, bool] | None:
        """MCUboot's mode, and whether it refuses older versions; None where it isn't reported."""
        reply = self._os(OsCommand.BOOTLOADER_INFO, {"query": "mode"})
        mode = _number(reply.body, "mode")
        return (mode, reply.body.get("no-downgrade") is True) if reply.refusal is None and mode is not None else None

    def reset(self, *, recovery: bool = False) -> None:
        """Restarts the part, which may do so before it has answered. Raises PartRefused."""
        body = {"boot_mode": RECOVERY_MODE} if recovery else {}
        request = self.link.send(Op.WRITE, Group.OS, OsCommand.RESET, body)
        reply = self.link.await_reply(request, self.link.answer)
        if reply is not None:
            accepted(reply, "to restart")

    def _os(self, command: OsCommand, body: Mapping[str, Any] | None = None) -> Packet:
        return self.link.ask(Op.READ, Group.OS, command, body or {})

    # Group 1.

    def images(self, *, seconds: float | None = None, tries: int = 3) -> list[ImageSlot]:
        """What the slots hold; [] where the part doesn't tell."""
        return self.image_state(seconds=seconds, tries=tries)[0]

    def image_state(self, *, seconds: float | None = None, tries: int = 3) -> tuple[list[ImageSlot], SmpRefusal | None]:
        """What the slots hold, and why the part doesn't tell it: it may know no images, or have a list that is too long
        for its buffer."""
        reply = self.link.ask(Op.READ, Group.IMAGE, ImageCommand.STATE, {}, seconds=seconds, tries=tries)
        return (list(_slots(reply)) if reply.refusal is None else []), reply.refusal

    def slot_info(self) -> list[SlotInfo]:
        """The slots and their sizes; [] where the part doesn't tell."""
        reply = self.link.ask(Op.READ, Group.IMAGE, ImageCommand.SLOT_INFO, {})
        return list(_slot_infos(reply)) if reply.refusal is None else []

    def set_state(self, image_hash: bytes, *, confirm: bool) -> bool:
        """Has the image of this hash started by the next reset, once or for good; False if the part makes its own choice.

        Raises PartRefused, and what `accepted` raises.
        """
        body: dict[str, Any] = {"hash": image_hash, "confirm": confirm}
        reply = self.link.ask(Op.WRITE, Group.IMAGE, ImageCommand.STATE, body)
        if reply.refusal is not None and reply.refusal.unsupported:
            return False
        if not confirm and reply.refusal is not None and reply.refusal.is_already_pending:
            return True  # A try before was carried out, and its reply was lost.
        accepted(reply, "to confirm the image" if confirm else "to try the image")
        return True

    def chooses_by_version(self) -> bool:
        """Whether the bootloader starts the image of the higher version: then there is nothing to be set, not even for
        the hash of no image, which any other part says it doesn't have."""
        reply = self.link.ask(Op.WRITE, Group.IMAGE, ImageCommand.STATE, {"hash": NO_HASH, "confirm": False})
        return reply.refusal is not None and reply.refusal.unsupported

    def erase(self, slot: int, *, seconds: float) -> bool:
        """Erases a slot; False if the part doesn't."""
        reply = self.link.ask(Op.WRITE, Group.IMAGE, ImageCommand.ERASE, {"slot": slot}, seconds=seconds, tries=1)
        return reply.refusal is None


def accepted(reply: Packet, what: str) -> Packet:
    """Raises PartRefused, or where the part reports more ImageWrongPart, ImageTooLarge, OperationFailed, PartProtected."""
    refusal = reply.refusal
    if refusal is None:
        return reply
    text = f"the part refuses {what}: {refusal}"
    if refusal.group == Group.IMAGE:
        if refusal.meaning is Meaning.FAILED:
            raise OperationFailed(text)
        if refusal.rc in WRONG_IMAGE:
            raise ImageWrongPart(text, remedy="Is it the right file for this component?")
        if refusal.rc == ImageRc.INVALID_IMAGE_TOO_LARGE:
            raise ImageTooLarge(text)
    if refusal == SmpRefusal(None, Rc.EACCESSDENIED, refusal.reason):
        raise PartProtected(text)
    raise PartRefused(text).passing(False if refusal.meaning is Meaning.REFUSED else None)


def wanted_offset(reply: Packet) -> int:
    """From which byte on the part wants an upload. Raises ProtocolError."""
    offset = _number(reply.body, "off")
    if offset is None:
        raise ProtocolError("the part acknowledges a piece of the upload without an offset")
    return offset


def _slots(reply: Packet) -> Iterator[ImageSlot]:
    for item in _maps(reply.body.get("images")):
        slot = _number(item, "slot")
        if slot is None:
            continue
        digest = item.get("hash")
        yield ImageSlot(
            _number(item, "image") or 0,
            slot,
            _text(item, "version") or "",
            digest if isinstance(digest, bytes) else b"",
            item.get("pending") is True,
            item.get("confirmed") is True,
            item.get("active") is True,
        )


def _slot_infos(reply: Packet) -> Iterator[SlotInfo]:
    for image in _maps(reply.body.get("images")):
        most = _number(image, "max_image_size")
        for item in _maps(image.get("slots")):
            slot, size = _number(item, "slot"), _number(item, "size")
            if slot is not None and size:
                number = _number(image, "image") or 0
                yield SlotInfo(number, slot, min(size, most or size), _number(item, "upload_image_id"))


def _maps(value: object) -> list[dict[str, Any]]:
    return [item for item in value[:MOST_SLOTS] if isinstance(item, dict)] if isinstance(value, list) else []


def _number(body: Mapping[str, Any], key: str) -> int | None:
    """A number that is not negative, and not beyond 32 bits."""
    value = body.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 32 else None


def _text(body: Mapping[str, Any], key: str) -> str | None:
    """A text of one line, such as can be shown."""
    value = body.get(key)
    if not isinstance(value, str):
        return None
    return "".join(character if character.isprintable() else " " for character in value[:200]).strip()
