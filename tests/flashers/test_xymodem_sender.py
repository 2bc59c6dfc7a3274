"""The sender's sessions, byte for byte, as the figures of the "X/YMODEM Protocol Reference" (C. Forsberg, 1988) have them."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.flashers.errors import PartRefused, ProtocolError
from proxyflash.flashers.xymodem import sender as xmodem_sender
from proxyflash.flashers.xymodem.codec import ABORT, Piece, Start, header, pieces
from proxyflash.flashers.xymodem.sender import SILENT_TRIES, TRIES, ReceiverCancelled, Sender, said
from proxyflash.tests.flashers.doing import Doing
from proxyflash.tests.flashers.xymodem_lab import Peer, peer
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import ProxyflashError, SerialTimeout

ACK, NAK, CAN, EOT = b"\x06", b"\x15", b"\x18", b"\x04"


@pytest.fixture
def other() -> Iterator[Peer]:
    with peer() as made:
        yield made


def crc_block(lead: str, data: bytes) -> bytes:
    """As in the figures: "SOH 01 FE" before the data, the CRC after it."""
    return bytes.fromhex(lead) + data + binascii.crc_hqx(data, 0).to_bytes(2, "big")


def never(heard: bytes) -> bool:
    return False


def begun(other: Peer, start: bytes, *, answer: float = 5.0) -> Sender:
    """A sender that was asked for the first block."""
    sender = Sender(other.port, answer=answer)
    other.send(start)
    sender.await_start(Deadline.after(5))
    return sender


def file(sender: Sender, data: bytes, block_size: int = 128) -> Doing:
    def send() -> list[int]:
        done = list(sender.send(pieces(data, block_size, 0x1A)))
        sender.end(never)
        return done

    return Doing(send)


class TestFigures:
    def test_1_long_blocks(self, other: Peer) -> None:
        data = bytes(range(256)) * 12
        sending = file(begun(other, b"C"), data[:3048], 1024)
        for lead, part in (("02 01 FE", data[:1024]), ("02 02 FD", data[1024:2048])):
            other.expect(crc_block(lead, part))
            other.send(ACK)
        other.expect(crc_block("02 03 FC", data[2048:3048] + b"\x1a" * 24))
        other.send(ACK)
        other.expect(EOT)
        other.send(ACK)
        assert sending.result() == [1024, 2048, 3048]
        other.nothing()

    def test_2_mixed_blocks(self, other: Peer) -> None:
        data = bytes(range(256)) * 9
        sending = file(begun(other, b"C"), data[: 2048 + 228], 1024)
        for block in (
            crc_block("02 01 FE", data[:1024]),
            crc_block("02 02 FD", data[1024:2048]),
            crc_block("01 03 FC", data[2048:2176]),
            crc_block("01 04 FB", data[2176:2276] + b"\x1a" * 28),
            EOT,
        ):
            other.expect(block)
            other.send(ACK)
        assert sending.result()[-1] == 2276

    def test_3_a_batch_of_one_file(self, other: Peer) -> None:
        """The end is refused once; then the receiver asks for another file."""
        data = bytes(range(256)) + bytes(100)
        sender = begun(other, b"C")

        def batch() -> None:
            sender.send_header(header("foo.c", len(data)), 5)
            list(sender.send(pieces(data, 128, 0x1A)))
            sender.end(never)
            sender.end_batch(never, Deadline.after(5))

        sending = Doing(batch)
        other.expect(crc_block("01 00 FF", b"foo.c\x00356".ljust(128, b"\0")))
        other.send(ACK)
        other.nothing()
        other.send(b"C")
        for lead, part in (
            ("01 01 FE", data[:128]),
            ("01 02 FD", data[128:256]),
            ("01 03 FC", data[256:] + b"\x1a" * 28),
        ):
            other.expect(crc_block(lead, part))
            other.send(ACK)
        other.expect(EOT)
        other.send(NAK)
        other.expect(EOT)
        other.send(ACK + b"C")
        other.expect(crc_block("01 00 FF", bytes(128)))
        other.send(ACK)
        sending.result()
        other.nothing()

    def test_8_a_stream(self, other: Peer) -> None:
        """Blocks go out without an answer to each; the answer to the end is waited for."""
        data = bytes(range(256)) * 5
        sender = begun(other, b"G")

        def batch() -> list[int]:
            sender.send_header(header("foo.c", 1252), 5)
            done = list(sender.send(pieces(data[:1252], 1024, 0x1A)))
            sender.end(never)
            sender.end_batch(never, Deadline.after(5))
            return done

        sending = Doing(batch)
        other.expect(crc_block("01 00 FF", b"foo.c\x001252".ljust(128, b"\0")))
        other.send(b"G")
        other.expect(crc_block("02 01 FE", data[:1024]))
        other.expect(crc_block("01 02 FD", data[1024:1152]))
        other.expect(crc_block("01 03 FC", data[1152:1252] + b"\x1a" * 28))
        other.expect(EOT)
        other.nothing()
        other.send(ACK + b"G")
        other.expect(crc_block("01 00 FF", bytes(128)))
        assert sending.result() == [0, 0, 0], "of a stream nothing is acknowledged before its end"

    @pytest.mark.parametrize("start", [NAK, b"C"], ids=["figure 10, checksum", "figure 14, CRC"])
    def test_10_and_14_errors_on_the_way(self, other: Peer, start: bytes) -> None:
        """A garbled block, a garbled ACK after which the receiver asks again, an end that is not acknowledged at once."""
        data = bytes(range(128)) * 3
        sending = file(begun(other, start), data)

        def block(number: int) -> bytes:
            part = data[number * 128 - 128 : number * 128]
            if start == b"C":
                return crc_block(f"01 {number:02X} {255 - number:02X}", part)
            return bytes([1, number, 255 - number]) + part + bytes([sum(part) % 256])

        other.expect(block(1))
        other.send(ACK)
        other.expect(block(2))
        other.send(NAK)
        other.expect(block(2))
        other.send(ACK)
        other.expect(block(3))
        other.send(b"\x86")  # The ACK, garbled.
        other.nothing()
        other.send(NAK)
        other.expect(block(3))
        other.send(ACK)
        other.expect(EOT)
        other.send(NAK)
        other.expect(EOT)
        other.send(ACK)
        assert sending.result() == [128, 256, 384]


class TestStart:
    @pytest.mark.parametrize(("asked", "start"), [(b"C", Start.CRC), (NAK, Start.CHECKSUM), (b"G", Start.STREAM)])
    def test_what_the_receiver_asks_for(self, other: Peer, asked: bytes, start: Start) -> None:
        other.send(b"Ready to receive. CRC or Gzip?\r\n" + asked)
        assert Sender(other.port, answer=1).await_start(Deadline.after(5)) is start

    def test_a_letter_of_a_text_is_no_question(self, other: Peer) -> None:
        waiting = Doing(lambda: Sender(other.port, answer=1).await_start(Deadline.after(20)))
        other.send(b"Waiting for a file, C")
        other.send(b"RC\r\n")
        other.nothing(0.3)
        other.send(b"C")
        assert waiting.result() is Start.CRC

    def test_what_was_heard_with_the_answer_to_the_command_counts(self, other: Peer) -> None:
        assert Sender(other.port, answer=1).await_start(Deadline.after(5), b"\r\nC") is Start.CRC

    def test_more_questions_count_as_one_until_the_first_answer(self, other: Peer) -> None:
        """8.2.3: "respond to additional <C>s as if they were <nak>s until the first <ack>"; after it they are ignored."""
        sending = file(begun(other, b"C"), bytes(256))
        first = crc_block("01 01 FE", bytes(128))
        other.expect(first)
        other.send(b"C")
        other.expect(first)
        other.send(ACK)
        other.expect(crc_block("01 02 FD", bytes(128)))
        other.send(b"CC")
        other.nothing()
        other.send(ACK)
        other.expect(EOT)
        other.send(ACK)
        assert sending.result() == [128, 256]

    def test_nobody_asks(self, other: Peer) -> None:
        other.send(b"Unknown command\r\n")
        with pytest.raises(PartRefused, match="did not ask for the file; it said: 'Unknown command'"):
            Sender(other.port, answer=1).await_start(Deadline.after(0.2))

    @pytest.mark.parametrize("chatter", [b"CG\x15" * 20, b"tick\r\n" * 20])
    def test_a_loader_that_never_stops_talking(self, other: Peer, chatter: bytes) -> None:
        """Whatever it says, and however much: the time is over when it is over."""
        with other.chattering(chatter), pytest.raises(PartRefused):
            Sender(other.port, answer=1).await_start(Deadline.after(0.3))

    def test_a_receiver_that_never_stops_talking(self, other: Peer) -> None:
        sender = begun(other, b"C", answer=0.1)
        with other.chattering(b"tick\r\n" * 20), pytest.raises(ProtocolError):
            list(sender.send([Piece(bytes(128), 128)]))


class TestAnswers:
    def test_what_came_before_a_block_is_no_answer_to_it(self, other: Peer) -> None:
        sender = begun(other, b"C")
        other.send(ACK * 3 + b"boot ok\r\n")
        sending = file(sender, bytes(128))
        other.expect(crc_block("01 01 FE", bytes(128)))
        other.nothing()
        other.send(ACK)
        other.expect(EOT)
        other.send(ACK)
        sending.result()

    def test_the_second_answer_to_a_block_sent_twice_is_not_the_next_one_s(self, other: Peer) -> None:
        """The first copy's ACK was slow, and the second copy is acknowledged too (7.3.2)."""
        sending = file(begun(other, b"C", answer=0.3), bytes(256))
        first, second = crc_block("01 01 FE", bytes(128)), crc_block("01 02 FD", bytes(128))
        other.expect(first)
        other.expect(first)
        other.send(ACK)
        other.send(ACK)
        other.expect(second)
        other.send(NAK)
        other.expect(second)
        other.send(ACK)
        other.expect(EOT)
        other.send(ACK)
        assert sending.result() == [128, 256]

    def test_text_amid_the_answers_is_passed_over(self, other: Peer) -> None:
        sending = file(begun(other, b"C"), bytes(128))
        other.expect(crc_block("01 01 FE", bytes(128)))
        other.send(b"[info] erased 2 pages, 3 to Go\r\n" + ACK)
        other.expect(EOT)
        other.send(b"done\r\n" + ACK)
        assert sending.result() == [128]

    def test_refused_ten_times(self, other: Peer) -> None:
        sending = file(begun(other, b"C"), bytes(128))
        for _ in range(TRIES):
            other.expect(crc_block("01 01 FE", bytes(128)))
            other.send(NAK)
        with pytest.raises(PartRefused, match="refused block 1 10 times"):
            sending.result()
        other.nothing()

    def test_never_answered(self, other: Peer) -> None:
        sending = file(begun(other, b"C", answer=0.1), bytes(128))
        for _ in range(SILENT_TRIES):
            other.expect(crc_block("01 01 FE", bytes(128)))
        with pytest.raises(SerialTimeout, match="does not answer block 1"):
            sending.result()
        other.nothing()

    def test_answered_by_garbage(self, other: Peer) -> None:
        sending = file(begun(other, b"C", answer=0.1), bytes(128))
        for _ in range(SILENT_TRIES):
            other.expect(crc_block("01 01 FE", bytes(128)))
            other.send(b"\xff\x00what?")
        with pytest.raises(
            ProtocolError, match=r"answered block 1 with bytes that are not an answer; it said: '.*what.*'"
        ):
            sending.result()

    def test_cancelled(self, other: Peer) -> None:
        sending = file(begun(other, b"C"), bytes(256))
        other.expect(crc_block("01 01 FE", bytes(128)))
        other.send(ACK)
        other.expect(crc_block("01 02 FD", bytes(128)))
        other.send(CAN + CAN)
        with pytest.raises(ReceiverCancelled, match="block 2"):
            sending.result()

    def test_one_can_is_a_line_hit(self, other: Peer) -> None:
        """4.1: two consecutive ones abort, to reduce the number of transfers that line hits do."""
        sending = file(begun(other, b"C"), bytes(128))
        other.expect(crc_block("01 01 FE", bytes(128)))
        other.send(CAN + b"\x00" + CAN + ACK)
        other.expect(EOT)
        other.send(ACK)
        assert sending.result() == [128]

    def test_a_stream_that_is_cancelled_ends_there(self, other: Peer) -> None:
        sender = begun(other, b"G")
        blocks = sender.send(Piece(bytes(128), n * 128) for n in range(1, 1000))
        next(blocks)
        other.send(CAN * 8)
        with pytest.raises(ReceiverCancelled):
            list(zip(blocks, iter(lambda: other.read(133, 0), None), range(100), strict=False))

    def test_an_end_whose_answer_is_lost_is_over_by_what_the_loader_says(self, other: Peer) -> None:
        sender = begun(other, b"C", answer=0.2)
        sending = Doing(lambda: sender.end(lambda heard: b"complete" in heard))
        other.expect(EOT)
        other.send(b"\r\nupload complete\r\n")
        sending.result()
        assert b"upload complete" in sender.heard
        other.nothing()

    def test_a_batch_may_end_without_a_question_for_more(self, other: Peer) -> None:
        sender = begun(other, b"C")
        sending = Doing(lambda: sender.end_batch(lambda heard: b"Total" in heard, Deadline.after(5)))
        other.send(b"## Total Size = 5\r\n")
        sending.result()
        other.nothing()

    def test_a_header_is_sent_again_until_it_is_taken(self, other: Peer) -> None:
        sender = begun(other, b"C")
        sending = Doing(lambda: sender.send_header(header("a", 1), 5))
        block = crc_block("01 00 FF", b"a\x001".ljust(128, b"\0"))
        other.expect(block)
        other.send(NAK)
        other.expect(block)
        other.send(ACK + b"C")
        sending.result()
        other.nothing()

    def test_a_header_that_is_taken_and_no_file_wanted(self, other: Peer) -> None:
        sender = begun(other, b"C")
        sending = Doing(lambda: sender.send_header(header("a", 1), 0.2))
        other.read(133)
        other.send(ACK + b"no such file\r\n")
        with pytest.raises(PartRefused, match=r"after its name and size; it said: '.*no such file'"):
            sending.result()

    def test_a_stream_s_header_that_is_refused(self, other: Peer) -> None:
        sender = begun(other, b"G")
        sending = Doing(lambda: sender.send_header(header("a", 1), 5))
        other.read(133)
        other.send(NAK)
        other.read(133)
        other.send(CAN + CAN)
        with pytest.raises(ReceiverCancelled):
            sending.result()

    def test_an_abort(self, other: Peer) -> None:
        Sender(other.port, answer=1).abort()
        other.expect(ABORT)


@given(st.lists(st.binary(max_size=12), max_size=6), st.sampled_from([b"C", NAK, b"G"]))
@settings(max_examples=100, deadline=None)
def test_whatever_a_receiver_answers(answers: list[bytes], start: bytes) -> None:
    """It ends, soon, with what is documented; a file counts as sent only if each block of it was acknowledged."""
    with peer() as other, patch.object(xmodem_sender, "QUIET_SECONDS", 0.005):
        sender = begun(other, start, answer=0.01)
        acknowledged = 0
        try:
            for done, answer in zip(sender.send(pieces(bytes(300), 128, 0)), [*answers, b""], strict=False):
                acknowledged = done
                other.send(answer)
            sender.end(never)
        except (ProxyflashError, ReceiverCancelled):
            pass
        else:
            assert b"".join(answers).count(ACK) >= 1
        assert acknowledged in (0, 128, 256, 300)


@given(st.binary(max_size=300))
def test_what_was_said_is_one_line_that_can_be_read(heard: bytes) -> None:
    text = said(heard)
    assert text.isprintable()
    assert len(text) < 200
