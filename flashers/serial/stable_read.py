"""Questions whose answers carry no checksum on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ..errors import ProtocolError

T = TypeVar("T")


def read_stable(ask: Callable[[], T]) -> T:
    """What `ask` says twice in a row. Raises ProtocolError when it never does."""
    before = ask()
    for _ in range(3):
        after = ask()
        if after == before:
            return after
        before = after
    raise ProtocolError("the loader says something else each time that it is asked who it is")
