"""Single faults of ECUs, at each request of a flash: what is lost, refused once or twice, promised and not kept, done twice.

The ECUs are those of the published sequences. A flash ends whole, or with an error that is true of the part; then the same
command succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from proxyflash.emulators import application
from proxyflash.emulators.can.isotp import IsoTpNode, Request
from proxyflash.emulators.uds.ecu import Ecu
from proxyflash.emulators.uds.nrc import Nrc
from proxyflash.enumerators.component import Presence
from proxyflash.flashers.formats import load
from proxyflash.flashers.memory import Range
from proxyflash.testing.thinning import Sweep
from proxyflash.tests.flashers.makers import APP, Maker
from proxyflash.tests.flashers.test_uds_published import NOT_VERIFIED, PUBLISHED, made
from proxyflash.transports import clock
from proxyflash.transports.errors import ProxyflashError

pytestmark = pytest.mark.simulated_time

READABLE = """
[bus.chassis]
kind = "can"
emulated = true
bitrate = 500_000

[[component]]
name = "ecu"
bus = "chassis"
protocol = "uds"
address = {request = 0x7E0}
emulated = {part = "acme-r88"}

[component.profile]
memory = [{start = 0x2_0000, size = 0x8_0000, erase_unit = 8192, write_alignment = 8}]
security = {key = "xor", secret = "5a5a5a5a"}
read = "memory"
"""
Serve = Callable[[Ecu, Request], None]


class Faulty:
    """All ECUs from now on. `fault`: how request number `at` is served, and those alike after it, `times` in all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests = 0
        self._at = self._left = 0
        self._head = b""
        self._fault: Callable[[Faulty, Ecu, Request], None] = unheard
        self._mute = False
        self.serve: Serve = Ecu._serve
        send = IsoTpNode.send

        def serving(processor: Ecu, request: Request) -> None:
            if request.data[0] == 0x3E:  # TesterPresent comes when it comes.
                self.serve(processor, request)
                return
            self.requests += 1
            due = self._left and self.requests >= self._at and self._head in (b"", request.data[:4])
            if not due:
                self.serve(processor, request)
                return
            self._head = request.data[:4]
            self._left -= 1
            self._fault(self, processor, request)

        def sending(node: IsoTpNode, data: bytes) -> None:
            if not self._mute:
                send(node, data)

        monkeypatch.setattr(Ecu, "_serve", serving)
        monkeypatch.setattr(IsoTpNode, "send", sending)

    def begin(self, at: int = 0, times: int = 0, fault: Callable[[Faulty, Ecu, Request], None] | None = None) -> None:
        self.requests, self._at, self._left, self._head = 0, at, times, b""
        self._fault = fault or unheard

    @contextmanager
    def muted(self) -> Iterator[None]:
        self._mute = True
        try:
            yield
        finally:
            self._mute = False


def unheard(faulty: Faulty, ecu: Ecu, request: Request) -> None:
    """The request is lost."""


def unanswered(faulty: Faulty, ecu: Ecu, request: Request) -> None:
    """The answer is lost."""
    with faulty.muted():
        faulty.serve(ecu, request)


def promised(faulty: Faulty, ecu: Ecu, request: Request) -> None:
    """responsePending, three times, and then nothing."""
    for _ in range(3):
        ecu.link.send(bytes([0x7F, request.data[0], Nrc.RESPONSE_PENDING]))
        clock.sleep(0.5)


def late(faulty: Faulty, ecu: Ecu, request: Request) -> None:
    """responsePending, three times, and then the answer."""
    promised(faulty, ecu, request)
    faulty.serve(ecu, request)


def twice(faulty: Faulty, ecu: Ecu, request: Request) -> None:
    """The request reaches the ECU twice, and is answered twice."""
    faulty.serve(ecu, request)
    faulty.serve(ecu, request)


def refused(code: int) -> Callable[[Faulty, Ecu, Request], None]:
    def refuse(faulty: Faulty, ecu: Ecu, request: Request) -> None:
        ecu.link.send(bytes([0x7F, request.data[0], code]))

    return refuse


FAULTS = {
    "a lost request": (unheard, 1),
    "two lost requests": (unheard, 2),
    "a lost answer": (unanswered, 1),
    "two lost answers": (unanswered, 2),
    "a promise": (promised, 1),
    "a late answer": (late, 1),
    "a repeated request": (twice, 1),
    **{f"0x{code:02X}": (refused(code), 1) for code in (0x10, 0x21, 0x22, 0x24, 0x31, 0x33, 0x37, 0x71, 0x73, 0x7F)},
    **{f"0x{code:02X} twice": (refused(code), 2) for code in (0x21, 0x22, 0x24, 0x33, 0x70, 0x72, 0x7E)},
}  # fmt: skip
"""ISO 14229-1:2020, annex A, for the codes."""
PASSES = ("a lost request", "a lost answer", "a late answer", "a repeated request", "0x21", "0x21 twice")
"""Faults that a flash bears anywhere."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["steering", "quiet-bus", "blocks", "two-ids"])
def test_a_single_fault(
    name: str, fault: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = made(tmp_path, PUBLISHED[name][0])
    faulty, keys = Faulty(monkeypatch), NOT_VERIFIED.get(name, {})
    happens, times = FAULTS[fault]
    with maker.opened() as component:
        for _ in range(2):
            faulty.begin()
            component.flash(maker.image, **keys)
        for place in (sweep := Sweep(request, range(1, faulty.requests + 1), 2, f"{fault} at request")):
            with sweep.at(place):
                before, failure = content(maker), None
                faulty.begin(place, times, happens)
                try:
                    assert component.flash(maker.image, **keys).version == "1.5.0"
                except ProxyflashError as error:
                    failure = error
                if failure is None:
                    assert content(maker)[: len(APP)] == APP
                elif fault in PASSES:
                    raise failure
                else:
                    check_what_is_said(failure, changed=content(maker) != before)
                faulty.begin()
                assert component.flash(maker.image, **keys).version == "1.5.0"
                assert content(maker)[: len(APP)] == APP


@pytest.mark.parametrize("at", [0, 1, 2, 3, 4, 5])
def test_a_promise_after_the_last_block(at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ECU is asked to reset, who it is, and back into its default session. A promise that it does not keep takes P2*, which
    is as long as the reset gap; the question is asked again all the same."""
    maker = made(tmp_path, PUBLISHED["two-ids"][0])
    faulty = Faulty(monkeypatch)
    heads: list[bytes] = []
    serve = faulty.serve

    def noting(ecu: Ecu, request: Request) -> None:
        heads.append(request.data)
        serve(ecu, request)

    faulty.serve = noting
    with maker.opened() as component:
        for _ in range(2):
            heads.clear()
            faulty.begin()
            component.flash(maker.image)
        asked = [head for head in heads if head[0] != 0x3E]
        faulty.begin(asked.index(b"\x11\x01") + 1 + at, 1, promised)
        result = component.flash(maker.image)
        assert (result.version, result.booted, result.attempts) == ("1.5.0", True, 1)


@pytest.mark.parametrize("fault", ["a lost request", "a lost answer", "a late answer", "0x10", "0x22"])
def test_a_version_behind_a_session_and_a_key_bears_it(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the requests of a look."""
    maker = made(tmp_path, PUBLISHED["two-ids"][0])
    faulty = Faulty(monkeypatch)
    happens, times = FAULTS[fault]
    with maker.opened() as component:
        component.flash(maker.image)
        faulty.begin()
        component.look()
        for place in range(1, faulty.requests + 1):
            faulty.begin(place, times, happens)
            seen = component.look()
            assert (place, seen.presence, seen.version) == (place, Presence.OK, "1.5.0")


@pytest.mark.parametrize("size", [256, 512, 1500, 1536])
def test_an_answer_that_comes_twice_is_not_taken_for_the_next(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of ReadMemoryByAddress has no address in it (ISO 14229-1:2020, 11.3): what follows would be shifted."""
    maker = Maker(tmp_path, READABLE)
    held = application.make("1.5.0", "radar", "Acme", 1536, start=0x20000)
    maker.put((0x20000, held))
    faulty = Faulty(monkeypatch)
    with maker.opened() as component:
        component.flash(maker.image)
        faulty.begin()
        with component.programmer() as programmer:
            programmer.read([Range(0x20000, size)])
        for place in range(1, faulty.requests + 1):
            faulty.begin(place, 1, twice)
            with component.programmer() as programmer:
                assert programmer.read([Range(0x20000, size)])[0].data == held[:size], place
            faulty.begin(place, 1, twice)
            with component.programmer() as programmer:
                assert programmer.verify(load(maker.image)) == "read back"


def content(maker: Maker) -> bytes:
    flash: Any = maker.device.flash
    found: bytes = flash.read(0x10000, 0x8000)
    return found


def check_what_is_said(error: ProxyflashError, *, changed: bool) -> None:
    assert error.code.startswith("E-")
    assert error.remedy
    left = error.left
    assert left is not None
    assert left.touched or not changed
    # Whoever reads that it does not boot has an ECU with a part of its memory erased.
    assert left.boots is not False or changed
