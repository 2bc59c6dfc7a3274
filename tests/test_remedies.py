"""Each error says what to do, wherever it is raised."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import proxyflash
import pytest
from proxyflash.transports.errors import ProxyflashError

WITHOUT = {
    "E-CANCELLED",  # What goes on is said where it is raised; of what was not begun there is nothing to do.
    "E-RESTART",  # How the restart is done is the bench file's.
}


def classes(base: type[ProxyflashError] = ProxyflashError) -> Iterator[type[ProxyflashError]]:
    for found in base.__subclasses__():
        yield found
        yield from classes(found)


def test_each_error_that_is_raised_has_a_remedy() -> None:
    for package in ("transports", "flashers", "enumerators", "updates", "tools", "tools.commands"):
        path = importlib.import_module(f"proxyflash.{package}").__path__
        for module in pkgutil.iter_modules(path):
            if module.name != "__main__":
                importlib.import_module(f"proxyflash.{package}.{module.name}")
    assert proxyflash.__path__
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
