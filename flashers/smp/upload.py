"""One upload of an image by SMP: pieces, and what becomes of those that are lost.

The part says after each piece from which byte on it wants more ("Image upload"). The rule: its word counts. What it has
is never sent again, what it wants again is, even if that is everything; only an offset beyond what was ever sent, and
an offset that goes back again and again, are its mistakes. A late reply, whose piece was sent again already, counts as well.
With several requests under way at once the replies to later requests show that an earlier request was lost: from then on
there is one at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import cbor2

from ..errors import Meaning, PartError, PartRefused, ProtocolError, Step, VerifyMismatch
from .client import accepted, wanted_offset
from .codec import HEADER, Group, ImageCommand, Op, Packet
from .link import TRIES, SmpLink

ALIGNMENT = 16
"""Pieces have multiples of this number of bytes; a part that writes larger units asks for what is over again, and that is
learnt."""
SETBACKS = 8
"""How often the part may want again what it had acknowledged."""
LOSSES = 6
"""How often in a row one piece may be lost."""
SMALLER_AFTER = 2
"""After this number of losses in a row pieces get smaller: a part that is slow to empty its line's buffers loses what comes in
one go, each time again. With each that arrives they grow by 2 * ALIGNMENT."""
HEADER_ROOM = 64
"""Bytes that the first piece should have: the part looks at the image's header in it."""
LOSS_SECONDS = 0.5
"""With several requests under way replies come one after the other: after so long without one, one is lost."""
PATIENCE = 4
"""By this factor the second wait for the first piece's reply is longer than the first."""


class Upload:
    """`image`: what the part calls it; `packet`: bytes of the largest packet; `erase`: seconds that the part has for the
    first piece. `matched`: whether the part has compared the SHA-256 of all of it."""

    def __init__(self, link: SmpLink, image: int, data: bytes, *, packet: int, window: int, erase: float) -> None:
        self.matched = False
        self._link = link
        self._data = memoryview(data)
        self._erase = erase
        self._window = window
        self._packet = packet
        self._first: dict[str, Any] = {"len": len(data), "off": 0, "sha": hashlib.sha256(data).digest()}
        if image:
            self._first["image"] = image
        self._step = self._room({"off": len(data)}) // ALIGNMENT * ALIGNMENT or 1
        self._largest = self._step
        self._confirmed = 0
        self._sent = 0
        """Up to where pieces are under way, or were."""
        self._highest = 0
        self._under_way: dict[int, tuple[int, int]] = {}
        self._given_up: set[int] = set()
        """Requests that were sent again, and whose replies may come late."""
        self._wait = link.answer
        self._losses = self._setbacks = 0

    def run(self) -> Iterator[int]:
        """Yields how many bytes the part has. Raises NoResponse, ProtocolError, VerifyMismatch, TransportError, and what
        `accepted` raises."""
        total = len(self._data)
        while self._confirmed < total:
            if not self._confirmed:
                self._begin()
                yield self._confirmed
                continue
            request = self._fill()
            wait = self._wait if self._window == 1 else min(self._wait, LOSS_SECONDS)
            reply = self._link.await_any(request, {*self._under_way, *self._given_up}, wait)
            if reply is None:
                self._lost()
            elif self._take_late(reply) if reply.sequence in self._given_up else self._take(reply):
                yield self._confirmed

    def _begin(self) -> None:
        """The first piece, which the part answers with where it wants to go on: an upload of the same image that was
        broken off goes on there. It may erase first, and copies of the request wait for it then."""
        body = dict(self._first)
        size = self._room(body)
        if size < HEADER_ROOM:
            del body["sha"]
            size = self._room(body)
        size = max(1, size // ALIGNMENT * ALIGNMENT)
        body["data"] = bytes(self._data[:size])
        self._highest = max(self._highest, len(body["data"]))
        sequences: set[int] = set()
        waits = (self._link.answer, PATIENCE * self._link.answer, self._erase)
        for wait in waits:
            request = self._link.send(Op.WRITE, Group.IMAGE, ImageCommand.UPLOAD, body)
            sequences.add(request.sequence)
            reply = self._link.await_any(request, sequences, wait)
            if reply is None:
                continue
            offset = self._offset(reply)
            if offset > len(self._data):
                raise ProtocolError(f"the part wants byte {offset:,} of an image of {len(self._data):,}")
            if offset == 0:
                self._losses += 1
                if self._losses >= TRIES:
                    raise ProtocolError("the part acknowledges the first piece of the upload, and wants it again")
            self._confirmed = self._sent = offset
            self._highest = max(self._highest, offset)
            return
        raise self._link.silence("the first piece of the upload", Step.ERASE)

    def _fill(self) -> Packet:
        """Sends pieces until the window is full; returns one request of the kind."""
        request = Packet(Op.WRITE, Group.IMAGE, 0, ImageCommand.UPLOAD)
        while len(self._under_way) < self._window and self._sent < len(self._data):
            end = min(self._sent + self._step, len(self._data))
            body = {"off": self._sent, "data": bytes(self._data[self._sent : end])}
            request = self._link.send(Op.WRITE, Group.IMAGE, ImageCommand.UPLOAD, body)
            self._under_way[request.sequence] = (self._sent, end)
            self._given_up.discard(request.sequence)
            self._sent = end
            self._highest = max(self._highest, end)
        return request

    def _take(self, reply: Packet) -> bool:
        """Whether the part has got further."""
        start, end = self._under_way.pop(reply.sequence)
        if reply.refusal is not None and reply.refusal.meaning is Meaning.BUSY:
            self._one_at_a_time()
            self._count_loss(PartRefused(f"the part takes nothing more: {reply.refusal}"))
            return False
        offset = self._offset(reply)
        if offset > self._highest:
            raise ProtocolError(f"the part acknowledges {offset:,} bytes, and {self._highest:,} were sent")
        before, self._confirmed = self._confirmed, offset
        if offset == end:
            self._under_way = {key: piece for key, piece in self._under_way.items() if piece[1] > offset}
        else:
            if start < offset < end < len(self._data) and end - offset <= self._step // 2:
                # It writes larger units, and leaves what is over.
                if self._step == self._largest:
                    self._largest -= end - offset
                self._step -= end - offset
            self._one_at_a_time()
        if offset > before:
            self._losses = 0
            self._step = min(self._largest, self._step + 2 * ALIGNMENT)
            return True
        if offset < before:
            self._setbacks += 1
            if self._setbacks > SETBACKS:
                raise ProtocolError(f"the part wants for the {self._setbacks}th time what it had acknowledged")
            return True
        self._count_loss(ProtocolError(f"the part wants the piece at byte {offset:,} again and again"))
        return False

    def _take_late(self, reply: Packet) -> bool:
        """Whether a late reply shows that the part has got further: later ones are waited for longer then."""
        self._given_up.discard(reply.sequence)
        if reply.refusal is not None or not self._confirmed < (offset := self._offset(reply)) <= self._highest:
            return False
        self._confirmed = offset
        self._one_at_a_time()
        self._losses = 0
        self._wait = min(2 * self._wait, max(self._wait, self._erase))
        return True

    def _lost(self) -> None:
        self._one_at_a_time()
        if self._losses >= SMALLER_AFTER:
            self._step = min(self._largest, max(ALIGNMENT, self._step // 2 // ALIGNMENT * ALIGNMENT))
        self._count_loss(self._link.silence(f"the piece at byte {self._confirmed:,}", Step.WRITE))

    def _count_loss(self, error: PartError) -> None:
        self._losses += 1
        if self._losses > LOSSES:
            raise error

    def _one_at_a_time(self) -> None:
        """Begins again at what is confirmed; what is under way is given up."""
        self._window = 1
        self._given_up.update(self._under_way)
        self._under_way.clear()
        self._sent = self._confirmed

    def _offset(self, reply: Packet) -> int:
        offset = wanted_offset(accepted(reply, "a piece of the upload"))
        match = reply.body.get("match")
        if offset == len(self._data) and match is False:
            raise VerifyMismatch("the SHA-256 that the part computes over the upload is not the image's")
        self.matched = match is True
        return offset

    def _room(self, body: dict[str, Any]) -> int:
        """Bytes of data that fit into a packet beside this body. A text of bytes takes two more for its size."""
        return self._packet - HEADER.size - len(cbor2.dumps({**body, "data": b""})) - 2
