"""Talks in text with a loader that has a menu or a command line: greets it, sends it steps, hears what it says.

It is at its prompt when its prompt is the last that it said, and nothing follows for a moment.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ...transports.deadline import Deadline
from ...transports.errors import SerialTimeout
from ...transports.serial.port import SerialPort
from ..errors import ImageWrongPart, NoResponse, OperationFailed, PartRefused, PartWrongMode, ProtocolError
from .codec import ABORT
from .profile import Step, XymodemProfile, filled
from .sender import QUIET_SECONDS, TEXT_LIMIT, said

HEARD_OUT = 10
"""Times between two greetings for which a loader that talks is listened to before it is greeted again."""
BUSY_TRIES = 2
"""Greetings in vain, after which what the loader may be in the middle of is ended."""

ASKED = re.compile(rb"[\x06\x15\x18]|(?<![ -~])[CG]+(?![ -~])")
"""What a receiver sends, and a menu does not: ACK, NAK, CAN; C or G, but within a text."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the loader says of the file that it got, in its own words, and whether it is in place."""

    text: str
    success: bool
    rejected: bool = False
    """Because of the file: it would be so again."""

    def failure(self, after: str, *, in_short_blocks: bool = False) -> ImageWrongPart | OperationFailed:
        """The error that this verdict means, if it is not a success. `in_short_blocks`: a loader that counts on 1024 bytes in
        each block would take another file for this one."""
        if self.rejected:
            counts = (
                " Or does the loader count whole blocks? Set block_size = 1024 and whole_blocks = true in its profile."
            )
            return ImageWrongPart(
                f"the loader does not take the file: {self.text!r}",
                remedy=f"Is it the right file for this component?{counts * in_short_blocks}",
            )
        return OperationFailed(f"{after} the loader says: {self.text!r}")


class LoaderConsole:
    """One loader behind a serial port. `words`: what stands in texts and patterns for the image, once there is one."""

    def __init__(self, port: SerialPort, profile: XymodemProfile) -> None:
        self._port = port
        self._profile = profile
        self.words: dict[str, str] = {}
        self._prompt = re.compile(profile.prompt.encode())

    def greet(self) -> bytes:
        """Brings the loader to its prompt; what it said on the way.

        Raises NoResponse when nothing comes within `timings.connect`, PartWrongMode when no prompt does, SerialGone.
        """
        deadline, knock = Deadline.after(self._profile.timings.connect), self._profile.timings.knock
        heard = b""
        tries = 0
        while True:
            if tries >= BUSY_TRIES and tries % 2 == 0:
                # It may be in a transfer that was cut, where all that it understands is its end.
                self._write(ABORT)
            heard += self.ask_for_prompt(deadline.sooner(knock))
            heard = self._heard_out(heard, deadline)
            if self.is_prompt(heard):
                if not tries:
                    return heard
                # The greetings before may be answered, too: what comes late would be taken for the answer to the next step.
                heard += self._port.until_quiet(2 * knock, Deadline.after(HEARD_OUT * knock))
                if self.is_prompt(heard):
                    return heard
            tries += 1
            if deadline.expired:
                break
        if not heard:
            raise NoResponse(
                f"no answer on {self._port.name} to the loader's greeting at {self._port.rate}",
                remedy="Is the part in its loader: its boot pin or button held while it was reset? Are its wires, its "
                "bit rate and its profile's entry right?",
            )
        raise PartWrongMode(
            f"the loader's prompt did not come within {self._profile.timings.connect:g} s{said(heard)}",
            remedy="Is the part in its loader, and does it show the profile's prompt?",
        )

    def _heard_out(self, heard: bytes, deadline: Deadline) -> bytes:
        """`heard`, and what a loader that is talking has yet to say.

        A loader that answers each byte by its whole menu never ends when it is sent more meanwhile.
        """
        deadline = deadline.sooner(HEARD_OUT * self._profile.timings.knock)
        while not self.is_prompt(heard) and (more := self._port.read_some(deadline.sooner(QUIET_SECONDS))):
            heard = (heard + more)[-TEXT_LIMIT:]
        return heard

    def ask_for_prompt(self, deadline: Deadline) -> bytes:
        """Sends one greeting; what comes until the prompt, or the deadline. Raises SerialTimeout, SerialGone."""
        self._write(self._profile.greet.encode())
        return self.listen(deadline, lambda text: False, verdicts=False)

    def is_prompt(self, heard: bytes) -> bool:
        """Whether the prompt is the last that was said."""
        return self._prompt.search(heard) is not None

    def was_receiving(self, heard: bytes) -> bool:
        """Whether it came to its prompt out of a transfer: it has answered blocks, asked for them, or says that one failed."""
        bad = self.verdict_in(heard)
        return ASKED.search(heard) is not None or (bad is not None and not bad.success)

    def do(self, step: Step, *, part_of: str) -> bytes:
        """Sends a step; what the loader said, up to what the step expects.

        Raises OperationFailed or ImageWrongPart where it says that it failed, PartRefused where it is at its prompt again or
        says something else until the time is over, SerialTimeout where it says nothing.
        """
        self._port.drain()
        self._write(filled(step.send, self.words).encode())
        if not step.expect:
            return b""
        expected = re.compile(filled(step.expect, self.words).encode())
        heard = self.listen(Deadline.after(step.seconds), lambda text: bool(expected.search(text)))
        if expected.search(heard):
            return heard
        bad = self.verdict_in(heard)
        if bad is not None and not bad.success:
            raise bad.failure(f"to {step.send!r}, {part_of},")
        if not heard:
            raise SerialTimeout(f"the loader does not answer {step.send!r}, {part_of}")
        raise PartRefused(f"the loader did not answer {step.send!r}, {part_of}, as the profile expects{said(heard)}")

    def listen(
        self, deadline: Deadline, enough: Callable[[bytes], bool], heard: bytes = b"", *, verdicts: bool = True
    ) -> bytes:
        """`heard`, and what the loader says until that is enough, it says that it failed, or it is at its prompt."""
        while not (enough(heard) or deadline.expired):
            bad = self.verdict_in(heard) if verdicts else None
            if bad is not None and not bad.success:
                break
            more = self._port.read_some(deadline.sooner(QUIET_SECONDS) if self.is_prompt(heard) else deadline)
            if not more:
                break
            heard = (heard + more)[-TEXT_LIMIT:]
        return heard

    def matched(self, step: Step, heard: bytes) -> str:
        """What of the answer fits the step's `expect`."""
        found = re.search(filled(step.expect, self.words).encode(), heard)
        return plain(found[0]) if found else ""

    def after(self, step: Step, heard: bytes) -> bytes:
        """What of the answer comes after what fits the step's `expect`."""
        found = re.search(filled(step.expect, self.words).encode(), heard)
        return heard[found.end() :] if found else heard

    def hear_verdict(self, heard: bytes) -> tuple[Verdict, bytes]:
        """What it says of the file, and all that it said. `heard`: what it has said already.

        Raises ProtocolError when it says nothing of it.
        """
        deadline = Deadline.after(self._profile.timings.verdict)
        heard = self.listen(deadline, lambda text: self.verdict_in(text) is not None, heard)
        found = self.verdict_in(heard)
        if found is None:
            raise ProtocolError(
                f"all of the file was sent, and the loader did not say what it makes of it{said(heard)}",
                remedy="Whether it is in place is not known. Are success and failure of the profile what it says?",
            )
        return found, heard

    def verdict_in(self, heard: bytes) -> Verdict | None:
        profile = self._profile
        for pattern, success, rejected in (
            (profile.rejection, False, True),
            (profile.failure, False, False),
            (profile.success, True, False),
        ):
            found = re.search(filled(pattern, self.words).encode(), heard) if pattern else None
            if found:
                return Verdict(plain(found[0]), success, rejected)
        return None

    def _write(self, data: bytes) -> None:
        seconds = self._profile.timings.knock + self._port.wire_seconds(len(data))
        self._port.write(data, Deadline.after(seconds))


def plain(text: bytes) -> str:
    """A text of the loader on one line, without rules and what can't be read; the end of a long one."""
    words = "".join(chr(byte) if 0x20 <= byte < 0x7F else " " for byte in text)
    return " ".join(re.sub(r"([-=*_#])\1{3,}", " ", words).split())[-160:]
