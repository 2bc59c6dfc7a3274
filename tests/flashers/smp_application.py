"""An application with SMP and two slots, which MCUboot swaps at a reset, for tests of what carries its packets.

After Zephyr's groups 0 and 1; CBOR by cbor2.
"""

from __future__ import annotations

import struct
from typing import Any

import cbor2
from proxyflash.tests.flashers.test_mcuboot import made

OLD, NEW = made(version=(1, 0, 0, 0)), made(version=(1, 1, 0, 0))


def digest(image: bytes) -> bytes:
    """The last 32 bytes of the images of `made`: the one TLV that they end with."""
    return image[-32:]


class Application:
    """`resets`: how often it was asked to."""

    def __init__(self) -> None:
        self.running, self.other = OLD, b""
        self.confirmed, self.pending = True, False
        self.got = bytearray()
        self.uploads = self.resets = 0

    def answer(self, packet: bytes) -> bytes:
        """The reply to a request."""
        first, _, length, group, sequence, command = struct.unpack(">BBHHBB", packet[:8])
        assert length == len(packet) - 8
        body = cbor2.dumps(self._answer(first & 7, group, command, cbor2.loads(packet[8:])))
        return struct.pack(">BBHHBB", first + 1, 0, len(body), group, sequence, command) + body

    def _answer(self, op: int, group: int, command: int, asked: dict[str, Any]) -> dict[str, Any]:
        match (group, command, op):
            case (0, 0, 2):
                return {"r": asked["d"]}
            case (0, 6, 0):
                return {"buf_size": 2048, "buf_count": 4}
            case (0, 7, 0):
                return {"output": {"i": "weather_board/nrf9160", "n": "roof"}[asked["format"]]}
            case (0, 5, 2):
                self.resets += 1
                self.restart()
                return {}
            case (1, 0, 0):
                return self._state()
            case (1, 0, 2):
                if asked.get("hash") == digest(self.running):
                    self.confirmed = asked["confirm"]
                else:
                    assert asked["hash"] == digest(self.other)
                    self.pending = True
                return self._state()
            case (1, 1, 2):
                return self._upload(asked)
        return {"rc": 8}

    def restart(self) -> None:
        """What it got so far of an upload is in the slot, and forgotten."""
        self.got.clear()
        if self.pending or not self.confirmed:
            self.running, self.other = self.other, self.running
            self.confirmed, self.pending = not self.pending, False

    def _state(self) -> dict[str, Any]:
        slots = [
            {
                "slot": 0,
                "version": f"{self.running[20]}.{self.running[21]}.0",
                "hash": digest(self.running),
                "confirmed": self.confirmed,
                "active": True,
            }
        ]
        if self.other:
            version = f"{self.other[20]}.{self.other[21]}.0"
            slots.append({"slot": 1, "version": version, "hash": digest(self.other), "pending": self.pending})
        return {"images": slots}

    def _upload(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.uploads += 1
        if asked["off"] == 0:
            self.got.clear()
        if asked["off"] == len(self.got):
            self.got += asked["data"]
        self.other = bytes(self.got)
        return {"off": len(self.got)}
