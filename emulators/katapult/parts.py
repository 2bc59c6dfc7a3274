"""The boards of parts.toml, and their flash."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from .. import application
from ..application import Application
from ..flash import NorFlash


@cache
def parts() -> dict[str, dict[str, Any]]:
    return tomllib.loads((files(__package__) / "parts.toml").read_text(encoding="utf-8"))


def started(flash: NorFlash, start: int) -> Application | None:
    """The application that Katapult has started; None: the processor runs into what is not there."""
    found = application.find(flash, start)
    if found is None or found.size:
        return found
    reset = int.from_bytes(flash.read(start + 4, 4), "little") - 1
    return None if flash.read(reset, 2) == b"\xff\xff" else found
