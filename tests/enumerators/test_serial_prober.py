"""Asking a running part on a serial line for its version, by the question that the bench file gives."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxyflash.emulators.serial.line import Line
from proxyflash.emulators.serial.wire import UartWire
from proxyflash.enumerators.benchfile.schema import VersionQuestion
from proxyflash.enumerators.probers.serial import ANSWER_LIMIT, ask
from proxyflash.transports.deadline import Deadline
from proxyflash.transports.errors import SerialGone
from proxyflash.transports.serial.port import SerialPort


class Part:
    """The other end of the line: sends its answers, one for each of the host's writes, and keeps what it heard."""

    def __init__(self, *answers: bytes, baudrate: int = 115_200, pace: float = 0) -> None:
        self.wire = UartWire(uuid.uuid4().hex, pace=pace)
        self.wire.device.line = Line(baudrate, 8, "N", 1)
        self.heard = b""
        self.answers = list(answers)
        self.wire.device.listener = self._listen
        self.port = SerialPort.open("imu", {**self.wire.host_settings(), "baudrate": baudrate})

    def _listen(self) -> None:
        self.heard += self.wire.device.take(self.wire.device.available())
        if self.answers:
            self.wire.device.send(self.answers.pop(0))

    def ask(self, send: str = "VER?\r", match: str = r"FW ([0-9.]+)", timeout: float = 0.05) -> str | None:
        return ask(self.port, VersionQuestion(send=send, match=match, timeout=timeout), Deadline.after(5))

    def close(self) -> None:
        self.port.close()
        self.wire.close()


@pytest.fixture
def make_part() -> Iterator[Callable[..., Part]]:
    made: list[Part] = []

    def make(*answers: bytes) -> Part:
        made.append(Part(*answers))
        return made[-1]

    yield make
    for part in made:
        part.close()


class TestAsk:
    def test_the_question_and_the_answer(self, make_part: Callable[..., Part]) -> None:
        part = make_part(b"FW 1.5.0\r\n")
        assert part.ask() == "1.5.0"
        assert part.heard == b"VER?\r"

    def test_what_comes_before_and_after_is_passed_over(self, make_part: Callable[..., Part]) -> None:
        assert make_part(b"\xff\0booted\r\n> FW 2.0\r\n> ").ask() == "2.0"

    def test_what_came_before_the_question_is_no_answer(self, make_part: Callable[..., Part]) -> None:
        part = make_part(b"FW 1.5.0\r\n")
        part.wire.device.send(b"FW 0.0.1\r\n")
        assert part.ask() == "1.5.0"

    def test_no_answer(self, make_part: Callable[..., Part]) -> None:
        assert make_part().ask() is None

    def test_another_answer(self, make_part: Callable[..., Part]) -> None:
        assert make_part(b"ERROR\r\n").ask() is None

    def test_an_answer_that_nothing_ends(self, make_part: Callable[..., Part]) -> None:
        assert make_part(b"FW 1.5").ask() == "1.5"

    def test_an_answer_in_pieces(self) -> None:
        """At 9600 bit/s each byte comes a millisecond after the one before it; the version counts once it has ended."""
        part = Part(b"FW 1.5.0\r\n", baudrate=9600, pace=1.0)
        assert part.ask(timeout=5) == "1.5.0"
        part.close()

    def test_a_group_that_takes_no_part(self, make_part: Callable[..., Part]) -> None:
        assert make_part(b"FW\r\n").ask(match=r"FW( [0-9.]+)?") is None

    def test_a_version_that_is_no_text(self, make_part: Callable[..., Part]) -> None:
        assert make_part(b"V\xff\x01.").ask(match=r"V(..)") == "\ufffd\x01"

    def test_a_part_that_talks_without_end_is_heard_so_far(self, make_part: Callable[..., Part]) -> None:
        part = make_part(b"x" * (2 * ANSWER_LIMIT) + b"FW 1.5.0\r\n")
        assert part.ask() is None

    def test_the_deadline_goes_before_the_questions_own_time(self, make_part: Callable[..., Part]) -> None:
        question = VersionQuestion(send="V", match="(.)", timeout=60)
        assert ask(make_part().port, question, Deadline.after(0.02)) is None

    def test_a_port_that_is_gone(self, make_part: Callable[..., Part]) -> None:
        part = make_part()
        part.wire.unplug()
        with pytest.raises(SerialGone):
            part.ask()


@settings(max_examples=150, deadline=None)
@given(
    send=st.text(max_size=20),
    match=st.one_of(st.sampled_from([r"FW ([0-9.]+)", r"(.*)", r"(a|b)*", r"()", r"(\d)?x", "(é)", r"V=(\S+)$"])),
    answer=st.one_of(st.binary(max_size=200), st.from_regex(rb"\AFW [0-9.]{1,9}\r?\Z"), st.just(b"V=1\xc3\xa9\n")),
)
def test_any_question_and_any_answer(send: str, match: str, answer: bytes) -> None:
    """A version of text, or none; never a crash."""
    part = Part(answer)
    version = part.ask(send, match, timeout=0.002)
    assert version is None or isinstance(version, str)
    part.close()
