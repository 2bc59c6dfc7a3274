"""The supply of an emulated part: on, off, or cut at a chosen flash operation."""

from __future__ import annotations

from collections.abc import Callable


class PowerLost(Exception):
    """The part's supply is gone: its firmware stops here."""


class Supply:
    """On from the start. Listeners are called at every change, on the thread that makes it."""

    def __init__(self) -> None:
        self.is_on = True
        self.operations = 0
        self._cut_at: int | None = None
        self._listeners: list[Callable[[bool], None]] = []

    def listen(self, listener: Callable[[bool], None]) -> None:
        self._listeners.append(listener)

    def cut_at(self, operation: int | None) -> None:
        """Cuts during the flash operation with this number, counted from 1 since now; None takes that back."""
        self._cut_at = None if operation is None else self.operations + operation

    def operation(self) -> bool:
        """Counts a flash operation; True when the cut falls into it."""
        self.operations += 1
        if self._cut_at is not None and self.operations >= self._cut_at:
            self._cut_at = None
            return True
        return False

    def off(self) -> None:
        if self.is_on:
            self.is_on = False
            for listener in self._listeners:
                listener(False)

    def on(self) -> None:
        if not self.is_on:
            self.is_on = True
            for listener in self._listeners:
                listener(True)
