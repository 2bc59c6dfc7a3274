"""What finds parts that the bench file does not mention: by entry points, those of other packages among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from proxyflash.enumerators import probers
from proxyflash.enumerators.benchfile.schema import BusSpec
from proxyflash.flashers.flasher import Discovered, Discovery
from proxyflash.flashers.settings import Settings
from proxyflash.transports import plugins
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import PluginBroken


class AcmeDiscovery(Discovery):
    protocol = "acme"

    @classmethod
    def discover(
        cls, bus: Any, listed: Sequence[Settings], *, active: bool, deadline: Deadline
    ) -> Sequence[Discovered]:
        return [Discovered(f"at {bus}, asked {active}", "acme-1", 'node = 5, name = "a"')]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    loaded: list[str] = []

    def load(group: str, name: str) -> type[Any]:
        assert group == plugins.DISCOVERIES
        loaded.append(name)
        if name == "lin.broken":
            raise PluginBroken("no licence found")
        return AcmeDiscovery

    monkeypatch.setattr(plugins, "names", lambda group: ["can.uds", "lin.acme", "lin.broken"])
    monkeypatch.setattr(plugins, "load", load)
    return loaded


@pytest.mark.parametrize("probe", [False, True])
def test_a_kind_of_bus_asks_its_own_and_a_broken_one_spoils_nothing(installed: list[str], probe: bool) -> None:
    spec = BusSpec(kind="lin", probe=probe)
    (found,) = probers.Prober("b1", spec, "a LIN bus").unlisted([], Deadline.after(1))
    assert installed == ["lin.acme", "lin.broken"]
    assert found.title == f"acme at a LIN bus, asked {probe}"
    assert found.lines == (
        '[[component]]\nname = "acme-1"\nbus = "b1"\nprotocol = "acme"\naddress = {node = 5, name = "a"}'
    )
