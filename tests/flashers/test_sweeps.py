"""The sweeps: a cut at every flash operation and at every yield, for each bootloader, then the same command again.

After any cut the part runs the old application whole, the new one whole, or sits in its bootloader; and flashing once
more ends with the whole new image. The parts are the emulated ones, through the real flashers and wires, without pace.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from proxyflash.emulators import application, mcuboot_image
from proxyflash.emulators.avr_device import AvrDevice
from proxyflash.emulators.device import EmulatedDevice
from proxyflash.emulators.uart_board import Stage
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.formats import mcuboot
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError

pytestmark = pytest.mark.simulated_time


@dataclass(frozen=True)
class Kind:
    """One kind of part: its bench file, where its firmware goes, how large the old and the new one are."""

    bench: str
    start: int
    old_size: int
    new_size: int
    relocatable: bool = False
    mcuboot: bool = False
    """Its firmware is MCUboot's images, from `start` on."""
    vectors: bytes | None = None
    by_hand: bool = False
    """Nothing but a hand resets it: a cut within the writing of its reset vector wants one."""


AVR_VECTORS = bytes.fromhex("0c 94 40 00")
"""JMP 0x80 (AVR instruction set manual)."""

SERIAL = """
[bus.b]
kind = "serial"
emulated = true
pace = 0
baudrate = 115200
dtr = false
rts = false
[[component]]
name = "part"
bus = "b"
version = {send = "VER?\\r", match = "FW ([0-9.]+)"}
"""
"""A part with modem lines and an application that tells its version; more of its keys follow."""

KINDS = {
    "uds": Kind(
        """
[bus.b]
kind = "can"
emulated = true
pace = 0
[[component]]
name = "part"
bus = "b"
protocol = "uds"
address = {request = 0x7E0, response = 0x7E8}
emulated = {part = "acme-r77", firmware = "old.bin"}
[component.profile]
memory = [{start = 0x10000, size = 0x70000, erase_unit = 4096}]
security = {key = "xor", secret = "5a5a5a5a"}
timings = {p2 = 0.05, latency = 0.2, reset_gap = 2.0, retries = 1}
""",
        0x10000,
        1000,
        1500,
    ),
    "stm32-uart": Kind(
        SERIAL
        + """
protocol = "stm32-uart"
emulated = {part = "stm32l476xg", firmware = "old.bin", wiring = "dtr-reset,!rts-boot0"}
[component.profile]
answer = 0.05
entry = {reset = "dtr", boot0 = "rts", hold = 0.001, settle = 0.005}
""",
        0x08000000,
        1000,
        2500,
    ),
    "dfuse": Kind(
        """
[bus.b]
kind = "usb"
emulated = true
pace = 0
[[component]]
name = "part"
bus = "b"
protocol = "dfu"
address = {runtime_vendor_id = 0x1209, runtime_product_id = 1}
emulated = {part = "stm32f105-dfu", firmware = "old.bin"}
profile = {reenumerate = 0.5}
""",
        0x08000000,
        1000,
        2500,
    ),
    "dfu": Kind(
        """
[bus.b]
kind = "usb"
emulated = true
pace = 0
[[component]]
name = "part"
bus = "b"
protocol = "dfu"
address = {vendor_id = 0x1209, product_id = 0xDF01, runtime_vendor_id = 0x1209, runtime_product_id = 1}
emulated = {part = "slot-dfu", firmware = "old.bin"}
profile = {reenumerate = 0.5, slot_size = 0x20000}
""",
        0,
        1000,
        2500,
        relocatable=True,
    ),
    "smp": Kind(
        """
[bus.b]
kind = "serial"
emulated = true
pace = 0
baudrate = 115200
[[component]]
name = "part"
bus = "b"
protocol = "smp"
emulated = {part = "acme-s1", firmware = "old.bin", buf_size = 280}
profile = {answer = 0.3, quiet = 0.01, swap = 3.0, erase = 1.0}
""",
        0x1000,
        400,
        800,
        mcuboot=True,
    ),
    "smp-recovery": Kind(
        """
[bus.b]
kind = "serial"
emulated = true
pace = 0
baudrate = 115200
[[component]]
name = "part"
bus = "b"
protocol = "smp"
emulated = {part = "acme-s1", firmware = "old.bin", recovery_buf_size = 280}
profile = {answer = 0.3, quiet = 0.01, swap = 3.0, erase = 1.0, recovery = true}
""",
        0x1000,
        400,
        800,
        mcuboot=True,
    ),
}

KINDS |= {
    protocol: Kind(
        SERIAL
        + f"""
protocol = "{protocol}"
emulated = {{part = "{part}", firmware = "old.bin", {emulated}}}
profile = {{answer = 1.0, entry = {{{entry}}}}}
""",
        0,
        1000,
        new_size,
        vectors=AVR_VECTORS,
        by_hand=protocol == "avr109",
    )
    for protocol, part, emulated, entry, new_size in (
        ("stk500v1", "atmega328p-optiboot", "boot_window = 20", "discharge = 0.001, settle = 0.005", 2600),
        ("stk500v2", "atmega2560-wiring", "boot_window = 2", "discharge = 0.001, settle = 0.005", 6000),
        ("avr109", "atmega32u4-caterina", "reenumerate = 0.02, boot_window = 60", 'reset = "none", touch = true', 2600),
    )
}

KINDS |= {
    name: Kind(
        SERIAL
        + f"""
protocol = "{protocol}"
emulated = {{part = "{part}", firmware = "old.bin", enter = "LOADER", timeout = 1}}
[component.profile]
loader = "{loader}"
enter = "LOADER"
entry = {{settle = 0.005}}
block_size = 128
timings = {{connect = 2, knock = 0.1, start = 2, block = 0.3, verdict = 1}}
""",
        start,
        1000,
        900,
        relocatable=True,
    )
    for name, protocol, part, loader, start in (
        ("xmodem", "xmodem", "efr32mg1", "gecko", 0x4000),
        ("ymodem", "ymodem", "stm32l4-iap", "st-iap", 0x08008000),
    )
}

OLD, NEW = "1.4.2", "1.5.0"


class Rig:
    """A folder with the bench file and the old firmware; each `powered` starts from a part with the old image."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        (folder / "bench.toml").write_text(kind.bench)
        (folder / "old.bin").write_bytes(firmware(kind, OLD, kind.old_size))
        new = firmware(kind, NEW, kind.new_size)
        self.image = FirmwareImage((Segment(kind.start, new),), "bin", relocatable=kind.relocatable)
        if kind.mcuboot:
            self.image = mcuboot.read(io.BytesIO(new), "new.bin")
        self.new = new

    @contextmanager
    def powered(self, number: int) -> Iterator[Bench]:
        with Bench.open(self.folder / "bench.toml", state=self.folder / f"state{number}") as bench:
            device = bench.emulated_device("part")
            assert settled(bench) == OLD
            assert device.application_version == OLD
            yield bench


def firmware(kind: Kind, version: str, size: int) -> bytes:
    header = 32 if kind.mcuboot else 0
    data = application.make(version, "part", "Acme", size, start=kind.start + header, vectors=kind.vectors)
    major, minor, revision = map(int, version.split("."))
    return mcuboot_image.make(data, (major, minor, revision, 0), header_size=header) if kind.mcuboot else data


def settled(bench: Bench) -> str | None:
    """The version that the part runs once it has started; None: it sits in its bootloader."""
    component = bench.component("part")
    ask = component.version_question()
    device = bench.emulated_device("part")
    device.settle()
    if ask is not None and device.application_version:
        return ask(Deadline.after(10))
    return device.application_version


def again_ends_well(rig: Rig, bench: Bench) -> None:
    """The same command once more: the part runs the new image, and holds all of it."""
    device = bench.emulated_device("part")
    if rig.kind.by_hand and isinstance(device, AvrDevice) and device.board.stage is Stage.HUNG:
        device.reset()
    result = bench.component("part").flash(rig.image, expect_version=NEW)
    assert result is not None
    assert result.version == NEW
    assert device.application_version == NEW
    assert device.flash.read(rig.kind.start, len(rig.new)) == rig.new


@pytest.fixture(params=KINDS)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return Rig(KINDS[request.param], tmp_path)


def sweep(case: Callable[[int], bool]) -> int:
    """Runs case 1, 2, 3 ..., each on a bench of its own, until one returns False: it is beyond the last.

    Returns how many there were before that.
    """
    return next(number for number in itertools.count(1) if not case(number)) - 1


def test_nothing_is_cut(rig: Rig) -> None:
    with rig.powered(0) as bench:
        again_ends_well(rig, bench)


@pytest.mark.timeout(600)
def test_a_cut_at_every_flash_operation(rig: Rig) -> None:
    def case(operation: int) -> bool:
        with rig.powered(operation) as bench:
            device = bench.emulated_device("part")
            device.supply.cut_at(operation)
            if flashed(rig, bench):
                return False
            assert not device.supply.is_on
            device.supply.on()
            assert settled(bench) in (OLD, NEW, None)
            again_ends_well(rig, bench)
            return True

    assert sweep(case) > 40


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["cancel", "cut"])
def test_stopped_at_every_yield(rig: Rig, how: str) -> None:
    """At the first, second, ... thing that the engine tells: asked to stop, or the supply is cut there."""

    def case(count: int) -> bool:
        with rig.powered(count) as bench:
            device = bench.emulated_device("part")
            stopper = Stopper(device if how == "cut" else None, count)
            before = device.supply.operations
            result = stopped(rig, bench, stopper)
            if stopper.seen < count:
                assert result == "flashed"
                return False
            if result == "flashed":
                # What is asked for or cut there comes too late: nothing was left to be stopped, or to be asked.
                assert stopper.phase is ev.Phase.BOOT if how == "cut" else stopper.phase in LAST
            device.supply.on()
            if device.supply.operations == before:
                # A loader that was sent some of an image, and has written none, may wait for the rest.
                assert settled(bench) in ((OLD, None) if stopper.phase is ev.Phase.WRITE else (OLD,))
            again_ends_well(rig, bench)
            return True

    assert sweep(case) > 10


LAST = (ev.Phase.VERIFY, ev.Phase.BOOT)
"""The phases after the last write: an engine that is asked to stop there may as well finish."""


class Stopper:
    """At the `count`-th thing that the engine tells: cuts the part's supply, or, without a part, asks to stop.

    `phase`: in which phase that was; None: in none.
    """

    def __init__(self, device: EmulatedDevice | None, count: int) -> None:
        self.device = device
        self.count = count
        self.seen = 0
        self.asked = False
        self.phase: ev.Phase | None = None

    def __call__(self, event: ev.Event) -> None:
        self.seen += 1
        if self.seen != self.count:
            return
        self.phase = getattr(event, "phase", None)
        if self.device is None:
            self.asked = True
        else:
            self.device.supply.off()


def stopped(rig: Rig, bench: Bench, stopper: Stopper) -> str:
    """How a flash ended that was stopped on its way."""
    try:
        bench.component("part").flash(rig.image, on_event=stopper, cancelled=lambda: stopper.asked)
    except Cancelled:
        return "cancelled"
    except ProxyflashError:
        return "cut"
    return "flashed"


def flashed(rig: Rig, bench: Bench) -> bool:
    """Whether a flash went through."""
    try:
        bench.component("part").flash(rig.image)
    except ProxyflashError:
        return False
    return True
