"""The package's bootloader passes through the contract kit: `pytest contract_loop.py`."""

from __future__ import annotations

from typing import Any

from proxyflash.testing import MemoryContract, Sizes, WireCut


class LoopCut(WireCut):
    """A frame at which the host's place in the ring is lost, or the part's supply."""

    CUTS_OFF = "unplug"

    def _join(self) -> None:
        self.wire.rejoin()
        self.bench.reopen("b")

    def _cut_supply(self, what: Any) -> None:
        # The part's answer is made within the host's request: another thread would come too late.
        self.device.supply.off()


WireCut.KINDS["loop"] = LoopCut


class TestLoop(MemoryContract):
    protocol = "loop-boot"
    bus = {"kind": "loop"}
    component = {"address": {"node": 3}, "profile": {"answer": 0.1}}
    sizes = Sizes(old=1000, new=2500, short=500)
