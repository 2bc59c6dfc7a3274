"""Every family on an emulated wire, on the simulated clock: its share of the limit, without the machine's noise.

The part, its wire at the true bit time and the flasher run in this process under one `SimulatedClock`, on which computing
takes no time. The flasher loses the rest by waiting, by needless questions, and by doing one thing after the other.
The same code gives the same figure on any machine.

Limits, of the bytes that each job needs and of the part's own times (the .toml files in emulators):

    stm32-uart, uds, dfu    as in stm32.py, uds.py, dfu.py
    canopen                 as in canopen.py
    katapult-can            as in katapult.py
    mboot-can, mboot-uart   as in mboot.py
    stm32-can, stm32-fdcan  as in stm32_can.py
    xcp-can                 as in xcp.py
    ymodem                  as in ymodem.py, and the loader's texts: its menu, its answer to the key, its last word
    xmodem      a block     SOH, 2, 128, CRC | ACK                                      133 + 1 bytes
                end         EOT | ACK; and the loader's texts
    stk500v1    a page      LOAD_ADDRESS 4, PROG_PAGE 5 + 128 | 2   the first answer comes while the page is sent, and
                                                                    the page is erased while it is received,
                                                                    but in the part's upper end (NRWW), after that
                256 bytes   LOAD_ADDRESS 4, READ_PAGE 5 | 2 + 256
    stk500v2    a page      PROGRAM_FLASH_ISP 16 + 256 | 8          the address counts on
                256 bytes   READ_FLASH_ISP 10 | 9 + 256
    avr109      a page      SET_ADDRESS 3 | 1, BLOCK_LOAD 4 | 1     the page is erased while its data come
                128 bytes   SET_ADDRESS 3 | 1, BLOCK_READ 4 | 128
    smp         a piece     a packet of 8 bytes and its CBOR map in lines of base64, and its reply

An AVR's loader starts and blinks before it listens; Caterina leaves the bus, comes back, and starts the application half
a second after the request. Of SMP the upload is compared: the rest is MCUboot's own.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import thread_time
from typing import Any, Self

import cbor2
import greenlet
from proxyflash.emulators import application
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.emulators.xcp import parts as xcp_parts
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.transports import clock
from proxyflash.transports.simulated_clock import SimulatedClock

from . import canopen, dfu, katapult, mboot, stm32, stm32_can, uds, xcp, ymodem
from .can_frames import Bus
from .measuring import ROOT, Failed
from .table import Row

KIB = 1024
SIDE = "proxyflash, simulated clock"
STARTING_SECONDS = 3.0
"""After which every part runs what it has."""
TO_REACH = 0.98
JMP = bytes.fromhex("0c 94 40 00")
"""What an AVR's flash begins with: JMP 0x80."""


@dataclass(frozen=True, slots=True)
class Job:
    """`limit`: seconds by phase; where it has one of `write` alone, that phase alone is compared. `rest`: where what is
    missing goes, and why it must. `address`: None where the image has it. `options`: of the flash."""

    title: str
    bench: str
    image: bytes
    old: bytes
    limit: Mapping[str, float]
    start: int
    address: int | None
    rest: str = ""
    to_reach: float = TO_REACH
    options: Mapping[str, Any] = field(default_factory=dict)


def row(job: Job, folder: Path) -> Row:
    """Flashes once. Raises Failed."""
    folder.mkdir(parents=True)
    (folder / "bench.toml").write_text(job.bench)
    (folder / "old.bin").write_bytes(job.old)
    file = folder / "new.bin"
    file.write_bytes(job.image)
    spent: dict[str, float] = {}

    def note(event: ev.Event) -> None:
        if isinstance(event, ev.PhaseFinished):
            spent[str(event.phase)] = spent.get(str(event.phase), 0.0) + event.seconds
        elif isinstance(event, ev.Retrying):
            raise Failed(f"{job.title}: {event.code}: {event.cause}")

    with (
        clock.use(SimulatedClock()) as simulated,
        Bench.open(folder / "bench.toml", state=folder / "state") as bench,
    ):
        assert isinstance(simulated, SimulatedClock)
        component, device = bench.component("part"), bench.emulated_device("part")
        clock.sleep(STARTING_SECONDS)
        began = simulated.elapsed
        with HostTime() as host:
            component.flash(file, address=job.address, context=RunContext(note), **job.options)
        took = simulated.elapsed - began
        if job.address is not None and device.flash.read(job.start, len(job.image)) != job.image:
            raise Failed(f"{job.title}: the part does not hold the image")
        ((bus, spec),) = bench.file.spec.bus.items()
        transfers = f"{bench.emulated_wire(bus).faults.units:,} transfers" if spec.kind == "usb" else ""
    if set(job.limit) == {"write"} and "boot" in spent:
        took = spent["write"]
    limit = sum(job.limit.values())
    told = ", ".join(f"{name} {value:.3f} s" for name, value in spent.items() if value >= 0.0005)
    notes = [note for note in (told, transfers, f"to reach: {100 * job.to_reach:g} %", job.rest) if note]
    return Row(
        job.title, SIDE, took, limit / took, None, "; ".join(notes), host=1000 * host.seconds / (len(job.image) / KIB)
    )


class HostTime:
    """Seconds of the processor that the flashing thread takes, with its end of the emulated wire: not the part's."""

    def __enter__(self) -> Self:
        self.seconds = 0.0
        self._main = greenlet.getcurrent()
        self._since = thread_time()
        greenlet.settrace(self._switched)
        return self

    def __exit__(self, *error: object) -> None:
        greenlet.settrace(None)
        self.seconds += thread_time() - self._since

    def _switched(self, event: str, args: Any) -> None:
        now = thread_time()
        if args[0] is self._main:
            self.seconds += now - self._since
        self._since = now


# The jobs.


def _facts(file: str, part: str) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = tomllib.loads((ROOT / file).read_text())
    return rows[part]


def _serial(protocol: str, more: str, baudrate: int = 115_200) -> str:
    return f"""
[bus.b]
kind = "serial"
emulated = true
baudrate = {baudrate}
dtr = false
rts = false

[[component]]
name = "part"
bus = "b"
protocol = "{protocol}"
{more}
"""


def _images(size: int, start: int, vectors: bytes | None = None) -> tuple[bytes, bytes]:
    """The new firmware and the old one."""
    new, old = (
        application.make(version, "part", "acme", size, start=start, seed=seed, vectors=vectors)
        for version, seed in (("2.0.0", 2), ("1.0.0", 1))
    )
    return new, old


def stm32_uart(baudrate: int, size: int) -> Job:
    image, old = _images(size, stm32.BASE)
    emulated = f'emulated = {{part = "{stm32.PART}", firmware = "old.bin", boot0 = true}}'
    return Job(
        f"STM32, {baudrate:,} bit/s, {size // KIB} KiB",
        _serial("stm32-uart", emulated, baudrate),
        image,
        old,
        stm32.limit(size, baudrate),
        stm32.BASE,
        stm32.BASE,
    )


def stm32_on_can(part: str, bus: Bus, size: int) -> Job:
    image, old = _images(size, stm32_can.BASE)
    rate = f"{bus.bitrate // 1000}k" + (f"/{bus.data_bitrate // 1_000_000}M" if bus.data_bitrate else "")
    return Job(
        f"STM32, CAN{' FD' if bus.data_bitrate else ''} {rate}, {size // KIB} KiB",
        stm32_can.bench(part, bus),
        image,
        old,
        stm32_can.limit(stm32_can.facts(part), image, "2.0.0", bus),
        stm32_can.BASE,
        stm32_can.BASE,
        "0.2 s to see whether the bootloader runs already",
        0.96,
    )


def uds_can(ecu: str, bus: Bus, size: int) -> Job:
    part = uds.facts(ecu)
    start = part["base"]
    image = application.make(uds.VERSION, "radar", "acme", size, start=start, seed=2)
    old = application.make("1.0.0", "radar", "acme", size, start=start, seed=1)
    return Job(
        uds.title(part, bus, size),
        uds.simulated_bench(ecu, bus),
        image,
        old,
        uds.limit(part, image, bus),
        start,
        start,
    )


def canopen_block(bus: Bus, size: int) -> Job:
    part = canopen.facts()
    image, old = _images(size, part["base"])
    return Job(
        f"CANopen, CAN {bus.bitrate // 1000}k, {size // KIB} KiB",
        canopen.bench(bus),
        image,
        old,
        canopen.limit(part, image, "2.0.0", bus),
        part["base"],
        None,
        "the first question after each restart is lost, and a device is read again where it is looked at again",
        0.97,
    )


def katapult_can(bus: Bus, size: int) -> Job:
    part = katapult.facts()
    image, old = _images(size, part["start"])
    return Job(
        f"Katapult, CAN {bus.bitrate // 1000}k, {size // KIB} KiB",
        katapult.bench(bus),
        image,
        old,
        katapult.limit(part, image, "2.0.0", bus),
        part["start"],
        part["start"],
        "0.1 s to see whether the bootloader runs already, and up to 0.1 s until bootloader and application are asked again",
        0.96,
    )


def katapult_uart(baudrate: int, size: int) -> Job:
    part = katapult.facts(katapult.SERIAL_PART)
    image, old = _images(size, part["start"])
    return Job(
        f"Katapult, {baudrate:,} bit/s, {size // KIB} KiB",
        _serial("katapult-uart", katapult.SERIAL, baudrate),
        image,
        old,
        katapult.serial_limit(part, image, "2.0.0", baudrate),
        part["start"],
        part["start"],
        "0.2 s to see whether the bootloader runs, and the first question for the version is lost while the part restarts",
        0.955,
    )


def mboot_can(bus: Bus, size: int) -> Job:
    part = mboot.facts(mboot.CAN_PART)
    image, old = _images(size, mboot.START)
    return Job(
        f"MBoot, CAN {bus.bitrate // 1000}k, {size // KIB} KiB",
        mboot.bench(bus),
        image,
        old,
        mboot.limit(part, len(image), "2.0.0", bus),
        mboot.START,
        mboot.START,
        "0.1 s to see whether the bootloader runs already",
        0.96,
    )


def mboot_uart(baudrate: int, size: int) -> Job:
    part = mboot.facts(mboot.SERIAL_PART)
    image, old = _images(size, mboot.START)
    return Job(
        f"MBoot, {baudrate:,} bit/s, {size // KIB} KiB",
        _serial("mboot-uart", mboot.SERIAL, baudrate),
        image,
        old,
        mboot.serial_limit(part, len(image), "2.0.0", baudrate),
        mboot.START,
        mboot.START,
    )


def xcp_can(name: str, part: str, bus: Bus, size: int, why: str, share: float) -> Job:
    facts = xcp.facts(part)
    image, old = (
        xcp_parts.firmware(facts, version, "part", "acme", size=size, seed=seed)
        for version, seed in (("2.0.0", 2), ("1.0.0", 1))
    )
    return Job(
        f"{name}, CAN {bus.bitrate // 1000}k, {size // KIB} KiB",
        xcp.bench(part, bus),
        image,
        old,
        xcp.limit(facts, image, "2.0.0", bus),
        facts["base"],
        facts["base"],
        why,
        share,
    )


def xcp_uart(baudrate: int, size: int) -> Job:
    facts = xcp.facts(xcp.SERIAL_PART)
    image, old = (
        xcp_parts.firmware(facts, version, "part", "acme", size=size, seed=seed)
        for version, seed in (("2.0.0", 2), ("1.0.0", 1))
    )
    return Job(
        f"OpenBLT, {baudrate:,} bit/s, {size // KIB} KiB",
        _serial("xcp-uart", xcp.SERIAL, baudrate),
        image,
        old,
        xcp.serial_limit(facts, image, "2.0.0", baudrate),
        facts["base"],
        facts["base"],
        "a few bytes around each erase are read, so that it is seen if more went",
        0.955,
    )


def usb_dfu(part: str, name: str, size: int, *, verify: bool) -> Job:
    facts = _facts("emulators/dfu/parts.toml", part)
    base = int(facts["base"])
    image, old = _images(size, base)
    bench = f"""
[bus.b]
kind = "usb"
emulated = true

[[component]]
name = "part"
bus = "b"
protocol = "dfu"
address = {{vendor_id = {facts["vendor_id"]}, product_id = {facts["product_id"]}}}
emulated = {{part = "{part}", firmware = "old.bin", boot = "dfu"}}
"""
    how = "verified" if verify else "not verified"
    return Job(
        f"{name}, {size // KIB} KiB, {how}",
        bench,
        image,
        old,
        dfu.limit(part, size, verify=verify),
        base,
        base,
        options={"boot": False, "verify": verify},
    )


IAP_TEXTS = 375 + 1 + 58 + 127
"""Bytes of AN4657's example: its menu, the key for a download, what it says of that, its last word with name and size."""
GECKO_TEXTS = 70 + 1 + 18 + 28
"""The same of the Gecko Bootloader (btl_comm_xmodem.c)."""
QUIET = "0.10 s: twice a text ends in what may be its last letter, and only 0.05 s without another show it"


def ymodem_iap(size: int) -> Job:
    facts = _facts("emulators/xymodem/loaders.toml", ymodem.PART)
    size = max(ymodem.BLOCK, size // ymodem.BLOCK * ymodem.BLOCK)
    image, old = _images(size, facts["base"])
    limit = {**ymodem.limit(size, 115_200), "texts": IAP_TEXTS * 10 / 115_200}
    return Job(
        f"YMODEM, 115,200 bit/s, {size // KIB} KiB",
        _serial(
            "ymodem",
            f'emulated = {{part = "{ymodem.PART}", boot = true, baudrate = 115200}}\nprofile = {{loader = "st-iap"}}',
        ),
        image,
        old,
        limit,
        facts["base"],
        0,
        QUIET,
    )


def xmodem_gecko(size: int) -> Job:
    facts = _facts("emulators/xymodem/loaders.toml", "efr32mg1")
    image, old = _images(size, facts["base"])
    blocks = -(-size // 128)
    byte = 10 / 115_200
    limit = {
        "erase": -(-size // facts["pages"][1]) * facts["erase_seconds"],
        "write": (blocks * (133 + 1) + 2) * byte + -(-size // facts["program_unit"]) * facts["program_seconds"],
        "texts": GECKO_TEXTS * byte,
    }
    return Job(
        f"XMODEM, 115,200 bit/s, {size // KIB} KiB",
        _serial(
            "xmodem", 'emulated = {part = "efr32mg1", boot = true, baudrate = 115200}\nprofile = {loader = "gecko"}'
        ),
        image,
        old,
        limit,
        facts["base"],
        0,
        QUIET,
    )


TWICE = "values without a checksum on this wire that decide what is written are asked twice"


def avr_stk500v1(size: int) -> Job:
    facts = _facts("emulators/avr/parts.toml", "atmega328p-optiboot")
    image, old = _images(size, 0, JMP)
    byte = 10 / facts["baudrate"]
    pages, blocks = -(-size // facts["page"]), -(-size // 256)
    waiting = -(-max(0, size - facts["nrww"]) // facts["page"])
    limit = {
        "connect": facts["startup_seconds"] + facts["led_seconds"],
        "write": (size + 11 * pages) * byte + (pages + waiting) * facts["page_seconds"],
        "verify": (size + 11 * blocks) * byte,
    }
    return Job(
        f"STK500 v1, Optiboot, {size / KIB:g} KiB",
        _serial(
            "stk500v1",
            'emulated = {part = "atmega328p-optiboot", firmware = "old.bin"}\nprofile = {entry = {discharge = 0.01}}',
        ),
        image,
        old,
        limit,
        0,
        0,
        f"0.05 s without a byte after the greetings, whose answers have no numbers; {TWICE}",
    )


def avr_stk500v2(size: int) -> Job:
    facts = _facts("emulators/avr/parts.toml", "atmega2560-wiring")
    image, old = _images(size, 0, JMP)
    byte = 10 / facts["baudrate"]
    pages = -(-size // facts["page"])
    limit = {
        "connect": facts["startup_seconds"],
        "write": (size + 24 * pages) * byte + 2 * pages * facts["page_seconds"],
        "verify": (size + 19 * pages) * byte,
    }
    return Job(
        f"STK500 v2, ATmega2560, {size // KIB} KiB",
        _serial(
            "stk500v2",
            'emulated = {part = "atmega2560-wiring", firmware = "old.bin"}\nprofile = {entry = {discharge = 0.01}}',
        ),
        image,
        old,
        limit,
        0,
        0,
        f"LOAD_ADDRESS before each page, 11 | 8 bytes: a loader that was reset is at 0; {TWICE}",
        0.955,
    )


BACK_SECONDS = 0.25
"""How long Caterina's port is gone, each time."""


def avr_109(size: int) -> Job:
    facts = _facts("emulators/avr/parts.toml", "atmega32u4-caterina")
    image, old = _images(size, 0, JMP)
    byte = 10e-6  # Of the emulated USB device, about.
    pages = -(-size // facts["page"])
    limit = {
        "connect": BACK_SECONDS,
        "write": pages * (2 * facts["page_seconds"] + (4 + 4 + 1) * byte),
        "verify": (size + 8 * pages) * byte,
        "boot": 0.5 + BACK_SECONDS,
    }
    return Job(
        f"AVR109, Caterina, {size // KIB} KiB",
        _serial(
            "avr109",
            f'emulated = {{part = "atmega32u4-caterina", firmware = "old.bin", reenumerate = {BACK_SECONDS}}}\n'
            'profile = {entry = {reset = "none", touch = true}}',
        ),
        image,
        old,
        limit,
        0,
        0,
    )


SMP_BUFFER = 384
"""Bytes of the part's largest packet, with length and CRC."""


def _console(packet: int) -> int:
    """Bytes on a console of a packet: length and CRC with it, in lines of 124 characters of base64 and 3 more."""
    text = -(-(packet + 4) // 3) * 4
    return text + 3 * -(-text // 124)


def smp(window: int, size: int) -> Job:
    facts = _facts("emulators/smp/parts.toml", "nrf52840")
    start = facts["pairs"][0][0][0]
    image, old = (
        mcuboot_image.make(
            application.make(f"{major}.0.0", "part", "acme", size, start=start + 32), (major, 0, 0, 0), header_size=32
        )
        for major in (2, 1)
    )
    byte = 10 / 115_200
    line = replies = 0.0
    offset = pieces = 0
    while offset < len(image):
        body: dict[str, Any] = {"off": offset}
        if not offset:
            body |= {"len": len(image), "sha": bytes(32)}
        room = SMP_BUFFER - 4 - 8 - len(cbor2.dumps({**body, "data": b""})) - 2
        count = min(room // 16 * 16, len(image) - offset)
        line += _console(8 + len(cbor2.dumps({**body, "data": bytes(count)}))) * byte
        offset += count
        replies += _console(8 + len(cbor2.dumps({"off": offset}))) * byte
        pieces += 1
    programming = -(-len(image) // facts["program_unit"]) * facts["program_seconds"]
    limit = line + replies + programming if window == 1 else line + (replies + programming) / pieces
    return Job(
        f"SMP, 115,200 bit/s, {len(image) // KIB} KiB, window {window}, the upload",
        _serial("smp", f'emulated = {{part = "nrf52840", firmware = "old.bin"}}\nprofile = {{window = {window}}}'),
        image,
        old,
        {"write": limit},
        start,
        None,
        "after it MCUboot swaps the slots, and a part that restarts is left alone until 1 s passed in silence",
    )


CLASSIC, FD = Bus(500_000), Bus(500_000, 2_000_000)

JOBS: dict[str, Callable[[], Job]] = {
    "uds, CAN": lambda: uds_can("acme-r77", CLASSIC, 128 * KIB),
    "uds, CAN FD": lambda: uds_can("acme-r77", FD, 256 * KIB),
    "uds, CAN FD, long blocks": lambda: uds_can("acme-r88", FD, 256 * KIB),
    "canopen": lambda: canopen_block(CLASSIC, 96 * KIB),
    "canopen, fast": lambda: canopen_block(Bus(1_000_000), 112 * KIB),
    "katapult-can": lambda: katapult_can(CLASSIC, 64 * KIB),
    "katapult-can, fast": lambda: katapult_can(Bus(1_000_000), 112 * KIB),
    "katapult-uart": lambda: katapult_uart(115_200, 56 * KIB),
    "mboot-can": lambda: mboot_can(CLASSIC, 64 * KIB),
    "mboot-uart": lambda: mboot_uart(115_200, 64 * KIB),
    "stm32-can": lambda: stm32_on_can("stm32f405xg", CLASSIC, 128 * KIB),
    "stm32-fdcan": lambda: stm32_on_can("stm32g474xe", FD, 192 * KIB),
    "xcp-can, OpenBLT": lambda: xcp_can(
        "OpenBLT",
        "openblt-f103",
        CLASSIC,
        64 * KIB,
        "a few bytes around each erase are read, so that it is seen if more went",
        0.955,
    ),
    "xcp-can, blocks": lambda: xcp_can(
        "XCP blocks", "ecu-block", CLASSIC, 128 * KIB, "0.1 s until the application is asked again", 0.96
    ),
    "xcp-uart": lambda: xcp_uart(115_200, 64 * KIB),
    "stm32-uart": lambda: stm32_uart(115_200, 64 * KIB),
    "stm32-uart, fast": lambda: stm32_uart(1_000_000, 128 * KIB),
    "dfuse": lambda: usb_dfu("stm32f405-dfu", "DfuSe", 112 * KIB, verify=True),
    "dfu": lambda: usb_dfu("slot-dfu", "DFU 1.1", 120 * KIB, verify=True),
    "stk500v1": lambda: avr_stk500v1(31 * KIB),
    "stk500v2": lambda: avr_stk500v2(64 * KIB),
    "avr109": lambda: avr_109(24 * KIB),
    "xmodem": lambda: xmodem_gecko(64 * KIB),
    "ymodem": lambda: ymodem_iap(64 * KIB),
    "smp": lambda: smp(1, 64 * KIB),
    "smp, window 3": lambda: smp(3, 64 * KIB),
}


def rows(folder: Path, tell: Callable[[str], None]) -> list[Row]:
    made = []
    for number, make in enumerate(JOBS.values()):
        made.append(row(make(), folder / str(number)))
        tell(f"{made[-1].title}: {made[-1].side}: {made[-1].seconds:.3f} s")
    return made
