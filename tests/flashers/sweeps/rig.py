"""What the sweeps have in common: the kinds of parts, and one update of one part that is cut in some way, and repeated.

The parts are the emulated ones, through the real flashers and wires.
"""

from __future__ import annotations

import io
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar

from proxyflash.emulators import application
from proxyflash.emulators.avr.device import AvrDevice
from proxyflash.emulators.device import EmulatedDevice
from proxyflash.emulators.faults import FaultPlan
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.serial.wire import UartEnd, UartWire
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.formats import mcuboot
from proxyflash.flashers.image import FirmwareImage, Segment
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError


@dataclass(frozen=True)
class Kind:
    """One kind of part: its bench file, where its firmware goes, how large the old and the new one are."""

    bench: str
    start: int
    old_size: int
    new_size: int
    short_size: int
    """Of a new one that keeps the wire busy for less long, and still has more than one erase unit."""
    relocatable: bool = False
    mcuboot: bool = False
    """Its firmware is MCUboot's images, from `start` on."""
    vectors: bytes | None = None
    by_hand: bool = False
    """Nothing but a hand resets it: a cut within the writing of its reset vector wants one."""
    each: int = 1
    """Bytes of each write on its line at which a cut is tried; another one for each kind of cut."""
    paced: int = 20
    """How many places are tried at true pace, where each byte's arrival is an event of its own and costs processor time."""

    def thinned(self, places: Sequence[int], pace: int) -> Sequence[int]:
        """Those of the places that are tried at this pace, from the first one on at even distances."""
        return places[:: -(-len(places) // self.paced)] if pace else places


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

PROBED = SERIAL.replace("[bus.b]", "[bus.b]\nprobe = true")
"""For a loader to which letters of the application's question are commands: it is looked for first."""

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
        500,
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
        2100,
        paced=12,
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
        2500,
        paced=40,
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
        2500,
        relocatable=True,
        paced=40,
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
        500,
        mcuboot=True,
        each=2,
        paced=4,
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
        500,
        mcuboot=True,
        each=2,
        paced=4,
    ),
}

KINDS |= {
    protocol: Kind(
        (PROBED if protocol == "avr109" else SERIAL)
        + f"""
protocol = "{protocol}"
emulated = {{part = "{part}", firmware = "old.bin", {emulated}}}
profile = {{answer = 1.0, entry = {{{entry}}}}}
""",
        0,
        1000,
        new_size,
        short_size,
        vectors=AVR_VECTORS,
        by_hand=protocol == "avr109",
        paced=10,
    )
    for protocol, part, emulated, entry, new_size, short_size in (
        ("stk500v1", "atmega328p-optiboot", "boot_window = 20", "discharge = 0.001, settle = 0.005", 2600, 500),
        ("stk500v2", "atmega2560-wiring", "boot_window = 2", "discharge = 0.001, settle = 0.005", 6000, 600),
        (
            "avr109",
            "atmega32u4-caterina",
            "reenumerate = 0.1, boot_window = 60",
            'reset = "none", touch = true',
            2600,
            500,
        ),
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
timings = {{connect = 8, knock = 0.5, start = 10, block = 2, verdict = 5}}
""",
        start,
        1000,
        900,
        450,
        relocatable=True,
        each=each,
        paced=paced,
    )
    for name, protocol, part, loader, start, each, paced in (
        ("xmodem", "xmodem", "efr32mg1", "gecko", 0x4000, 12, 20),
        ("ymodem", "ymodem", "stm32l4-iap", "st-iap", 0x08008000, 6, 5),
    )
}

OLD, NEW = "1.4.2", "1.5.0"


class How(StrEnum):
    """What happens at a unit of the wire: a CAN frame, a serial byte, a USB control transfer."""

    UNPLUGGED = "unplugged"
    """The host's adapter, or the part's USB cable, is pulled out, and joined again when the command has failed."""
    SUPPLY = "supply"
    """The part's supply goes, and comes back when the command has failed."""


class Rig:
    """A folder with the bench file and the old firmware; each `powered` starts from a part with the old image.

    `pace`: 1 is that of real wires and parts, 0 takes no time. `is_short`: the new image is the kind's shorter one.
    """

    def __init__(self, kind: Kind, folder: Path, *, pace: int = 0, is_short: bool = False) -> None:
        self.kind = kind
        self.folder = folder
        (folder / "bench.toml").write_text(kind.bench.replace("pace = 0\n", f"pace = {pace}\n"))
        (folder / "old.bin").write_bytes(firmware(kind, OLD, kind.old_size))
        new = firmware(kind, NEW, kind.short_size if is_short else kind.new_size)
        self.image = FirmwareImage((Segment(kind.start, new),), "bin", relocatable=kind.relocatable)
        if kind.mcuboot:
            self.image = mcuboot.read(io.BytesIO(new), "new.bin")
        self.new = new
        self._benches = 0

    @contextmanager
    def powered(self) -> Iterator[Bench]:
        self._benches += 1
        with Bench.open(self.folder / "bench.toml", state=self.folder / f"state{self._benches}") as bench:
            device = bench.emulated_device("part")
            assert settled(bench) == OLD
            assert device.application_version == OLD
            yield bench

    def flash(self, bench: Bench, **keys: Any) -> ProxyflashError | None:
        """What a flash ended with; None: it went through."""
        try:
            bench.component("part").flash(self.image, **keys)
        except ProxyflashError as error:
            return error
        return None

    def ends_well(self, bench: Bench) -> None:
        """The part has all of an image or sits in its bootloader; the same command once more brings the new image."""
        assert settled(bench) in (OLD, NEW, None)
        self.ends_with_the_new_image(bench)

    def ends_with_the_new_image(self, bench: Bench) -> None:
        """The part runs the new image, and holds all of it."""
        device = bench.emulated_device("part")
        self.by_hand(device)
        result = bench.component("part").flash(self.image, expect_version=NEW)
        assert result is not None
        assert result.version == NEW
        assert device.application_version == NEW
        assert device.flash.read(self.kind.start, len(self.new)) == self.new

    def by_hand(self, device: EmulatedDevice) -> None:
        """Resets a part that nothing else can reset."""
        if self.kind.by_hand and isinstance(device, AvrDevice) and device.board.stage is Stage.HUNG:
            device.reset()


@dataclass(frozen=True)
class Course:
    """An update that nothing cuts. `writes`: the units of each write of either side; where there are none, each unit."""

    operations: int
    yields: int
    writes: tuple[range, ...]

    def units(self, each: int, seed: str) -> list[int]:
        """Of each write so many units, as a generator chooses them from this seed; all of a shorter one."""
        chosen = random.Random(seed)
        return sorted(unit for write in self.writes for unit in chosen.sample(write, min(each, len(write))))


def course(rig: Rig) -> Course:
    """How this update goes."""
    with rig.powered() as bench:
        wire = bench.emulated_wire("b")
        supply = bench.emulated_device("part").supply
        seen = Stopper(None, 0)
        units, operations = wire.faults.units, supply.operations
        writes: list[range] = []
        for end in (wire.host, wire.device) if isinstance(wire, UartWire) else ():
            _watch(end, lambda before, after: writes.append(range(before - units + 1, after - units + 1)))
        assert rig.flash(bench, context=RunContext(seen)) is None
        last = wire.faults.units - units
        every = tuple(write for write in writes if write) or tuple(range(unit, unit + 1) for unit in range(1, last + 1))
        return Course(supply.operations - operations, seen.seen, every)


def _watch(end: UartEnd, wrote: Callable[[int, int], None]) -> None:
    send = end.send

    def watched(data: bytes, at: float | None = None) -> None:
        before = end.wire.faults.units
        send(data, at)
        wrote(before, end.wire.faults.units)

    end.send = watched  # type: ignore[method-assign]


class WireCut(ABC):
    """At the `unit`-th unit from now on, over both directions, the host is cut off or the part's supply goes.

    The emulated wire's own fault comes there. For the supply it is what the wire does about it that is another: so the
    unit itself is lost, as it is when the part that sends or receives it stops.
    """

    CUTS_OFF: ClassVar[str]
    """The wire's method that cuts the host off."""

    def __init__(self, bench: Bench, unit: int, how: How) -> None:
        self.bench = bench
        self.how = how
        self.device = bench.emulated_device("part")
        self.wire = bench.emulated_wire("b")
        self.is_done = False
        self._going: clock.SomeTimer | None = None
        """Cuts the supply: another thread does, for who notices the cut is within the wire."""
        self._cuts_off = getattr(self.wire, self.CUTS_OFF)
        setattr(self.wire, self.CUTS_OFF, self._happens)
        self.wire.faults.plan = FaultPlan(disconnect_after=self.wire.faults.units + unit)

    def mend(self) -> None:
        """The wire is whole, and the supply is there."""
        self.wire.faults.plan = FaultPlan()
        setattr(self.wire, self.CUTS_OFF, self._cuts_off)
        if self._going is not None:
            self._going.join()
        if self.how is How.SUPPLY:
            self.device.supply.on()
        elif self.is_done:
            self._join()

    def _happens(self, what: Any) -> None:
        if self.how is How.UNPLUGGED:
            self._cuts_off(what)
        elif not self.is_done:
            self._cut_supply(what)
        self.is_done = True

    def _cut_supply(self, what: Any) -> None:
        self._cut_supply_in(0.0)

    def _cut_supply_in(self, seconds: float) -> None:
        self._going = clock.Timer(seconds, self.device.supply.off)
        self._going.start()

    @abstractmethod
    def _join(self) -> None: ...


class CanCut(WireCut):
    CUTS_OFF = "_unplug"

    def _join(self) -> None:
        self.bench.reopen("b")


class LineCut(WireCut):
    CUTS_OFF = "vanish"

    def _happens(self, what: Any) -> None:
        if self.wire.is_usb and self.how is How.UNPLUGGED and not self.is_done:
            # The part is the adapter, and lives off it.
            self._cut_supply(what)
        super()._happens(what)

    def _cut_supply(self, what: float) -> None:
        """`what`: the byte's time."""
        self._cut_supply_in(max(0.0, what - clock.monotonic()))

    def _join(self) -> None:
        self.wire.plug()
        self.device.supply.on()
        self.bench.reopen("b")


class UsbCut(WireCut):
    """A part with a supply of its own notices that its cable was pulled out by the reset that comes with joining it."""

    CUTS_OFF = "unplug"

    def _happens(self, what: Any) -> None:
        self._function = what.function
        super()._happens(what)

    def _cut_supply(self, what: Any) -> None:
        setattr(self.wire, self.CUTS_OFF, self._cuts_off)
        self.device.supply.off()

    def _join(self) -> None:
        (port,) = self.wire.ports
        if port.function is None:
            self.wire.plug(port, self._function)
            self._function.bus_reset()
            with self.wire.changed:
                assert self.wire.changed.wait_for(lambda: port.function is not None, 10)


WIRE_CUTS: dict[str, type[WireCut]] = {"can": CanCut, "serial": LineCut, "usb": UsbCut}


def wire_cut(bench: Bench, unit: int, how: How) -> WireCut:
    return WIRE_CUTS[bench.file.spec.bus["b"].kind](bench, unit, how)


def firmware(kind: Kind, version: str, size: int) -> bytes:
    header = 32 if kind.mcuboot else 0
    data = application.make(version, "part", "Acme", size, start=kind.start + header, vectors=kind.vectors)
    major, minor, revision = map(int, version.split("."))
    return mcuboot_image.make(data, (major, minor, revision, 0), header_size=header) if kind.mcuboot else data


def settled(bench: Bench) -> str | None:
    """The version that the part runs once it has started; None: it sits in its bootloader."""
    component = bench.component("part")
    device = bench.emulated_device("part")
    device.settle()
    if component.can_be_asked and device.application_version:
        return component.await_version()
    return device.application_version


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
