"""A node's LSS slave (CiA 305), without the bit rate."""

from __future__ import annotations

from collections.abc import Sequence

UNCONFIGURED = 0xFF


class LssSlave:
    """`numbers`: the LSS address. `node`: the node id that counts from the next reset of the communication on."""

    def __init__(self, numbers: Sequence[int], node: int) -> None:
        self._numbers = tuple(numbers)
        self.node = node
        self._is_configured = False
        """In the state configuration."""
        self._matched = 0
        self._position = 0

    def answer(self, data: bytes, active: int) -> bytes:
        """The answer to a master's frame; b"": none. `active`: the node id that it has now."""
        if len(data) != 8:
            return b""
        command, word = data[0], int.from_bytes(data[1:5], "little")
        if command == 0x04:
            self._is_configured = bool(data[1])
            self._matched = self._position = 0
        elif 0x40 <= command <= 0x43:
            number = command - 0x40
            is_next = number == self._matched and self._numbers[number] == word
            self._matched = number + 1 if is_next else int(number == 0 and self._numbers[0] == word)
            if self._matched == 4:
                self._matched, self._is_configured = 0, True
                return b"\x44" + bytes(7)
        elif command == 0x51 and active == UNCONFIGURED and not self._is_configured:
            return self._scanned(word, *data[5:8])
        elif self._is_configured and command == 0x11:
            if not (1 <= data[1] <= 127 or data[1] == UNCONFIGURED):
                return b"\x11\x01" + bytes(6)
            self.node = data[1]
            return b"\x11" + bytes(7)
        elif self._is_configured and 0x5A <= command <= 0x5D:
            return bytes((command,)) + self._numbers[command - 0x5A].to_bytes(4, "little") + bytes(3)
        elif self._is_configured and command == 0x5E:
            return bytes((command, active)) + bytes(6)
        return b""

    def _scanned(self, word: int, bit: int, sub: int, following: int) -> bytes:
        if bit == 0x80:
            self._position = 0
        elif bit < 32 and sub == self._position and sub < 4 and self._numbers[sub] >> bit == word >> bit:
            if bit == 0:
                self._position = following
                self._is_configured = following < sub
        else:
            return b""
        return b"\x4f" + bytes(7)
