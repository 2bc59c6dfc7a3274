"""Components on CAN: asked at their ids, in their protocol's words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ...transports.can.host import interfaces
from ...transports.toml_text import toml_text
from ..benchfile.schema import BenchEntry, BusSpec
from ..component import Unlisted
from . import Prober

PROBE = "# probe = true  # lets scan ask whoever is on this bus, by a functional TesterPresent"


class CanProber(Prober):
    """Parts that the file doesn't name are looked for where the bus's `probe` allows it."""

    @classmethod
    def attached(cls) -> list[Unlisted]:
        return [_bus(link.name) for link in interfaces()]

    def unasked(self, entries: Sequence[BenchEntry]) -> str:
        if self.spec.probe:
            return ""
        return (
            f"{'no other part' if entries else 'nothing'} was asked: probe = true lets scan ask whoever is on this bus"
        )

    @classmethod
    def onward(cls, spec: BusSpec, entries: Sequence[BenchEntry]) -> Mapping[str, str]:
        return {} if entries or spec.probe else {"probe": "true"}


def _bus(interface: str) -> Unlisted:
    body = f'kind = "can"\ninterface = "socketcan"\nchannel = {toml_text(interface)}\n{PROBE}'
    name = re.sub(r"[^A-Za-z0-9-]", "-", interface).strip("-") or "can"
    return Unlisted("", f"CAN interface {interface}", name, body)
