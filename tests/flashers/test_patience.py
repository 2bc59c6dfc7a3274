"""How long until a part that falls silent is given up: the table of docs/protocols.md, measured on simulated time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.mcuboot import image as mcuboot_image
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.tests.flashers.benches import CANOPEN, KATAPULT, MBOOT, UDS, VECTORS, XCP, serial, stm32_can
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError

pytestmark = pytest.mark.simulated_time

DOCS = Path(__file__).parent.parent.parent / "docs"


def usb(part: str, address: str, profile: str = "") -> str:
    return f"""
[bus.b]
kind = "usb"
emulated = true
[[component]]
name = "part"
bus = "b"
protocol = "dfu"
address = {{{address}runtime_vendor_id = 0x1209, runtime_product_id = 1}}
emulated = {{part = "{part}", firmware = "old.bin"}}
profile = {{{profile}}}
"""


NEIGHBOUR = """
[[component]]
name = "neighbour"
bus = "b"
protocol = "uds"
address = {request = 0x7E1, response = 0x7E9}
emulated = {part = "acme-r77"}
"""
"""It acknowledges frames: without it, a bus on which nobody does is given up after a second."""
TEXT = ', enter = "LOADER"'
BENCHES = {
    "uds": (UDS + NEIGHBOUR, 0x10000),
    "canopen": (CANOPEN + NEIGHBOUR, 0),
    "katapult-can": (KATAPULT + NEIGHBOUR, 0x08002000),
    "katapult-uart": (serial("katapult-uart", "toolhead-f072", "", ", baudrate = 115200"), 0x08002000),
    "mboot-can": (MBOOT + NEIGHBOUR, 0xA000),
    "mboot-uart": (serial("mboot-uart", "frdm-kl25z", 'enter = "LOADER"', ', enter = "LOADER", detect = 0.5'), 0xA000),
    "stm32-can": (stm32_can("stm32-can", "stm32l476xg") + NEIGHBOUR, 0x08000000),
    "stm32-fdcan": (stm32_can("stm32-fdcan", "stm32g474xe", "fd = true") + NEIGHBOUR, 0x08000000),
    "xcp-can": (XCP + NEIGHBOUR, 0x20000),
    "xcp-uart": (
        serial(
            "xcp-uart",
            "openblt-f103-uart",
            'loader = "openblt", memory = [{start = 0x08006000, size = 0x1A000, erase_unit = 0x2000}]',
            ", baudrate = 115200",
        ),
        0x08006000,
    ),
    "stm32-uart": (
        serial(
            "stm32-uart",
            "stm32l476xg",
            'entry = {reset = "dtr", boot0 = "rts"}',
            ', wiring = "dtr-reset,!rts-boot0"',
        ),
        0x08000000,
    ),
    "stk500v1": (serial("stk500v1", "atmega328p-optiboot"), 0),
    "stk500v2": (serial("stk500v2", "atmega2560-wiring"), 0),
    "avr109": (serial("avr109", "atmega32u4-caterina"), 0),
    "xmodem": (serial("xmodem", "efr32mg1", f'loader = "gecko"{TEXT}', TEXT), 0x4000),
    "ymodem": (serial("ymodem", "stm32l4-iap", f'loader = "st-iap"{TEXT}', TEXT), 0x08008000),
    "smp": (serial("smp", "acme-s1"), 0x1000),
    "dfu": (usb("slot-dfu", "vendor_id = 0x1209, product_id = 0xDF01, "), 0),
    "dfuse": (usb("stm32f105-dfu", ""), 0x08000000),
}


def firmware(protocol: str, start: int, version: str, size: int = 5_000) -> bytes:
    if protocol == "smp":
        major, minor, patch = map(int, version.split("."))
        data = application.make(version, "part", "Acme", size, start=start + 32)
        return mcuboot_image.make(data, (major, minor, patch, 0), header_size=32)
    vectors = VECTORS if protocol in ("stk500v1", "stk500v2", "avr109") else None
    return application.make(version, "part", "Acme", size, start=start, vectors=vectors)


def given_up(
    protocol: str, folder: Path, falls_silent: Callable[[ev.Event], bool]
) -> tuple[float, ProxyflashError, list[ev.Event]]:
    """Seconds from when the part's supply goes, at an event, until the flash fails; its error, and its events."""
    bench, start = BENCHES[protocol]
    (folder / "old.bin").write_bytes(firmware(protocol, start, "1.4.2"))
    (folder / "new.bin").write_bytes(firmware(protocol, start, "1.5.0"))
    (folder / "bench.toml").write_text(bench)
    # A slot has no addresses.
    has_addresses = protocol in ("uds", "dfuse") or protocol.startswith(("katapult-", "mboot-", "stm32-", "xcp-"))
    address = start if has_addresses else None
    silent: list[float] = []
    events: list[ev.Event] = []
    with Bench.open(folder / "bench.toml", state=folder / "state") as opened:
        supply = opened.emulated_device("part").supply
        clock.sleep(3.0)

        def heard(event: ev.Event) -> None:
            events.append(event)
            if not silent and falls_silent(event):
                silent.append(clock.monotonic())
                supply.off()

        with pytest.raises(ProxyflashError) as failed:
            opened.component("part").flash(folder / "new.bin", address=address, context=RunContext(heard))
        return clock.monotonic() - silent[0], failed.value, events


def is_being_written(event: ev.Event) -> bool:
    return isinstance(event, ev.Progress) and event.phase is Phase.WRITE and event.done > 0


def listed(protocol: str) -> list[float]:
    """The last two columns of the protocol's row: seconds."""
    text = (DOCS / "protocols.md").read_text(encoding="utf-8").partition("## How long until an error")[2]
    found = re.search(rf"^\| `{protocol}` \|.*\| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert found is not None
    return [float(seconds) for seconds in found.groups()]


@pytest.mark.parametrize("protocol", BENCHES)
def test_the_table_has_how_long_a_part_is_waited_for(protocol: str, tmp_path: Path) -> None:
    (tmp_path / "absent").mkdir()
    (tmp_path / "written").mkdir()
    absent, mute, _ = given_up(protocol, tmp_path / "absent", lambda event: True)
    written, _, events = given_up(protocol, tmp_path / "written", is_being_written)
    assert [round(absent, 1), round(written, 1)] == pytest.approx(listed(protocol), rel=0.05, abs=0.1)
    if 'kind = "serial"' in BENCHES[protocol][0]:
        # A wrong rate is the first thing to look at when a part is mute, or the plan takes long.
        assert mute.code == "E-PART-MUTE"
        assert "at 115,200 bit/s" in str(mute)
        assert [event.rate for event in events if isinstance(event, ev.Planned)][:1] == ["115,200 bit/s"]
