"""Makes the files of the vacuum's parts: what they hold from the factory, and what each update brings.

    python make.py          # then, in the folder above: sh manifests.sh

The firmware of motors, cameras and steamer is not code, but has all that their bootloaders look at: a vector table, and
the descriptor with size, CRC-32 and version. Each comes in the file format that such a part's maker ships.
"""

from __future__ import annotations

from pathlib import Path

from proxyflash.emulators.application import make
from proxyflash.flashers.formats import save
from proxyflash.flashers.image import FirmwareImage, Segment

HERE = Path(__file__).resolve().parent
HOST = HERE.parent / "host"
UPDATES = HERE.parent / "updates"

PARTS = {
    # product, manufacturer, start, bytes, ending of the file that is shipped
    "motor": ("R88", "Acme", 0x00020000, 8 * 1024, "s19"),
    "camera": ("C-24", "Fabrikam", 0x08000000, 20 * 1024, "dfu"),
    "steamer": ("Steam-1", "Contoso", 0x08000000, 6 * 1024, "hex"),
}
SHIPPED = {
    "1-bundle": {"motor": "2.0.0", "camera": "2.0.0"},
    "2-group": {"motor": "2.1.0"},
    "3-check": {"camera": "2.1.0"},
    "4-rollback": {"motor": "3.0.0"},
    "5-later": {"steamer": "2.0.0"},
    "6-resume": {"camera": "3.0.0"},
}
ROOTFS = {"1-bundle": "2.0.0", "6-resume": "3.0.0"}
ROOTFS_SIZE = 8 * 1024


def firmware(part: str, version: str) -> bytes:
    product, manufacturer, start, size, _ = PARTS[part]
    return make(version, product, manufacturer, size, start=start)


def rootfs(version: str) -> bytes:
    """A slot's content: a line with its version, and nothing else."""
    return f"VERSION_ID={version}\n".encode().ljust(ROOTFS_SIZE, b"\0")


def main() -> None:
    for part in PARTS:
        (HERE / f"{part}-1.0.0.bin").write_bytes(firmware(part, "1.0.0"))
    (HOST / "slot-a.img").write_bytes(rootfs("1.0.0"))
    (HOST / "slot-b.img").write_bytes(bytes(ROOTFS_SIZE))
    for update, parts in SHIPPED.items():
        for part, version in parts.items():
            _, _, start, _, ending = PARTS[part]
            image = FirmwareImage((Segment(start, firmware(part, version)),), "bin")
            save(image, UPDATES / update / f"{part}-{version}.{ending}")
    for update, version in ROOTFS.items():
        (UPDATES / update / f"rootfs-{version}.img").write_bytes(rootfs(version))


if __name__ == "__main__":
    main()
