"""The ECU's own judgement of what it holds: its check routine, and its check of dependencies (ISO 14229-1:2020, 14.2).

The rule: the ECU judges. An ECU that finds fault with what it holds is told from one that finds fault with the question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..errors import Unsupported, VerifyMismatch
from ..image import Segment
from .codec import NegativeResponse, Nrc
from .connection import Connection
from .files import FilesOfProfile
from .parameters import encoded
from .session import routine_request

_VERDICTS = (
    Nrc.GENERAL_REJECT,
    Nrc.CONDITIONS_NOT_CORRECT,
    Nrc.FAILURE_PREVENTS_EXECUTION_OF_REQUESTED_ACTION,
    Nrc.GENERAL_PROGRAMMING_FAILURE,
)
"""Refusals by which a check routine finds fault with what the ECU holds; the others find it with the request."""
_WANTS_A_DOWNLOAD = (Nrc.CONDITIONS_NOT_CORRECT, Nrc.REQUEST_SEQUENCE_ERROR)
"""Refusals of a check routine that has nothing to check."""


class Judge:
    """`unjudged`: what was written and the ECU's routines have not checked yet."""

    def __init__(self, connection: Connection, files: FilesOfProfile) -> None:
        self._connection = connection
        self._profile = connection.profile
        self._files = files
        self.unjudged: list[Segment] = []

    def check(self, segments: Sequence[Segment]) -> None:
        """Calls the check routine for them, if there is one. Raises VerifyMismatch."""
        routine = self._profile.routines.check
        if isinstance(routine, int):
            for parameters in self._check_parameters(segments):
                self.call(routine, parameters)

    def check_dependencies(self) -> None:
        routine = self._profile.routines.dependencies
        if isinstance(routine, int):
            self.call(routine)

    def call(self, routine: int, parameters: bytes = b"") -> None:
        """Calls a routine that checks. Raises VerifyMismatch, Unsupported where it has nothing to check."""
        answer = self._connection.ask(routine_request(routine, parameters), limit=self._profile.timings.erase)
        if isinstance(answer, NegativeResponse):
            if not self.unjudged and answer.nrc in _WANTS_A_DOWNLOAD:
                raise Unsupported(
                    f"{answer.error().cause}; it checks only what was just downloaded",
                    remedy="Set read in its profile if its memory can be read back.",
                )
            if answer.nrc in _VERDICTS:
                raise VerifyMismatch(answer.error().cause)
            raise self._connection.refusal(answer)
        if answer and answer[-1] != self._profile.routines.passed:
            raise VerifyMismatch(
                f"routine 0x{routine:04X} of the part says that it does not hold the image ({answer.hex(' ').upper()})"
            )

    def _check_parameters(self, segments: Sequence[Segment]) -> Iterator[bytes]:
        """The parameters of each call of the check routine. CRCs go over what was downloaded, with its padding."""
        names = self._profile.routines.check_parameters
        for region in self._profile.memory_map().regions:
            inside = [
                item.slice(max(item.address, region.start), min(item.end, region.end)).padded(
                    region.write_alignment, region.erased_value
                )
                for item in segments
                if item.address < region.end and item.end > region.start
            ]
            if not inside:
                continue
            if "address" in names:
                for item in inside:
                    yield encoded(names, self._profile, self._files.subject(item))
            else:
                data = b"".join(item.data for item in inside)
                subject = replace(self._files.subject(inside[0]), size=len(data), data=data)
                yield encoded(names, self._profile, subject)
