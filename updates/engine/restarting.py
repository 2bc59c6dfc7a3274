"""Restarts that steps ask for: of the host, or of the agent's service. The journal is on the disk before either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...enumerators.commands import CommandFailed, HostCommands
from ...transports.errors import NextAction
from ...transports.outside import without_passwords
from ..errors import RestartPending
from ..manifests.policy import Policy

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Which boot of the host this is: another one after each (proc_sys_kernel(5))."""
    return BOOT_ID.read_text(encoding="ascii").strip()


class Restarts:
    """Restarts by the policy's commands, which `commands` runs. Where the policy has none, a person restarts."""

    def __init__(self, policy: Policy, commands: HostCommands) -> None:
        self._policy = policy
        self._commands = commands

    def ask(self, *, host: bool) -> RestartPending:
        """Has the host or the service restarted, after which the update goes on. What is left to be said to a person."""
        cause = f"the update goes on after {_what(host)} has been restarted"
        try:
            command = self._begun(host)
        except CommandFailed as error:
            return RestartPending(f"{cause}, and the bench file's command for that failed: {error}")
        said = f"It is being restarted by: {command}. Then go on: " if command else "Restart it, then go on: "
        return RestartPending(cause, remedy=(said, NextAction.RESUME))

    def ask_for_the_restored(self, *, host: bool) -> str:
        """The same at the end of an update, after which nothing is left to go on with. What is left to be said."""
        told = f"what was brought back counts once {_what(host)} has been restarted"
        try:
            command = self._begun(host)
        except CommandFailed as error:
            return f"{told}, and the bench file's command for that failed: {error}"
        return f"{told}; it is being restarted by: {command}" if command else told

    def _begun(self, host: bool) -> str:
        """Runs the policy's command. It, without its secrets; "": there is none. Raises CommandFailed."""
        command = self._policy.reboot if host else self._policy.restart
        if command:
            self._commands.run(command)
        return without_passwords(command)


def _what(host: bool) -> str:
    return "the host" if host else "the service that runs updates"


def check_restarted(asked: Mapping[str, Any] | None) -> None:
    """Raises RestartPending while the host has not restarted yet.

    That the service was, is known by this being another process.
    """
    if asked is not None and asked["host"] and asked["boot"] == boot_id():
        raise RestartPending(
            "the update goes on after the host has been restarted, and it has not been",
            remedy=("Restart it, then go on: ", NextAction.RESUME),
        )
