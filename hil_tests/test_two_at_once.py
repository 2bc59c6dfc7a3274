"""Two parts on one bus are flashed at the same time, and neither sees anything of the other."""

from __future__ import annotations

import pytest
from proxyflash.enumerators.bench import Bench
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers import events as ev
from proxyflash.flashers.events import RunContext
from proxyflash.flashers.programmer import FlashResult
from proxyflash.hil_tests.bench_run import BenchRun
from proxyflash.hil_tests.boot_session import running
from proxyflash.hil_tests.firmware import Firmware
from proxyflash.hil_tests.plugin import run_of
from proxyflash.transports import clock

pytestmark = pytest.mark.destructive
SECONDS = 100.0
"""For both to come to their first phase, and for both to end."""


@pytest.fixture
def other(bench: Bench, component: BenchComponent) -> BenchComponent:
    """The next one on the component's bus."""
    bus = component.entry.spec.bus
    names = [item.name for item in bench.components if item.entry.spec.bus == bus]
    if len(names) < 2:
        pytest.skip(f"'{component.name}' is alone on bus '{bus}' of bench '{bench.file.path.stem}'")
    found = bench.component(names[(names.index(component.name) + 1) % len(names)])
    if not (component.entry.flasher.shares_bus or found.entry.flasher.shares_bus):
        pytest.skip(f"one part of bus '{bus}' at a time is in its bootloader")
    return found


def test_both_are_flashed(component: BenchComponent, other: BenchComponent, request: pytest.FixtureRequest) -> None:
    run: BenchRun = run_of(request.config)
    both = (component, other)
    releases: dict[str, Firmware] = {item.name: run.firmware(item, request.node) for item in both}
    identities = {}
    for item in both:
        item.flash(releases[item.name].old.image)
        identities[item.name] = running(item, releases[item.name].old.version).id
    planned: set[str] = set()
    changed = clock.Condition()
    results: dict[str, FlashResult | None] = {}
    told: dict[str, list[ev.Event]] = {item.name: [] for item in both}

    def flash(item: BenchComponent) -> None:
        def hear(event: ev.Event) -> None:
            told[item.name].append(event)
            if isinstance(event, ev.Planned):
                with changed:
                    planned.add(item.name)
                    changed.notify_all()
                    assert changed.wait_for(lambda: len(planned) == 2, SECONDS)

        results[item.name] = item.flash(releases[item.name].new.image, context=RunContext(hear))

    threads = [clock.Thread(flash, args=(item,)) for item in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for item in both:
        result = results.get(item.name)
        assert result is not None
        assert result.verified
        assert result.component == item.name
        assert {event.component for event in told[item.name]} == {item.name}
        found = running(item, releases[item.name].new.version)
        assert found.id == identities[item.name]
