"""Faults come when they are asked for, by chance from a seed, and are kept count of."""

from __future__ import annotations

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
