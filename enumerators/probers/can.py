"""Components on CAN: asked at their ids, in their protocol's words."""

from __future__ import annotations

from . import Prober


class CanProber(Prober):
    """Parts that the file doesn't name are looked for where the bus's `probe` allows it."""
