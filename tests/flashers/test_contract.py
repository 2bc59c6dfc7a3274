"""The built-in bootloaders pass through the contract kit, one class for each kind of part."""

from __future__ import annotations

from pathlib import Path

from proxyflash.emulators.avr.device import AvrDevice
from proxyflash.emulators.device import EmulatedDevice
from proxyflash.emulators.katapult.can import KatapultCanDevice
from proxyflash.emulators.katapult.uart import KatapultUartDevice
from proxyflash.emulators.mboot import sb
from proxyflash.emulators.serial.board import Stage
from proxyflash.emulators.xcp.can import XcpCanDevice
from proxyflash.emulators.xcp.uart import XcpUartDevice
from proxyflash.flashers import formats
from proxyflash.flashers.image import FirmwareImage
from proxyflash.testing import HostileLine, MemoryContract, Part, Sizes, SlotContract

LINE = {"kind": "serial", "baudrate": 115200, "dtr": False, "rts": False}
VERSION = {"send": "VER?\r", "match": "FW ([0-9.]+)"}


class TestUds(MemoryContract):
    protocol = "uds"
    bus = {"kind": "can"}
    component = {
        "address": {"request": 0x7E0, "response": 0x7E8},
        "profile": {
            "memory": [{"start": 0x10000, "size": 0x70000, "erase_unit": 4096}],
            "security": {"key": "xor", "secret": "5a5a5a5a"},
            "timings": {"p2": 0.05, "latency": 0.2, "reset_gap": 2.0, "retries": 1},
        },
    }
    emulated = {"part": "acme-r77"}
    sizes = Sizes(1000, 1500, 500)
    tells = False


class TestKatapultCan(MemoryContract):
    protocol = "katapult-can"
    bus = {"kind": "can"}
    component = {
        "address": {"uuid": "00d1a5e7c0de", "version_request": 0x120, "version_response": 0x121},
        "profile": {"answer": 0.1, "version": {"send": "01", "match": "FW ([0-9.]+)"}},
    }
    emulated = {"part": "toolhead-f072"}
    sizes = Sizes(1000, 2500, 500)
    foreign_target = {"machine": "AVR"}

    def by_hand(self, device: EmulatedDevice) -> None:
        """Without its supply while its first page was written, it starts an application that is not whole."""
        if isinstance(device, KatapultCanDevice) and device.node.is_hung:
            device.double_reset()


class TestCanopen(SlotContract):
    protocol = "canopen"
    bus = {"kind": "can"}
    component = {
        "address": {"node": 5},
        "profile": {"slot_size": 0x1C000, "identification": "crc32", "answer": 0.5, "work": 3.0, "start": 1.0},
    }
    emulated = {"part": "encoder"}
    sizes = Sizes(1000, 2500, 500)


class TestCanopenSegments(SlotContract):
    """A device without block transfer, which restarts without an answer, and whose program only its flash status judges."""

    protocol = "canopen"
    bus = TestCanopen.bus
    component = {
        "address": {"node": 9, "serial": 7},
        "profile": {"slot_size": 0x1C000, "program": 2, "answer": 0.5, "work": 3.0, "start": 1.0},
    }
    emulated = {"part": "valve"}
    sizes = Sizes(472, 872, 572)
    tells = False
    verifies = False


class TestKatapultUart(MemoryContract, HostileLine):
    protocol = "katapult-uart"
    bus = {"kind": "serial", "baudrate": 250_000}
    component = {"version": VERSION, "profile": {"answer": 0.1}}
    emulated = {"part": "toolhead-f103", "app_baudrate": 250_000}
    sizes = Sizes(1000, 2500, 500)
    each = 2
    paced = 10
    foreign_target = {"machine": "AVR"}
    greeting = b"\x01\x88\xf1\x00\x68\x95\x99\x03"

    def by_hand(self, device: EmulatedDevice) -> None:
        """As of TestKatapultCan."""
        if isinstance(device, KatapultUartDevice) and device.board.stage is Stage.HUNG:
            device.double_reset()


class TestMbootCan(MemoryContract):
    protocol = "mboot-can"
    bus = {"kind": "can"}
    component = {
        "address": {"version_request": 0x120, "version_response": 0x121},
        "profile": {
            "answer": 0.1,
            "start": 1.0,
            "enter": {"id": 0x122, "data": "01"},
            "version": {"send": "01", "match": "FW ([0-9.]+)"},
        },
    }
    emulated = {"part": "frdm-kl25z", "detect": 0.5}
    may_stay = True
    sizes = Sizes(1000, 2500, 500)
    foreign_target = {"machine": "AVR"}


class TestMbootUart(MemoryContract, HostileLine):
    protocol = "mboot-uart"
    bus = LINE
    component = {
        "version": VERSION,
        "profile": {"answer": 0.1, "entry": {"reset": "dtr", "boot": "rts", "hold": 0.001, "settle": 0.005}},
    }
    emulated = {"part": "frdm-kl25z", "wiring": "dtr-reset,!rts-boot", "detect": 0.5}
    sizes = Sizes(1000, 2500, 500)
    paced = 10
    foreign_target = {"machine": "AVR"}
    greeting = b"\x5a\xa7\x00\x02\x01\x50\x00\x00\xaa\xea"


class TestMbootSb(SlotContract):
    """`.sb` files that reset the part when they are done."""

    protocol = "mboot-uart"
    bus = LINE
    component = {
        "version": VERSION,
        "profile": {
            "sb": True,
            "answer": 0.1,
            "entry": {"reset": "dtr", "boot": "rts", "hold": 0.001, "settle": 0.005},
        },
    }
    emulated = {"part": "frdm-kl25z", "wiring": "dtr-reset,!rts-boot", "detect": 0.5}
    sizes = Sizes(1000, 2500, 500)
    each = 2
    paced = 10
    tells = verifies = False

    def image(self, path: Path, start: int) -> FirmwareImage:
        whole = path.with_suffix(".sb")
        whole.write_bytes(sb.make(start, path.read_bytes(), 1024, reset=True))
        return formats.load(whole, as_is=True)


class TestStm32Can(MemoryContract):
    """CAN's own CRC keeps garbled frames from the loader, which has no checksum of its own (ISO 11898-1): no `corrupt`. What is
    left of a command that lost a frame may be another command: no `guards`."""

    protocol = "stm32-can"
    bus = {"kind": "can", "bitrate": 500_000}
    component = {
        "address": {"version_request": 0x120, "version_response": 0x121},
        "profile": {
            "answer": 0.1,
            "enter": {"id": 0x7F0, "data": "b0 07"},
            "version": {"send": "01", "match": "FW ([0-9.]+)"},
        },
    }
    emulated = {"part": "stm32l476xg"}
    sizes = Sizes(1000, 2500, 2100)
    faults = ("drop", "duplicate", "delay")
    guards = False
    foreign_target = {"machine": "AVR"}


class TestStm32CanOpenBl(TestStm32Can):
    emulated = {"part": "stm32l476xg", "shape": "openbl"}


class TestStm32CanSpeed(TestStm32Can):
    """The bootloader begins at another bit rate than the bus has."""

    component = {**TestStm32Can.component, "profile": {**TestStm32Can.component["profile"], "first_bitrate": 125_000}}
    emulated = {"part": "stm32l476xg", "first_bitrate": 125_000}


class TestStm32Fdcan(TestStm32Can):
    protocol = "stm32-fdcan"
    bus = {"kind": "can", "bitrate": 500_000, "fd": True, "data_bitrate": 2_000_000}
    emulated = {"part": "stm32g474xe"}


class TestOpenBltCan(MemoryContract):
    protocol = "xcp-can"
    bus = {"kind": "can"}
    component = {
        "address": {"request": 0x667, "response": 0x7E1, "version_request": 0x120, "version_response": 0x121},
        "profile": {
            "loader": "openblt",
            "memory": [{"start": 0x08006000, "size": 0x1A000, "erase_unit": 0x2000}],
            "checksum_offset": 0x150,
            "security": {"key": "xor", "secret": "5a5a"},
            "timings": {"answer": 0.1, "write": 0.3},
            "version": {"send": "01", "match": "FW ([0-9.]+)"},
        },
    }
    emulated = {"part": "openblt-f103", "secret": "5a5a"}
    sizes = Sizes(1000, 2600, 500)

    def by_hand(self, device: EmulatedDevice) -> None:
        """OpenBLT's checksum covers the vectors alone: it starts an image in which another byte is wrong."""
        if isinstance(device, XcpCanDevice) and device.node.is_hung:
            device.rescue()


class TestXcpCan(MemoryContract):
    protocol = "xcp-can"
    bus = {"kind": "can"}
    component = {
        "address": {"request": 0x7E0, "response": 0x7E8, "version_request": 0x120, "version_response": 0x121},
        "profile": {
            "memory": [{"start": 0x20000, "size": 0x38000, "erase_unit": 0x4000}],
            "write_alignment": 8,
            "security": {"key": "xor", "secret": "5a5a"},
            "timings": {"answer": 0.1, "write": 0.3, "erase": 0.4},
            "version": {"send": "01", "match": "FW ([0-9.]+)"},
        },
    }
    emulated = {"part": "ecu-block", "secret": "5a5a"}
    sizes = Sizes(1000, 2500, 500)


class TestOpenBltUart(MemoryContract, HostileLine):
    protocol = "xcp-uart"
    bus = {"kind": "serial", "baudrate": 57_600}
    component = {
        "version": VERSION,
        "profile": {
            "loader": "openblt",
            "memory": [{"start": 0x08006000, "size": 0x1A000, "erase_unit": 0x2000}],
            "checksum_offset": 0x150,
            "security": {"key": "xor", "secret": "5a5a"},
            "timings": {"answer": 0.3, "write": 0.3},
            "checksum": True,
        },
    }
    emulated = {"part": "openblt-f103-uart", "secret": "5a5a", "checksum": True, "app_baudrate": 57_600}
    sizes = Sizes(1000, 9000, 500)
    each = 2
    paced = 10
    greeting = bytes.fromhex("08ff110008810001019b")

    def by_hand(self, device: EmulatedDevice) -> None:
        """As of TestOpenBltCan."""
        if isinstance(device, XcpUartDevice) and device.board.stage is Stage.HUNG:
            device.rescue()


class TestStm32Uart(MemoryContract, HostileLine):
    protocol = "stm32-uart"
    bus = LINE
    component = {
        "version": VERSION,
        "profile": {"answer": 0.05, "entry": {"reset": "dtr", "boot0": "rts", "hold": 0.001, "settle": 0.005}},
    }
    emulated = {"part": "stm32l476xg", "wiring": "dtr-reset,!rts-boot0"}
    sizes = Sizes(1000, 2500, 2100)
    paced = 12
    hostile_profile = {"answer": 0.1}
    greeting = b"\x79"


class TestDfuse(MemoryContract):
    protocol = "dfu"
    bus = {"kind": "usb"}
    component = {
        "address": {"runtime_vendor_id": 0x1209, "runtime_product_id": 1},
        "profile": {"reenumerate": 0.5},
    }
    emulated = {"part": "stm32f105-dfu"}
    sizes = Sizes(1000, 2500, 2500)
    paced = 40
    foreign_target = {"vendor_id": 0xF055, "product_id": 1}


class TestDfu(SlotContract):
    protocol = "dfu"
    bus = {"kind": "usb"}
    component = {
        "address": {
            "vendor_id": 0x1209,
            "product_id": 0xDF01,
            "runtime_vendor_id": 0x1209,
            "runtime_product_id": 1,
        },
        "profile": {"reenumerate": 0.5, "slot_size": 0x20000},
    }
    emulated = {"part": "slot-dfu"}
    sizes = Sizes(1000, 2500, 2500)
    paced = 40
    tells = False
    foreign_target = {"vendor_id": 0xF055, "product_id": 1}


class TestSmp(SlotContract, HostileLine):
    protocol = "smp"
    bus = {"kind": "serial", "baudrate": 115200}
    component = {"profile": {"answer": 0.3, "quiet": 0.01, "swap": 3.0, "erase": 1.0}}
    emulated = {"part": "acme-s1", "buf_size": 280}
    sizes = Sizes(472, 872, 572)
    each = 2
    paced = 4
    foreign_target = {"machine": "AVR"}
    greeting = b"\x06\x09AAg=\n"


class TestSmpRecovery(SlotContract):
    protocol = "smp"
    bus = TestSmp.bus
    component = {"profile": {**TestSmp.component["profile"], "recovery": True}}
    emulated = {"part": "acme-s1", "recovery_buf_size": 280}
    sizes = TestSmp.sizes
    each = 2
    paced = 4
    foreign_target = {"machine": "AVR"}


class Avr(MemoryContract, HostileLine):
    bus = LINE
    component = {
        "version": VERSION,
        "profile": {"answer": 1.0, "entry": {"discharge": 0.001, "settle": 0.005}},
    }
    paced = 10
    foreign_target = {"machine": "ARM"}
    hostile_profile = {"answer": 0.2}


class TestStk500v1(Avr):
    protocol = "stk500v1"
    emulated = {"part": "atmega328p-optiboot", "boot_window": 20}
    sizes = Sizes(1000, 2600, 500)
    greeting = b"\x14\x10"


class TestStk500v2(Avr):
    protocol = "stk500v2"
    emulated = {"part": "atmega2560-wiring", "boot_window": 2}
    sizes = Sizes(1000, 6000, 600)
    greeting = b"\x1b\x01\x00\x0b\x0e\x01\x00\x08AVRISP_2\x15"


class TestAvr109(Avr):
    protocol = "avr109"
    bus = {**LINE, "probe": True}
    component = {
        "version": VERSION,
        "profile": {"answer": 1.0, "entry": {"reset": "none", "touch": True}},
    }
    emulated = {"part": "atmega32u4-caterina", "reenumerate": 0.1, "boot_window": 60}
    sizes = Sizes(1000, 2600, 500)
    greeting = b"CATERIN"
    guards = False
    faults = ("drop", "duplicate", "delay")
    """A garbled length of a block has the loader wait for tens of thousands of bytes, with no line to reset it by."""
    hostile_profile = {"answer": 0.2, "entry": {"reset": "none"}}

    def by_hand(self, device: EmulatedDevice) -> None:
        """An interruption while its reset vector is written leaves a part that only a hand can reset."""
        if isinstance(device, AvrDevice) and device.board.stage is Stage.HUNG:
            device.reset()


class Menu(SlotContract, HostileLine):
    bus = LINE
    tells = False
    verifies = False
    hostile_profile = {"timings": {"connect": 2, "knock": 0.1, "start": 2, "block": 0.3, "verdict": 1}}


def menu(loader: str, slot_size: int) -> dict[str, object]:
    return {
        "version": VERSION,
        "profile": {
            "loader": loader,
            "enter": "LOADER",
            "slot_size": slot_size,
            "entry": {"settle": 0.005},
            "block_size": 128,
            "timings": {"connect": 8, "knock": 0.5, "start": 10, "block": 2, "verdict": 5},
        },
    }


class TestXmodem(Menu):
    protocol = "xmodem"
    component = menu("gecko", 120 * 2048)
    emulated = {"part": "efr32mg1", "enter": "LOADER", "timeout": 1}
    sizes = Sizes(1000, 900, 450)
    each = 12
    greeting = b"\r\n1. upload gbl\r\n2. run\r\n3. ebl info\r\nBL > "


class TestYmodem(Menu):
    protocol = "ymodem"
    component = menu("st-iap", 48 * 2048)
    emulated = {"part": "stm32l4-iap", "enter": "LOADER", "timeout": 1}
    sizes = Sizes(1000, 900, 450)
    each = 6
    greeting = b"=== Main Menu ===\r\nDownload image\r\n"
    paced = 5


KINDS: dict[str, type[Part]] = {
    "uds": TestUds,
    "katapult-can": TestKatapultCan,
    "canopen": TestCanopen,
    "canopen-segments": TestCanopenSegments,
    "katapult-uart": TestKatapultUart,
    "mboot-can": TestMbootCan,
    "mboot-uart": TestMbootUart,
    "mboot-sb": TestMbootSb,
    "stm32-can": TestStm32Can,
    "stm32-can-openbl": TestStm32CanOpenBl,
    "stm32-can-speed": TestStm32CanSpeed,
    "stm32-fdcan": TestStm32Fdcan,
    "openblt-can": TestOpenBltCan,
    "xcp-can": TestXcpCan,
    "openblt-uart": TestOpenBltUart,
    "stm32-uart": TestStm32Uart,
    "dfuse": TestDfuse,
    "dfu": TestDfu,
    "smp": TestSmp,
    "smp-recovery": TestSmpRecovery,
    "stk500v1": TestStk500v1,
    "stk500v2": TestStk500v2,
    "avr109": TestAvr109,
    "xmodem": TestXmodem,
    "ymodem": TestYmodem,
}
