"""What is asked outside of the buses: asked once, recorded with its answer, and answered from the recording."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxyflash.emulators.replay.session import Replay, ReplayUnanswered
from proxyflash.transports.outside import Outside, OutsideFailed, without_passwords
from proxyflash.transports.recording.formats import Recording
from proxyflash.transports.recording.recorder import LONGEST_ANSWER, LONGEST_QUESTION, Recorder
from proxyflash.transports.recording.records import Answer

WITH = "command: curl http://admin:hunter2@pdu/off"
WITHOUT = "command: curl http://left-out@pdu/off"


def broken() -> str:
    raise OutsideFailed("https://me:hunter3@pdu/ does not answer")


def test_an_answer_is_recorded_and_replayed() -> None:
    recorder = Recorder()
    outside = Outside(lambda: recorder)
    assert not outside.replayed
    assert outside.ask("a", lambda: "1") == "1"
    assert outside.ask("a", lambda: "2") == "2"
    replayed = Outside(lambda: None, Replay(Recording(tuple(recorder.records()))))
    assert replayed.replayed
    assert [replayed.ask("a", broken) for _ in range(3)] == ["1", "2", "2"]
    with pytest.raises(ReplayUnanswered, match="no answer to this: b"):
        replayed.ask("b", lambda: "asked")


def test_a_failure_is_replayed_as_one() -> None:
    recorder = Recorder()
    with pytest.raises(OutsideFailed, match="hunter3"):
        Outside(lambda: recorder).ask("a", broken)
    replayed = Outside(lambda: None, Replay(Recording(tuple(recorder.records()))))
    with pytest.raises(OutsideFailed, match="https://left-out@pdu/ does not answer"):
        replayed.ask("a", lambda: "asked")


def test_passwords_of_urls_are_in_no_question() -> None:
    recorder = Recorder()
    Outside(lambda: recorder).ask(WITH, lambda: "done")
    [record] = recorder.records()
    assert isinstance(record, Answer)
    assert (record.question, record.text) == (WITHOUT, "done")
    for question in (WITH, WITHOUT):
        assert Outside(lambda: None, Replay(Recording((record,)))).ask(question, broken) == "done"
    assert without_passwords(WITHOUT) == WITHOUT


def test_long_ones_are_cut() -> None:
    recorder = Recorder()
    Outside(lambda: recorder).ask("q" * 10_000, lambda: "a" * 100_000 + "end")
    [record] = recorder.records()
    assert isinstance(record, Answer)
    assert (len(record.question), len(record.text), record.text[-3:]) == (LONGEST_QUESTION, LONGEST_ANSWER, "end")
    assert Outside(lambda: None, Replay(Recording((record,)))).ask("q" * 10_000, broken).endswith("end")


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("ftp://me:p@ss@pdu/off", "ftp://left-out@pdu/off"),
        ("x://a:b@c y://d:e@f@g", "x://left-out@c y://left-out@g"),
        ("curl 'https://h/x?id=7&access_token=T0K#a'", "curl 'https://h/x?id=7&access_token=left-out#a'"),
        ("https://h/x?sig=a%2Fb&sv=2 -o f", "https://h/x?sig=left-out&sv=2 -o f"),
        ("test a?b=c", "test a?b=c"),
        ('curl -H "Authorization: Bearer T0K" pdu/on', 'curl -H "Authorization: left-out" pdu/on'),
        ("curl -H 'authorization:Basic dTpw' pdu/on", "curl -H 'authorization:left-out' pdu/on"),
        (r'curl -H "Authorization: Digest a=\"T0K\", b=T0K" on', 'curl -H "Authorization: left-out" on'),
        (r"curl -H Authorization:\ Bearer\ T0K pdu/on", "curl -H Authorization:left-out pdu/on"),
        ("""http pdu/on Proxy-Authorization:"Bearer T0K" x""", "http pdu/on Proxy-Authorization:left-out x"),
        ("wget --header='Cookie: a=T0K; b=T0K' pdu/on", "wget --header='Cookie: left-out' pdu/on"),
        ('curl "--header=X-Api-Key: T0K" on', 'curl "--header=X-Api-Key: left-out'),
        ("curl -H Private-Token:T0K on", "curl -H Private-Token:left-out on"),
        ("python -c \"{'Authorization': 'Bearer T0K'}\"", "python -c \"{'Authorization': left-out"),
        ("> Authorization: Bearer T0K\r\n> Accept: x", "> Authorization: left-out\r\n> Accept: x"),
        ("< Set-Cookie: a=T0K; Path=/", "< Set-Cookie: left-out"),
        ("sh -c 'curl -H \"Cookie: T0K\" on'", "sh -c 'curl -H \"Cookie: left-out\" on'"),
        ('curl -H Cookie:"T0K T0K', "curl -H Cookie:left-out"),
        ('curl -H "Authorization: Bearer "T0K"T0K" on', 'curl -H "Authorization: left-out" on'),
        ("curl -H 'Cookie:'T0K on", "curl -H 'Cookie:left-out' on"),
        ("no authorization for the cookie", "no authorization for the cookie"),
        ("./key: not found", "./key: not found"),
        ("http://pdu/mail?to=me@home", "http://pdu/mail?to=me@home"),
    ],
)
def test_secrets_in_urls_and_headers_are_left_out(text: str, left: str) -> None:
    assert without_passwords(text) == left
    assert without_passwords(left) == left


PIECES = (
    "Authorization",
    "Cookie",
    ":",
    " ",
    "'",
    '"',
    "\\",
    "\n",
    "Bearer",
    "left-out",
    "x-key",
    "://",
    "@",
    "?token=",
    "a",
)


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_what_is_left_out_stays_so(text: str) -> None:
    """A recorded question is asked again with what stands in the recorded bench file."""
    once = without_passwords(text)
    assert without_passwords(once) == once


def test_a_long_text_takes_time_in_proportion() -> None:
    for piece in (
        "a-",
        "Authorization",
        "Cookie:\\",
        'Cookie:"',
        "Cookie: '",
        "x-key:",
        "Cookie" + " " * 50,
        "?key",
        "://",
    ):
        began = time.process_time()
        without_passwords(piece * (100_000 // len(piece)))
        assert time.process_time() - began < 5, piece
