"""The OS group of a part that speaks SMP (Zephyr, "Default/OS management group"), and what serial recovery has of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..mcuboot.loader import Mcuboot, Mode
from .server import Failed, Group, Handler, Os, Rc, argument

INVALID_FORMAT = 2
NO_ANSWER = 3
"""os_mgmt_err_code_t."""
LOADER_MODES = {Mode.SWAP: 1, Mode.OVERWRITE: 2, Mode.HIGHEST: 6}
"""enum mcuboot_mode (MCUboot, bootutil/boot_status.h): swap using scratch, upgrade only, RAM load."""
RETENTION = 1
"""The boot mode that asks for the bootloader (BOOT_MODE_TYPE_BOOTLOADER)."""


class SmpOs:
    """`facts`: what the application says of itself, by the letters of uname in the order of the answer.

    `reset`: called with whether the reset is to end in serial recovery.
    """

    def __init__(
        self,
        loader: Mcuboot,
        reset: Callable[[bool], None],
        facts: Mapping[str, str],
        *,
        buffer_size: int,
        buffers: int,
    ) -> None:
        self._loader = loader
        self._reset = reset
        self._facts = facts
        self._params = {"buf_size": buffer_size, "buf_count": buffers}

    def handlers(self, *, params: bool, info: bool) -> Mapping[tuple[int, int, bool], Handler]:
        """`params`, `info`: the application has these commands."""
        os = Group.OS
        return {
            (os, Os.ECHO, False): _echo,
            (os, Os.ECHO, True): _echo,
            (os, Os.RESET, True): self._ask_reset,
            **({(os, Os.PARAMS, False): lambda arguments: self._params} if params else {}),
            **({(os, Os.INFO, False): self._info, (os, Os.BOOTLOADER_INFO, False): self._loader_info} if info else {}),
        }

    def recovery_handlers(self, *, full: bool) -> Mapping[tuple[int, int, bool], Handler]:
        """Recovery doesn't look at whether something is read or written."""
        handlers: dict[int, Handler] = {
            Os.CONSOLE_ECHO: lambda arguments: {"rc": 0},
            Os.RESET: lambda arguments: {"rc": 0, **self._ask_reset({})},
            **({Os.ECHO: _echo, Os.PARAMS: lambda arguments: self._params} if full else {}),
        }
        return {(Group.OS, command, write): handlers[command] for command in handlers for write in (False, True)}

    def _ask_reset(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        self._reset(argument(arguments, "boot_mode", int, 0) == RETENTION)
        return {}

    def _info(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        wanted: str = argument(arguments, "format", str, "") or "s"
        if "a" in wanted:
            wanted = "".join(self._facts)
        if not set(wanted) <= set(self._facts):
            raise Failed(Group.OS, INVALID_FORMAT, Rc.EINVAL)
        return {"output": " ".join(text for letter, text in self._facts.items() if letter in wanted)}

    def _loader_info(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        query: str = argument(arguments, "query", str, "")
        if not query:
            return {"bootloader": "MCUboot"}
        if query != "mode":
            raise Failed(Group.OS, NO_ANSWER, Rc.ENOTSUP)
        return {
            "mode": LOADER_MODES[self._loader.mode],
            **({"no-downgrade": True} if self._loader.no_downgrade else {}),
        }


def _echo(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"r": argument(arguments, "d", str, "")}
