"""The parts of parts.toml, and their flash."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


def unique_of(name: str) -> bytes:
    """A part's own id stays the same."""
    return hashlib.sha256(name.encode()).digest()[:16]
