"""What becomes of a bench test that can't run, and what the report of a test says of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import pytest

from ..transports.errors import ProxyflashError, causes
from ..transports.plain import CAUSE, plain


class Missing:
    """`required`: kinds of things. A test without one of these fails; a test without another thing is skipped."""

    def __init__(self, required: frozenset[str]) -> None:
        self._required = required

    def report(self, kind: str, reason: str, *, absent: str = "") -> NoReturn:
        """`absent`: the component whose part is not there."""
        if kind in self._required:
            fail(f"{reason} (--require {kind})")
        skipped = pytest.skip.Exception(plain(reason, CAUSE))
        skipped.proxyflash_kind = kind  # type: ignore[attr-defined]
        skipped.proxyflash_absent = absent  # type: ignore[attr-defined]
        raise skipped from None


def component_of(item: pytest.Item) -> str | None:
    """The component that a test was made for; "" if it is for one and none fits, None if it is for none."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return (parameters["_proxyflash_component"] or "") if "_proxyflash_component" in parameters else None


def tell(item: pytest.Item, told: Mapping[str, str]) -> None:
    """What the JUnit file says of a test, each thing once. What a part says is shown in it, not obeyed."""
    shown = [(plain(key), plain(value)) for key, value in told.items() if value]
    item.user_properties += [pair for pair in shown if pair not in item.user_properties]


def fail(reason: str) -> NoReturn:
    """What is wrong is said in `reason`; what led there would only hide it."""
    raise pytest.fail.Exception(plain(reason, CAUSE), pytrace=False) from None


def told(error: BaseException) -> str:
    """An error as text, with its code if it has one."""
    return f"{error.code} {error}" if isinstance(error, ProxyflashError) else str(error)


@contextmanager
def showing_codes(error: BaseException | None) -> Iterator[None]:
    """In the block the error's text, and that of the errors behind it, begins with its code."""
    found = [one for one in causes(error, contexts=True) if isinstance(one, ProxyflashError)]
    for one in found:
        one.shows_code = True
    try:
        yield
    finally:
        for one in found:
            one.shows_code = False
