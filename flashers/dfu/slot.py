"""DFU 1.1: one blob into one slot, in blocks from 0 on, which the device judges at manifestation (USB-IF, 2004-08-05)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from ...transports.errors import UsbGone, UsbStall, UsbTimeout
from ..errors import ProtocolError, RebootFailed, VerifyMismatch
from ..flasher import Slot, SlotAccess, Target
from .codec import DfuState
from .entry import Came
from .session import DfuSession


class DfuSlot(SlotAccess):
    """The slot of the address's alternate setting."""

    def __init__(self, session: DfuSession) -> None:
        self._session = session
        self._manifested = b""
        """What the device took for whole."""

    def slot(self, target: Target | None = None) -> Slot:
        session = self._session
        session.check_target(target or {})
        session.take_alternate(target or {}, [session.address.alt])
        info = session.link.device.info
        return Slot("slot", session.profile.slot_size, {"vendor_id": info.vendor_id, "product_id": info.product_id})

    def upload(self, image: bytes) -> Iterator[int]:
        """The last of it counts once the device has judged the blob and taken it."""
        self._manifested = b""
        self._session.become_idle()
        link = self._session.link
        size = self._session.block_size
        for block, offset in enumerate(range(0, len(image), size)):
            data = image[offset : offset + size]
            what = f"write block {block}"
            link.download(block, data, what)
            link.settle(what, (DfuState.dfuDNLOAD_IDLE,))
            if offset + len(data) == len(image):
                self._manifest(block + 1)
                self._manifested = image
            yield offset + len(data)

    def verdict(self, image: bytes) -> str:
        return "manifestation by the part" if image and self._manifested == image else ""

    def read(self, start: int, size: int) -> Iterator[bytes]:
        """DFU 1.1 uploads from the slot's start on; what lies before `start` is passed over. Raises ProtocolError."""
        self._session.become_idle()
        step = self._session.block_size
        position = block = 0
        while position < start + size:
            data = self._session.link.upload(block, step, f"read block {block}")
            wanted = data[max(0, start - position) : start + size - position]
            if wanted:
                yield wanted
            position += len(data)
            block += 1
            if len(data) < step and position < start + size:
                # DFU 1.1, 6.2: a short frame ends the upload. `slot_size` is a limit that a person gave, or none.
                if position > start and start + size == self._session.profile.slot_size:
                    break
                raise ProtocolError(f"the device's upload ends after {position} bytes, {start + size} were wanted")
        self._session.become_idle()

    def activate(self, image: bytes) -> None:
        self._session.start_application()

    def _manifest(self, block: int) -> None:
        """DFU 1.1, 7: an empty download ends the transfer; the device then puts the blob into place, and judges it."""
        session = self._session
        link = session.link
        link.download(block, b"", "manifestation")
        if session.functional.manifestation_tolerant:
            link.settle("manifestation", (DfuState.dfuIDLE,))
            return
        # Such a device answers no more once it is done (`SILENCES`, END): it waits for a reset, or restarts on its own.
        with suppress(UsbGone, UsbStall, UsbTimeout):
            link.settle("manifestation", (DfuState.dfuIDLE, DfuState.dfuMANIFEST_WAIT_RESET), tries=1)
        came = session.reset()
        if came is Came.DFU_MODE:
            raise VerifyMismatch(
                "after manifestation the device is in DFU mode again: it does not take what it was given for whole",
                remedy="Is it the right file for this component?",
            )
        if came is Came.NOTHING and session.address.runtime() is not None:
            raise RebootFailed(f"after manifestation nothing came back within {session.profile.reenumerate:g} s")
