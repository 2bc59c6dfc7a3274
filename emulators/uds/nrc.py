"""What the pieces of the emulated ECU share: negative responses, and how a request's parameters are taken apart.

After ISO 14229-1:2020, annex A.1, 8.2.2 and annex H.
"""

from __future__ import annotations

from enum import IntEnum


class Nrc(IntEnum):
    """Negative response codes (annex A.1)."""

    SERVICE_NOT_SUPPORTED = 0x11
    SUB_FUNCTION_NOT_SUPPORTED = 0x12
    INCORRECT_LENGTH = 0x13
    CONDITIONS_NOT_CORRECT = 0x22
    REQUEST_SEQUENCE_ERROR = 0x24
    REQUEST_OUT_OF_RANGE = 0x31
    SECURITY_ACCESS_DENIED = 0x33
    INVALID_KEY = 0x35
    EXCEEDED_ATTEMPTS = 0x36
    TIME_DELAY_NOT_EXPIRED = 0x37
    UPLOAD_DOWNLOAD_NOT_ACCEPTED = 0x70
    TRANSFER_SUSPENDED = 0x71
    PROGRAMMING_FAILURE = 0x72
    WRONG_BLOCK_COUNTER = 0x73
    RESPONSE_PENDING = 0x78
    SUB_FUNCTION_NOT_IN_SESSION = 0x7E
    SERVICE_NOT_IN_SESSION = 0x7F


class RequestRefused(Exception):
    """A negative response."""

    def __init__(self, nrc: int) -> None:
        super().__init__(f"NRC 0x{nrc:02X}")
        self.nrc = nrc


def sub_function(data: bytes, supported: range | tuple[int, ...], length: int | None) -> tuple[int, bool]:
    """The sub-function, and whether the positive response is suppressed. `length`: of sub-function and parameters.

    The order of the checks is that of figure 6: a sub-function that is not supported counts before a wrong length.
    Raises RequestRefused.
    """
    if not data:
        raise RequestRefused(Nrc.INCORRECT_LENGTH)
    kind = data[0] & 0x7F
    if kind not in supported:
        raise RequestRefused(Nrc.SUB_FUNCTION_NOT_SUPPORTED)
    if length is not None and len(data) != length:
        raise RequestRefused(Nrc.INCORRECT_LENGTH)
    return kind, bool(data[0] & 0x80)


def location(data: bytes) -> tuple[int, int, bytes]:
    """Address and size behind an addressAndLengthFormatIdentifier (annex H), and what follows. Raises RequestRefused."""
    if not data:
        raise RequestRefused(Nrc.INCORRECT_LENGTH)
    sizes, addresses = data[0] >> 4, data[0] & 0x0F
    if not 1 <= sizes <= 4 or not 1 <= addresses <= 5:
        raise RequestRefused(Nrc.REQUEST_OUT_OF_RANGE)
    if len(data) < 1 + addresses + sizes:
        raise RequestRefused(Nrc.INCORRECT_LENGTH)
    start = int.from_bytes(data[1 : 1 + addresses], "big")
    size = int.from_bytes(data[1 + addresses : 1 + addresses + sizes], "big")
    return start, size, data[1 + addresses + sizes :]
