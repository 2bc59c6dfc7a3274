"""What is recorded of a ring."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from proxyflash.transports.recording.records import Fields, Record


@dataclass(frozen=True, slots=True)
class LoopFrame(Record):
    """One frame to a node, or from it."""

    kind: ClassVar[str] = "loop"
    text_file: ClassVar[str] = "loop.txt"
    outgoing: bool
    node: int
    data: bytes

    def fields(self) -> dict[str, Any]:
        return {"out": self.outgoing, "node": self.node, "data": self.data.hex()}

    @classmethod
    def parse(cls, time: float, bus: str, fields: Fields) -> Self:
        return cls(time, bus, fields.take("out", bool), fields.number("node", 0, 255), fields.data("data", 255))

    def shown(self) -> str:
        return f"{'->' if self.outgoing else '<-'} {self.node:3} {self.data.hex(' ')}"
