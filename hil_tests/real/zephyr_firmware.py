"""The firmware of the Zephyr parts: MCUboot with Zephyr's SMP server, as smpclient's own tests have it.

It comes in smpclient's source distribution, whose checksum is fixed here, and is kept under build/peers. Its images carry
a SHA-256 and no signature: another version of one is its payload with another version in the header (MCUboot's
`struct image_header`, bootutil/image.h) and the hash worked out again (TLV 0x10). It is as real as the first.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from proxyflash.benchmarks import peers

REQUIREMENT = "smpclient==7.3.0"
SHA256 = "86aa4bc1c621805d97f449793a4077f049aa88a98a1e916bf59423d072bd2a3b"
"""Of the source distribution."""
WITHIN = "tests/fixtures/smp-server/"
MAGIC = 0x96F3B83D
HEADER = struct.Struct("<IIHHII8sI")
"""Magic, load address, header size, protected TLVs' size, payload size, flags, version, padding."""
VERSION = struct.Struct("<BBHI")
VERSION_AT = 20
TLV_INFO, TLV = struct.Struct("<HH"), struct.Struct("<HH")
TLV_MAGIC, SHA256_TLV = 0x6907, 0x10


@cache
def folder() -> Path:
    """Where its files are; fetched when they are not there yet. Raises Missing."""
    home = peers.PEERS / "smp-server-7.3.0"
    with peers.locked(home):
        if not (home / "ready").exists():
            with tempfile.TemporaryDirectory(prefix="proxyflash-") as name:
                _unpack(_fetched(Path(name)), home)
            (home / "ready").touch()
    return home


def find(ending: str) -> Path:
    """The one file whose name ends so. Raises Missing, ValueError."""
    (found,) = (path for path in folder().iterdir() if path.name.endswith(ending))
    return found


def _fetched(into: Path) -> Path:
    wanted = into / "requirements.txt"
    wanted.write_text(f"{REQUIREMENT} --hash=sha256:{SHA256}\n")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "download", "--require-hashes"]
    peers.step([*pip, "--no-deps", "--no-binary", ":all:", "-d", str(into), "-r", str(wanted)], REQUIREMENT)
    (found,) = into.glob("*.tar.gz")
    return found


def _unpack(archive: Path, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if WITHIN in member.name and member.isfile() and (stream := tar.extractfile(member)) is not None:
                path = home / Path(member.name).name
                path.write_bytes(stream.read())
                path.chmod(0o755 if path.suffix == ".exe" else 0o644)


def remade(image: bytes, version: tuple[int, int, int], *, build: int = 0, payload: bytes | None = None) -> bytes:
    """The image as another version, or with another payload of the same size; its SHA-256 is right again."""
    header_size, protected, size = parts_of(image)
    if payload is not None and len(payload) != size:
        raise ValueError(f"a payload of {size} bytes is wanted, not of {len(payload)}")
    made = bytearray(image)
    VERSION.pack_into(made, VERSION_AT, *version, build)
    if payload is not None:
        made[header_size : header_size + size] = payload
    hashed = header_size + size + protected
    at = _tlv_at(image, SHA256_TLV)
    made[at : at + 32] = hashlib.sha256(made[:hashed]).digest()
    return bytes(made)


def digest_of(image: bytes) -> bytes:
    """What its SHA-256 TLV says."""
    at = _tlv_at(image, SHA256_TLV)
    return image[at : at + 32]


def parts_of(image: bytes) -> tuple[int, int, int]:
    """Bytes of its header, of its protected TLVs, of its payload. Raises ValueError."""
    magic, _, header_size, protected, size, _, _, _ = HEADER.unpack_from(image)
    if magic != MAGIC:
        raise ValueError("this is not an MCUboot image")
    return header_size, protected, size


def _tlv_at(image: bytes, wanted: int) -> int:
    """Where the content of an unprotected TLV begins. Raises ValueError."""
    header_size, protected, size = parts_of(image)
    at = header_size + size + protected
    magic, total = TLV_INFO.unpack_from(image, at)
    if magic != TLV_MAGIC:
        raise ValueError("no TLVs follow the payload")
    end = at + total
    at += TLV_INFO.size
    while at < end:
        kind, length = TLV.unpack_from(image, at)
        if kind == wanted:
            return at + TLV.size
        at += TLV.size + length
    raise ValueError(f"there is no TLV {wanted:#x}")
