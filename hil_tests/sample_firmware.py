"""Makes the releases of serial.toml, katapult.toml, canopen.toml, mboot.toml, stm32-can.toml and xcp.toml, in benches/firmware.

    python -m proxyflash.hil_tests.sample_firmware

Of each part an old one and a larger new one, in the format that its bootloader wants: MCUboot images, bare programs of AVRs
and ARMs, one of them as Intel HEX.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..emulators import application
from ..emulators.avr import part as avr_part
from ..emulators.canopen import device as canopen_device
from ..emulators.katapult import parts as katapult_parts
from ..emulators.mboot import parts as mboot_parts
from ..emulators.mcuboot import image as mcuboot_image
from ..emulators.smp import part as smp_part
from ..emulators.xcp import parts as xcp_parts
from ..emulators.xymodem import slot as xymodem_slot
from ..flashers.formats import save
from ..flashers.image import FirmwareImage, Segment

FOLDER = Path(__file__).parent / "benches" / "firmware"
RELEASES = {"1.4.2": 6000, "1.5.0": 9001}
"""Bytes, by version."""

Maker = Callable[[str, int], bytes]


def soil(version: str, size: int) -> bytes:
    start = smp_part.parts()["microbit"].pairs[0][0][0]
    return mcuboot_image.around_firmware(version, "Soil-1", "Contoso", size, start=start)


def avr(product: str, manufacturer: str) -> Maker:
    return lambda version, size: avr_part.firmware(version, product, manufacturer, size)


def modem(part: str, product: str, manufacturer: str) -> Maker:
    start = xymodem_slot.parts()[part].base
    return lambda version, size: application.make(version, product, manufacturer, size, start=start)


def head(version: str, size: int) -> bytes:
    start = katapult_parts.parts()["toolhead-f072"]["start"]
    return application.make(version, "T-1", "Acme", size, start=start)


def fan(version: str, size: int) -> bytes:
    return application.make(version, "F-3", "Contoso", size, start=mboot_parts.parts()["frdm-k22f"]["reserved"])


def encoder(version: str, size: int) -> bytes:
    return application.make(version, "E-36", "Acme", size, start=canopen_device.parts()["encoder"]["base"])


def drive(version: str, size: int) -> bytes:
    return application.make(version, "M-4", "Acme", size, start=0x0800_0000)


def xcp(part: str, product: str) -> Maker:
    row = xcp_parts.parts()[part]
    return lambda version, size: xcp_parts.firmware(row, version, product, "Acme", size=size, seed=0)


MAKERS: dict[str, Maker] = {
    "soil": soil,
    "sonar": avr("S-8", "Fabrikam"),
    "valves": avr("V-16", "Acme"),
    "fan": fan,
    "head": head,
    "encoder": encoder,
    "drive": drive,
    "damper": xcp("ecu-block", "D-4"),
    "throttle": xcp("openblt-f103", "ETB-2"),
    "scale": modem("stm32l4-iap", "W-2", "Contoso"),
}


def main() -> None:
    for name, make in MAKERS.items():
        for version, size in RELEASES.items():
            (FOLDER / f"{name}-{version}.bin").write_bytes(make(version, size))
    # A maker's build gives it so; a new part holds the other one, which is raw.
    newest = max(RELEASES)
    path = FOLDER / f"valves-{newest}.bin"
    save(FirmwareImage((Segment(0, path.read_bytes()),), "bin"), path.with_suffix(".hex"))
    path.unlink()


if __name__ == "__main__":
    main()
