"""Components on a ring: asked at their nodes."""

from __future__ import annotations

from proxyflash.enumerators.component import Unlisted
from proxyflash.enumerators.probers import Prober
from proxyflash.transports.toml_text import toml_text

from .transport import sockets


class LoopProber(Prober):
    """Parts that the file doesn't name are looked for where the bus's `probe` allows it."""

    @classmethod
    def attached(cls) -> list[Unlisted]:
        return [
            Unlisted("", f"ring {path.stem}", path.stem, f'kind = "loop"\nsocket = {toml_text(str(path))}')
            for path in sockets()
        ]
