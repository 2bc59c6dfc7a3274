"""Commands of the bench file: what an error says of them holds none of their secrets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from proxyflash.enumerators import commands, power
from proxyflash.enumerators.commands import CommandFailed, HostCommands
from proxyflash.enumerators.errors import PowerFailed
from proxyflash.transports import clock
from proxyflash.transports.errors import ClockError
from proxyflash.transports.outside import Outside
from proxyflash.transports.simulated_clock import SimulatedClock
from proxyflash.updates.engine.restarting import Restarts
from proxyflash.updates.manifests.policy import Policy

pytestmark = pytest.mark.real_time("a shell command")
SECRETS = "http://admin:T0K@pdu/off?token=T0K 'Authorization: Bearer T0K'"
LEFT = "http://left-out@pdu/off?token=left-out 'Authorization: left-out'"


def run(command: str, folder: Path) -> None:
    HostCommands(folder, Outside(lambda: None)).run(command)


def ended(folder: Path) -> None:
    run(f"false {SECRETS}", folder)


def said(folder: Path) -> None:
    """As curl -v does, with much of a secret in what is too long to be repeated."""
    run(f"true {SECRETS} ; printf '> Authorization: Bearer %s' $(printf 'T0K%0600d' 0); exit 1", folder)


def nowhere(folder: Path) -> None:
    run(f"true {SECRETS}", folder / "none")


def too_long(folder: Path) -> None:
    run(f"sleep 60; {SECRETS}", folder)


def no_voltage(folder: Path) -> None:
    power.volts(f"echo {SECRETS}", commands=HostCommands(folder, Outside(lambda: None)), component="x")


def simulated(folder: Path) -> None:
    with clock.use(SimulatedClock()):
        run(f"true {SECRETS}", folder)


@pytest.mark.parametrize("failing", [ended, said, nowhere, too_long, no_voltage, simulated], ids=lambda it: it.__name__)
def test_an_error_leaves_secrets_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(commands, "SECONDS", 0.2)
    with pytest.raises((CommandFailed, PowerFailed, ClockError)) as caught:
        failing(tmp_path)
    assert "T0K" not in str(caught.value)
    assert LEFT in str(caught.value)


def test_a_restart_leaves_secrets_out(tmp_path: Path) -> None:
    asked = Restarts(Policy(reboot=f"true {SECRETS}"), HostCommands(tmp_path, Outside(lambda: None))).ask(host=True)
    assert LEFT in asked.remedy


def test_a_long_command_leaves_room_for_what_came_of_it(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="ended with 3") as caught:
        run(f"exit 3 # {'x' * 10_000}", tmp_path)
    assert len(str(caught.value)) < 500
