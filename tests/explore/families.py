"""The kinds of parts that a bench is drawn from: what the bench file says of each, and what firmware it takes."""

from __future__ import annotations

from dataclasses import dataclass

from proxyflash.emulators import application
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.emulators.xcp import parts as xcp_parts

AVR_VECTORS = bytes.fromhex("0c 94 40 00")
"""JMP 0x80 (AVR instruction set manual)."""


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of part.

    `component`: its table in the bench file, with {number}, the part's number on the bench, and {firmware}, its first
    image. `start`: where its image lies; `sizes`: the smallest and the largest image; `slots`: what else of its memory
    an update may change, as start and end; `address`: whether a raw binary needs an address. `by_hand`: what is torn in
    its reset vector wants a reset by hand.
    """

    name: str
    kind: str
    component: str
    start: int
    sizes: tuple[int, int]
    slots: tuple[tuple[int, int], ...] = ()
    address: bool = True
    vectors: bytes | None = None
    mcuboot: bool = False
    by_hand: bool = False
    checked: bool = True
    """Whether a bit that is turned in what it sends and gets is noticed by a checksum."""
    alone: bool = False
    """Whether it shares a bus with no other part of such a family: one part of a bus at a time is in its bootloader."""
    weight: int = 4
    """How often it is drawn."""
    openblt: str = ""
    """The emulated part, where a firmware for it has OpenBLT's checksum."""

    def firmware(self, version: str, size: int, seed: int) -> bytes:
        if self.openblt:
            return xcp_parts.firmware(xcp_parts.parts()[self.openblt], version, "part", "Acme", size=size, seed=seed)
        header = 32 if self.mcuboot else 0
        start = self.start + header
        data = application.make(version, "part", "Acme", size, start=start, seed=seed, vectors=self.vectors)
        if not self.mcuboot:
            return data
        major, minor, revision = map(int, version.split("."))
        return mcuboot_image.make(data, (major, minor, revision, 0), header_size=header)


VERSION = 'version = {{send = "VER?\\r", match = "FW ([0-9.]+)"}}\n'
XCP_ADDRESS = """
[component.address]
request = 0x{request:X}
response = 0x{response:X}
version_request = {version_request}
version_response = {version_response}
"""

FAMILIES = (
    Family(
        "uds",
        "can",
        """
protocol = "uds"
address = {{request = 0x{request:X}, response = 0x{response:X}}}
emulated = {{part = "acme-r77", firmware = "{firmware}"}}
[component.profile]
memory = [{{start = 0x10000, size = 0x70000, erase_unit = 4096}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
timings = {{p2 = 0.05, latency = 0.2, reset_gap = 2.0, retries = 1}}
""",
        0x10000,
        (400, 3000),
        checked=False,
        weight=5,
    ),
    Family(
        "uds-read",
        "can",
        """
protocol = "uds"
address = {{request = 0x{request:X}, response = 0x{response:X}}}
emulated = {{part = "acme-r88", firmware = "{firmware}"}}
[component.profile]
memory = [{{start = 0x20000, size = 0x80000, erase_unit = 8192, write_alignment = 8}}]
security = {{key = "xor", secret = "5a5a5a5a"}}
timings = {{p2 = 0.05, latency = 0.2, reset_gap = 2.0, retries = 1}}
read = "upload"
""",
        0x20000,
        (400, 3000),
        checked=False,
        weight=2,
    ),
    Family(
        "canopen",
        "can",
        """
protocol = "canopen"
address = {{node = {number}}}
emulated = {{part = "encoder", firmware = "{firmware}"}}
[component.profile]
answer = 0.5
identification = "crc32"
slot_size = 0x1C000
start = 2.0
work = 3.0
""",
        0x08004000,
        (400, 5000),
        slots=((0x08004000, 0x08020000),),
        address=False,
        checked=False,
    ),
    Family(
        "katapult-can",
        "can",
        """
protocol = "katapult-can"
address = {{uuid = "{request:x}", version_request = {version_request}, version_response = {version_response}}}
emulated = {{part = "toolhead-f072", firmware = "{firmware}"}}
[component.profile]
answer = 0.1
start = 2.0
version = {{match = "FW ([0-9.]+)"}}
""",
        0x08002000,
        (400, 5000),
        by_hand=True,
    ),
    Family(
        "katapult-uart",
        "serial",
        VERSION
        + """
protocol = "katapult-uart"
emulated = {{part = "toolhead-f103", firmware = "{firmware}", baudrate = 115200}}
[component.profile]
answer = 0.1
""",
        0x08002000,
        (400, 5000),
        by_hand=True,
        weight=3,
    ),
    Family(
        "mboot-can",
        "can",
        """
protocol = "mboot-can"
emulated = {{part = "frdm-kl25z", firmware = "{firmware}", detect = 0.5}}
[component.address]
request = 0x{request:X}
response = 0x{response:X}
version_request = {version_request}
version_response = {version_response}
[component.profile]
answer = 0.1
start = 2.0
enter = {{id = {version_request}, data = "b0 07"}}
version = {{match = "FW ([0-9.]+)"}}
""",
        0xA000,
        (400, 5000),
        weight=3,
    ),
    Family(
        "mboot-uart",
        "serial",
        VERSION
        + """
protocol = "mboot-uart"
emulated = {{part = "frdm-kl25z", firmware = "{firmware}", wiring = "dtr-reset,!rts-boot", detect = 0.5}}
[component.profile]
answer = 0.1
entry = {{reset = "dtr", boot = "rts", hold = 0.001, settle = 0.005}}
""",
        0xA000,
        (400, 5000),
        weight=3,
    ),
    Family(
        "stm32-can",
        "can",
        """
protocol = "stm32-can"
address = {{version_request = {version_request}, version_response = {version_response}}}
emulated = {{part = "stm32l476xg", firmware = "{firmware}"}}
[component.profile]
answer = 0.1
start = 2.0
enter = {{id = {version_request}, data = "b0 07"}}
version = {{match = "FW ([0-9.]+)"}}
""",
        0x08000000,
        (400, 5000),
        checked=False,
        alone=True,
        weight=3,
    ),
    Family(
        "xcp-can",
        "can",
        """
protocol = "xcp-can"
emulated = {{part = "ecu-block", firmware = "{firmware}", secret = "5a5a"}}
[component.profile]
memory = [{{start = 0x20000, size = 0x38000, erase_unit = 0x4000}}]
write_alignment = 8
security = {{key = "xor", secret = "5a5a"}}
timings = {{answer = 0.2, write = 0.3}}
version = {{match = "FW ([0-9.]+)"}}
"""
        + XCP_ADDRESS,
        0x20000,
        (400, 5000),
        checked=False,
        weight=3,
    ),
    Family(
        "openblt-can",
        "can",
        """
protocol = "xcp-can"
emulated = {{part = "openblt-f103", firmware = "{firmware}"}}
[component.profile]
loader = "openblt"
memory = [{{start = 0x08006000, size = 0x1A000, erase_unit = 0x2000}}]
checksum_offset = 0x150
timings = {{answer = 0.2, write = 0.3}}
version = {{match = "FW ([0-9.]+)"}}
"""
        + XCP_ADDRESS,
        0x08006000,
        (400, 5000),
        checked=False,
        weight=2,
        openblt="openblt-f103",
    ),
    Family(
        "openblt-uart",
        "serial",
        VERSION
        + """
protocol = "xcp-uart"
emulated = {{part = "openblt-f103-uart", firmware = "{firmware}", checksum = true, baudrate = 115200}}
[component.profile]
loader = "openblt"
memory = [{{start = 0x08006000, size = 0x1A000, erase_unit = 0x2000}}]
checksum_offset = 0x150
checksum = true
timings = {{answer = 0.3, write = 0.3}}
""",
        0x08006000,
        (400, 5000),
        checked=False,
        weight=2,
        openblt="openblt-f103-uart",
    ),
    Family(
        "stm32-uart",
        "serial",
        VERSION
        + """
protocol = "stm32-uart"
emulated = {{part = "stm32l476xg", firmware = "{firmware}", wiring = "dtr-reset,!rts-boot0"}}
[component.profile]
answer = 0.05
entry = {{reset = "dtr", boot0 = "rts", hold = 0.001, settle = 0.005}}
""",
        0x08000000,
        (400, 5000),
    ),
    Family(
        "dfuse",
        "usb",
        """
protocol = "dfu"
[component.address]
vendor_id = 0x0483
product_id = 0xDF11
runtime_vendor_id = 0x1209
runtime_product_id = {product}
serial = "S{number}"
[component.emulated]
part = "stm32f105-dfu"
firmware = "{firmware}"
vendor_id = 0x1209
product_id = {product}
serial = "S{number}"
[component.profile]
reenumerate = 0.5
""",
        0x08000000,
        (400, 6000),
        checked=False,
        weight=10,
    ),
    Family(
        "dfu",
        "usb",
        """
protocol = "dfu"
[component.address]
vendor_id = 0x1209
product_id = 0xDF01
runtime_vendor_id = 0x1209
runtime_product_id = {product}
serial = "S{number}"
[component.emulated]
part = "slot-dfu"
firmware = "{firmware}"
vendor_id = 0x1209
product_id = {product}
serial = "S{number}"
[component.profile]
reenumerate = 0.5
slot_size = 0x20000
""",
        0,
        (400, 6000),
        slots=((0, 0x20000),),
        address=False,
        checked=False,
        weight=10,
    ),
    Family(
        "smp",
        "serial",
        """
protocol = "smp"
emulated = {{part = "acme-s1", firmware = "{firmware}", buf_size = 280}}
profile = {{answer = 0.3, quiet = 0.01, swap = 3.0, erase = 1.0}}
""",
        0x1000,
        (400, 1500),
        slots=((0x1000, 0x5400),),
        address=False,
        mcuboot=True,
    ),
    Family(
        "smp-recovery",
        "serial",
        """
protocol = "smp"
emulated = {{part = "acme-s1", firmware = "{firmware}", recovery_buf_size = 280}}
profile = {{answer = 0.3, quiet = 0.01, swap = 3.0, erase = 1.0, recovery = true}}
""",
        0x1000,
        (400, 1500),
        slots=((0x1000, 0x5400),),
        address=False,
        mcuboot=True,
    ),
    *(
        Family(
            protocol,
            "serial",
            VERSION
            + f"""
protocol = "{protocol}"
emulated = {{{{part = "{part}", firmware = "{{firmware}}", {emulated}}}}}
profile = {{{{answer = 5.0, entry = {{{{{entry}}}}}}}}}
""",
            0,
            (400, 2600),
            vectors=AVR_VECTORS,
            by_hand=protocol == "avr109",
            checked=protocol == "stk500v2",
            weight=1,
        )
        for protocol, part, emulated, entry in (
            ("stk500v1", "atmega328p-optiboot", "boot_window = 20", "discharge = 0.001, settle = 0.005"),
            ("stk500v2", "atmega2560-wiring", "boot_window = 2", "discharge = 0.001, settle = 0.005"),
            ("avr109", "atmega32u4-caterina", "reenumerate = 0.02, boot_window = 60", 'reset = "none", touch = true'),
        )
    ),
    *(
        Family(
            protocol,
            "serial",
            VERSION
            + f"""
protocol = "{protocol}"
emulated = {{{{part = "{part}", firmware = "{{firmware}}", enter = "LOADER", timeout = 1}}}}
[component.profile]
loader = "{loader}"
enter = "LOADER"
entry = {{{{settle = 0.005}}}}
block_size = 128
timings = {{{{connect = 5, knock = 0.2, start = 5, block = 3, verdict = 5}}}}
""",
            start,
            (400, 1500),
            slots=((start, 1 << 40),),
            address=False,
            weight=3,
        )
        for protocol, part, loader, start in (
            ("xmodem", "efr32mg1", "gecko", 0x4000),
            ("ymodem", "stm32l4-iap", "st-iap", 0x08008000),
        )
    ),
)
BY_NAME = {family.name: family for family in FAMILIES}
