"""What an error carries, and how it is passed on with more: copies, names, and remedies that name a command."""

from __future__ import annotations

import pytest
from proxyflash.transports.errors import (
    CanGone,
    NextAction,
    ProxyflashError,
    SerialTimeout,
    Unexpected,
    causes,
    known,
    naming,
)
from proxyflash.transports.plain import CAUSE

REMEDY = ("Go on: ", NextAction.RESUME, ". Or give up: ", NextAction.ABANDON)


def test_a_remedy_in_pieces_names_its_commands() -> None:
    error = ProxyflashError("it stopped", remedy=REMEDY)
    assert error.remedy == "Go on: proxyflash resume. Or give up: proxyflash apply --abandon MANIFEST"
    assert str(error) == f"it stopped. {error.remedy}"


def test_commands_are_worded_in_a_copy() -> None:
    error = ProxyflashError("it stopped", remedy=REMEDY, component="imu")
    worded = error.worded(lambda action: f"[{action}]")
    assert worded.remedy == "Go on: [resume]. Or give up: [apply --abandon MANIFEST]"
    assert (worded.cause, worded.component) == ("it stopped", "imu")
    assert "[" not in error.remedy


def test_without_a_command_nothing_is_worded() -> None:
    error = CanGone("can0 is down")
    assert error.worded(lambda action: "other") is error


def test_a_copy_with_a_place_keeps_the_rest() -> None:
    error = SerialTimeout("no answer", received=b"\x79", component="imu")
    placed = error.placed("desk.toml:3")
    assert isinstance(placed, SerialTimeout)
    assert (placed.cause, placed.remedy, placed.component) == ("desk.toml:3: no answer", error.remedy, "imu")
    assert placed.received == b"\x79"
    assert error.cause == "no answer"


def test_the_cause_of_a_copy_has_its_limit_too() -> None:
    assert len(ProxyflashError("x" * CAUSE).placed("desk.toml:3").cause) == CAUSE + 1


def test_a_copy_with_another_remedy_is_of_the_same_class() -> None:
    advised = CanGone("can0 is down").advised("Plug it in.")
    assert isinstance(advised, CanGone)
    assert (advised.cause, advised.remedy) == ("can0 is down", "Plug it in.")


def test_an_error_is_named_once() -> None:
    with pytest.raises(CanGone) as caught, naming("outer"), naming("inner"):
        raise CanGone("can0 is down")
    assert caught.value.component == "inner"


def test_an_error_of_another_kind_passes_as_it_is() -> None:
    with pytest.raises(KeyError), naming("imu"):
        raise KeyError("x")


def test_an_exception_that_nobody_foresaw() -> None:
    ours = CanGone("can0 is down")
    assert known(ours) is ours
    assert isinstance(known(KeyError("x")), Unexpected)


def test_an_error_that_was_raised_from_itself_ends_its_chain() -> None:
    inner, outer = CanGone("can0 is down"), SerialTimeout("no answer")
    outer.__cause__, inner.__cause__ = inner, outer
    assert list(causes(outer)) == [outer, inner]


def test_the_error_that_was_being_handled_is_a_cause_when_asked_for() -> None:
    inner, outer = OSError(19, "No such device"), CanGone("can0 is down")
    outer.__context__ = inner
    assert list(causes(outer)) == [outer]
    assert list(causes(outer, contexts=True)) == [outer, inner]
