"""MCUboot: which image runs after a reset, and the swap that puts it there (docs/design.md, "High-Level Operation").

What is wished for stands in the trailers of the two slots. The rule that makes a cut harmless: each step is recorded
once it is done, whatever is done again gives the same, and of two images that change places, each piece is always whole
in one of the slots or in the scratch area. One thing is simpler than in MCUboot: the sectors with the trailers take no
part in the swap, so its progress always stands in the primary slot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from ..flash import NorFlash
from .image import BadImage, Image
from .slot import Flag, Slot


class Mode(StrEnum):
    """What the loader does with a new image."""

    SWAP = "swap"
    """The two slots change places, and back where the new image isn't confirmed."""
    OVERWRITE = "overwrite"
    """The new image is copied over the old one."""
    HIGHEST = "highest"
    """Nothing: of both slots the higher version runs (direct-xip, RAM load)."""


class Swap(Enum):
    """What is to happen at the next reset (docs/design.md, "Boot Swap Types")."""

    NONE = auto()
    TEST = auto()
    PERM = auto()
    REVERT = auto()


class TrailerBad(Exception):
    """A slot's magic is neither blank nor right, so nothing can be wished for."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The slots of one image. Slot 0 is the primary one."""

    primary: Slot
    secondary: Slot

    @property
    def slots(self) -> tuple[Slot, Slot]:
        return self.primary, self.secondary

    def swap(self) -> Swap:
        """The tables of "Image Trailers", in their order."""
        primary, secondary = self.primary, self.secondary
        if secondary.magic is Flag.SET and secondary.image_ok is Flag.UNSET:
            return Swap.TEST
        if secondary.magic is Flag.SET and secondary.image_ok is Flag.SET:
            return Swap.PERM
        tried = primary.magic is Flag.SET and primary.copy_done is Flag.SET and primary.image_ok is Flag.UNSET
        return Swap.REVERT if tried else Swap.NONE

    def set_next(self, slot: Slot, *, active: bool, confirm: bool) -> None:
        """Has this slot run from the next reset on, for good or until the one after (bootutil's boot_set_next).

        An active slot is confirmed; without a trial it is confirmed already. Raises TrailerBad; a slot that
        isn't active is erased then.
        """
        if slot.magic is Flag.BAD:
            if not active:
                slot.erase(0, slot.size)
            raise TrailerBad
        if active:
            if slot.magic is Flag.SET and slot.image_ok is Flag.UNSET:
                slot.set_image_ok()
        elif slot.magic is Flag.UNSET:
            slot.set_magic()
            if confirm:
                slot.set_image_ok()


class Mcuboot:
    """`scratch`: start of the scratch area, as large as the largest sector. `no_downgrade`: a lower version is refused."""

    def __init__(
        self, flash: NorFlash, pairs: Sequence[Pair], scratch: int, mode: Mode, *, no_downgrade: bool = False
    ) -> None:
        self.pairs = pairs
        self.mode = mode
        self.no_downgrade = no_downgrade
        self._flash = flash
        self._scratch = scratch

    def boot(self) -> tuple[int, Image] | None:
        """Finishes what a cut has interrupted, does what is wished for, and returns which slot of the first pair runs.

        None: no image there may be booted. Raises PowerLost.
        """
        if self.mode is not Mode.HIGHEST:
            for pair in self.pairs:
                self._update(pair)
        return self.best(self.pairs[0])

    def best(self, pair: Pair) -> tuple[int, Image] | None:
        """The slot that runs, and its image."""
        images = [slot.whole_image() for slot in pair.slots]
        if self.mode is not Mode.HIGHEST:
            return None if images[0] is None else (0, images[0])
        found = [(number, image) for number, image in enumerate(images) if image is not None]
        return max(found, key=lambda item: (item[1].version[:3], -item[0]), default=None)

    def _update(self, pair: Pair) -> None:
        primary, secondary = pair.primary, pair.secondary
        if primary.swap_size is not None:
            self._finish(pair)
            return
        swap = pair.swap()
        if swap is Swap.NONE:
            return
        if not self._is_acceptable(pair, reverting=swap is Swap.REVERT):
            # The secondary slot's image goes; the primary slot's stays, and isn't asked again.
            secondary.erase(0, 1)
            secondary.erase_trailer()
            if primary.magic is Flag.SET and primary.image_ok is not Flag.SET:
                primary.set_image_ok()
            return
        if self.mode is Mode.OVERWRITE:
            self._overwrite(pair)
            return
        if swap is Swap.REVERT:
            # From here on it is a permanent swap like any other: the primary slot's trailer is about to go.
            secondary.erase_trailer()
            secondary.set_image_ok()
            secondary.set_magic()
        self._begin(pair, permanent=swap is not Swap.TEST)
        self._finish(pair)

    def _is_acceptable(self, pair: Pair, *, reverting: bool) -> bool:
        new, old = pair.secondary.whole_image(), pair.primary.whole_image()
        if new is None:
            return False
        return reverting or not self.no_downgrade or old is None or new.version[:3] >= old.version[:3]

    def _begin(self, pair: Pair, *, permanent: bool) -> None:
        pair.primary.erase_trailer()
        pair.primary.set_swap_size(max(_size(pair.primary), _size(pair.secondary)))
        if permanent:
            pair.primary.set_image_ok()
        pair.primary.set_magic()

    def _finish(self, pair: Pair) -> None:
        """Swaps what isn't swapped yet, from the last sector down to the first ("Image Swapping")."""
        primary, secondary = pair.primary, pair.secondary
        size = primary.swap_size or 0
        used = [number for number, (start, _) in enumerate(primary.sectors) if start < primary.start + size]
        for number in reversed(used):
            ours, theirs = primary.sectors[number], secondary.sectors[number]
            steps = ((theirs[0], self._scratch), (ours[0], theirs[0]), (self._scratch, ours[0]))
            for step, (source, target) in enumerate(steps):
                if not primary.is_done(number, step):
                    self._copy(source, target, ours[1])
                    primary.set_done(number, step)
        secondary.erase_trailer()
        primary.set_copy_done()

    def _overwrite(self, pair: Pair) -> None:
        """Until the secondary slot's trailer is gone, all of this happens again after an interruption."""
        primary, secondary = pair.primary, pair.secondary
        size = _size(secondary)
        primary.erase_trailer()
        for (target, length), (source, _) in zip(primary.sectors, secondary.sectors, strict=True):
            if source < secondary.start + size:
                self._copy(source, target, length)
        secondary.erase_trailer()

    def _copy(self, source: int, target: int, size: int) -> None:
        start = target
        while start < target + size:
            self._flash.erase(start)
            start += self._flash.unit_of(start)[1]
        self._flash.program(target, self._flash.read(source, size))


def _size(slot: Slot) -> int:
    try:
        return slot.image().size
    except BadImage:
        return 0
