"""Components reached by datagrams: asked at the host and port that the bench file gives, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from ..benchfile.schema import BenchEntry
from . import Prober


class UdpProber(Prober):
    """One socket, with one component at its other end. A running application answers its protocol."""

    def unasked(self, entries: Sequence[BenchEntry]) -> str:
        return "" if entries else "nothing was asked: a [[component]] says by which protocol"
