"""How an application on CAN is asked for its version, and by which frame it starts its bootloader."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

from ...transports.deadline import Deadline
from ..flasher import Address
from ..settings import After, Before, Field, Settings

if TYPE_CHECKING:
    from ...transports.can.bus import CanBus, CanChannel, CanId

ASK_AGAIN_SECONDS = 0.1
"""After which an application that has not answered is asked again: it may have been starting."""
ANSWER_GAP = 0.05
FRAME = 8
MOST_HEARD = 256
"""Bytes of an answer, at most."""
ArbitrationId = Annotated[int, Field(ge=0, le=0x1FFF_FFFF)]


def _from_hex(value: object) -> object:
    if isinstance(value, bytes):
        return value
    try:
        data = bytes.fromhex(value if isinstance(value, str) else "-")
    except ValueError:
        data = bytes(9)
    if len(data) > 8:
        raise ValueError("it takes up to 8 hexadecimal bytes in quotes, two digits each, such as '01 02'")
    return data


def _has_group(text: str) -> str:
    try:
        found = re.compile(text.encode())
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression: {error}") from error
    if found.groups < 1:
        raise ValueError("the pattern needs one group, around the version")
    return text


FrameBytes = Annotated[bytes, Before(_from_hex)]
"""Up to 8 bytes of a frame, in hexadecimal."""


def can_id(number: int) -> CanId:
    """With 29 bits where it takes more than 11."""
    from ...transports.can.bus import CanId

    return CanId(number, number > 0x7FF)


class QuestionAddress(Address):
    """Base of an address whose application may be asked for its version."""

    version_request: ArbitrationId | None = None
    """Arbitration id under which the application takes the question for its version (`version` of the profile)."""
    version_response: ArbitrationId | None = None
    """Arbitration id of the answer to that question."""

    def check_together(self) -> None:
        if (self.version_request is None) != (self.version_response is None):
            raise ValueError("version_request and version_response go together")

    @property
    def question(self) -> tuple[CanId, CanId] | None:
        if self.version_request is None or self.version_response is None:
            return None
        return can_id(self.version_request), can_id(self.version_response)


class CanVersion(Settings):
    """How the application on CAN is asked for its version, at the address's `version_request` and `version_response`."""

    send: FrameBytes = b""
    """Bytes of the question's frame, in hexadecimal. "": a frame without data."""
    match: Annotated[str, Field(max_length=1000), After(_has_group)] = "([0-9][0-9A-Za-z.+-]*)"
    """A regular expression (Python's `re`, on bytes) with a group around the version, over the answer's frames. The answer
    ends with a frame of fewer than 8 bytes, or a silence of 50 ms."""


class CanEnter(Settings):
    """The frame by which the application starts its bootloader."""

    id: ArbitrationId | None = None
    """Arbitration id of the frame. Default: no frame is sent, and a person brings the part into its bootloader."""
    data: FrameBytes = b""
    """Bytes of the frame, in hexadecimal."""


def ask_version(bus: CanBus, address: QuestionAddress, version: CanVersion, deadline: Deadline) -> str | None:
    """What the application answers; None: nothing that fits, or it isn't asked. Raises TransportError."""
    if address.question is None:
        return None
    channel = bus.channel(*address.question, fd=False)
    heard = b""
    try:
        while not heard and not deadline.expired:
            channel.send(version.send, deadline)
            heard = _heard(channel, deadline)
    finally:
        channel.close()
    found = re.search(version.match.encode(), heard)
    return found[1].decode("ascii", "replace") if found else None


def _heard(channel: CanChannel, deadline: Deadline) -> bytes:
    """The frames of one answer; b"": none came, and it is time to ask again."""
    heard, until = b"", deadline.sooner(ASK_AGAIN_SECONDS)
    while (frame := channel.recv(until)) is not None:
        heard += frame.data
        if len(frame.data) < FRAME or len(heard) > MOST_HEARD:
            break
        until = deadline.sooner(ANSWER_GAP)
    return heard
