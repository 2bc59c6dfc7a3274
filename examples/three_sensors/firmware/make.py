"""Builds the firmware of the example's three sensors in two versions each, with gcc-arm-none-eabi.

    python make.py          # writes the files beside this one, the manifests in ../update, and SHA256SUMS

The emulated sensors hold 1.4.2 from the factory (raw binaries), and the update brings 1.5.0, each in the file
format that its sensor's maker would ship: Intel HEX, S-record, DfuSe.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import struct
import subprocess
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from proxyflash.flashers.formats import save
from proxyflash.flashers.image import FirmwareImage, Segment

HERE = Path(__file__).parent
UPDATE = HERE.parent / "update"
CRC_OFFSET = 0x10C
SIZE_OFFSET = 0x108


@dataclass(frozen=True)
class Sensor:
    """One sensor: where its firmware goes, how many coefficients its filter has, what its file is called."""

    name: str
    product: str
    manufacturer: str
    start: int
    taps: dict[str, int]
    file: str
    component: dict[str, str]


SENSORS = (
    Sensor("radar", "R77", "Acme", 0x00010000, {"1.4.2": 8000, "1.5.0": 20000}, "radar-1.5.0.s19", {"group": "radars"}),
    Sensor("imu", "IMU-6", "Contoso", 0x08000000, {"1.4.2": 8000, "1.5.0": 24000}, "imu-1.5.0.hex", {"group": "imus"}),
    Sensor("camera", "C-24", "Fabrikam", 0x08000000, {"1.4.2": 8000, "1.5.0": 48000}, "camera-1.5.0.dfu",
           {"group": "cameras"}),
)  # fmt: skip


def build(sensor: Sensor, version: str) -> bytes:
    """The linked firmware as raw bytes, with size and CRC in its descriptor."""
    taps = sensor.taps[version]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        # A windowed sinc, as a low-pass filter has it; the cut-off moves with the version.
        cut = 0.01 * float(version.rpartition(".")[0])
        values = []
        for i in range(taps):
            x = i - taps / 2
            sinc = 2 * cut if x == 0 else math.sin(2 * math.pi * cut * x) / (math.pi * x)
            values.append(round(32767 * sinc * (0.54 - 0.46 * math.cos(2 * math.pi * i / taps))) + i % 7)
        table = ",".join(map(str, values))
        (work / "table.h").write_text(f"#define TAPS {taps}\nstatic const int16_t coefficients[TAPS] = {{{table}}};\n")
        elf, raw = work / "sensor.elf", work / "sensor.bin"
        texts = {"VERSION": version, "PRODUCT": sensor.product, "MANUFACTURER": sensor.manufacturer}
        defines = [f'-D{key}="{text}"' for key, text in texts.items()]
        subprocess.run(
            ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-Os", "-ffreestanding", "-nostdlib", "-Wall",
             "-Werror", f"-I{work}", *defines, f"-Wl,--defsym=START={sensor.start}", f"-Wl,-T{HERE / 'sensor.ld'}",
             "-Wl,--build-id=none", "-o", elf, HERE / "sensor.c"],
            check=True,
        )  # fmt: skip
        subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", "-j", ".text", elf, raw], check=True)
        data = bytearray(raw.read_bytes())
    data += b"\xff" * (-len(data) % 8)
    struct.pack_into("<II", data, SIZE_OFFSET, len(data), 0xFFFFFFFF)
    struct.pack_into("<I", data, CRC_OFFSET, zlib.crc32(data))
    return bytes(data)


def manifest(name: str, steps: list[dict[str, object]], files: list[Path], **facts: object) -> None:
    """Writes one import manifest, version 5.0, beside the update's files."""
    document = {
        "updateId": {"provider": "Example", "name": name, "version": "1.5"},
        **facts,
        "instructions": {"steps": steps},
        "files": [
            {
                "filename": file.name,
                "sizeInBytes": file.stat().st_size,
                "hashes": {"sha256": base64.b64encode(hashlib.sha256(file.read_bytes()).digest()).decode()},
            }
            for file in files
        ],
        "createdDateTime": "2026-01-01T00:00:00Z",
        "manifestVersion": "5.0",
    }
    path = UPDATE / ("update" if name == "Host" else name.lower())
    path.with_suffix(".importmanifest.json").write_text(json.dumps(document, indent=2) + "\n")


def main() -> None:
    steps: list[dict[str, object]] = [
        {
            "type": "inline",
            "description": "check the supply",
            "handler": "microsoft/script:1",
            "files": ["check-supply.sh"],
            "handlerProperties": {"scriptFileName": "check-supply.sh", "apiVersion": "1.1"},
        }
    ]
    written = []
    for sensor in SENSORS:
        factory = HERE / f"{sensor.name}-1.4.2.bin"
        factory.write_bytes(build(sensor, "1.4.2"))
        image = FirmwareImage((Segment(sensor.start, build(sensor, "1.5.0")),), "bin")
        target = UPDATE / sensor.file
        save(image, target)
        written += [factory, target]
        step: dict[str, object] = {
            "handler": "proxyflash/flash:1",
            "files": [target.name],
            "handlerProperties": {"installedCriteria": "1.5.0"},
        }
        name = sensor.name.capitalize()
        manifest(name, [step], [target], isDeployable=False, compatibility=[sensor.component])
        update = {"provider": "Example", "name": name, "version": "1.5"}
        steps.append({"type": "reference", "description": f"flash the {sensor.name}", "updateId": update})
    manifest("Host", steps, [UPDATE / "check-supply.sh"], compatibility=[{"model": "bench"}])
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE.parent)}" for path in written]
    (HERE.parent / "SHA256SUMS").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
