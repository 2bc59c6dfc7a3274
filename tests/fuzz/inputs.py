"""Inputs that found a fault once, in `corpus/<target>/`: replayed by the tests, and where a fuzzer starts from."""

from __future__ import annotations

import hashlib
from pathlib import Path

from proxyflash.tests.fuzz import recordings, targets

FOLDER = Path(__file__).parent / "corpus"


def all_targets() -> dict[str, targets.Target]:
    return targets.TARGETS | {"recording": recordings.recording}


def all_seeds() -> dict[str, list[bytes]]:
    return targets.seeds() | {"recording": recordings.SEEDS}


def found(target: str) -> list[Path]:
    """The files of one target."""
    return sorted(path for path in (FOLDER / target).glob("*") if path.is_file())


def keep(target: str, data: bytes) -> Path:
    """Puts an input there, named by its SHA-256."""
    path = FOLDER / target / hashlib.sha256(data).hexdigest()[:16]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
