"""One upload, against a part that loses, repeats, delays and lies: in memory, where a silence takes no time.

The part is written after Zephyr's "Image upload" and MCUboot's serial recovery, and packs CBOR by cbor2 alone.
"""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import (
    ImageError,
    ImageTooLarge,
    ImageWrongPart,
    NoResponse,
    OperationFailed,
    PartError,
    PartProtected,
    PartRefused,
    ProtocolError,
    VerifyMismatch,
)
from proxyflash.flashers.smp.link import SmpLink
from proxyflash.flashers.smp.upload import SETBACKS, Upload
from proxyflash.tests.flashers.smp_wire import InstantWire
from proxyflash.transports.deadline import Deadline

IMAGE = bytes(random.Random(1).randbytes(5000))


class Part(InstantWire):
    """A wire with a part at its end. `drop`, `twice`, `late`: chances of a packet of either direction; a late one comes
    after the next. `unit`: bytes that the part writes at once; it leaves what is over. `tamper`: changes a reply's body.
    """

    overhead = 4

    def __init__(
        self,
        *,
        drop: float = 0.0,
        twice: float = 0.0,
        late: float = 0.0,
        unit: int = 1,
        seed: int = 0,
        match: bool = False,
        tamper: Callable[[int, dict[str, Any], dict[str, Any]], dict[str, Any] | None] | None = None,
    ) -> None:
        super().__init__()
        self.chances = (drop, twice, late)
        self.random = random.Random(seed)
        self.unit = unit
        self.match = match
        self.tamper = tamper
        self.held: dict[bool, list[bytes]] = {True: [], False: []}
        self.got = bytearray()
        self.length = -1
        self.sha = b""
        self.requests: list[dict[str, Any]] = []
        self.largest_seen = 0

    # The wire.

    def send(self, packet: bytes, deadline: Deadline) -> None:
        self.largest_seen = max(self.largest_seen, len(packet))
        for one in self._through(packet, outgoing=True):
            answer = self._answer(one)
            if answer is not None:
                self.replies += self._through(answer, outgoing=False)

    def _through(self, packet: bytes, *, outgoing: bool) -> list[bytes]:
        drop, twice, late = self.chances
        held, self.held[outgoing] = self.held[outgoing], []
        if self.random.random() < drop:
            return held
        if self.random.random() < late:
            self.held[outgoing] = [packet]
            return held
        return [packet, *held] * (2 if self.random.random() < twice else 1)

    # The part.

    def reset(self) -> None:
        self.got.clear()
        self.length, self.sha = -1, b""

    def _answer(self, packet: bytes) -> bytes | None:
        first, _, length, group, sequence, command = struct.unpack(">BBHHBB", packet[:8])
        assert (first, group, command) == (0x0A, 1, 1)
        assert length == len(packet) - 8
        body = cbor2.loads(packet[8:])
        self.requests.append(body)
        answer: dict[str, Any] | None = {"off": self._upload(body)}
        if self.match and len(self.got) == self.length:
            assert answer is not None
            answer["match"] = hashlib.sha256(self.got).digest() == self.sha
        if self.tamper is not None:
            assert answer is not None
            answer = self.tamper(len(self.requests), body, answer)
        if answer is None:
            return None
        told = cbor2.dumps(answer)
        return struct.pack(">BBHHBB", 0x0B, 0, len(told), group, sequence, command) + told

    def _upload(self, body: dict[str, Any]) -> int:
        if body["off"] == 0:
            if body.get("sha") and (body["sha"], body["len"]) == (self.sha, self.length):
                return len(self.got)
            self.reset()
            self.length, self.sha = body["len"], body.get("sha", b"")
        if body["off"] == len(self.got) and self.length >= 0:
            data = body["data"]
            if len(self.got) + len(data) < self.length:
                data = data[: len(data) // self.unit * self.unit]
            assert len(self.got) + len(data) <= self.length
            self.got += data
        return len(self.got)


class SlowPart(Part):
    """Each reply comes while the `lag`th request after its own is waited for: always too late."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.waits = 0
        self.due: list[tuple[int, bytes]] = []

    def send(self, packet: bytes, deadline: Deadline) -> None:
        super().send(packet, deadline)
        self.due += [(self.waits + self.lag, reply) for reply in self.replies]
        self.replies.clear()

    def receive(self, deadline: Deadline) -> bytes | None:
        if self.due and self.due[0][0] <= self.waits:
            return self.due.pop(0)[1]
        self.waits += 1
        return None


def upload(part: Part, *, window: int = 1, packet: int = 380, image: int = 0) -> Upload:
    return Upload(SmpLink(part, 1.0), image, IMAGE, packet=packet, window=window, erase=40.0)


class TestPieces:
    @pytest.mark.parametrize("window", [1, 2, 4])
    def test_an_image_arrives(self, window: int) -> None:
        part = Part()
        done = list(upload(part, window=window).run())
        assert bytes(part.got) == IMAGE
        assert done == sorted(set(done))
        assert done[-1] == len(IMAGE)

    @pytest.mark.parametrize("lag", [1, 2])
    @pytest.mark.parametrize("window", [1, 4])
    def test_each_reply_is_late(self, window: int, lag: int) -> None:
        part = SlowPart(lag)
        assert list(upload(part, window=window).run())[-1] == len(IMAGE)
        assert bytes(part.got) == IMAGE

    def test_the_first_request_has_what_the_part_needs(self) -> None:
        part = Part()
        list(upload(part, image=2).run())
        first, second = part.requests[:2]
        assert first["len"] == len(IMAGE)
        assert first["sha"] == hashlib.sha256(IMAGE).digest()
        assert first["image"] == 2
        assert set(second) == {"off", "data"}

    def test_image_0_is_not_named(self) -> None:
        part = Part()
        list(upload(part).run())
        assert "image" not in part.requests[0]

    @pytest.mark.parametrize("packet", [124, 380, 508, 1020, 2044])
    def test_packets_are_filled_to_the_part_s_buffer(self, packet: int) -> None:
        part = Part()
        list(upload(part, packet=packet).run())
        assert packet - 16 - 4 < part.largest_seen <= packet
        assert all(len(request["data"]) % 16 == 0 for request in part.requests[:-1])

    def test_a_small_buffer_has_no_room_for_the_sha(self) -> None:
        part = Part()
        list(upload(part, packet=92).run())
        assert bytes(part.got) == IMAGE
        assert "sha" not in part.requests[0]
        assert len(part.requests[0]["data"]) >= 32

    @pytest.mark.parametrize("window", [1, 3])
    @pytest.mark.parametrize("unit", [24, 32, 48])
    def test_a_larger_write_unit_is_learnt(self, unit: int, window: int) -> None:
        part = Part(unit=unit)
        list(upload(part, window=window).run())
        assert bytes(part.got) == IMAGE
        assert len(part.requests) <= len(IMAGE) // 288 + 6

    def test_the_same_upload_goes_on_where_it_was_broken_off(self) -> None:
        part = Part()
        for done in upload(part).run():
            if done > 2000:
                break
        before = len(part.requests)
        offsets = list(upload(part).run())
        assert offsets[0] == done
        assert part.requests[before + 1]["off"] == done
        assert bytes(part.got) == IMAGE

    def test_what_is_whole_is_not_sent_again(self) -> None:
        part = Part()
        list(upload(part).run())
        before = len(part.requests)
        assert list(upload(part).run()) == [len(IMAGE)]
        assert len(part.requests) == before + 1

    @pytest.mark.parametrize("window", [1, 4])
    def test_a_part_that_is_reset_in_the_middle_begins_again(self, window: int) -> None:
        part = Part()
        done = []
        for offset in upload(part, window=window).run():
            done.append(offset)
            if offset > 3000 and 0 not in done:
                part.reset()
                part.drain()
                done.append(0)
        assert bytes(part.got) == IMAGE
        assert [request["off"] for request in part.requests].count(0) == 2

    def test_the_part_s_own_hash_counts(self) -> None:
        part = Part(match=True)
        uploading = upload(part)
        list(uploading.run())
        assert uploading.matched
        other = Part(tamper=lambda number, asked, told: told | ({"match": False} if told["off"] == len(IMAGE) else {}))
        with pytest.raises(VerifyMismatch):
            list(upload(other).run())

    def test_a_part_that_loses_long_packets_gets_shorter_ones(self) -> None:
        part = Part()
        send = part.send

        def drop_long(packet: bytes, deadline: Deadline) -> None:
            if len(packet) < 400 or len(part.got) < 1500:
                send(packet, deadline)

        part.send = drop_long  # type: ignore[method-assign]
        list(upload(part, packet=1020).run())
        assert bytes(part.got) == IMAGE

    def test_a_window_ends_with_the_first_loss(self) -> None:
        lost: list[int] = []
        part = Part()
        original = part._upload

        def drop_one(body: dict[str, Any]) -> int:
            if body["off"] > 2000 and not lost:
                lost.append(body["off"])
                return len(part.got)
            return original(body)

        part._upload = drop_one  # type: ignore[method-assign]
        under_way: list[int] = []
        uploading = upload(part, window=4)
        for _ in uploading.run():
            under_way.append(len(uploading._under_way))
        assert bytes(part.got) == IMAGE
        assert max(under_way) == 3
        assert under_way[-8:] == [0] * 8


class TestLies:
    @pytest.mark.parametrize(
        ("tamper", "error", "said"),
        [
            (lambda n, asked, told: told | {"off": 10**6}, ProtocolError, "wants byte 1,000,000"),
            (lambda n, asked, told: told | {"off": 4990} if n == 3 else told, ProtocolError, "were sent"),
            (lambda n, asked, told: {"off": -1}, ProtocolError, "without an offset"),
            (lambda n, asked, told: {"off": "1"}, ProtocolError, "without an offset"),
            (lambda n, asked, told: {"off": True}, ProtocolError, "without an offset"),
            (lambda n, asked, told: {}, ProtocolError, "without an offset"),
            (lambda n, asked, told: {"off": 0}, ProtocolError, "wants it again"),
            (lambda n, asked, told: {"off": 288} if n > 2 else told, ProtocolError, "again"),
            (lambda n, asked, told: {"off": 320 * (n % 2)}, ProtocolError, "for the"),
            (lambda n, asked, told: {"rc": 1}, PartRefused, "EUNKNOWN"),
            (lambda n, asked, told: {"rc": 6}, PartRefused, "EBADSTATE"),
            (lambda n, asked, told: {"rc": 11}, PartProtected, "EACCESSDENIED"),
            (lambda n, asked, told: {"rc": 10} if n > 2 else told, PartRefused, "takes nothing more"),
            (lambda n, asked, told: {"err": {"group": 1, "rc": 9}}, PartRefused, "NO_FREE_SLOT"),
            (lambda n, asked, told: {"err": {"group": 1, "rc": 12}}, OperationFailed, "FLASH_WRITE_FAILED"),
            (lambda n, asked, told: {"err": {"group": 1, "rc": 23}}, ImageWrongPart, "HEADER_MAGIC"),
            (lambda n, asked, told: {"err": {"group": 1, "rc": 30}}, ImageTooLarge, "TOO_LARGE"),
            (lambda n, asked, told: None, NoResponse, "first piece"),
            (lambda n, asked, told: told if n < 5 else None, NoResponse, "piece at byte"),
        ],
    )
    @pytest.mark.parametrize("window", [1, 3])
    def test_it_ends_and_says_why(self, tamper: Any, error: type[Exception], said: str, window: int) -> None:
        part = Part(tamper=tamper)
        with pytest.raises(error, match=said):
            list(upload(part, window=window).run())
        assert len(part.requests) < 200

    def test_busy_for_a_moment_is_no_refusal(self) -> None:
        part = Part(tamper=lambda n, asked, told: told if n != 5 else {"rc": 10})
        list(upload(part, window=3).run())
        assert bytes(part.got) == IMAGE

    def test_a_part_that_goes_back_for_ever_is_given_up(self) -> None:
        part = Part()

        def reset_again_and_again() -> None:
            for offset in upload(part).run():
                if offset > 1000:
                    part.reset()

        with pytest.raises(ProtocolError, match="th time"):
            reset_again_and_again()
        assert [request["off"] for request in part.requests].count(0) == SETBACKS + 1

    def test_replies_from_before_count_for_nothing(self) -> None:
        """An old reply under a number that is not awaited, of another command, of a request."""
        part = Part()
        told = cbor2.dumps({"off": 4000})
        for op, group, sequence, command in ((0x0B, 1, 200, 1), (0x0B, 1, 1, 0), (0x0B, 0, 1, 1), (0x0A, 1, 1, 1)):
            part.replies.append(struct.pack(">BBHHBB", op, 0, len(told), group, sequence, command) + told)
        done = list(upload(part).run())
        assert bytes(part.got) == IMAGE
        assert done[:2] == [len(request["data"]) + request["off"] for request in part.requests[:2]]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    drop=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
    twice=st.sampled_from([0.0, 0.1, 0.5]),
    late=st.sampled_from([0.0, 0.1, 0.4]),
    unit=st.sampled_from([1, 8, 32]),
    window=st.integers(1, 8),
    packet=st.sampled_from([124, 380, 1020]),
)
def test_on_a_bad_wire_it_arrives_or_fails(
    seed: int, drop: float, twice: float, late: float, unit: int, window: int, packet: int
) -> None:
    part = Part(drop=drop, twice=twice, late=late, unit=unit, seed=seed)
    try:
        list(upload(part, window=window, packet=packet).run())
    except (NoResponse, ProtocolError):
        # The bytes that arrived are a beginning of the image, and never anything else.
        assert drop or late
        assert IMAGE.startswith(bytes(part.got))
        return
    assert bytes(part.got) == IMAGE


@settings(max_examples=200, deadline=None)
@given(
    answers=st.lists(
        st.one_of(
            st.none(),
            st.fixed_dictionaries({"off": st.integers(-5, 6000)}),
            st.dictionaries(
                st.sampled_from(["off", "rc", "err", "match", "x"]),
                st.recursive(
                    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4), st.binary(max_size=4)),
                    lambda inner: st.dictionaries(st.sampled_from(["group", "rc"]), inner, max_size=2),
                    max_leaves=4,
                ),
                max_size=3,
            ),
        ),
        max_size=12,
    ),
    window=st.integers(1, 4),
)
def test_whatever_a_part_answers(answers: list[dict[str, Any] | None], window: int) -> None:
    part = Part(tamper=lambda number, asked, told: answers[number - 1] if number <= len(answers) else told)
    with suppress(PartError, ImageError):
        list(upload(part, window=window).run())
    assert len(part.requests) < 600
