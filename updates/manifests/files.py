"""Files of an update: opened without waiting, read once and no further than they may be, copied while they are checked."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from ...transports import private_files
from ..errors import PayloadHash, PayloadKind, PayloadMissing, PayloadSize
from . import manifest as mf

BLOCK = 1 << 20


def check(there: Path, file: mf.PayloadFile, copy: Path | None = None) -> None:
    """Reads a payload once, and no more of it than it should have: its size and SHA-256 are those of the manifest.

    `copy`: gets the bytes that were read, so that exactly the checked bytes are used later, whatever becomes of the original.
    Raises PayloadMissing, PayloadKind, PayloadSize, PayloadHash; StateFolder when the copy can't be written.
    """
    with _sized(there, file) as source:
        if copy is None:
            _compare(there, source, file, None)
            return
        with private_files.told(copy), private_files.created(copy) as target:
            _compare(there, source, file, target)
            target.flush()
            os.fsync(target.fileno())


def pour(there: Path, file: mf.PayloadFile, target: BinaryIO) -> None:
    """As `check`; `target` gets what was read. What it got counts only if nothing is raised."""
    with _sized(there, file) as source:
        _compare(there, source, file, target)


def check_bytes(there: Path, data: bytes, file: mf.PayloadFile) -> None:
    """As `check`, for a file that was read already. Raises PayloadSize, PayloadHash."""
    if len(data) != file.sizeInBytes:
        raise PayloadSize(f"{there} has {len(data):,} bytes, the manifest says {file.sizeInBytes:,}")
    _same(there, hashlib.sha256(data).digest(), file)


def _sized(there: Path, file: mf.PayloadFile) -> BinaryIO:
    """A payload that has its size. Raises as `check`."""
    source = _opened(there)
    size = os.fstat(source.fileno()).st_size
    if size != file.sizeInBytes:
        source.close()
        raise PayloadSize(f"{there} has {size:,} bytes, the manifest says {file.sizeInBytes:,}")
    return source


def _compare(there: Path, source: BinaryIO, file: mf.PayloadFile, target: BinaryIO | None) -> None:
    digest = hashlib.sha256()
    left = file.sizeInBytes
    # One byte more is asked for: it shows a file that grows meanwhile, which is read no further.
    while block := _read(there, source, min(BLOCK, left + 1)):
        left -= len(block)
        if left < 0:
            raise PayloadSize(f"{there} has more than the {file.sizeInBytes:,} bytes that the manifest says")
        digest.update(block)
        if target is not None:
            target.write(block)
    if left:
        raise PayloadSize(f"{there} ends {left:,} bytes before the {file.sizeInBytes:,} that the manifest says")
    _same(there, digest.digest(), file)


def _same(there: Path, digest: bytes, file: mf.PayloadFile) -> None:
    if digest != file.sha256:
        raise PayloadHash(f"{there} has the SHA-256 {digest.hex()}, the manifest says {file.sha256.hex()}")


def _read(there: Path, source: BinaryIO, size: int) -> bytes:
    try:
        return source.read(size)
    except OSError as error:
        raise PayloadMissing(f"{there}: {error.strerror}") from error


def _opened(path: Path) -> BinaryIO:
    """Follows no link, and waits for no other end of a pipe. Raises PayloadMissing, PayloadKind."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise PayloadKind(f"{path} is a symbolic link") from error
        if error.errno == errno.ENXIO:
            raise PayloadKind(f"{path} is a socket, no file") from error
        raise PayloadMissing(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise PayloadKind(f"{path} is not a file")
    return os.fdopen(number, "rb")
