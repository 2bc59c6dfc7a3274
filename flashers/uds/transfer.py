"""Downloads to an ECU and uploads from it: RequestDownload, RequestUpload, TransferData, RequestTransferExit.

After ISO 14229-1:2020, clause 15. The rule: a transfer that broke off starts again, as UDS has no way to go on with one.
The smallest unit that is sent again is one block, under the same counter, which an ECU that has it acknowledges without
writing it again. A transfer that the ECU still holds open, from before, is ended first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ...transports.errors import ProxyflashError
from ..errors import OperationFailed, PartError, ProtocolError, VerifyMismatch
from . import session
from .codec import OPEN_TRANSFER, NegativeResponse, Nrc, Service, quote
from .connection import Connection
from .parameters import Subject, block_request, encoded, most_data

_EXIT = bytes((Service.REQUEST_TRANSFER_EXIT,))
_HELD_OPEN = (
    "If an earlier download was interrupted, the ECU still holds it open, also after RequestTransferExit, a reset and S3: "
    "cut its supply for some seconds, then run the same command again. If not:"
)


class Transfers:
    """`bears_a_reset`: whether the ECU may be reset to end a transfer that it holds open. An ECU that was reset may have
    forgotten the segments that it was sent before, and has no flash driver any more."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._client, self._profile = connection.client, connection.profile
        self._is_held_open = False
        """Whether the ECU refused a transfer though all was done that ends one."""
        self._is_given_up = False
        """Whether a download was left before its end, and the ECU does not know it yet."""

    def download(
        self, subject: Subject, data_format: int, *, announced: int, alignment: int = 1, bears_a_reset: bool
    ) -> Iterator[int]:
        """Yields bytes that the ECU has acknowledged so far. `announced`: the size that RequestDownload names."""
        where = encoded(self._profile.download_parameters, self._profile, replace(subject, size=announced))
        longest = self._request(Service.REQUEST_DOWNLOAD, data_format, where, bears_a_reset)
        block = most_data(self._profile, longest, subject)
        if block < 1:
            raise ProtocolError(
                f"the part takes {longest} bytes in each TransferData, and what block of its profile adds leaves no room for data"
            )
        step = max(block // alignment * alignment, min(block, alignment))
        view = memoryview(subject.data)
        counter = 1
        try:
            for start in range(0, subject.size, step):
                piece = view[start : start + step]
                # An ECU that refuses the repeated block may have the first one, or a part of it: all begins again.
                part = replace(subject, address=subject.address + start, size=len(piece), data=bytes(piece))
                answer = self._connection.request(block_request(self._profile, counter, part))
                self._check_block(answer, subject.address + start)
                counter = (counter + 1) & 0xFF
                yield start + len(piece)
        except (GeneratorExit, KeyboardInterrupt):
            self._is_given_up = True  # A generator that is dropped must not wait: `give_up` does.
            raise
        self._end(subject)

    def upload(self, start: int, size: int, *, bears_a_reset: bool) -> Iterator[bytes]:
        self._request(
            Service.REQUEST_UPLOAD, self._profile.data_format, self._where(Subject(start, size)), bears_a_reset
        )
        left, counter = size, 1
        try:
            while left:
                data = self._connection.request(bytes((Service.TRANSFER_DATA, counter)))
                if not 0 < len(data) <= left:
                    raise ProtocolError(f"the part was to upload {left} more bytes, and sent {len(data)}")
                left -= len(data)
                counter = (counter + 1) & 0xFF
                yield data
        finally:
            # Whoever reads may have seen enough; the ECU must still learn that it ends. A transfer that is not complete many end
            # only by a new session.
            with suppress(ProxyflashError):
                if not left:
                    self._end(None)
                elif isinstance(self._client.ask(_EXIT), NegativeResponse):
                    session.enter_programming(self._client, self._profile, self._connection.keys)

    def give_up(self) -> None:
        """Leaves the ECU without an open download. Never raises."""
        if not self._is_given_up:
            return
        self._is_given_up = False
        with suppress(ProxyflashError):
            if isinstance(self._client.ask(_EXIT), NegativeResponse):
                self._client.ask(session.reset_request(self._profile))

    def _where(self, subject: Subject) -> bytes:
        return encoded(("alfi", "address", "size"), self._profile, subject)

    def _request(self, service: Service, data_format: int, where: bytes, bears_a_reset: bool) -> int:
        """How many bytes one TransferData has, its identifier and counter included (maxNumberOfBlockLength)."""
        answer = self._open(bytes((service, data_format)) + where, bears_a_reset)
        self._is_held_open = self._is_given_up = False
        width = answer[0] >> 4 if answer else 0
        longest = int.from_bytes(answer[1 : 1 + width], "big")
        if not width or len(answer) < 1 + width or longest < 3:
            if "block_limit" not in self._profile.model_fields_set:
                raise ProtocolError(
                    f"the part gives no usable maxNumberOfBlockLength ({answer[:12].hex(' ').upper() or 'nothing'})",
                    remedy="If its maker names a length, set it as block_limit in its profile.",
                )
            longest = self._profile.block_limit
        return min(longest, self._profile.block_limit)

    def _open(self, request: bytes, bears_a_reset: bool) -> bytes:
        """Asks for a transfer. A transfer that the ECU holds open, of a tester that was killed, is ended first.

        By what makers use: RequestTransferExit; a reset; a session that runs out. What the ECU refuses after a reset may be
        refused because of the reset, so the engine begins again once before it is for good.
        """
        refusals = OPEN_TRANSFER if request[0] == Service.REQUEST_DOWNLOAD else {Nrc.CONDITIONS_NOT_CORRECT}
        limit = self._profile.timings.erase
        answer = self._connection.ask(request, limit=limit)
        if not isinstance(answer, NegativeResponse):
            return answer
        if answer.nrc not in refusals:
            raise self._connection.refusal(answer)
        self._client.repeated += 1
        # An ECU that refuses the exit, as the transfer isn't complete, may have ended it all the same.
        self._client.ask(_EXIT, retries=1)
        answer = self._connection.ask(request, limit=limit)
        ends = (self._connection.restart, self._connection.outwait_session)
        for end in ends if bears_a_reset and not self._is_held_open else ():
            if isinstance(answer, NegativeResponse) and answer.nrc in refusals:
                end()
                answer = self._connection.ask(request, limit=limit)
        if not isinstance(answer, NegativeResponse):
            return answer
        error = answer.error()
        if not isinstance(error, PartError):
            raise error
        error.passes = not (bears_a_reset and self._is_held_open)
        self._is_held_open = self._is_held_open or bears_a_reset
        raise error if answer.nrc not in refusals else error.advised(f"{_HELD_OPEN} {error.remedy}")

    def _check_block(self, answer: bytes, address: int) -> None:
        """Raises OperationFailed for an answer that the profile does not take for success."""
        wanted = self._profile.block_answer
        if wanted and answer != wanted:
            raise OperationFailed(
                f"the part answered the block at 0x{address:08X} with {quote(answer) or 'nothing'}, and block_answer of its "
                f"profile is {quote(wanted)}"
            )

    def _end(self, subject: Subject | None) -> None:
        """`subject`: what was downloaded; None: it was an upload."""
        profile = self._profile
        parameters = encoded(profile.transfer_exit, profile, subject) if subject is not None else b""
        before = self._client.repeated
        answer = self._connection.ask(
            _EXIT + parameters, limit=profile.timings.erase, settled_by=Nrc.REQUEST_SEQUENCE_ERROR
        )
        if isinstance(answer, NegativeResponse):
            raise self._connection.refusal(answer)
        if subject is None or not profile.transfer_exit_answer:
            return
        wanted = encoded(profile.transfer_exit_answer, profile, subject)
        if not answer and self._client.repeated > before:
            raise ProtocolError(
                "the answer to RequestTransferExit was lost, and with it what the part says of the download"
            )
        if answer != wanted:
            raise VerifyMismatch(
                f"the part answered RequestTransferExit with {quote(answer) or 'nothing'}, and what it was sent gives "
                f"{quote(wanted)} (transfer_exit_answer)"
            )
