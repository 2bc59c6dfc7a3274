"""Each error says what to do, wherever it is raised."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from proxyflash.transports.errors import ProxyflashError

ROOT = Path(__file__).parent.parent

WITHOUT = {
    "E-CANCELLED",  # What goes on is said where it is raised; of what was not begun there is nothing to do.
    "E-RESTART",  # How the restart is done is the bench file's.
}


def classes(base: type[ProxyflashError] = ProxyflashError) -> Iterator[type[ProxyflashError]]:
    for found in base.__subclasses__():
        yield found
        yield from classes(found)


def test_each_error_that_is_raised_has_a_remedy() -> None:
    for package in ("transports", "flashers", "enumerators", "updates", "tools"):
        for path in (ROOT / package).rglob("*.py"):
            if not path.stem.startswith("__"):
                importlib.import_module("proxyflash." + ".".join(path.relative_to(ROOT).with_suffix("").parts))
    lacking = {
        found.code
        for found in classes()
        # A class whose code its subclasses share is caught, and raised nowhere.
        if found.__module__.startswith("proxyflash.") and "code" in vars(found) and not found.__subclasses__()
        if not found.default_remedy
    }
    assert lacking <= WITHOUT, lacking - WITHOUT
    assert len(list(classes())) > 80


@pytest.mark.parametrize("code", sorted(WITHOUT))
def test_what_has_none_is_there(code: str) -> None:
    assert code in {found.code for found in classes()}
