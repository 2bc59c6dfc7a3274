"""Restarts that steps ask for: of the host, or of the agent's service. The journal is on the disk before either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...enumerators.commands import CommandFailed, HostCommands
from ...transports.outside import without_passwords
from ..errors import RestartPending

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Which boot of the host this is: another one after each (proc_sys_kernel(5))."""
    return BOOT_ID.read_text(encoding="ascii").strip()


def asked_for(host: bool, command: str, commands: HostCommands) -> RestartPending:
    """Runs the policy's command, if it has one. What is left to be said to a person."""
    what = "the host" if host else "the service that runs updates"
    cause = f"the update goes on after {what} has been restarted"
    if not command:
        return RestartPending(cause, remedy="Restart it, then go on: proxyflash resume")
    try:
        commands.run(command)
    except CommandFailed as error:
        return RestartPending(f"{cause}, and the bench file's command for that failed: {error}")
    return RestartPending(
        cause, remedy=f"It is being restarted by: {without_passwords(command)}. Then go on: proxyflash resume"
    )


def for_the_restored(host: bool, command: str, commands: HostCommands) -> str:
    """The same at the end of an update, after which nothing is left to be gone on with; what is left to be said."""
    what = "the host" if host else "the service that runs updates"
    told = f"what was brought back counts once {what} has been restarted"
    if not command:
        return told
    try:
        commands.run(command)
    except CommandFailed as error:
        return f"{told}, and the bench file's command for that failed: {error}"
    return f"{told}; it is being restarted by: {without_passwords(command)}"


def check_restarted(asked: Mapping[str, Any] | None) -> None:
    """Raises RestartPending while the host is still the one that was to be restarted.

    That the service was, is known by this being another process.
    """
    if asked is not None and asked["host"] and asked["boot"] == boot_id():
        raise RestartPending(
            "the update goes on after the host has been restarted, and it has not been",
            remedy="Restart it, then go on: proxyflash resume",
        )
