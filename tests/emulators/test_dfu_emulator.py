"""The emulated DFU parts as a stranger meets them: pyusb, and the tables of USB DFU 1.1, annex A, and of AN2662.

Nothing of the flasher is used here, nor of the emulator's own numbers: requests, states and status codes are the
standard's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import usb.core
import usb.util
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators import application
from proxyflash.emulators.device import BadDevice, DeviceSpec
from proxyflash.emulators.dfu import device as emulated
from proxyflash.emulators.dfu.device import DfuDevice
from proxyflash.emulators.usb.backend import EmulatedUsbBackend
from proxyflash.emulators.usb.device import Stall
from proxyflash.emulators.usb.wire import UsbWire
from proxyflash.transports import clock

DETACH, DNLOAD, UPLOAD, GETSTATUS, CLRSTATUS, GETSTATE, ABORT = range(7)
(
    APP_IDLE, APP_DETACH, IDLE, DNLOAD_SYNC, DNBUSY, DNLOAD_IDLE, MANIFEST_SYNC, MANIFEST, WAIT_RESET, UPLOAD_IDLE, ERROR
) = range(11)  # fmt: skip
FIRMWARE = application.make("1.5.0", "part", "Acme", 1000, start=0)
"""In one block of the slot's 1024 bytes."""


class Stranger:
    """A program on pyusb."""

    def __init__(self, wire: UsbWire) -> None:
        self.backend = EmulatedUsbBackend(wire)
        self._device: Any = None

    @property
    def device(self) -> Any:
        """The one device of the bus, as it is now: another one after it has re-enumerated."""
        found = usb.core.find(backend=self.backend)
        if self._device is None or self._device.address != found.address:
            self._device = found
        return self._device

    def __call__(self, request: int, value: int = 0, data_or_length: bytes | int = b"") -> bytes:
        kind = 0xA1 if isinstance(data_or_length, int) else 0x21
        answer = self.device.ctrl_transfer(kind, request, value, 0, data_or_length, timeout=1000)
        return bytes(answer) if kind == 0xA1 else b""

    def status(self) -> tuple[int, int, int]:
        """bStatus, bwPollTimeout, bState."""
        answer = self(GETSTATUS, 0, 6)
        assert len(answer) == 6
        assert answer[5] == 0
        return answer[0], int.from_bytes(answer[1:4], "little"), answer[4]

    def download(self, block: int, data: bytes) -> tuple[int, int]:
        """DNLOAD, then GETSTATUS as long as the device is busy: bStatus and bState."""
        self(DNLOAD, block, data)
        status, poll, state = self.status()
        while state in (DNBUSY, MANIFEST):
            clock.sleep(poll / 1000)
            status, poll, state = self.status()
        return status, state

    def download_all(self, firmware: bytes) -> None:
        """Into the slot, manifestation included."""
        blocks = [firmware[offset : offset + 1024] for offset in range(0, len(firmware), 1024)]
        for block, data in enumerate([*blocks, b""]):
            self.download(block, data)


class Rig:
    def __init__(self, part: str, *, pace: float = 0.0, old: bytes = b"", **settings: Any) -> None:
        self.wire = UsbWire(f"rig-{id(self)}", pace=pace)
        self.part = DfuDevice.attach(DeviceSpec("part", settings={"part": part, **settings}, pace=pace), self.wire)
        if old:
            self.part.flash.load(self.part.flash.base, old)
            self.part.supply.off()
            self.part.supply.on()
        self.stranger = Stranger(self.wire)

    def close(self) -> None:
        self.wire.close()
        self.part.close()


@pytest.fixture
def rig() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(part: str, **settings: Any) -> Rig:
        made.append(Rig(part, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Erasing takes no time, programming takes for ever."""
    row = {**emulated.parts()["slot-dfu"], "sectors": [[32, 4096, 0.0, "g"]], "program_seconds": 1000.0}
    monkeypatch.setitem(emulated.parts(), "slot-dfu", row)


# Annex A, state by state. How a state is reached, and in which part.


def reached(make: Callable[..., Rig], state: int, **more: Any) -> Rig:
    """A part in that state. dfuDNBUSY and dfuMANIFEST stay where the part is slow."""
    if state in (APP_IDLE, APP_DETACH):
        rig = make("slot-dfu", old=FIRMWARE, **more)
        if state == APP_DETACH:
            rig.stranger(DETACH, 1000)
        return rig
    part = "waiting-dfu" if state == WAIT_RESET else "slot-dfu"
    lasting = state in (DNBUSY, MANIFEST)
    rig = make(part, boot="dfu", pace=1.0 if lasting else 0.0, **more)
    ask = rig.stranger
    if state == DNLOAD_SYNC:
        ask(DNLOAD, 0, b"1234")
    elif state == DNBUSY:
        assert ask.download(0, b"1234") == (0, DNLOAD_IDLE)
        ask(DNLOAD, 1, b"5678")
        assert ask.status()[0::2] == (0, DNBUSY)
    elif state == DNLOAD_IDLE:
        assert ask.download(0, b"1234") == (0, DNLOAD_IDLE)
    elif state in (MANIFEST_SYNC, MANIFEST, WAIT_RESET):
        size = 512 if part == "waiting-dfu" else 1024
        for block, offset in enumerate(range(0, len(FIRMWARE), size)):
            assert ask.download(block, FIRMWARE[offset : offset + size]) == (0, DNLOAD_IDLE)
        ask(DNLOAD, 2, b"")
        if state != MANIFEST_SYNC:
            assert ask.status()[0::2] == (0, MANIFEST)
        if state == WAIT_RESET:
            with pytest.raises(usb.core.USBError):
                ask(GETSTATE, 0, 1)
    elif state == UPLOAD_IDLE:
        assert len(ask(UPLOAD, 0, 16)) == 16
    elif state == ERROR:
        with pytest.raises(usb.core.USBError):
            ask(CLRSTATUS)
    assert rig.part.state == state
    return rig


REQUESTS: dict[str, tuple[int, int, bytes | int]] = {
    "DETACH": (DETACH, 1000, b""),
    "DNLOAD": (DNLOAD, 0, b"1234"),
    "empty DNLOAD": (DNLOAD, 1, b""),
    "UPLOAD": (UPLOAD, 0, 16),
    "GETSTATUS": (GETSTATUS, 0, 6),
    "CLRSTATUS": (CLRSTATUS, 0, b""),
    "GETSTATE": (GETSTATE, 0, 1),
    "ABORT": (ABORT, 0, b""),
}
ANNEX_A: dict[int, dict[str, int]] = {
    # A.2.1 to A.2.11: the next state for each request that is taken, as the standard's tables have it. Each other
    # request is stalled; it leads to dfuERROR, from the application's states to appIDLE.
    APP_IDLE: {"DETACH": APP_DETACH, "GETSTATUS": APP_IDLE, "GETSTATE": APP_IDLE},
    APP_DETACH: {"GETSTATUS": APP_DETACH, "GETSTATE": APP_DETACH},
    IDLE: {"DNLOAD": DNLOAD_SYNC, "UPLOAD": UPLOAD_IDLE, "GETSTATUS": IDLE, "GETSTATE": IDLE, "ABORT": IDLE},
    DNLOAD_SYNC: {"GETSTATUS": DNBUSY, "GETSTATE": DNLOAD_SYNC, "ABORT": IDLE},
    DNBUSY: {},
    DNLOAD_IDLE: {
        "DNLOAD": DNLOAD_SYNC, "empty DNLOAD": MANIFEST_SYNC, "GETSTATUS": DNLOAD_IDLE, "GETSTATE": DNLOAD_IDLE,
        "ABORT": IDLE,
    },
    MANIFEST_SYNC: {"GETSTATUS": MANIFEST, "GETSTATE": MANIFEST_SYNC, "ABORT": IDLE},
    MANIFEST: {},
    WAIT_RESET: {},
    UPLOAD_IDLE: {"UPLOAD": UPLOAD_IDLE, "GETSTATUS": UPLOAD_IDLE, "GETSTATE": UPLOAD_IDLE, "ABORT": IDLE},
    ERROR: {"GETSTATUS": ERROR, "CLRSTATUS": IDLE, "GETSTATE": ERROR},
}  # fmt: skip


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("state", ANNEX_A)
def test_annex_a(rig: Callable[..., Rig], state: int, request_name: str) -> None:
    part = reached(rig, state, early="stall")
    request, value, data = REQUESTS[request_name]
    wanted = ANNEX_A[state].get(request_name)
    if wanted is not None:
        answer = part.stranger(request, value, data)
        assert part.part.state == wanted
        if request == GETSTATE:
            assert answer == bytes([wanted])
        if request == GETSTATUS:
            assert answer[4] == wanted
        return
    with pytest.raises(usb.core.USBError) as caught:
        part.stranger(request, value, data)
    # EPIPE on Linux, LIBUSB_ERROR_PIPE: a STALL.
    assert (caught.value.errno, caught.value.backend_error_code) == (32, -9)
    after = {APP_IDLE: APP_IDLE, APP_DETACH: APP_IDLE, WAIT_RESET: WAIT_RESET}
    assert part.part.state == after.get(state, ERROR)
    if part.part.state == ERROR:
        assert part.stranger.status() == (0x0F, 0, ERROR)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("state", [DNBUSY, MANIFEST])
def test_a_device_that_is_patient_says_how_long_it_takes(rig: Callable[..., Rig], state: int) -> None:
    part = reached(rig, state, early="busy")
    status, poll, now = part.stranger.status()
    assert (status, now) == (0, state)
    # One word at 1000 s; 250 of them, which is more than three bytes can tell.
    if state == DNBUSY:
        assert 900_000 < poll <= 1_000_000
    else:
        assert poll == 0xFFFFFF


def test_states_that_time_ends(rig: Callable[..., Rig]) -> None:
    """Status poll timeout: dfuDNBUSY to dfuDNLOAD-SYNC (A.2.5), dfuMANIFEST to dfuMANIFEST-SYNC (A.2.8)."""
    ask = rig("slot-dfu", boot="dfu").stranger
    ask(DNLOAD, 0, FIRMWARE)
    assert ask.status()[2] == DNBUSY
    assert ask(GETSTATE, 0, 1) == bytes([DNLOAD_SYNC])
    assert ask.status()[2] == DNLOAD_IDLE
    ask(DNLOAD, 1, b"")
    assert ask.status()[2] == MANIFEST
    assert ask(GETSTATE, 0, 1) == bytes([MANIFEST_SYNC])
    assert ask.status()[2] == IDLE


def test_an_upload_ends_with_a_short_frame(rig: Callable[..., Rig]) -> None:
    """A.2.10."""
    part = rig("slot-dfu", boot="dfu")
    ask = part.stranger
    size = part.part.flash.size
    got = b""
    for block in range(size // 1024):
        got += ask(UPLOAD, block, 1024)
        assert part.part.state == UPLOAD_IDLE
    assert ask(UPLOAD, size // 1024, 1024) == b""
    assert part.part.state == IDLE
    assert got == part.part.flash.read(0, size)


# Detaching.


def test_detach_and_reset(rig: Callable[..., Rig]) -> None:
    part = rig("slot-dfu", old=FIRMWARE)
    device = part.stranger.device
    assert (device.idVendor, device.idProduct, device.bcdDevice) == (0x1209, 0x0001, 0x0150)
    part.stranger(DETACH, 1000)
    assert part.part.application_version == "1.5.0"
    part.stranger.device.reset()
    assert part.part.application_version is None
    device = part.stranger.device
    assert (device.idVendor, device.idProduct) == (0x1209, 0xDF01)
    assert part.stranger.status() == (0, 0, IDLE)


def test_a_reset_without_detach_changes_nothing(rig: Callable[..., Rig]) -> None:
    part = rig("slot-dfu", old=FIRMWARE)
    part.stranger.device.reset()
    assert part.part.application_version == "1.5.0"


def test_the_detach_timer_ends(rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    """A.2.2: then a reset does not lead into DFU mode."""
    monkeypatch.setitem(emulated.parts(), "slot-dfu", {**emulated.parts()["slot-dfu"], "detach_ms": 10})
    part = rig("slot-dfu", old=FIRMWARE, pace=1.0)
    part.stranger(DETACH, 60_000)
    until = clock.monotonic() + 300
    while part.part.state != APP_IDLE:
        assert clock.monotonic() < until
        clock.sleep(0.005)
    part.stranger.device.reset()
    assert part.part.application_version == "1.5.0"


def test_a_part_that_detaches_by_itself(rig: Callable[..., Rig]) -> None:
    part = rig("blind-dfu", old=FIRMWARE)
    before = part.stranger.device
    part.stranger(DETACH, 1000)
    assert part.stranger.device.idProduct == 0xDF02
    with pytest.raises(usb.core.USBError) as caught:
        before.ctrl_transfer(0xA1, GETSTATUS, 0, 0, 6)
    assert caught.value.errno == 19  # ENODEV


# A slot.


def test_blocks_must_follow_each_other(rig: Callable[..., Rig]) -> None:
    ask = rig("slot-dfu", boot="dfu").stranger
    assert ask.download(0, bytes(1024)) == (0, DNLOAD_IDLE)
    assert ask.download(2, bytes(1024)) == (0x08, ERROR)


def test_a_block_that_is_too_long_is_stalled(rig: Callable[..., Rig]) -> None:
    ask = rig("slot-dfu", boot="dfu").stranger
    with pytest.raises(usb.core.USBError):
        ask(DNLOAD, 0, bytes(1025))
    with pytest.raises(usb.core.USBError):
        ask(UPLOAD, 0, 1025)


def test_more_than_the_slot_holds(rig: Callable[..., Rig]) -> None:
    ask = rig("slot-dfu", boot="dfu").stranger
    for block in range(128):
        assert ask.download(block, bytes(1024)) == (0, DNLOAD_IDLE)
    assert ask.download(128, bytes(1024)) == (0x08, ERROR)


def stock(size: int, fill: int) -> bytes:
    """A firmware without a descriptor: a vector table, and something."""
    return struct.pack("<II", 0x20004000, 0x101) + bytes([fill]) * (size - 8)


def test_a_cut_never_leaves_a_torn_firmware_that_starts() -> None:
    """A firmware that says nothing of its size: only the order in which it is written can protect it."""
    old, new = stock(5120, 0x11), stock(5120, 0x22)
    # Two erases, 1024 words of blocks 1 to 4, and the 256 of the first block, which comes last.
    for operation in (*range(1, 20), *range(20, 1026, 37), *range(1026, 2 + 1280 + 1)):
        part = Rig("slot-dfu", old=old)
        try:
            part.stranger(DETACH, 1000)
            part.stranger.device.reset()
            part.part.supply.cut_at(operation)
            with pytest.raises(usb.core.USBError, match="No such device"):
                part.stranger.download_all(new)
            part.part.supply.on()
            if part.part.application_version is not None:
                assert part.part.flash.read(0, 5120) in (old, new)
        finally:
            part.close()


def test_an_unfinished_download_is_no_firmware(rig: Callable[..., Rig]) -> None:
    part = rig("slot-dfu", old=FIRMWARE)
    part.stranger(DETACH, 1000)
    part.stranger.device.reset()
    part.stranger.download(0, FIRMWARE)
    part.stranger(ABORT)
    part.part.supply.off()
    part.part.supply.on()
    assert part.part.application_version is None
    # "Device's firmware is corrupt": errFIRMWARE (6.1.2).
    assert part.stranger.status() == (0x0A, 0, ERROR)


# DfuSe, after AN2662, 4.4 and 4.5.


def at(address: int) -> bytes:
    return b"\x21" + struct.pack("<I", address)


@pytest.fixture
def st_rom(rig: Callable[..., Rig]) -> Rig:
    return rig("stm32f105-dfu", boot="dfu")


def test_get_commands(st_rom: Rig) -> None:
    assert st_rom.stranger(UPLOAD, 0, 16) == b"\x00\x21\x41\x92"


def test_write_and_read_at_an_address(st_rom: Rig) -> None:
    ask = st_rom.stranger
    assert ask.download(0, at(0x08000800)) == (0, DNLOAD_IDLE)
    assert ask.download(2, b"\x01\x02\x03\x04" * 512) == (0, DNLOAD_IDLE)
    # A short block lies where a whole one would: at pointer + (3 - 2) * 2048.
    assert ask.download(3, b"\x05\x06\x07\x08" * 4) == (0, DNLOAD_IDLE)
    assert st_rom.part.flash.read(0x08000800, 2064) == b"\x01\x02\x03\x04" * 512 + b"\x05\x06\x07\x08" * 4
    ask(ABORT)
    assert ask(UPLOAD, 2, 2048) == b"\x01\x02\x03\x04" * 512
    assert ask(UPLOAD, 3, 8) == b"\x05\x06\x07\x08" * 2


def test_the_pointer_starts_at_the_flash(st_rom: Rig) -> None:
    st_rom.part.flash.load(0x08000000, b"begin")
    assert st_rom.stranger(UPLOAD, 2, 5) == b"begin"


def test_an_erase_is_busy_first_and_done_then(st_rom: Rig) -> None:
    st_rom.part.flash.load(0x08000800, bytes(4096))
    ask = st_rom.stranger
    ask(DNLOAD, 0, b"\x41" + struct.pack("<I", 0x08000900))
    assert ask.status()[0::2] == (0, DNBUSY)
    assert ask.status() == (0, 0, DNLOAD_IDLE)
    assert st_rom.part.flash.read(0x08000800, 4096) == b"\xff" * 2048 + bytes(2048)


def test_mass_erase(st_rom: Rig) -> None:
    st_rom.part.flash.load(0x08000000, bytes(0x40000))
    assert st_rom.stranger.download(0, b"\x41") == (0, DNLOAD_IDLE)
    assert st_rom.part.flash.read(0x08000000, 0x40000) == b"\xff" * 0x40000


@pytest.mark.parametrize(
    ("block", "data", "status"),
    [
        (0, at(0x07FFFFFF), 0x01),
        (0, at(0x08040000), 0x01),
        (0, at(0x1FFFF800), 0x01),  # option bytes: another alternate setting
        (0, b"\x21\x00\x00\x08", 0x01),
        (0, b"\x41" + struct.pack("<I", 0x20000000), 0x01),
        (2, bytes(8), 0x06),  # not erased
        (0xFFFF, bytes(8), 0x01),  # beyond the flash
        (0, b"\x99", 0x0F),  # AN2662, figure 55: unsupported command
        (0, b"\x92\x00", 0x0F),
        (1, bytes(8), 0x0F),
    ],
)
def test_what_is_refused_is_told_by_the_second_status(st_rom: Rig, block: int, data: bytes, status: int) -> None:
    st_rom.part.flash.load(0x08000000, bytes(2048))
    ask = st_rom.stranger
    ask(DNLOAD, block, data)
    assert ask.status()[0::2] == (0, DNBUSY)
    assert ask.status() == (status, 0, ERROR)
    ask(CLRSTATUS)
    assert ask.status() == (0, 0, IDLE)


@pytest.mark.parametrize(("block", "address"), [(2, 0x0803FFFF + 1), (1, 0x08000000), (0xFFFF, 0x08000000)])
def test_an_upload_from_elsewhere_is_refused(st_rom: Rig, block: int, address: int) -> None:
    ask = st_rom.stranger
    ask.download(0, at(address))
    if ask.status()[2] == ERROR:
        ask(CLRSTATUS)
        block = 0xFFFF
    else:
        ask(ABORT)
    with pytest.raises(usb.core.USBError):
        ask(UPLOAD, block, 64)
    assert ask.status() == (0x01, 0, ERROR)


def test_read_protection(rig: Callable[..., Rig]) -> None:
    """AN2662, 4.4.1, 4.5.1 and 4.5.3: errVENDOR; the address may be set all the same."""
    part = rig("stm32f105-dfu", boot="dfu", rdp=True)
    part.part.flash.load(0x08000000, b"secret")
    ask = part.stranger
    assert ask.download(0, at(0x08000000)) == (0, DNLOAD_IDLE)
    assert ask.download(2, bytes(8)) == (0x0B, ERROR)
    ask(CLRSTATUS)
    assert ask.download(0, b"\x41") == (0x0B, ERROR)
    ask(CLRSTATUS)
    with pytest.raises(usb.core.USBError):
        ask(UPLOAD, 2, 6)
    assert ask.status() == (0x0B, 0, ERROR)
    assert part.part.flash.read(0x08000000, 6) == b"secret"


def test_lifting_the_read_protection_erases_all_and_resets(rig: Callable[..., Rig]) -> None:
    """AN2662, 4.5.4, and figure 56's note 2."""
    part = rig("stm32f105-dfu", boot="dfu", rdp=True)
    part.part.flash.load(0x08000000, b"secret")
    before = part.stranger.device
    part.stranger(DNLOAD, 0, b"\x92")
    assert part.stranger.status()[2] == DNBUSY
    with pytest.raises(usb.core.USBError):
        before.ctrl_transfer(0xA1, GETSTATUS, 0, 0, 6)
    assert part.stranger(UPLOAD, 2, 6) == b"\xff" * 6


def test_write_protected_sectors_stay_without_an_error(rig: Callable[..., Rig]) -> None:
    """AN2662, 4.5.3, its note."""
    part = rig("stm32f105-dfu", boot="dfu", write_protected=[1])
    part.part.flash.load(0x08000000, bytes(6144))
    assert part.stranger.download(0, b"\x41") == (0, DNLOAD_IDLE)
    assert part.stranger.download(0, at(0x08000800)) == (0, DNLOAD_IDLE)
    assert part.stranger.download(2, b"\x55" * 8) == (0, DNLOAD_IDLE)
    assert part.part.flash.read(0x08000000, 6144) == b"\xff" * 2048 + bytes(2048) + b"\xff" * 2048


def test_leave(rig: Callable[..., Rig]) -> None:
    """AN3156, 5.5: an empty download and GETSTATUS; the part goes, and its application comes."""
    part = rig("stm32f105-dfu", old=application.make("1.5.0", "part", "Acme", 1000))
    part.stranger(DETACH, 255)
    assert part.part.application_version is None
    part.stranger.download(0, at(0x08000000))
    part.stranger(DNLOAD, 0, b"")
    assert part.stranger.status()[2] == MANIFEST
    assert part.part.application_version == "1.5.0"
    assert part.stranger.device.idProduct == 1


def test_the_memories_of_an_f405(rig: Callable[..., Rig]) -> None:
    """The names that an STM32F405's ROM gives; each memory counts in its own alternate setting."""
    part = rig("stm32f405-dfu", boot="dfu")
    device = part.stranger.device
    names = [usb.util.get_string(device, interface.iInterface) for interface in device[0]]
    assert names == [
        "@Internal Flash  /0x08000000/04*016Kg,01*064Kg,07*128Kg",
        "@Option Bytes  /0x1FFFC000/01*016 e",
        "@OTP Memory /0x1FFF7800/01*512 e,01*016 e",
        "@Device Feature/0xFFFF0000/01*004 e",
    ]
    assert part.stranger.download(0, at(0x1FFF7800)) == (0x01, ERROR)
    part.stranger(CLRSTATUS)
    device.set_interface_altsetting(0, 2)
    assert part.stranger.download(0, at(0x1FFF7800)) == (0, DNLOAD_IDLE)
    assert part.stranger.download(2, b"once") == (0, DNLOAD_IDLE)
    part.stranger(ABORT)
    assert part.stranger(UPLOAD, 2, 4) == b"once"


def test_written_option_bytes_reset_the_part(rig: Callable[..., Rig]) -> None:
    """AN2662, figure 57."""
    part = rig("stm32f405-dfu", boot="dfu")
    before = part.stranger.device
    before.set_interface_altsetting(0, 1)
    assert part.stranger.download(0, at(0x1FFFC000)) == (0, DNLOAD_IDLE)
    part.stranger(DNLOAD, 2, bytes(16))
    assert part.stranger.status()[2] == DNBUSY
    with pytest.raises(usb.core.USBError):
        before.ctrl_transfer(0xA1, GETSTATUS, 0, 0, 6)


def test_a_resident_bootloader_keeps_its_own_sectors(rig: Callable[..., Rig]) -> None:
    part = rig("resident-dfu", boot="dfu")
    part.part.flash.load(0x08000000, b"bootloader")
    ask = part.stranger
    assert ask.download(0, b"\x41" + struct.pack("<I", 0x08004000)) == (0x01, ERROR)
    ask(CLRSTATUS)
    assert ask.download(0, b"\x41") == (0, DNLOAD_IDLE)
    assert ask.download(0, at(0x08000000)) == (0, DNLOAD_IDLE)
    assert ask.download(2, bytes(8)) == (0x01, ERROR)
    assert part.part.flash.read(0x08000000, 10) == b"bootloader"


# Descriptors.


@pytest.mark.parametrize("name", emulated.parts())
def test_functional_descriptors(rig: Callable[..., Rig], name: str) -> None:
    """Table 4.2; those of the STM32 as lsusb shows them: 0x0B, 255 ms, 2048 bytes, 1.1a."""
    wanted = {
        "stm32f405-dfu": "09 21 0b ff 00 00 08 1a 01",
        "stm32f105-dfu": "09 21 0b ff 00 00 08 1a 01",
        "resident-dfu": "09 21 03 f4 01 40 00 1a 01",
        "window-dfu": "09 21 0b ff 00 00 04 1a 01",
        "slot-dfu": "09 21 07 e8 03 00 04 10 01",
        "waiting-dfu": "09 21 03 e8 03 00 02 10 01",
        "blind-dfu": "09 21 09 e8 03 00 01 10 01",
    }
    last = list(rig(name, boot="dfu").stranger.device[0])[-1]
    assert bytes(last.extra_descriptors) == bytes.fromhex(wanted[name])
    assert (last.bInterfaceClass, last.bInterfaceSubClass, last.bInterfaceProtocol) == (0xFE, 1, 2)


# Faults on demand, and settings that do not hold.


def test_a_piece_of_work_fails_on_demand(rig: Callable[..., Rig]) -> None:
    ask = rig("slot-dfu", boot="dfu", fail_at=2, fail_with=7).stranger
    assert ask.download(0, bytes(64)) == (0, DNLOAD_IDLE)
    assert ask.download(1, bytes(64)) == (7, ERROR)


def test_a_mute_part(rig: Callable[..., Rig]) -> None:
    with pytest.raises(usb.core.USBTimeoutError):
        rig("slot-dfu", mute=True).stranger.status()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("part", "stm32f999"), ("boot", "rom"), ("early", 1), ("early", "late"), ("rdp", 1), ("vendor_id", 0x10000),
        ("fail_with", 16), ("write_protected", [999]), ("write_protected", ["a"]), ("serial", "x" * 127),
        ("product", "x" * 127), ("nonsense", 1),
    ],
)  # fmt: skip
def test_settings_that_do_not_hold(key: str, value: object) -> None:
    wire = UsbWire(f"bad-{key}-{value}"[:60], pace=0)
    try:
        with pytest.raises(BadDevice) as caught:
            DfuDevice.attach(DeviceSpec("part", settings={key: value}), wire)
        assert caught.value.key == key
    finally:
        wire.close()


# Anything may come.

TRANSFERS = st.tuples(
    st.one_of(st.sampled_from([0x21, 0xA1]), st.integers(0, 255)),
    st.one_of(st.integers(0, 7), st.integers(0, 255)),
    st.one_of(st.integers(0, 4), st.integers(0, 0xFFFF)),
    st.one_of(st.just(0), st.integers(0, 0xFFFF)),
    st.one_of(
        st.just(b""),
        st.binary(max_size=64),
        st.sampled_from([b"\x41", b"\x92", at(0x08000000), at(0xFFFFFFFF), b"\x41\x00\x00\x00\x08", FIRMWARE]),
    ),
    st.one_of(st.integers(0, 64), st.integers(0, 0xFFFF)),
)


@pytest.mark.parametrize("name", emulated.parts())
@given(transfers=st.lists(TRANSFERS, max_size=12), boot=st.sampled_from(["application", "dfu"]))
@settings(max_examples=100, deadline=None)
def test_any_request_is_answered_or_stalled(name: str, transfers: list[Any], boot: str) -> None:
    part = Rig(name, old=FIRMWARE, boot=boot)
    try:
        for kind, request, value, index, data, length in transfers:
            function = part.wire.ports[0].function
            assert function is not None
            length = length if kind & 0x80 else len(data)
            try:
                answer = function.control(struct.pack("<BBHHH", kind, request, value, index, length), data)
            except Stall:
                continue
            assert len(answer) <= length
            assert 0 <= part.part.state <= ERROR
    finally:
        part.close()
