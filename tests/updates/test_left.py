"""What a failure says of its part: the phase, what was erased and written, whether it boots."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.flashers.errors import Cancelled, RebootFailed
from proxyflash.flashers.events import Event, Phase, PhaseStarted, Progress, RunContext
from proxyflash.flashers.flasher import Identity, ProbeResult, State
from proxyflash.tests.explore.families import BY_NAME, FAMILIES
from proxyflash.tools.commands import run
from proxyflash.transports.errors import ExitStatus, ProxyflashError
from proxyflash.updates.engine.engine import Engine

from .one_part import OnePart

pytestmark = pytest.mark.simulated_time
BOOTS = {
    "dfu": None,
    "smp": True,
    "smp-recovery": None,
    "xmodem": None,
    "ymodem": None,
    "canopen": None,
    "katapult-can": None,
    "katapult-uart": None,
}
"""Whether it boots during a write, of parts that take whole images, and of Katapult while the first page is written; the others
do not."""


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[[str], OnePart]]:
    with ExitStack() as stack:
        yield lambda name: OnePart(tmp_path, BY_NAME[name], stack)


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_a_part_that_lost_its_supply_amid_the_write_is_not_an_absent_one(
    make: Callable[[str], OnePart], name: str
) -> None:
    part = make(name)
    component = part.bench.component("part")
    supply = part.bench.emulated_device("part").supply
    supply.cut_at(100 if name == "stm32-uart" else 6)
    with pytest.raises(ProxyflashError) as caught:
        component.flash(part.new, address=part.address)
    left = caught.value.left
    assert left is not None
    assert (caught.value.exit_status, caught.value.component) == (ExitStatus.RESUMABLE, "part")
    assert left.touched
    assert left.phase in ("erase", "write")
    assert left.boots is BOOTS.get(name, False)
    assert 0 <= left.written_bytes < 1600
    if name == "stm32-uart":
        assert (left.phase, left.erased_bytes, left.written_bytes > 0) == ("write", 2048, True)
    # And a part that isn't there.
    with pytest.raises(ProxyflashError) as absent:
        component.flash(part.new, address=part.address)
    left = absent.value.left
    assert left is not None
    assert absent.value.exit_status is ExitStatus.ABSENT
    assert (left.touched, left.phase, left.erased_bytes, left.written_bytes) == (False, "connect", 0, 0)
    supply.on()
    assert component.flash(part.new, address=part.address).verified


@pytest.mark.parametrize("cut", [True, False])
def test_what_the_command_prints(
    make: Callable[[str], OnePart], tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: bool
) -> None:
    part = make("stm32-uart")
    part.bench.close()

    def opener(path: str | None, state: Path | None) -> Bench:
        bench = Bench.open(path, state=state)
        supply = bench.emulated_device("part").supply
        supply.cut_at(100) if cut else supply.off()
        return bench

    where = ["--bench", str(tmp_path / "bench.toml"), "--state", str(tmp_path / "state")]
    flash = [*where, "flash", "part", str(part.new), "--address", "0x8000000"]
    assert run(flash, opener=opener) == (10 if cut else 4)
    printed = capsys.readouterr().err.splitlines()[-1]
    if cut:
        assert " (it was being written: 2,048 bytes erased, " in printed
        assert " written; it does not boot until its image is whole). " in printed
        assert "It goes on with what is missing: proxyflash --bench" in printed
    else:
        assert " (in connect: nothing was erased or written). " in printed
    assert run([*flash, "--full", "--json"], opener=opener) == (10 if cut else 4)
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["phase"], error["touched"], error["boots"]) == (
        ("write", True, False) if cut else ("connect", False, None)
    )
    assert (error["erased_bytes"], error["written_bytes"] > 0) == ((2048, True) if cut else (0, False))


@pytest.mark.parametrize("name", [family.name for family in FAMILIES])
def test_a_part_that_lost_its_supply_while_it_starts_holds_its_image(make: Callable[[str], OnePart], name: str) -> None:
    """Its silence says nothing of the image, which is verified."""
    part = make(name)
    component = part.bench.component("part")
    supply = part.bench.emulated_device("part").supply

    def watch(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase is Phase.BOOT:
            supply.off()

    with pytest.raises(ProxyflashError) as caught:
        component.flash(part.new, address=part.address, context=RunContext(watch))
    left = caught.value.left
    assert left is not None
    assert (left.phase, left.verified, left.boots) == ("boot", True, None)
    assert ", the image is verified; whether it boots is not known)" in str(caught.value)
    if isinstance(caught.value, RebootFailed):
        assert "upply" in caught.value.remedy
    supply.on()
    again = component.flash(part.new, address=part.address)
    assert again.verified
    assert again.booted


def test_a_part_that_answers_from_its_bootloader_does_not_boot(
    make: Callable[[str], OnePart], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its image is whole all the same, and its supply is on."""
    part = make("uds")
    component = part.bench.component("part")
    in_bootloader = ProbeResult(State.BOOTLOADER, Identity())
    monkeypatch.setattr(type(part.bench.prober("line")), "application", lambda *_: in_bootloader)
    with pytest.raises(RebootFailed, match="answered from its bootloader") as caught:
        component.flash(part.new, address=part.address)
    left = caught.value.left
    assert left is not None
    assert (left.verified, left.boots) == (True, False)
    assert "Is its supply on" not in caught.value.remedy


def test_what_an_update_reports(make: Callable[[str], OnePart]) -> None:
    """The update has failed for good: its exit status is not that of one which can be resumed."""
    part = make("uds")
    engine = Engine(part.bench)
    plan = engine.plan(part.update, part.bench.scan().components)
    part.bench.emulated_device("part").supply.cut_at(6)
    outcome = engine.apply(plan)
    assert outcome.error is not None
    assert outcome.error.exit_status is ExitStatus.FAILED
    (told,) = outcome.report()["componentResults"]
    assert told["left"]["phase"] in ("erase", "write")
    assert (told["left"]["touched"], told["left"]["boots"]) == (True, False)
    (entry,) = engine.store.entries()
    assert engine.outcome(entry).report() == outcome.report()


def test_a_part_that_is_half_written_and_away_is_not_said_to_be_untouched(make: Callable[[str], OnePart]) -> None:
    part = make("uds")
    seen: list[Event] = []
    amid = RunContext(seen.append, lambda: any(isinstance(e, Progress) and e.phase is Phase.WRITE for e in seen))
    engine = Engine(part.bench, context=amid)
    assert not engine.apply(engine.plan(part.update, part.bench.scan().components)).progress.over
    part.bench.emulated_device("part").supply.off()
    for _ in range(2):
        outcome = Engine(part.bench).resume()
        assert outcome.error is not None
        assert (outcome.error.exit_status, outcome.progress.over) == (ExitStatus.RESUMABLE, False)
        assert "(in connect: nothing more was erased or written, but an earlier run has changed it)" in str(
            outcome.error
        )
    part.bench.emulated_device("part").supply.on()
    assert Engine(part.bench).resume().succeeded


@pytest.mark.parametrize(
    ("when", "how"),
    [
        (lambda e: e.phase is Phase.WRITE, "it was being written: 2,048 bytes erased, "),
        (
            lambda e: e.phase is Phase.WRITE and e.done == e.total,
            "it was written whole and is not verified: 2,048 bytes ",
        ),
        (lambda e: e.phase is Phase.VERIFY, "it was written whole and is not verified: 2,048 bytes "),
    ],
    ids=["during the write", "after its last byte", "during the check"],
)
def test_a_stop_says_how_far_it_came(
    make: Callable[[str], OnePart], when: Callable[[Progress], bool], how: str
) -> None:
    part = make("stm32-uart")
    seen: list[Event] = []
    stopped = RunContext(seen.append, lambda: any(isinstance(e, Progress) and when(e) for e in seen))
    with pytest.raises(Cancelled) as caught:
        part.bench.component("part").flash(part.new, address=part.address, context=stopped)
    assert f"part: stopped on request ({how}" in str(caught.value)
    assert ("does not boot until its image is whole" in str(caught.value)) is ("being written" in how)
    assert caught.value.exit_status is ExitStatus.RESUMABLE


def test_a_stopped_update_says_how_far_it_came(make: Callable[[str], OnePart]) -> None:
    part = make("uds")
    seen: list[Event] = []
    amid = RunContext(seen.append, lambda: any(isinstance(e, Progress) and e.phase is Phase.WRITE for e in seen))
    engine = Engine(part.bench, context=amid)
    outcome = engine.apply(engine.plan(part.update, part.bench.scan().components))
    assert "stopped on request (it was being written: " in str(outcome.error)
    (told,) = outcome.report()["componentResults"]
    assert "stopped on request (it was being written: " in told["resultDetails"]
