"""Faults come when they are asked for, by chance from a seed, and are kept count of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from proxyflash.emulators.faults import Fault, FaultPlan, Faults


def test_a_sound_wire_has_none() -> None:
    faults = Faults()
    assert [faults.draw() for _ in range(1000)] == [None] * 1000


def test_chance_is_about_what_was_asked_for_and_the_same_for_a_seed() -> None:
    drawn = [[Faults(FaultPlan(drop=0.1, seed=seed)).draw() for _ in range(1)] for seed in (1, 1)]
    assert drawn[0] == drawn[1]
    faults = Faults(FaultPlan(drop=0.1, corrupt=0.1, seed=3))
    kinds = [faults.draw() for _ in range(5000)]
    assert 400 < kinds.count(Fault.DROP) < 600
    assert 350 < kinds.count(Fault.CORRUPT) < 550
    assert len(faults.done) == kinds.count(Fault.DROP) + kinds.count(Fault.CORRUPT)


def test_faults_within_a_window() -> None:
    faults = Faults(FaultPlan(drop=1.0, first=3, last=4))
    assert [faults.draw() for _ in range(6)] == [None, None, Fault.DROP, Fault.DROP, None, None]


def test_disconnecting_lasts_and_bus_off_happens_once() -> None:
    faults = Faults(FaultPlan(disconnect_after=2))
    assert [faults.draw() for _ in range(3)] == [None, Fault.DISCONNECT, Fault.DISCONNECT]
    faults = Faults(FaultPlan(bus_off_after=2))
    assert [faults.draw() for _ in range(3)] == [None, Fault.BUS_OFF, None]


def test_corruption_turns_one_bit() -> None:
    faults = Faults()
    before = bytes(8)
    after = faults.corrupted(before)
    assert sum(bin(byte).count("1") for byte in after) == 1
    assert faults.corrupted(b"") == b""


CHANCES = st.sampled_from([0.0, 0.5, 1.0])
PLACES = st.integers(0, 8)


@given(
    st.builds(
        FaultPlan,
        drop=CHANCES,
        corrupt=CHANCES,
        disconnect_after=PLACES,
        bus_off_after=PLACES,
        first=PLACES,
        last=PLACES,
    ),
    st.lists(st.integers(1, 4), max_size=5),
)
def test_units_that_are_passed_at_once_are_those_that_no_fault_is_drawn_for(plan: FaultPlan, counts: list[int]) -> None:
    together, singly = Faults(plan), Faults(plan)
    for count in counts:
        drawn = [singly.draw() for _ in range(count)]
        if together.spare(count):
            assert drawn == [None] * count
        else:
            assert [together.draw() for _ in range(count)] == drawn
        assert (together.units, together.done) == (singly.units, singly.done)


def test_a_fault_that_is_far_away_costs_nothing() -> None:
    faults = Faults(FaultPlan(disconnect_after=1000))
    assert faults.spare(999)
    assert not faults.spare(1)
