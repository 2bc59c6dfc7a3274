"""A part is found, says who it is, and stays who it is: over resets, power cycles and updates."""

from __future__ import annotations

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.enumerators.component import Component
from proxyflash.hil_tests.boot_session import RUNNING, bootloader, gone, running
from proxyflash.hil_tests.firmware import Firmware
from proxyflash.hil_tests.power import Power

ROUNDS = 3


def who(found: Component) -> tuple[str, ...]:
    return (found.id, found.name, found.manufacturer, found.model, found.properties.get("serial", ""))


def test_a_scan_finds_it(bench: Bench, component: BenchComponent) -> None:
    scan = bench.scan()
    assert [fault for fault in scan.faults if fault[0] == component.entry.spec.bus] == []
    (found,) = [item for item in scan.components if item.name == component.name]
    assert found.presence in RUNNING
    assert who(found) == who(running(component))


def test_no_other_part_has_its_identity(bench: Bench, component: BenchComponent) -> None:
    own = running(component).id
    assert own
    assert [item.name for item in bench.scan().components if item.id == own] == [component.name]


def test_looking_does_not_disturb_it(component: BenchComponent) -> None:
    first = running(component)
    for _ in range(ROUNDS):
        assert component.look() == first


def test_its_bootloader_says_who_it_is_each_time(component: BenchComponent) -> None:
    """Once from the application, and again where it is already."""
    before = running(component)
    with bootloader(component) as session:
        first = session.identity
        # A silent one has no name but its greeting, which was held against the profile.
        assert first.part or session.is_silent
        again = session.programmer.bootloader.connect()
        assert (again.part, again.serial, again.bootloader) == (first.part, first.serial, first.bootloader)
        session.programmer.start()
    assert who(running(component, before.version)) == who(before)


def test_it_keeps_its_identity_over_resets(component: BenchComponent) -> None:
    """Into the bootloader and back, by which every protocol resets."""
    before = running(component)
    seen = set()
    for _ in range(ROUNDS):
        with bootloader(component) as session:
            seen.add((session.identity.part, session.identity.serial, session.identity.bootloader))
            component.start(session.programmer)
        assert who(running(component, before.version)) == who(before)
    assert len(seen) == 1


def test_it_keeps_its_identity_over_power_cycles(component: BenchComponent, power: Power) -> None:
    before = running(component)
    for _ in range(ROUNDS):
        power.cycle()
        assert who(running(component, before.version)) == who(before)


def test_it_is_gone_while_its_supply_is_off(component: BenchComponent, power: Power) -> None:
    """Else a power cycle proves nothing."""
    before = running(component)
    power.off()
    if component.bench.prober(component.entry.spec.bus).can_tell(component.entry):
        gone(component)
    power.on()
    assert who(running(component, before.version)) == who(before)


@pytest.mark.destructive
def test_it_keeps_its_identity_over_updates(component: BenchComponent, firmware: Firmware) -> None:
    before = running(component)
    for release in (firmware.new, firmware.old):
        component.flash(release.image)
        assert who(running(component, release.version)) == who(before)
