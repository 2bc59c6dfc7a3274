"""Zephyr parts with MCUboot, which really boot: the micro:bit, whose MCUboot swaps, and a Cortex-M3 with serial recovery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

import serial
from proxyflash.flashers.formats import load

from . import zephyr_firmware as firmware
from .qemu import SECONDS, Qemu, QemuFailed

HEADER_SIZE = 0x200
"""Bytes before the application's vectors, in its images."""
UP = b"build time"
"""What its application logs first."""
GOOD = bytes.fromhex("77c295f360d2ef7f3552500f2cb67980")
TEST, ALIGNED = 2, 8
"""The magic of a slot that is good, the type of a swap that is to be tried, and bytes that each field has."""
FLASH_SIZE = 256 * 1024
"""Bytes, of the micro:bit's nRF51822."""


class ZephyrPart:
    """One part that runs. `url`: of its console, for pyserial."""

    def __init__(self, qemu: Qemu) -> None:
        self.qemu = qemu
        self.url = qemu.url

    def reset(self) -> None:
        """Its supply is cut, and is there again: what it was doing ends there, its flash stays."""
        self.qemu.command("system_reset")

    def off(self) -> None:
        """It does nothing any more, until `on`."""
        self.qemu.command("stop")

    def on(self) -> None:
        self.qemu.command("system_reset", "cont")

    def stop(self) -> None:
        """For good."""
        self.qemu.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


class Microbit(ZephyrPart):
    """An nRF51822, a Cortex-M0 with 256 KiB of flash: MCUboot swaps its two slots, and reverts what is not confirmed.

    It is loaded once. From then on its flash is its own for as long as it lives.
    """

    SLOT, SLOT_SIZE = 0x8000, 0x1_A000
    """The first slot, whose application runs; the second lies behind it."""
    PAGE = 1024
    ERASE_PAGE, CONFIG = 0x4001_E508, 0x4001_E504
    """The flash controller's registers (nRF51 Series Reference Manual 3.0, NVMC): one is written at each page's erase, the
    other before and after each erase and each write."""

    def __init__(self) -> None:
        """As it comes. Raises Missing, NotInstalled, QemuFailed."""
        flash = microbit_flash()
        vectors = self.SLOT + HEADER_SIZE
        self._entry = int.from_bytes(flash[vectors + 4 : vectors + 8], "little") & ~1
        super().__init__(Qemu("microbit", "cortex-m0"))
        try:
            self.load(flash)
        except BaseException:
            self.stop()
            raise

    def load(self, flash: bytes) -> None:
        """Puts it into the state of another time, and starts it."""
        with self.starting():
            self.qemu.load(0, flash)

    def reset(self) -> None:
        with self.starting():
            super().reset()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Waits, after the block, until its application is up. Nobody else may have its console open.

        What comes in while it starts leaves QEMU's nRF51 deaf until the next reset: Zephyr's driver clears the event of a
        byte that is in the receiver already, and no other follows it.
        """
        with serial.serial_for_url(self.url, timeout=SECONDS) as console:
            yield
            if not console.read_until(UP).endswith(UP):
                raise QemuFailed("its application does not start")
            console.read_until(b"\n")

    def flash(self) -> bytes:
        """All of it, as it is now."""
        return self.qemu.read(0, FLASH_SIZE)

    def holds(self, image: bytes) -> bool:
        """Whether the first slot, the running one, has the image whole."""
        return self.qemu.read(self.SLOT, len(image)) == image

    def cut_at(self, *cuts: int, flash: bytes = b"", register: int = ERASE_PAGE) -> list[int]:
        """Restarts it once for each number, and cuts its supply at MCUboot's so-manieth erase (by `register`).

        `flash`: puts it into the state of another time before. At last it is restarted, and MCUboot ends:
        the application starts. Returns how many there were each time, and at last.
        """
        with self.starting():
            return self.qemu.cut_at(cuts, register, self._entry, flash)

    def cut_when(self, times: int, register: int = ERASE_PAGE) -> None:
        """Cuts its supply at the so-manieth erase (by `register`) from now on; waits for it."""
        self.qemu.cut_when(register, times)


def microbit_flash(uploaded: bytes = b"", *, on_trial: bool = True) -> bytes:
    """What the micro:bit holds as it comes: MCUboot and an application of version 0.0.0, confirmed. Raises Missing.

    `uploaded`: an image in the second slot; `on_trial`: which is to be tried at the next reset. It lies where MCUboot's
    "swap using offset" wants it, and its slot ends as MCUboot's design document has it: type of the swap, and 16 bytes of magic.
    """
    flash = bytearray(b"\xff" * FLASH_SIZE)
    for segment in load(firmware.find("_qemu_cortex_m0_serial.merged.hex")).segments:
        flash[segment.address : segment.end] = segment.data
    if uploaded:
        slot = Microbit.SLOT + Microbit.SLOT_SIZE
        end, at = slot + Microbit.SLOT_SIZE, slot + Microbit.PAGE
        flash[at : at + len(uploaded)] = uploaded
        if on_trial:
            flash[end - 16 : end] = GOOD
            flash[end - 16 - 3 * ALIGNED] = TEST
    return bytes(flash)


class Mps2(ZephyrPart):
    """A Cortex-M3 whose MCUboot has serial recovery, and runs the slot with the higher version; it swaps nothing.

    Its slots are in RAM, which keeps its content over a reset. MCUboot itself is loaded again at each.
    """

    SLOT = 0x2005_0000

    def __init__(self, build: str = "_27c54835_mps2_an385_serial_recovery", *, application: bool = False) -> None:
        """`build`: what its files' names end with, before ".hex" and ".signed.bin". `application`: whether it has one, or
        nothing to run. Raises Missing, NotInstalled, QemuFailed.
        """
        loader = firmware.find(f"{build}.hex")
        super().__init__(Qemu("mps2-an385", "cortex-m3", loaded=[f"file={loader}"], more=["-serial", "null"]))
        try:
            if application:
                self.qemu.load(self.SLOT, firmware.find(f"{build}.signed.bin").read_bytes())
            else:
                self.on()
        except BaseException:
            self.stop()
            raise

    def holds(self, image: bytes) -> bool:
        """Whether the first slot has the image whole."""
        return self.qemu.read(self.SLOT, len(image)) == image
