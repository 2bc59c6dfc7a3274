"""`Action`: what the handler of a step is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..handlers.handler import StepHandler
    from .results import ActionResult


class Action(StrEnum):
    """By the names that the script handler has for the actions."""

    DOWNLOAD = "download"
    IS_INSTALLED = "is-installed"
    BACKUP = "backup"
    INSTALL = "install"
    APPLY = "apply"
    RESTORE = "restore"
    CANCEL = "cancel"

    def method_of(self, handler: StepHandler) -> Callable[[], ActionResult]:
        """What carries it out."""
        match self:
            case Action.DOWNLOAD:
                return handler.download
            case Action.IS_INSTALLED:
                return handler.is_installed
            case Action.BACKUP:
                return handler.backup
            case Action.INSTALL:
                return handler.install
            case Action.APPLY:
                return handler.apply
            case Action.RESTORE:
                return handler.restore
            case Action.CANCEL:
                return handler.cancel


ANNOUNCED = frozenset({Action.BACKUP, Action.INSTALL, Action.APPLY, Action.RESTORE})
"""Whose start is on the disk before they begin."""
CHANGING = frozenset({Action.INSTALL, Action.APPLY, Action.RESTORE})
