"""At everything that the engine reports, for each bootloader: asked to stop, or the supply is cut; then the command again."""

from __future__ import annotations

from pathlib import Path

import pytest
from proxyflash.flashers import events as ev
from proxyflash.flashers.errors import Cancelled
from proxyflash.flashers.events import RunContext
from proxyflash.tests.flashers.sweeps.rig import KINDS, OLD, Rig, Stopper, course, settled
from proxyflash.tests.thinning import Thinning

LAST = (ev.Phase.VERIFY, ev.Phase.BOOT)
"""The phases after the last write: an engine that is asked to stop there may as well finish."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("pace", [0, 1])
@pytest.mark.parametrize("how", ["cancel", "cut"])
@pytest.mark.parametrize("name", KINDS)
def test_stopped_at_every_yield(
    name: str,
    how: str,
    pace: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    thinned: Thinning,
) -> None:
    """At the first, second, ... thing that the engine reports. At true pace by shorter images."""
    kind = KINDS[name]
    rig = Rig(kind, tmp_path, pace=pace, is_short=bool(pace))
    last = course(rig).yields
    assert last > 8
    yields = thinned(kind.thinned(range(1, last + 1), pace), 6)
    for count in yields:
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            stopper = Stopper(device if how == "cut" else None, count)
            before = device.supply.operations
            error = rig.flash(bench, context=RunContext(stopper, lambda stopper=stopper: stopper.asked))  # type: ignore[misc]
            assert stopper.seen >= count
            if error is None:
                # What is asked for or cut there comes too late: nothing was left to be stopped, or to be asked.
                assert stopper.phase is ev.Phase.BOOT if how == "cut" else stopper.phase in LAST
            elif how == "cancel":
                assert isinstance(error, Cancelled)
            device.supply.on()
            if device.supply.operations == before:
                # A loader that was sent some of an image, and has written none, may wait for the rest.
                assert settled(bench) in ((OLD, None) if stopper.phase is ev.Phase.WRITE else (OLD,))
            rig.ends_well(bench)
    request.node.user_properties.append(("cuts", len(yields)))
