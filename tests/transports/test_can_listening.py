"""What a listener does on the wire: the modes of python-can's adapters, and the kernel's interfaces as they were brought up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import can
import pytest
from proxyflash.transports.can.bus import CanBus
from proxyflash.transports.transport import Listening

LINKS: dict[str, Any] = {
    "can": {"info_kind": "can", "info_data": {"state": "ERROR-ACTIVE", "restart_ms": 0}},
    "listening": {"info_kind": "can", "info_data": {"ctrlmode": ["LISTEN-ONLY", "FD"], "state": "ERROR-ACTIVE"}},
    "slcan": {"info_kind": "slcan"},
    "vcan": {"info_kind": "vcan"},
    "wrong": {"info_kind": "can", "info_data": 7},
}
"""What `ip` of iproute2 prints of interfaces (ip/iplink.c, ip/iplink_can.c)."""
ACKNOWLEDGES = "the interface acknowledges the frames of others, as before"


@pytest.mark.parametrize(
    ("kind", "silent", "effect"),
    [
        ("can", False, ACKNOWLEDGES),
        ("slcan", False, ACKNOWLEDGES),
        ("listening", True, "the interface acknowledges nothing (listen-only)"),
        ("vcan", True, ""),
        ("wrong", False, "the interface stays as it was brought up"),
        ("none", False, "the interface stays as it was brought up"),
    ],
)
def test_an_interface_of_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, silent: bool, effect: str
) -> None:
    text = json.dumps([{"ifname": "can0", "link_type": "can", "linkinfo": LINKS.get(kind)}])
    (tmp_path / "ip").write_text(f"#!/bin/sh\necho '{text}'\n")
    (tmp_path / "ip").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    settings = {"interface": "socketcan", "channel": "can0"}
    assert CanBus.listening(settings) == Listening(settings, True, silent, effect)


@pytest.mark.parametrize(
    ("interface", "more"),
    [
        ("cantact", {"monitor": True}),
        ("kvaser", {"driver_mode": False}),
        ("nixnet", {"listen_only": True}),
        ("pcan", {"state": can.BusState.PASSIVE}),
        ("seeedstudio", {"operation_mode": "silent"}),
        ("slcan", {"listen_only": True}),
        ("systec", {"state": can.BusState.PASSIVE}),
        ("vector", {"listen_only": True}),
        ("robotell", None),
    ],
)
def test_an_adapter_listens_only_where_python_can_has_that(interface: str, more: dict[str, Any] | None) -> None:
    settings = {"interface": interface, "channel": "/dev/none"}
    heard = CanBus.listening(settings)
    assert (heard.settings, heard.shared, heard.silent) == ({**settings, **(more or {})}, False, more is not None)
