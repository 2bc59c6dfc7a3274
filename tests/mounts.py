"""Disks for one process and its children: file systems of the kernel's own, in a mount namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

CLONE_NEWNS = 0x0002_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18


def small_disk(place: Path, room: int) -> Callable[[], None]:
    """For `preexec_fn`: a disk at `place` that has this many bytes left."""

    def mount() -> None:
        _own_mounts()
        _mount("tmpfs", place, "tmpfs", 0, "size=4m,mode=0700")
        with (place / "filling").open("wb") as file:
            file.write(bytes((4 << 20) - room))

    return mount


def read_only(place: Path) -> Callable[[], None]:
    """For `preexec_fn`: what is at `place` can only be read."""

    def mount() -> None:
        _own_mounts()
        _mount(str(place), place, "", MS_BIND, "")
        _mount(str(place), place, "", MS_BIND | MS_REMOUNT | MS_RDONLY, "")

    return mount


def _may_mount() -> bool:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _own_mounts()
            status = 0
        finally:
            os._exit(status)
    return os.waitpid(child, 0)[1] == 0


def _own_mounts() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    _mount("none", Path("/"), "", MS_REC | MS_PRIVATE, "")


def _mount(source: str, target: Path, kind: str, flags: int, data: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = (source.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode())
    if libc.mount(*words):
        raise OSError(ctypes.get_errno(), "mount", str(target))


needs_mounts = pytest.mark.skipif(not _may_mount(), reason="CAP_SYS_ADMIN is missing: it mounts file systems")
