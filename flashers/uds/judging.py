"""The ECU's own judgement of what it holds: its check routine, and its check of dependencies (ISO 14229-1:2020, 14.2).

The rule: the ECU judges. A fault of the ECU's content and a refusal of the question are kept apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from ..errors import Unsupported, VerifyMismatch
from ..image import Segment
from .codec import NOT_HERE, NegativeResponse, Nrc
from .connection import NOT_DONE, Connection
from .files import FilesOfProfile
from .parameters import Subject, encoded

_VERDICTS = (
    Nrc.GENERAL_REJECT,
    Nrc.CONDITIONS_NOT_CORRECT,
    Nrc.FAILURE_PREVENTS_EXECUTION_OF_REQUESTED_ACTION,
    Nrc.GENERAL_PROGRAMMING_FAILURE,
)
"""Refusals by which a check routine finds fault with what the ECU holds; the others find it with the request."""
_WANTS_A_DOWNLOAD = (Nrc.CONDITIONS_NOT_CORRECT, Nrc.REQUEST_SEQUENCE_ERROR)
"""Refusals of a check routine that has nothing to check."""
_WANTS_A_DRIVER = NOT_HERE | {*_WANTS_A_DOWNLOAD}
"""Refusals of a routine that is the flash driver's, which does not run."""


class Judge:
    """`unjudged`: what was written and the ECU's routines have not checked yet.

    `bring_driver`: loads the flash driver where it does not run yet, as after a power cut; False: there is nothing to load.
    """

    def __init__(self, connection: Connection, files: FilesOfProfile, bring_driver: Callable[[], bool]) -> None:
        self._connection = connection
        self._bring_driver = bring_driver
        self._profile = connection.profile
        self._files = files
        self.unjudged: list[Segment] = []

    def check(self, segments: Sequence[Segment]) -> None:
        """Calls the check routine for them, if there is one. Raises VerifyMismatch."""
        routine = self._profile.routines.check
        if isinstance(routine, int):
            for subject in self._subjects(segments):
                parameters = encoded(self._profile.routines.check_parameters, self._profile, subject)
                wanted = self._profile.routines.check_answer
                self._call(routine, parameters, encoded(wanted, self._profile, subject) if wanted else None)

    def check_dependencies(self, *, brings_driver: bool = True) -> None:
        routine = self._profile.routines.dependencies
        if isinstance(routine, int):
            self._call(routine, brings_driver=brings_driver)

    def _call(
        self, routine: int, parameters: bytes = b"", wanted: bytes | None = None, *, brings_driver: bool = True
    ) -> None:
        """Calls a routine that checks. `wanted`: see `Routines.passes`.

        Raises VerifyMismatch, Unsupported where it has nothing to check. An ECU that was sent each block once would find the
        same fault in the next attempt: that is not made.
        """
        answer = self._connection.ask_routine(routine, parameters)
        if brings_driver and isinstance(answer, NegativeResponse) and self._has_brought_driver(answer):
            answer = self._connection.ask_routine(routine, parameters)
        if isinstance(answer, NegativeResponse):
            if not self.unjudged and answer.nrc in _WANTS_A_DOWNLOAD:
                raise Unsupported(
                    f"{answer.error().cause}; it checks only what was just downloaded",
                    remedy="Set read in its profile if its memory can be read back.",
                )
            if answer.nrc in _VERDICTS:
                raise VerifyMismatch(answer.error().cause)
            raise self._connection.refusal(answer)
        if not self._profile.routines.passes(answer, wanted):
            raise VerifyMismatch(
                f"routine 0x{routine:04X} of the part says that it does not hold the image ({answer.hex(' ').upper()})",
                remedy="Is it the right file for this part? If it is, run the same command again.",
            ).passing(None if self._connection.client.repeated else False)

    def _has_brought_driver(self, answer: NegativeResponse) -> bool:
        """Whether the flash driver was loaded for what was refused. Raises Unsupported where the ECU does not take it."""
        try:
            return answer.nrc in _WANTS_A_DRIVER and self._bring_driver()
        except NOT_DONE as error:
            raise Unsupported(
                f"{answer.error().cause}; its routines may need the flash driver, which it does not take now: {error.cause}",
                remedy="Flash the image again; and set read in its profile if its memory can be read back.",
            ) from error

    def _subjects(self, segments: Sequence[Segment]) -> Iterator[Subject]:
        """What each call of the check routine is about. CRCs go over what was downloaded, with its padding."""
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
                    yield self._files.subject(item)
            else:
                data = b"".join(item.data for item in inside)
                yield replace(self._files.subject(inside[0]), size=len(data), data=data)
