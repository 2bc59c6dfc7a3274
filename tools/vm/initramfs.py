"""What the guest starts from: busybox, the kernel modules in the order in which they are loaded, and `init.sh`.

The archive's format is "newc" of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. It stays
uncompressed: unpacking costs the guest more time than reading. The kernel takes several archives one behind the other,
so that the files of one run are appended to the kept archive.
"""

from __future__ import annotations

import hashlib
import lzma
import re
import shutil
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...transports import private_files
from .errors import VmBusybox, VmModule
from .kernel import Kernel

FIRST = ("virtio_pci", "virtio_console")
"""The guest can speak from here on."""
MODULES = (
    "9p", "9pnet_virtio", "overlay",
    "vcan", "can_raw", "can_isotp", "can_bcm", "can_gw", "can_j1939", "slcan", "gs_usb",
    "vhci_hcd", "dummy_hcd", "libcomposite", "usb_f_acm", "cdc_acm", "usbhid", "usbmon", "ftdi_sio", "cp210x",
)  # fmt: skip
PT_INTERP = 3


def built(cache: Path, kernel: Kernel, modules: Iterable[str]) -> Path:
    """The archive for this kernel with these modules more than `MODULES`, from the cache or made."""
    busybox = static_busybox()
    script = (Path(__file__).parent / "init.sh").read_bytes()
    wanted = list(dict.fromkeys(name.replace("-", "_") for name in (*FIRST, *MODULES, *modules)))
    digest = hashlib.sha256()
    for part in (kernel.name.encode(), " ".join(wanted).encode(), script, busybox, Path(__file__).read_bytes()):
        digest.update(hashlib.sha256(part).digest())
    target = cache / f"initramfs-{kernel.name}-{digest.hexdigest()[:16]}.cpio"
    if target.is_file():
        return target
    loaded = load_order(kernel.modules, wanted)
    files: dict[str, bytes] = {"init": script, "bin/busybox": busybox}
    files["modules/order"] = "".join(f"{path.name.partition('.ko')[0]}.ko\n" for path in loaded).encode()
    for path in loaded:
        files[f"modules/{path.name.partition('.ko')[0]}.ko"] = _content(path)
    with private_files.whole(target) as stream:
        stream.write(archive(files))
    for old in cache.glob("initramfs-*.cpio"):
        if not old.name.startswith(f"initramfs-{kernel.name}-"):
            old.unlink(missing_ok=True)
    return target


def static_busybox() -> bytes:
    """Debian has two of that name; the other one needs libraries that the guest doesn't have."""
    path = shutil.which("busybox")
    if path is None:
        raise VmBusybox("busybox is not installed")
    content = Path(path).read_bytes()
    if _is_dynamic(content):
        raise VmBusybox(f"{path} is not the static busybox")
    return content


def _is_dynamic(program: bytes) -> bool:
    """Whether a 64-bit ELF file asks for a loader (System V ABI, program header of type PT_INTERP)."""
    if program[:5] != b"\x7fELF\x02":
        return True
    (offset,) = struct.unpack_from("<Q", program, 32)
    size, count = struct.unpack_from("<HH", program, 54)
    kinds = {struct.unpack_from("<I", program, offset + index * size)[0] for index in range(count)}
    return PT_INTERP in kinds


def load_order(folder: Path, wanted: Iterable[str]) -> list[Path]:
    """The files of these modules, each behind those that it depends on. What is built into the kernel needs none.

    `VmModule` for a name that the kernel doesn't have.
    """
    files = {_name(path.name): path for path in sorted(folder.rglob("*.ko*"))}
    built_in = {_name(Path(line).name) for line in (folder / "modules.builtin").read_text().split()}
    order: dict[str, Path] = {}

    def add(name: str, by: str) -> None:
        if name in order or name in built_in:
            return
        if name not in files:
            raise VmModule(f"the kernel {folder.name} has no module {name}{by}")
        for needed in depends(_content(files[name])):
            add(needed, f", which {name} needs")
        order[name] = files[name]

    for name in wanted:
        add(name, "")
    return list(order.values())


def depends(module: bytes) -> list[str]:
    """The modules that one names in its .modinfo (modpost writes "depends=a,b" there, between zero bytes)."""
    found = re.search(rb"\0depends=([^\0]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def _name(file: str) -> str:
    return file.partition(".ko")[0].replace("-", "_")


def _content(path: Path) -> bytes:
    """Debian 13 compresses modules; the guest's busybox can't load them so."""
    content = path.read_bytes()
    return lzma.decompress(content) if path.suffix == ".xz" else content


def archive(files: Mapping[str, bytes]) -> bytes:
    """A cpio archive with these files, all of them executable, and the folders that they lie in."""
    parts: list[bytes] = []
    for folder in dict.fromkeys(str(parent) for name in files for parent in reversed(Path(name).parents)):
        if folder != ".":
            parts.append(_entry(folder, stat.S_IFDIR | 0o755, b"", len(parts) + 1))
    for name, content in files.items():
        parts.append(_entry(name, stat.S_IFREG | 0o755, content, len(parts) + 1))
    return b"".join((*parts, _entry("TRAILER!!!", 0, b"", 0)))


def _entry(name: str, mode: int, content: bytes, inode: int) -> bytes:
    path = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    numbers = (inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % number for number in numbers) + path
    return _padded(head) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)
