"""Two cuts in one update: the command that repeats the first one is cut too, in another way.

All pairs are too many. The first cut is the supply's, at flash operations at even distances; the second one is at a unit
of the wire that a generator chooses: once the supply's, and once the host's.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from proxyflash.tests.flashers.sweeps.rig import KINDS, NEW, OLD, How, Rig, course, settled, wire_cut
from proxyflash.tests.thinning import Thinning

MOST = 20
"""First cuts of one kind of part."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", KINDS)
def test_two_cuts(
    name: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    thinned: Thinning,
) -> None:
    rig = Rig(KINDS[name], tmp_path, is_short=True)
    whole = course(rig)
    chosen = random.Random(name)
    operations = thinned(range(1, whole.operations + 1)[:: -(-whole.operations // MOST)], 4)
    seconds = 0
    cases = [(operation, how) for operation in operations for how in How]
    for operation, how in cases:
        with rig.powered() as bench:
            device = bench.emulated_device("part")
            device.supply.cut_at(operation)
            assert rig.flash(bench) is not None
            device.supply.on()
            assert settled(bench) in (OLD, NEW, None)
            rig.by_hand(device)
            cut = wire_cut(bench, chosen.choice(chosen.choice(whole.writes)), how)
            rig.flash(bench)
            seconds += cut.is_done
            cut.mend()
            rig.ends_well(bench)
    # What the first command has written need not be sent again, so some commands are over before the second cut.
    assert seconds > len(cases) / (2 if thinned.every else 4)
    request.node.user_properties.append(("cuts", len(cases)))
