"""Components reached by datagrams: asked at the host and port that the bench file gives, and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

from ..benchfile.schema import BenchEntry
from . import Prober


class UdpProber(Prober):
    """One socket, with one component at its other end. Its protocol is one that a running application answers."""

    def unasked(self, entries: Sequence[BenchEntry]) -> str:
        return "" if entries else "nothing was asked: a [[component]] says by which protocol"
