"""The guest's kernel: the package that Debian's `linux-image-amd64` depends on, downloaded and unpacked once.

Its name is read from that dependency and not pinned: old kernels leave the archive. The flavour `cloud` would not do, it
has neither CAN nor 9p. Nothing is installed, and root isn't needed.
"""

from __future__ import annotations

import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import VmApt, VmCache, VmKernel

METAPACKAGE = "linux-image-amd64"
DOWNLOAD_SECONDS = 900.0
PVH_ENTRY = 18
"""The type of the ELF note "Xen" that QEMU enters an uncompressed kernel by (Xen's public/elfnote.h, PHYS32_ENTRY)."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel package. `folder` is named after the package and its version."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def release(self) -> str:
        """What `uname -r` says in the guest."""
        return next((self.folder / "lib" / "modules").iterdir()).name

    @property
    def image(self) -> Path:
        """The kernel itself, uncompressed where that can be: a guest without KVM takes five seconds to unpack it."""
        unpacked = self.folder / "boot" / "vmlinux"
        return unpacked if unpacked.is_file() else self.folder / "boot" / f"vmlinuz-{self.release}"

    @property
    def modules(self) -> Path:
        return self.folder / "lib" / "modules" / self.release


def cache_folder() -> Path:
    """Where it is kept by default."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "proxyflash" / "vm"


@contextmanager
def opened(cache: Path) -> Iterator[Path]:
    """The cache folder, made if need be, and for one process at a time. `VmCache` where it can't be written."""
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # A link that somebody put there is not followed.
        number = os.open(cache / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(number) as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield cache
    except OSError as error:
        raise VmCache(f"{error.filename or cache}: {error.strerror}") from error


def kept(cache: Path) -> Kernel | None:
    """The kernel that is there already."""
    # The folder gets its name when it is whole.
    found = sorted(cache.glob("linux-image-*_*/lib/modules"), key=lambda path: path.stat().st_mtime)
    return Kernel(found[-1].parents[1]) if found else None


def fetched(cache: Path, say: Callable[[str], None]) -> Kernel:
    """The kernel that the package lists have now: downloaded if it isn't there, and older ones removed."""
    for program in ("apt-get", "apt-cache", "dpkg-deb"):
        if shutil.which(program) is None:
            raise VmApt(f"{program} is not installed")
    package, version = newest()
    target = cache / f"{package}_{version.replace(':', '%3a')}"
    if not target.is_dir():
        say(f"downloading {package} {version}, about 70 MB, into {cache}")
        with tempfile.TemporaryDirectory(dir=cache, prefix="unpacking-") as folder:
            _apt("apt-get", "download", f"{package}={version}", folder=Path(folder))
            [archive] = Path(folder).glob("*.deb")
            say(f"unpacking it, about 400 MB, into {target}")
            unpacked = Path(folder) / "unpacked"
            _unpack(archive, unpacked)
            unpacked.rename(target)
    for old in cache.glob("linux-image-*_*"):
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return Kernel(target)


def newest() -> tuple[str, str]:
    """Name and version of the kernel package, as the package lists have them."""
    listed = _apt("apt-cache", "depends", METAPACKAGE)
    name = re.search(r"^\s*Depends: (linux-image-\S+)$", listed, re.MULTILINE)
    if name is None:
        raise VmKernel(f"the package lists of apt have no {METAPACKAGE}")
    version = re.search(r"^Version: (\S+)$", _apt("apt-cache", "show", "--no-all-versions", name[1]), re.MULTILINE)
    if version is None:
        raise VmKernel(f"the package lists of apt have no {name[1]}")
    return name[1], version[1]


def _apt(*command: str, folder: Path | None = None) -> str:
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=DOWNLOAD_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise VmKernel(f"{' '.join(command)} took longer than {DOWNLOAD_SECONDS:.0f} s") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err"))] or done.stderr.splitlines()
        text = f"{' '.join(command)}: {'; '.join(said[:3]).rstrip('.') or f'exit status {done.returncode}'}"
        if "No space left" in text or "Permission denied" in text or "File too large" in text:
            raise VmCache(text)
        raise VmKernel(text)
    return done.stdout


def _unpack(archive: Path, target: Path) -> None:
    done = subprocess.run(["dpkg-deb", "-x", archive, target], capture_output=True, text=True, errors="replace")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise VmCache(f"dpkg-deb can't unpack {archive.name}: {said[0].rstrip('.')}")
    compressed = list((target / "boot").glob("vmlinuz-*"))
    if not compressed or not list((target / "lib" / "modules").glob("*")):
        raise VmKernel(f"{archive.name} holds no kernel")
    shutil.rmtree(target / "usr", ignore_errors=True)
    if (content := uncompressed(compressed[0].read_bytes())) is not None:
        (target / "boot" / "vmlinux").write_bytes(content)


def uncompressed(image: bytes) -> bytes | None:
    """The ELF file inside a bzImage; None where it can't be had so, or QEMU could not enter it.

    The kernel's Documentation/arch/x86/boot.rst, "The real-mode kernel header": setup_sects at 0x1F1, the magic at
    0x202, payload_offset and payload_length at 0x248.
    """
    if len(image) < 0x250 or image[0x202:0x206] != b"HdrS":
        return None
    start = (1 + (image[0x1F1] or 4)) * 512
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[start + offset : start + offset + length]
    try:
        if payload.startswith(b"\xfd7zXZ\0"):
            # Behind the stream comes its size, which no file of this format would have.
            content = lzma.LZMADecompressor().decompress(payload)
        elif payload.startswith(b"\x1f\x8b"):
            content = zlib.decompressobj(wbits=31).decompress(payload)
        else:
            return None
    except (lzma.LZMAError, zlib.error):
        return None
    notes = (struct.pack("<III", 4, size, PVH_ENTRY) + b"Xen\0" for size in (4, 8))
    return content if content.startswith(b"\x7fELF") and any(note in content for note in notes) else None
