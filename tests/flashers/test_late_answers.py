"""Answers that come after their time: they end no job, and none is taken for the answer to the next request.

The wire holds an answer back, with everything behind it, for longer than the host waits. So do a USB adapter on a busy hub, and
a host that is out of breath. The ECU works for longer than its P2. There are more late answers than the engine has attempts.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.tests.flashers.test_patience import BENCHES, firmware
from proxyflash.transports import clock

pytestmark = pytest.mark.simulated_time

FAMILIES = {
    "uds": ("timings = {latency = 0.1}", 0.5, 9),
    "stm32-uart": ("answer = 0.5", 1.3, 9),
    "stk500v1": ("answer = 0.5", 0.8, 61),
    "stk500v2": ("answer = 0.5", 0.8, 17),
    "avr109": ("answer = 0.5", 0.8, 29),
    "xmodem": ("timings.block = 0.5", 0.8, 3),
    "ymodem": ("timings.block = 0.5", 0.8, 3),
    "smp": ("answer = 0.5", 0.8, 9),
}
"""Keys of the profile that shorten its time for an answer; how late an answer is, in seconds; of how many one is late."""


def hold_back(bench: Bench, seconds: float, every: int, first: int = 0) -> list[int]:
    """Has one of `every` answers come so late, or the `first` ones; which of them were late."""
    late: list[int] = []
    answers = 0

    def is_late() -> bool:
        nonlocal answers
        answers += 1
        if answers <= first or (not first and answers % every == every // 2):
            late.append(answers)
        return late[-1:] == [answers]

    device = bench.emulated_device("part")
    if device.bus_kind == "can":
        link = device.board.link  # type: ignore[attr-defined]
        send = link.send

        def answer(*arguments: object) -> object:
            if is_late():
                clock.sleep(seconds)
            return send(*arguments)

        link.send = answer
        return late
    wire = bench.emulated_wire("b")
    ask, tell = wire.host.send, wire.device.send
    asked = False

    def sent(data: bytes, at: float | None = None) -> None:
        nonlocal asked
        asked = True
        ask(data, at)

    def told(data: bytes, at: float | None = None) -> None:
        nonlocal asked
        if asked and data:
            asked = False
            if is_late():
                at = (clock.monotonic() if at is None else at) + seconds
        tell(data, at)

    wire.host.send, wire.device.send = sent, told
    return late


@pytest.mark.parametrize("protocol", FAMILIES)
def test_late_answers_end_no_flash(protocol: str, tmp_path: Path) -> None:
    bench, start = BENCHES[protocol]
    keys, seconds, every = FAMILIES[protocol]
    size = 12_000 if protocol == "stk500v1" else 4_000
    (tmp_path / "old.bin").write_bytes(firmware(protocol, start, "1.4.2", size))
    (tmp_path / "new.bin").write_bytes(new := firmware(protocol, start, "1.5.0", size))
    (tmp_path / "bench.toml").write_text(bench.replace("profile = {", f"profile = {{{keys}, ").replace(", }", "}"))
    events: list[ev.Event] = []
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        device = opened.emulated_device("part")
        clock.sleep(3.0)
        late = hold_back(opened, seconds, every)
        address = start if protocol in ("uds", "stm32-uart") else None
        opened.component("part").flash(tmp_path / "new.bin", address=address, context=RunContext(events.append))
        assert len(late) > 3
        held = device.flash.read(device.flash.base, device.flash.end - device.flash.base)
    assert new[64:] in held


@pytest.mark.parametrize("seconds", [0.8, 1.6, 2.5])
@pytest.mark.parametrize("protocol", FAMILIES)
def test_a_part_whose_first_answers_are_late_is_not_absent(protocol: str, seconds: float, tmp_path: Path) -> None:
    """As of a part that is still starting, with the default profile: its answers to the first three requests."""
    bench, start = BENCHES[protocol]
    (tmp_path / "old.bin").write_bytes(firmware(protocol, start, "1.4.2", 4_000))
    (tmp_path / "new.bin").write_bytes(new := firmware(protocol, start, "1.5.0", 4_000))
    (tmp_path / "bench.toml").write_text(bench)
    with Bench.open(tmp_path / "bench.toml", state=tmp_path / "state") as opened:
        device = opened.emulated_device("part")
        clock.sleep(3.0)
        late = hold_back(opened, seconds, 1, first=3)
        address = start if protocol in ("uds", "stm32-uart") else None
        opened.component("part").flash(tmp_path / "new.bin", address=address)
        assert len(late) == 3
        held = device.flash.read(device.flash.base, device.flash.end - device.flash.base)
    assert new[64:] in held
