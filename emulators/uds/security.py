"""SecurityAccess of an emulated ECU (ISO 14229-1:2020, 10.4 and annex I).

The attempts and the waiting time outlive sessions, resets and cuts: else each of them would be a way around.
"""

from __future__ import annotations

import random
import secrets

from ...transports import clock
from .nrc import Nrc, RequestRefused, sub_function

ATTEMPTS = 3
"""Wrong keys after which the ECU wants time to pass."""


class SecurityAccess:
    """One level: the key is the seed with the secret's bits turned. `level`: the odd sub-function; 0: none is needed.

    `delay`: seconds to wait after the last attempt; `delay_at_start`: after each start.
    """

    def __init__(self, level: int, secret: bytes, delay: float, delay_at_start: float = 0.0) -> None:
        self.level = level
        self._secret = secret
        self._delay = delay
        self._delay_at_start = delay_at_start
        self._attempts = 0
        self._closed_until = 0.0
        self.lock()

    def lock(self) -> None:
        """As a new session does."""
        self.unlocked = self.level == 0
        self._seed = b""

    def restarted(self) -> None:
        """A reset or a power loss begins the waiting time again, if it was running (annex I, figure I.1)."""
        now = clock.monotonic()
        delay = max(self._delay_at_start, self._delay if self._closed_until > now else 0.0)
        self._closed_until = now + delay

    def need(self) -> None:
        if not self.unlocked:
            raise RequestRefused(Nrc.SECURITY_ACCESS_DENIED)

    def serve(self, data: bytes) -> bytes | None:
        if self.level == 0:
            raise RequestRefused(Nrc.SERVICE_NOT_SUPPORTED)
        kind, quiet = sub_function(data, (self.level, self.level + 1), None)
        answer = self._request_seed() if kind == self.level else self._send_key(data[1:])
        return None if quiet else bytes([kind]) + answer

    def _request_seed(self) -> bytes:
        if self.unlocked:
            return bytes(len(self._secret))
        if clock.monotonic() < self._closed_until:
            raise RequestRefused(Nrc.TIME_DELAY_NOT_EXPIRED)
        if not self._seed:
            self._seed = _drawn(len(self._secret) - 1) + b"\x01"
        return self._seed

    def _send_key(self, given: bytes) -> bytes:
        if not self._seed:
            raise RequestRefused(Nrc.REQUEST_SEQUENCE_ERROR)
        if len(given) != len(self._secret):
            raise RequestRefused(Nrc.INCORRECT_LENGTH)
        key = bytes(a ^ b for a, b in zip(self._seed, self._secret, strict=True))
        self._seed = b""
        if given == key:
            self.unlocked = True
            self._attempts = 0
            return b""
        self._attempts += 1
        if self._attempts < ATTEMPTS:
            raise RequestRefused(Nrc.INVALID_KEY)
        self._attempts = 0
        self._closed_until = clock.monotonic() + self._delay
        raise RequestRefused(Nrc.EXCEEDED_ATTEMPTS)


def _drawn(size: int) -> bytes:
    """Unforeseeable; on simulated time the same in each run, as everything there."""
    if clock.current().is_simulated:
        return random.Random(clock.monotonic()).randbytes(size)
    return secrets.token_bytes(size)
