"""Cut off in each phase: the wire, the adapter, the supply, the person at the keyboard.

An interruption in the middle of flashing leaves a part that runs, the old release or the new one and never a mixture, or
a part that the same command recovers.
"""

from __future__ import annotations

import pytest
from proxyflash.enumerators.bench_component import BenchComponent
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import Phase, RunContext
from proxyflash.hil_tests.boot_session import RUNNING, reopened, running, started
from proxyflash.hil_tests.firmware import Firmware, TestImage
from proxyflash.hil_tests.wire_cuts import Cut, InPhase
from proxyflash.transports.errors import ProxyflashError

pytestmark = [pytest.mark.destructive, pytest.mark.timeout(300)]

PHASES = [
    pytest.param(phase, marks=[pytest.mark.slow] if phase is not Phase.WRITE else [])
    for phase in (Phase.CONNECT, Phase.ERASE, Phase.WRITE, Phase.VERIFY, Phase.BOOT)
]
"""The longest one is cut also where time is short."""
UNTOUCHED = (Phase.CONNECT,)
"""Cut in these, nothing was erased: it runs what it ran."""


@pytest.fixture
def old(component: BenchComponent, firmware: Firmware) -> TestImage:
    """The old release, which it runs."""
    release = firmware.old
    component.flash(release.image)
    running(component, release.version)
    return release


def fails_or_is_done(component: BenchComponent, new: TestImage, sink: InPhase) -> ProxyflashError | None:
    """The command, cut by the sink. What it can't survive it says, with the component that it happened on."""
    failure: ProxyflashError | None = None
    try:
        component.flash(new.image, expect_version=new.version or None, context=RunContext(sink))
    except ProxyflashError as error:
        failure = error
    assert sink.done, f"it was never cut: {failure or 'there was no such phase'}"
    if failure is not None:
        assert failure.component == component.name
        assert failure.cause
    return failure


def recovers(component: BenchComponent, old: TestImage, new: TestImage, *, untouched: bool) -> None:
    """A new connection, as the next command has; then the same command."""
    reopened(component)
    if untouched:
        running(component, old.version)
    else:
        found = started(component, patient=False)
        if found.presence in RUNNING and found.version and old.version and new.version:
            assert found.version in (old.version, new.version), "it runs a mixture"
    component.flash(new.image, expect_version=new.version or None)
    running(component, new.version)


@pytest.mark.parametrize("phase", PHASES, ids=str)
@pytest.mark.parametrize("cut", ["wire", "adapter"], indirect=True)
def test_the_wire(
    component: BenchComponent, firmware: Firmware, old: TestImage, cut: Cut, phase: Phase,
    request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """An adapter that vanishes while it holds a part's reset and boot pin may leave that in its bootloader."""
    new = firmware.new
    is_done = fails_or_is_done(component, new, InPhase(phase, cut.cut)) is None
    cut.join()
    if is_done:
        # Not all that a part is asked while it boots goes over what a test can cut.
        assert phase is Phase.BOOT
        running(component, new.version)
    recovers(component, old, new, untouched=phase in UNTOUCHED and "adapter" not in request.node.callspec.id)


@pytest.mark.needs("power")
@pytest.mark.parametrize("phase", PHASES, ids=str)
@pytest.mark.parametrize("cut", ["supply"], indirect=True)
def test_the_supply(component: BenchComponent, firmware: Firmware, old: TestImage, cut: Cut, phase: Phase) -> None:
    new = firmware.new
    error = fails_or_is_done(component, new, InPhase(phase, cut.cut))
    assert error is not None, "it can't know that it is done"
    cut.join()
    recovers(component, old, new, untouched=phase in UNTOUCHED)


@pytest.mark.needs("power")
@pytest.mark.parametrize("phase", PHASES, ids=str)
@pytest.mark.parametrize("cut", ["brown-out"], indirect=True)
def test_a_brown_out(component: BenchComponent, firmware: Firmware, old: TestImage, cut: Cut, phase: Phase) -> None:
    """The supply is back at once. It may go on unasked; if it does, it runs the new release."""
    new = firmware.new
    if fails_or_is_done(component, new, InPhase(phase, cut.cut)) is None:
        running(component, new.version)
    recovers(component, old, new, untouched=False)


@pytest.mark.parametrize("phase", [pytest.param(Phase.ERASE, marks=pytest.mark.slow), Phase.WRITE], ids=str)
def test_the_person_at_the_keyboard(
    component: BenchComponent, firmware: Firmware, old: TestImage, phase: Phase
) -> None:
    """Stopped by Ctrl-C it says that the same command goes on, which it does."""
    new = firmware.new
    stopped: list[bool] = []
    sink = InPhase(phase, lambda: stopped.append(True))
    with pytest.raises(Cancelled) as caught:
        component.flash(new.image, context=RunContext(sink, lambda: bool(stopped)))
    assert caught.value.component == component.name
    assert caught.value.touched
    recovers(component, old, new, untouched=False)


@pytest.mark.slow
@pytest.mark.needs("power")
@pytest.mark.parametrize("cut", ["supply"], indirect=True)
def test_twice_in_a_row(component: BenchComponent, firmware: Firmware, old: TestImage, cut: Cut) -> None:
    """The command that recovers is cut itself, earlier."""
    new = firmware.new
    for phase in (Phase.VERIFY, Phase.WRITE, Phase.ERASE):
        sink = InPhase(phase, cut.cut)
        try:
            component.flash(new.image, context=RunContext(sink))
        except ProxyflashError:
            failed = True
        else:
            failed = False
        if failed:
            assert sink.done
        else:
            # Bytes that a part is known to hold already are not erased and written again.
            assert not sink.done
        cut.join()
        reopened(component)
    recovers(component, old, new, untouched=False)
