"""A wire to a part that answers at once, without a line: what its tests' parts have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from proxyflash.transports.deadline import Deadline


class InstantWire(ABC):
    """`replies`: what `send` had the part say, and nobody has taken yet."""

    name = "part"
    rate = "115,200 bit/s"
    overhead = 0
    largest = 0xFFFF

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    @abstractmethod
    def send(self, packet: bytes, deadline: Deadline) -> None: ...

    def receive(self, deadline: Deadline) -> bytes | None:
        return self.replies.pop(0) if self.replies else None

    def drain(self) -> None:
        self.replies.clear()

    def await_silence(self, seconds: float, deadline: Deadline) -> None:
        self.drain()

    @property
    def log(self) -> bytes:
        return b""

    def follow(self, until: Deadline | None) -> None:  # noqa: B027 - its port never leaves
        pass

    def speak_to(self, *, recovery: bool) -> None:  # noqa: B027 - it has one rate
        pass

    def turn(self) -> bool:
        return False

    def seconds(self, size: int) -> float:
        return 0.0
